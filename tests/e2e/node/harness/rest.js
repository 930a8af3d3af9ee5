'use strict';

// The service side's REST without an SDK, for set-up and for looking at the result from the other side.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const https = require('node:https');
const { setTimeout: sleep } = require('node:timers/promises');
const { newKey, remember } = require('./secrets');

function sasToken(resource, key, policy, lifetime = 3600) {
  const expiry = Math.floor(Date.now() / 1000) + lifetime;
  const sr = encodeURIComponent(resource);
  const signature = crypto.createHmac('sha256', Buffer.from(key, 'base64')).update(`${sr}\n${expiry}`).digest('base64');
  const token = `SharedAccessSignature sr=${sr}&sig=${encodeURIComponent(signature)}&se=${expiry}`;
  return policy === undefined ? token : `${token}&skn=${policy}`;
}

/** One request; the answer with its body as text. */
function request(host, method, path, { headers = {}, body, agent } = {}) {
  return new Promise((resolve, reject) => {
    const outgoing = https.request({ host, method, path, headers, agent, timeout: 60_000 }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        resolve({ status: response.statusCode, headers: response.headers, text, json: () => JSON.parse(text) });
      });
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`${method} ${path}: no answer`)));
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

class Service {
  constructor(endpoint, version) {
    this.endpoint = endpoint;
    this.version = version;
  }

  request(method, path, body, headers = {}) {
    const { host, key, policy } = this.endpoint;
    const content = body === undefined ? undefined : JSON.stringify(body);
    return request(host, method, `${path}?api-version=${this.version}`, {
      headers: {
        Authorization: sasToken(host, key, policy),
        ...(content === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(content) }),
        ...headers,
      },
      body: content,
    });
  }

  async ok(method, path, body, headers) {
    const response = await this.request(method, path, body, headers);
    assert.ok([200, 204].includes(response.status), `${method} ${path}: ${response.status} ${response.text}`);
    return response.text ? response.json() : undefined;
  }
}

class HubRest extends Service {
  constructor(endpoint) {
    super(endpoint, '2021-04-12');
  }

  createDevice(deviceId, fields = {}) {
    const authentication = { type: 'sas', symmetricKey: { primaryKey: newKey(), secondaryKey: newKey() } };
    return this.ok('PUT', `/devices/${encodeURIComponent(deviceId)}`, { deviceId, authentication, ...fields });
  }

  updateDevice(device) {
    for (const key of Object.values(device.authentication?.symmetricKey ?? {})) {
      remember(key);
    }
    return this.ok('PUT', `/devices/${encodeURIComponent(device.deviceId)}`, device, { 'If-Match': '*' });
  }

  async device(deviceId) {
    const device = await this.ok('GET', `/devices/${encodeURIComponent(deviceId)}`);
    for (const key of Object.values(device.authentication?.symmetricKey ?? {})) {
      remember(key);
    }
    return device;
  }

  async exists(deviceId) {
    return (await this.request('GET', `/devices/${encodeURIComponent(deviceId)}`)).status === 200;
  }

  twin(deviceId) {
    return this.ok('GET', `/twins/${encodeURIComponent(deviceId)}`);
  }

  patchTwin(deviceId, patch) {
    return this.ok('PATCH', `/twins/${encodeURIComponent(deviceId)}`, patch);
  }

  /** Sends a message to a device; its id. */
  async send(deviceId, body, headers = {}) {
    const { host, key, policy } = this.endpoint;
    const path = `/devices/${encodeURIComponent(deviceId)}/messages/deviceBound?api-version=${this.version}`;
    const response = await request(host, 'POST', path, { headers: { Authorization: sasToken(host, key, policy), ...headers }, body });
    assert.equal(response.status, 204, response.text);
    return response.headers['iothub-messageid'];
  }

  /** What feedback says of a message. Other feedback is completed as well: each message is asked about once. */
  async outcome(messageId, milliseconds = 30_000) {
    const deadline = Date.now() + milliseconds;
    for (;;) {
      const batch = await this.request('GET', '/messages/serviceBound/feedback');
      if (batch.status === 200) {
        const token = batch.headers.etag.slice(1, -1);
        await this.ok('DELETE', `/messages/serviceBound/feedback/${token}`);
        const record = batch.json().find((candidate) => candidate.originalMessageId === messageId);
        if (record) {
          return record.statusCode;
        }
      }
      assert.ok(Date.now() < deadline, `no feedback on ${messageId}`);
      await sleep(50);
    }
  }

  deviceConnectionString(device, which = 'primaryKey') {
    const key = device.authentication.symmetricKey[which];
    return `HostName=${this.endpoint.host};DeviceId=${device.deviceId};SharedAccessKey=${key}`;
  }

  async waitFor(deviceId, state, milliseconds = 30_000) {
    const deadline = Date.now() + milliseconds;
    for (;;) {
      const device = await this.device(deviceId);
      if (device.connectionState === state) {
        return device;
      }
      assert.ok(Date.now() < deadline, `${deviceId} is ${device.connectionState}, not ${state}`);
      await sleep(50);
    }
  }
}

class DpsRest extends Service {
  constructor(endpoint) {
    super(endpoint, '2021-10-01');
  }

  putEnrollment(registrationId, attestation, fields = {}, headers = {}) {
    return this.ok('PUT', `/enrollments/${registrationId}`, { registrationId, attestation, ...fields }, headers);
  }

  putGroup(enrollmentGroupId, attestation, fields = {}, headers = {}) {
    return this.ok('PUT', `/enrollmentGroups/${enrollmentGroupId}`, { enrollmentGroupId, attestation, ...fields }, headers);
  }
}

function symmetric(primaryKey = newKey(), secondaryKey = newKey()) {
  return { type: 'symmetricKey', symmetricKey: { primaryKey, secondaryKey } };
}

module.exports = { DpsRest, HubRest, request, sasToken, symmetric };
