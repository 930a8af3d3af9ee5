import assert from 'node:assert/strict';
import { test } from 'node:test';

import { allocate } from '../src/policy.js';

const hub = (name, facts = {}) => ({
  name,
  weight: 1,
  facts: Object.entries(facts).map(([name, value]) => ({ name, json: JSON.stringify(value) })),
});

const request = (payload, members = {}) => ({
  registrationId: 'pump-1',
  policy: '{{name}}',
  enrollmentJson: '{"enrollmentGroup":{}}',
  payloadJson: payload === undefined ? undefined : JSON.stringify(payload),
  hubs: [
    hub('hub1.example.org', { location: 'europe-west', 'latency-ms': 30 }),
    hub('hub2.example.org', { location: 'europe-north', 'latency-ms': 12.5 }),
    hub('america1.example.org'),
  ],
  unixNanos: 0n,
  seed: 0n,
  facts: [],
  ...members,
});

test('the nearest hub of the region gets the device', () => {
  const outcome = allocate(request({ region: 'Europe' }));
  assert.deepEqual(outcome, { tag: 'assign', val: { hub: 'hub2.example.org', payloadJson: '{"region":"europe"}' } });
});

test('a device stays while its hub is in the region', () => {
  const at = (name) => ({ current: { hub: name, deviceId: 'pump-1' } });
  assert.equal(allocate(request({ region: 'europe' }, at('HUB1.example.org'))).val.hub, 'hub1.example.org');
  assert.equal(allocate(request({ region: 'america' }, at('hub1.example.org'))).val.hub, 'america1.example.org');
});

test('a hub that is being emptied takes nothing', () => {
  const hubs = [hub('europe1.example.org'), { ...hub('europe2.example.org'), weight: 0 }];
  assert.equal(allocate(request({ region: 'europe' }, { hubs })).val.hub, 'europe1.example.org');
});

test('a region without hubs is left to a built-in policy', () => {
  assert.deepEqual(allocate(request({ region: 'asia' })), { tag: 'use-policy', val: 'hashed' });
});

test('a device that names no region is refused', () => {
  for (const payload of [undefined, null, {}, { region: 7 }, { region: '' }, 'europe']) {
    assert.equal(allocate(request(payload)).tag, 'refuse', JSON.stringify(payload));
  }
});
