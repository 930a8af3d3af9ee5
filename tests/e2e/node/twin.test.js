'use strict';

const { here, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { before, describe } = require('node:test');
const { Registry } = require('azure-iothub');
const devices = require('./harness/devices');

const plain = ({ $version, $metadata, ...rest }) => rest;

describe('twin', () => {
  let registry;

  before(() => {
    registry = Registry.fromConnectionString(here.hub1.endpoint.connectionString);
  });

  async function connected() {
    const device = await here.hub1.createDevice(unique());
    return [device.deviceId, await devices.withKey(here.hub1.deviceConnectionString(device))];
  }

  const report = (twin, patch) => new Promise((resolve, reject) => {
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
  });

  test('desired patch reaches the device, null removes', async () => {
    const [id, sdk] = await connected();
    const twin = await sdk.watch();
    const { responseBody: service } = await registry.getTwin(id);
    await service.update({ properties: { desired: { interval: 5, nested: { a: [1, { b: 'ü' }], c: 1 } } } });
    assert.deepEqual(await sdk.nextDesired(), { interval: 5, nested: { a: [1, { b: 'ü' }], c: 1 }, $version: 2 });
    await service.update({ properties: { desired: { interval: null, nested: { c: null } } } });
    const second = await sdk.nextDesired();
    assert.equal(second.$version, 3);
    assert.deepEqual(plain(twin.properties.desired), { nested: { a: [1, { b: 'ü' }] } });
    await twin.get();
    assert.deepEqual(plain(twin.properties.desired), { nested: { a: [1, { b: 'ü' }] } });
    assert.equal(twin.properties.desired.$version, 3);
    assert.equal(service.properties.desired.$metadata.nested.$lastUpdatedVersion, 3);
    await sdk.close();
  });

  test('reported patch reaches the service', async () => {
    const [id, sdk] = await connected();
    const twin = await sdk.client.getTwin();
    await report(twin, { firmware: '1.0', status: { a: 1, b: [1, 2] }, gone: 1 });
    await report(twin, { status: { a: null }, gone: null });
    const { responseBody: service } = await registry.getTwin(id);
    assert.deepEqual(plain(service.properties.reported), { firmware: '1.0', status: { b: [1, 2] } });
    assert.equal(service.properties.reported.$version, 3);
    assert.ok(service.properties.reported.$metadata.firmware.$lastUpdated);
    await twin.get();
    assert.deepEqual(plain(JSON.parse(JSON.stringify(twin.properties.reported))), { firmware: '1.0', status: { b: [1, 2] } });
    await sdk.close();
  });

  test('bad reported patch is refused, and the device stays connected', async () => {
    const [id, sdk] = await connected();
    const twin = await sdk.client.getTwin();
    for (const bad of [{ a: [null] }, { 'a.b': 1 }, { $version: 7 }, { a: 'x'.repeat(4097) }]) {
      await assert.rejects(report(twin, bad), /Provided json is not a valid/);
    }
    await report(twin, { good: 1 });
    assert.deepEqual(plain((await here.hub1.twin(id)).properties.reported), { good: 1 });
    await sdk.close();
  });

  test('stale etag is refused', async () => {
    const [id, sdk] = await connected();
    const { responseBody: first } = await registry.getTwin(id);
    const { etag } = first;
    await first.update({ tags: { a: 1 } });
    await assert.rejects(registry.updateTwin(id, { tags: { a: 2 } }, etag), { name: 'InvalidEtagError' });
    await registry.updateTwin(id, { tags: { a: 3 } }, '*');
    assert.deepEqual((await registry.getTwin(id)).responseBody.tags, { a: 3 });
    await sdk.close();
  });

  test('unknown twin', async () => {
    await assert.rejects(registry.getTwin(unique()), { name: 'DeviceNotFoundError' });
  });
});
