'use strict';

const { here, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { before, describe } = require('node:test');
const { Client, Registry } = require('azure-iothub');
const { Message } = require('azure-iot-device');
const devices = require('./harness/devices');
const pki = require('./harness/pki');
const { newKey } = require('./harness/secrets');

describe('life of a connection', () => {
  let registry;
  let service;

  before(() => {
    registry = Registry.fromConnectionString(here.hub1.endpoint.connectionString);
    service = Client.fromConnectionString(here.hub1.endpoint.connectionString);
  });

  const connect = (device, key, options) => devices.withKey(here.hub1.deviceConnectionString(device, key), options);
  const refused = (device, key) => assert.rejects(connect(device, key, { retry: false }), { name: 'UnauthorizedError' });
  const withKeys = (device, primaryKey, secondaryKey) => ({
    ...device, authentication: { type: 'sas', symmetricKey: { primaryKey, secondaryKey } },
  });

  test('a lost connection comes back, with its subscriptions', async () => {
    const device = await here.hub1.createDevice(unique());
    const sdk = await connect(device);
    sdk.client.onDeviceMethod('hello', (_request, response) => response.send(200, 'hello', () => {}));
    await sdk.watch();
    assert.ok(devices.cutConnections(8883) >= 1);
    await here.hub1.patchTwin(device.deviceId, { properties: { desired: { missed: 1 } } });
    // Sending waits for the connection to be back.
    await sdk.client.sendEvent(new Message('back'));
    assert.equal((await here.feed.wait(device.deviceId))[0].body.toString(), 'back');
    const { result } = await service.invokeDeviceMethod(device.deviceId, {
      methodName: 'hello', connectTimeoutInSeconds: 30, responseTimeoutInSeconds: 30,
    });
    assert.deepEqual(result, { status: 200, payload: 'hello' });
    const twin = await sdk.client.getTwin();
    assert.equal(twin.properties.desired.missed, 1);
    await here.hub1.patchTwin(device.deviceId, { properties: { desired: { after: 1 } } });
    assert.equal((await sdk.nextDesired((delta) => delta.after)).after, 1);
    await sdk.close();
  });

  test('a restart of the hub', async () => {
    const device = await here.hub1.createDevice(unique());
    const sdk = await connect(device);
    await sdk.watch();
    await sdk.client.sendEvent(new Message('before'));
    await here.nave.restart();
    await sdk.client.sendEvent(new Message('after'));
    const events = await here.feed.wait(device.deviceId, 2);
    assert.deepEqual(events.map((event) => event.body.toString()), ['before', 'after']);
    await here.hub1.patchTwin(device.deviceId, { properties: { desired: { after: 2 } } });
    assert.equal((await sdk.nextDesired((delta) => delta.after)).after, 2);
    await sdk.close();
  });

  test('key roll-over', async () => {
    const device = await here.hub1.createDevice(unique());
    const { primaryKey } = device.authentication.symmetricKey;
    const freshSecondary = newKey();
    await registry.update(withKeys(device, primaryKey, freshSecondary));
    await refused(device, 'secondaryKey');
    const halfway = withKeys(device, primaryKey, freshSecondary);
    const sdk = await connect(halfway, 'secondaryKey');
    const freshPrimary = newKey();
    await registry.update(withKeys(device, freshPrimary, freshSecondary));
    await refused(device, 'primaryKey');
    await sdk.close();
    const renewed = await connect(withKeys(device, freshPrimary, freshSecondary), 'primaryKey');
    await renewed.close();
  });

  test('new keys end the session', async () => {
    const device = await here.hub1.createDevice(unique());
    const sdk = await connect(device, 'primaryKey', { retry: false });
    await registry.update(withKeys(device, newKey(), newKey()));
    await sdk.waitDisconnected();
    await refused(device, 'primaryKey');
  });

  test('disabled and enabled', async () => {
    const device = await here.hub1.createDevice(unique());
    const sdk = await connect(device, 'primaryKey', { retry: false });
    await registry.update({ ...device, status: 'disabled' });
    await sdk.waitDisconnected();
    await assert.rejects(connect(device, 'primaryKey', { retry: false }));
    await registry.update({ ...device, status: 'enabled' });
    const again = await connect(device);
    await again.client.sendEvent(new Message('enabled'));
    assert.equal((await here.feed.wait(device.deviceId))[0].body.toString(), 'enabled');
    await again.close();
  });

  test('deleted', async () => {
    const device = await here.hub1.createDevice(unique());
    const sdk = await connect(device, 'primaryKey', { retry: false });
    await registry.delete(device.deviceId);
    await sdk.waitDisconnected();
    await refused(device, 'primaryKey');
  });

  test('a second connection displaces the first', async () => {
    const device = await here.hub1.createDevice(unique());
    const first = await connect(device, 'primaryKey', { retry: false });
    const second = await connect(device);
    await first.waitDisconnected();
    await second.client.sendEvent(new Message('second'));
    assert.equal((await here.feed.wait(device.deviceId))[0].body.toString(), 'second');
    await second.close();
  });

  test('certificates with a known thumbprint', async () => {
    const name = unique();
    const [known, other] = [pki.selfSigned(name), pki.selfSigned(name)];
    await here.hub1.createDevice(name, {
      authentication: { type: 'selfSigned', x509Thumbprint: { primaryThumbprint: known.thumbprint(), secondaryThumbprint: known.thumbprint('sha256') } },
    });
    const sdk = await devices.withCertificate(here.hub1.endpoint.host, name, known);
    await sdk.client.sendEvent(new Message('by certificate'));
    assert.equal((await here.feed.wait(name))[0].body.toString(), 'by certificate');
    await sdk.close();
    await assert.rejects(devices.withCertificate(here.hub1.endpoint.host, name, other, { retry: false }), { name: 'UnauthorizedError' });
  });
});
