'use strict';

const { here, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { before, describe } = require('node:test');
const { Message } = require('azure-iot-common');
const { Client: ServiceClient, Registry } = require('azure-iothub');
const devices = require('./harness/devices');
const { newKey, remember } = require('./harness/secrets');

const plain = ({ $version, $metadata, ...rest }) => rest;

describe('modules', () => {
  let registry;

  before(() => {
    registry = Registry.fromConnectionString(here.hub1.endpoint.connectionString);
  });

  const symmetricKey = () => ({ primaryKey: newKey(), secondaryKey: newKey() });

  async function newModule() {
    const { deviceId } = await here.hub1.createDevice(unique());
    const { responseBody: module } = await registry.addModule({ deviceId, moduleId: 'camera', authentication: { symmetricKey: symmetricKey() } });
    return module;
  }

  function connect(module) {
    const key = module.authentication.symmetricKey.primaryKey;
    const names = `DeviceId=${module.deviceId};ModuleId=${module.moduleId}`;
    return devices.moduleWithKey(`HostName=${here.hub1.endpoint.host};${names};SharedAccessKey=${key}`);
  }

  test('life of a module', async () => {
    const { deviceId } = await here.hub1.createDevice(unique());
    const keys = symmetricKey();
    const { responseBody: created } = await registry.addModule({ deviceId, moduleId: 'm', managedBy: 'me', authentication: { symmetricKey: keys } });
    assert.deepEqual([created.moduleId, created.managedBy, created.authentication.type], ['m', 'me', 'sas']);
    assert.deepEqual(created.authentication.symmetricKey, keys);
    // The SDK knows one name for every conflict.
    await assert.rejects(registry.addModule({ deviceId, moduleId: 'm' }), { name: 'DeviceAlreadyExistsError' });
    const { responseBody: read } = await registry.getModule(deviceId, 'm');
    assert.equal(read.etag, created.etag);
    const { responseBody: updated } = await registry.updateModule({ ...JSON.parse(JSON.stringify(read)), managedBy: 'you' });
    assert.equal(updated.managedBy, 'you');
    const { responseBody: listed } = await registry.getModulesOnDevice(deviceId);
    assert.deepEqual(listed.map((module) => module.moduleId), ['m']);
    await registry.removeModule(deviceId, 'm');
    await assert.rejects(registry.getModule(deviceId, 'm'));
  });

  test('the hub makes keys where none are given', async () => {
    const { deviceId } = await here.hub1.createDevice(unique());
    const { responseBody: module } = await registry.addModule({ deviceId, moduleId: 'm' });
    const { primaryKey, secondaryKey } = module.authentication.symmetricKey;
    remember(primaryKey);
    remember(secondaryKey);
    assert.ok(primaryKey && secondaryKey && primaryKey !== secondaryKey);
  });

  test('twin in both directions', async () => {
    const module = await newModule();
    const sdk = await connect(module);
    const twin = await sdk.watch();
    const { responseBody: service } = await registry.getModuleTwin(module.deviceId, 'camera');
    await service.update({ tags: { site: 'x' }, properties: { desired: { interval: 5 } } });
    assert.deepEqual(await sdk.nextDesired(), { interval: 5, $version: 2 });
    await new Promise((resolve, reject) => {
      twin.properties.reported.update({ firmware: '1.0' }, (error) => (error ? reject(error) : resolve()));
    });
    const { responseBody: after } = await registry.getModuleTwin(module.deviceId, 'camera');
    assert.deepEqual(plain(after.properties.reported), { firmware: '1.0' });
    assert.deepEqual(after.tags, { site: 'x' });
    const { responseBody: device } = await registry.getTwin(module.deviceId);
    assert.equal(device.properties.desired.$version, 1);
    await sdk.close();
  });

  test('method call and answer', async () => {
    const module = await newModule();
    const sdk = await connect(module);
    sdk.client.onMethod('zoom', (request, response) => response.send(201, { was: request.payload }));
    const service = ServiceClient.fromConnectionString(here.hub1.endpoint.connectionString);
    const call = { methodName: 'zoom', payload: { x: 2 }, connectTimeoutInSeconds: 20, responseTimeoutInSeconds: 30 };
    const { result } = await service.invokeDeviceMethod(module.deviceId, 'camera', call);
    assert.deepEqual(result, { status: 201, payload: { was: { x: 2 } } });
    await sdk.close();
  });

  test('telemetry names the module and its output', async () => {
    const module = await newModule();
    const sdk = await connect(module);
    await sdk.client.sendEvent(new Message('plain'));
    await sdk.client.sendOutputEvent('alerts', new Message('to an output'));
    const [first, second] = await here.feed.wait(module.deviceId, 2);
    assert.deepEqual([first.body.toString(), first.moduleId], ['plain', 'camera']);
    assert.equal(first.systemProperties['iothub-connection-module-id'], 'camera');
    assert.equal(second.systemProperties['iothub-outputname'], 'alerts');
    await sdk.close();
  });
});

describe('many devices in one request', () => {
  let registry;

  before(() => {
    registry = Registry.fromConnectionString(here.hub1.endpoint.connectionString);
  });

  test('add, update and remove', async () => {
    const names = Array.from({ length: 5 }, () => unique('-bulk'));
    const { responseBody: added } = await registry.addDevices(names.map((deviceId) => ({ deviceId })));
    assert.deepEqual([added.isSuccessful, added.errors], [true, []]);
    const { responseBody: first } = await registry.get(names[0]);
    const change = (device, force) => registry.updateDevices([{ ...device, status: 'disabled' }], force);
    const written = JSON.parse(JSON.stringify(first));
    const { responseBody: updated } = await change({ ...written, eTag: written.etag }, false);
    assert.equal(updated.isSuccessful, true);
    assert.equal((await registry.get(names[0])).responseBody.status, 'disabled');
    const { responseBody: removed } = await registry.removeDevices(names.map((deviceId) => ({ deviceId })), true);
    assert.equal(removed.isSuccessful, true);
    await assert.rejects(registry.get(names[0]), { name: 'DeviceNotFoundError' });
  });

  test('statistics', async () => {
    const { responseBody: before } = await registry.getRegistryStatistics();
    await registry.addDevices([{ deviceId: unique() }, { deviceId: unique(), status: 'disabled' }]);
    const { responseBody: after } = await registry.getRegistryStatistics();
    assert.equal(after.totalDeviceCount, before.totalDeviceCount + 2);
    assert.equal(after.disabledDeviceCount, before.disabledDeviceCount + 1);
  });
});
