'use strict';

// Every key that the tests use, and every output of the hub that must not hold one. With NAVE_SECRETS_DIR in the environment
// both are also written there, so that `cargo xtask test` can look for the secrets of all suites in the outputs of all
// (tests/src/leaks.rs).

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

/** Shorter texts are no secrets: they would be found by accident. */
const SHORTEST = 16;

const all = new Set();
const outputs = new Map();

function write(folder, name, text) {
  if (process.env.NAVE_SECRETS_DIR) {
    fs.appendFileSync(path.join(process.env.NAVE_SECRETS_DIR, folder, name), text);
  }
}

/** Notes a secret; of a private key each line of its text. */
function remember(secret) {
  for (const line of (secret ?? '').split('\n')) {
    if (line.length >= SHORTEST && !line.startsWith('-----') && !all.has(line)) {
      all.add(line);
      write('known', `node-${process.pid}`, `${line}\n`);
    }
  }
  return secret;
}

/** Notes an output in which no secret may be. */
function collect(what, text) {
  const name = `${outputs.size}-${what.replace(/[^A-Za-z0-9]/g, '-')}`;
  outputs.set(name, text);
  write('output', `node-${process.pid}-${name}`, text);
}

/** The outputs that hold a secret. */
function leaks() {
  return [...outputs].filter(([, text]) => [...all].some((secret) => text.includes(secret))).map(([name]) => name);
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

module.exports = { collect, derive, known: () => all, leaks, newKey, remember };
