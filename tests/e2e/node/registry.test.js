'use strict';

const { describe, here, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { before } = require('node:test');
const { Registry } = require('azure-iothub');
const { newKey, remember } = require('./harness/secrets');

describe('device identities', () => {
  let registry;

  before(() => {
    registry = Registry.fromConnectionString(here.hub1.endpoint.connectionString);
  });

  const symmetricKey = () => ({ primaryKey: newKey(), secondaryKey: newKey() });

  test('life of a device', async () => {
    const [deviceId, keys] = [unique(), symmetricKey()];
    const { responseBody: created } = await registry.create({ deviceId, status: 'enabled', authentication: { symmetricKey: keys } });
    assert.equal(created.deviceId, deviceId);
    assert.deepEqual(created.authentication.symmetricKey, keys);
    assert.equal(created.authentication.type, 'sas');
    const { responseBody: read } = await registry.get(deviceId);
    assert.deepEqual(JSON.parse(JSON.stringify(read)), JSON.parse(JSON.stringify(created)));
    const { responseBody: updated } = await registry.update({ ...JSON.parse(JSON.stringify(read)), status: 'disabled', statusReason: 'why' });
    assert.equal(updated.status, 'disabled');
    assert.notEqual(updated.etag, created.etag);
    await registry.delete(deviceId);
    await assert.rejects(registry.get(deviceId), { name: 'DeviceNotFoundError' });
    await assert.rejects(registry.delete(deviceId), { name: 'DeviceNotFoundError' });
    await assert.rejects(registry.update({ deviceId, status: 'enabled' }), { name: 'DeviceNotFoundError' });
  });

  test('create is create-only', async () => {
    const deviceId = unique();
    await registry.create({ deviceId });
    await assert.rejects(registry.create({ deviceId }), { name: 'DeviceAlreadyExistsError' });
  });

  test('the hub makes keys where none are given', async () => {
    const { responseBody: device } = await registry.create({ deviceId: unique() });
    const { primaryKey, secondaryKey } = device.authentication.symmetricKey;
    remember(primaryKey);
    remember(secondaryKey);
    assert.ok(primaryKey && secondaryKey && primaryKey !== secondaryKey);
  });

  test('bad identities are refused', async () => {
    await assert.rejects(registry.create({ deviceId: 'no spaces' }), { name: 'ArgumentError' });
    await assert.rejects(
      registry.create({ deviceId: unique(), authentication: { type: 'sas', symmetricKey: { primaryKey: 'x', secondaryKey: 'y' } } }),
      { name: 'ArgumentError' },
    );
  });

  test('list', async () => {
    const names = [unique(), unique()];
    for (const deviceId of names) {
      await registry.create({ deviceId });
    }
    const { responseBody: listed } = await registry.list();
    for (const deviceId of names) {
      assert.ok(listed.some((device) => device.deviceId === deviceId), deviceId);
    }
  });

  test('a bad key is refused', async () => {
    const { host, policy } = here.hub1.endpoint;
    const stranger = Registry.fromConnectionString(`HostName=${host};SharedAccessKeyName=${policy};SharedAccessKey=${newKey()}`);
    await assert.rejects(stranger.get('any'), { name: 'UnauthorizedError' });
    const nobody = Registry.fromConnectionString(`HostName=${host};SharedAccessKeyName=nobody;SharedAccessKey=${newKey()}`);
    await assert.rejects(nobody.get('any'), { name: 'UnauthorizedError' });
  });
});
