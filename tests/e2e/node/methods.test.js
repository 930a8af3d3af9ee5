'use strict';

const { here, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { before, describe } = require('node:test');
const { Client } = require('azure-iothub');
const { NoRetry } = require('azure-iot-common');
const devices = require('./harness/devices');

describe('methods', () => {
  let service;

  before(() => {
    service = Client.fromConnectionString(here.hub1.endpoint.connectionString);
    service.setRetryPolicy(new NoRetry());
  });

  async function connected(handlers) {
    const device = await here.hub1.createDevice(unique());
    const sdk = await devices.withKey(here.hub1.deviceConnectionString(device));
    for (const [name, handler] of Object.entries(handlers)) {
      sdk.client.onDeviceMethod(name, handler);
    }
    // Answered after the subscription that the handlers asked for.
    await sdk.client.getTwin();
    return [device.deviceId, sdk];
  }

  const invoke = async (id, methodName, payload, options = {}) => {
    const { result } = await service.invokeDeviceMethod(id, { methodName, payload, responseTimeoutInSeconds: 30, ...options });
    return result;
  };

  test('call and answer, with every kind of payload', async () => {
    const seen = [];
    const [id, sdk] = await connected({
      echo: (request, response) => {
        seen.push(request.payload);
        response.send(207, { got: request.payload }, () => {});
      },
    });
    const payloads = [{ a: [1, { b: null }], ü: '世界' }, [], 'text', '', 0, 1.5, true, false, null];
    for (const payload of payloads) {
      assert.deepEqual(await invoke(id, 'echo', payload), { status: 207, payload: { got: payload } });
    }
    assert.deepEqual(seen, payloads);
    await sdk.close();
  });

  test('answer without payload', async () => {
    const [id, sdk] = await connected({ ping: (_request, response) => response.send(204, () => {}) });
    const result = await invoke(id, 'ping', undefined);
    assert.equal(result.status, 204);
    assert.equal(result.payload ?? null, null);
    await sdk.close();
  });

  test('offline', async () => {
    const { deviceId } = await here.hub1.createDevice(unique());
    await assert.rejects(invoke(deviceId, 'ping', null), (error) => {
      assert.equal(error.response.statusCode, 404);
      assert.equal(error.response.headers['iothub-errorcode'], 'DeviceNotOnline');
      assert.equal(JSON.parse(JSON.parse(error.responseBody).Message).errorCode, 404103);
      return true;
    });
  });

  test('no answer in time', async () => {
    const [id, sdk] = await connected({ silence: () => {} });
    await assert.rejects(invoke(id, 'silence', null, { responseTimeoutInSeconds: 5, connectTimeoutInSeconds: 5 }), (error) => {
      assert.equal(error.name, 'GatewayTimeoutError');
      assert.equal(JSON.parse(JSON.parse(error.responseBody).Message).errorCode, 504101);
      return true;
    });
    await sdk.close();
  });

  test('waits for the device to connect', async () => {
    const device = await here.hub1.createDevice(unique());
    const call = invoke(device.deviceId, 'late', 1, { connectTimeoutInSeconds: 30 });
    const sdk = await devices.withKey(here.hub1.deviceConnectionString(device));
    sdk.client.onDeviceMethod('late', (request, response) => response.send(200, request.payload + 1, () => {}));
    assert.deepEqual(await call, { status: 200, payload: 2 });
    await sdk.close();
  });
});
