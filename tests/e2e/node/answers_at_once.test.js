'use strict';

// Registrations that are answered with their outcome: beyond the protocol, and no matter to the SDK.

const { here, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Mqtt, MqttWs } = require('azure-iot-provisioning-device-mqtt');
const { Http } = require('azure-iot-provisioning-device-http');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { symmetric } = require('./harness/rest');
const { newKey } = require('./harness/secrets');

here.nave.settings = 'answer_at_once = true\n';

for (const [transport, Transport] of [['MQTT', Mqtt], ['MQTT over WebSocket', MqttWs], ['HTTPS', Http]]) {
  test(`an individual enrollment over ${transport}`, async () => {
    const [name, key] = [unique(), newKey()];
    await here.dps.putEnrollment(name, symmetric(key));
    const { host, idScope } = here.dps.endpoint;
    const security = new SymmetricKeySecurityClient(name, key);
    const client = ProvisioningDeviceClient.create(host, idScope, new Transport(), security);
    const state = await client.register();
    assert.equal(state.status, 'assigned');
    assert.equal(state.deviceId, name);
  });

  test(`a disabled enrollment over ${transport}`, async () => {
    const [name, key] = [unique(), newKey()];
    await here.dps.putEnrollment(name, symmetric(key), { provisioningStatus: 'disabled' });
    const { host, idScope } = here.dps.endpoint;
    const security = new SymmetricKeySecurityClient(name, key);
    await assert.rejects(ProvisioningDeviceClient.create(host, idScope, new Transport(), security).register());
  });
}
