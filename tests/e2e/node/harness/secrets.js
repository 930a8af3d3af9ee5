'use strict';

// Every key that the tests use, so that the hub's log can be searched for them at the end.

const crypto = require('node:crypto');

const all = new Set();

function remember(secret) {
  if (secret) {
    all.add(secret);
  }
  return secret;
}

/** A fresh symmetric key, base64. */
function newKey(length = 32) {
  return remember(crypto.randomBytes(length).toString('base64'));
}

/** The key of a device that an enrollment group with a symmetric key stands for. */
function derive(groupKey, registrationId) {
  const hmac = crypto.createHmac('sha256', Buffer.from(groupKey, 'base64'));
  return remember(hmac.update(registrationId).digest('base64'));
}

module.exports = { derive, known: () => all, newKey, remember };
