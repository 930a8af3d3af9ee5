'use strict';

const { describe, here, hubNamed, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Mqtt } = require('azure-iot-provisioning-device-mqtt');
const { Http } = require('azure-iot-provisioning-device-http');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const devices = require('./harness/devices');
const pki = require('./harness/pki');
const { symmetric } = require('./harness/rest');
const { derive, newKey } = require('./harness/secrets');

const INITIAL_TWIN = { tags: { line: 7 }, properties: { desired: { interval: 30, nested: { a: true } } } };

function register(Transport, security, payload) {
  const { host, idScope } = here.dps.endpoint;
  const client = ProvisioningDeviceClient.create(host, idScope, new Transport(), security);
  if (payload !== undefined) {
    client.setProvisioningPayload(payload);
  }
  return client.register();
}

const byKey = (Transport, name, key, payload) => register(Transport, new SymmetricKeySecurityClient(name, key), payload);

const byCertificate = (Transport, name, { chain, key }) => register(Transport, new X509Security(name, { cert: chain, key }));

function isAssigned(state, deviceId) {
  assert.equal(state.status, 'assigned');
  assert.equal(state.substatus, 'initialAssignment');
  assert.equal(state.deviceId, deviceId);
  return hubNamed(state.assignedHub);
}

async function worksAt(hub, device, deviceId) {
  const twin = await device.client.getTwin();
  const { $version, ...desired } = twin.properties.desired;
  assert.ok($version >= 1);
  assert.deepEqual(desired, INITIAL_TWIN.properties.desired);
  assert.deepEqual((await hub.twin(deviceId)).tags, INITIAL_TWIN.tags);
  await device.close();
}

const signing = (certificate) => ({ type: 'x509', x509: { signingCertificates: { primary: { certificate: certificate.cert } } } });
const pinned = (certificate) => ({ type: 'x509', x509: { clientCertificates: { primary: { certificate: certificate.cert } } } });

for (const [transport, Transport] of [['MQTT', Mqtt], ['HTTPS', Http]]) {
  describe(`provisioning over ${transport}`, () => {
    test('individual symmetric key', async () => {
      const [name, deviceId, key] = [unique(), unique('-at-hub'), newKey()];
      await here.dps.putEnrollment(name, symmetric(key), { deviceId, initialTwin: INITIAL_TWIN });
      const hub = isAssigned(await byKey(Transport, name, key), deviceId);
      const text = `HostName=${hub.endpoint.host};DeviceId=${deviceId};SharedAccessKey=${key}`;
      await worksAt(hub, await devices.withKey(text), deviceId);
    });

    test('group symmetric key', async () => {
      const [group, name, primary] = [unique('-group'), unique('-device'), newKey()];
      await here.dps.putGroup(group, symmetric(primary), { initialTwin: INITIAL_TWIN });
      const key = derive(primary, name);
      const hub = isAssigned(await byKey(Transport, name, key), name);
      const text = `HostName=${hub.endpoint.host};DeviceId=${name};SharedAccessKey=${key}`;
      await worksAt(hub, await devices.withKey(text), name);
    });

    test('individual certificate', async () => {
      const name = unique();
      const certificate = pki.selfSigned(name);
      await here.dps.putEnrollment(name, pinned(certificate), { initialTwin: INITIAL_TWIN });
      const hub = isAssigned(await byCertificate(Transport, name, certificate), name);
      await worksAt(hub, await devices.withCertificate(hub.endpoint.host, name, certificate), name);
    });

    test('group certificate through an intermediate', async () => {
      const [group, name] = [unique('-group'), unique('-device')];
      const intermediate = pki.intermediate(pki.root());
      const certificate = pki.leaf(intermediate, name);
      await here.dps.putGroup(group, signing(intermediate), { initialTwin: INITIAL_TWIN });
      const hub = isAssigned(await byCertificate(Transport, name, certificate), name);
      await worksAt(hub, await devices.withCertificate(hub.endpoint.host, name, certificate), name);
    });

    test('group of the root: the device presents the intermediate', async () => {
      const [group, name] = [unique('-group'), unique('-device')];
      const root = pki.root();
      await here.dps.putGroup(group, signing(root));
      isAssigned(await byCertificate(Transport, name, pki.leaf(pki.intermediate(root), name)), name);
    });

    test('payload', async () => {
      const [name, key] = [unique(), newKey()];
      await here.dps.putEnrollment(name, symmetric(key));
      isAssigned(await byKey(Transport, name, key, { model: 'x', list: [1, null, 'grüße'] }), name);
    });

    test('wrong key is refused', async () => {
      const name = unique();
      await here.dps.putEnrollment(name, symmetric());
      await assert.rejects(byKey(Transport, name, newKey()), { name: 'UnauthorizedError' });
    });

    test('unknown registration is refused', async () => {
      await assert.rejects(byKey(Transport, unique(), newKey()), { name: /UnauthorizedError|DeviceNotFoundError/ });
    });

    test('wrong certificate is refused', async () => {
      const name = unique();
      await here.dps.putEnrollment(name, pinned(pki.selfSigned(name)));
      await assert.rejects(byCertificate(Transport, name, pki.selfSigned(name)), { name: 'UnauthorizedError' });
    });

    test('disabled enrollment is refused', async () => {
      const [name, key] = [unique(), newKey()];
      await here.dps.putEnrollment(name, symmetric(key), { provisioningStatus: 'disabled' });
      await assert.rejects(byKey(Transport, name, key));
      assert.equal(await here.hub1.exists(name) || await here.hub2.exists(name), false);
    });

    test('moves to another hub with its twin', async () => {
      const [name, key] = [unique(), newKey()];
      const fields = (hub) => ({ iotHubs: [hub.endpoint.host], allocationPolicy: 'static' });
      await here.dps.putEnrollment(name, symmetric(key), fields(here.hub1));
      assert.equal((await byKey(Transport, name, key)).assignedHub, here.hub1.endpoint.host);
      await here.hub1.patchTwin(name, { tags: { kept: 1 } });
      await here.dps.putEnrollment(name, symmetric(key), fields(here.hub2), { 'If-Match': '*' });
      const state = await byKey(Transport, name, key);
      assert.equal(state.assignedHub, here.hub2.endpoint.host);
      assert.equal(state.substatus, 'deviceDataMigrated');
      assert.equal(await here.hub1.exists(name), false);
      assert.deepEqual((await here.hub2.twin(name)).tags, { kept: 1 });
    });
  });
}
