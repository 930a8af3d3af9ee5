'use strict';

// What the SDK does over WebSocket on port 443.

const { here, hubNamed, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { describe } = require('node:test');
const { Client, Message } = require('azure-iot-device');
const { MqttWs } = require('azure-iot-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const provisioning = require('azure-iot-provisioning-device-mqtt');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const devices = require('./harness/devices');
const pki = require('./harness/pki');
const { symmetric } = require('./harness/rest');
const { newKey } = require('./harness/secrets');

const connect = (text) => devices.Device.connect(Client.fromConnectionString(text, MqttWs));

const register = (security) => {
  const { host, idScope } = here.dps.endpoint;
  return ProvisioningDeviceClient.create(host, idScope, new provisioning.MqttWs(), security).register();
};

describe('WebSocket', () => {
  test('telemetry, twin and methods', async () => {
    const device = await here.hub1.createDevice(unique());
    const sdk = await connect(here.hub1.deviceConnectionString(device));
    assert.ok(process._getActiveHandles().some((handle) => handle.remotePort === 443), 'the SDK went another way');
    const body = Buffer.alloc(100_000, 'x');
    await sdk.client.sendEvent(new Message(body));
    const [event] = await here.feed.wait(device.deviceId);
    assert.deepEqual(event.body, body);

    sdk.client.onDeviceMethod('echo', (request, response) => {
      response.send(200, { got: request.payload }, () => {});
    });
    await sdk.watch();
    await here.hub1.patchTwin(device.deviceId, { properties: { desired: { interval: 7 } } });
    assert.equal((await sdk.nextDesired()).interval, 7);
    const path = `/twins/${encodeURIComponent(device.deviceId)}/methods`;
    const answer = await here.hub1.ok('POST', path, {
      methodName: 'echo', payload: [1], connectTimeoutInSeconds: 10, responseTimeoutInSeconds: 10,
    });
    assert.deepEqual(answer, { status: 200, payload: { got: [1] } });
    await sdk.close();
  });

  test('provisioning with a key, and then the hub', async () => {
    const [name, key] = [unique(), newKey()];
    await here.dps.putEnrollment(name, symmetric(key));
    const state = await register(new SymmetricKeySecurityClient(name, key));
    assert.equal(state.status, 'assigned');
    const hub = hubNamed(state.assignedHub);
    const sdk = await connect(`HostName=${hub.endpoint.host};DeviceId=${state.deviceId};SharedAccessKey=${key}`);
    await sdk.client.getTwin();
    await sdk.close();
  });

  test('provisioning with a certificate', async () => {
    const name = unique();
    const certificate = pki.selfSigned(name);
    await here.dps.putEnrollment(name, {
      type: 'x509', x509: { clientCertificates: { primary: { certificate: certificate.cert } } },
    });
    const state = await register(new X509Security(name, { cert: certificate.chain, key: certificate.key }));
    assert.equal(state.status, 'assigned');
    const client = Client.fromConnectionString(
      `HostName=${state.assignedHub};DeviceId=${state.deviceId};x509=true`, MqttWs);
    await client.setOptions({ cert: certificate.chain, key: certificate.key });
    const sdk = await devices.Device.connect(client);
    await sdk.client.getTwin();
    await sdk.close();
  });
});
