'use strict';

const { describe, here, hubNamed, test, unique } = require('./harness');

const assert = require('node:assert/strict');
const { before } = require('node:test');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const pki = require('./harness/pki');
const { symmetric } = require('./harness/rest');
const { derive, newKey, remember } = require('./harness/secrets');

describe('provisioning service', () => {
  let client;

  before(() => {
    client = ProvisioningServiceClient.fromConnectionString(here.dps.endpoint.connectionString);
  });

  const generated = () => ({ type: 'symmetricKey', symmetricKey: { primaryKey: '', secondaryKey: '' } });
  // The promise of this method never settles: the package looks at the callback that was not given.
  const bulk = (operation) => new Promise((resolve, reject) => {
    client.runBulkEnrollmentOperation(operation, (error, result) => (error ? reject(error) : resolve(result)));
  });
  const status = (code) => (error) => {
    assert.equal(error.response?.statusCode, code, error.message);
    return true;
  };

  async function all(query) {
    const found = [];
    let pages = 0;
    while (query.hasMoreResults) {
      // Called without it, the promise form of the package asks for the first page again and again.
      const { responseBody } = await query.next(query.continuationToken);
      found.push(...responseBody);
      pages += 1;
    }
    return [found, pages];
  }

  test('individual enrollment', async () => {
    const registrationId = unique();
    const { responseBody: created } = await client.createOrUpdateIndividualEnrollment({
      registrationId, attestation: generated(), deviceId: 'other-name', allocationPolicy: 'hashed',
      initialTwin: { tags: { a: 1 }, properties: { desired: { b: 2 } } },
    });
    assert.equal(created.registrationId, registrationId);
    assert.equal(created.deviceId, 'other-name');
    assert.deepEqual(created.initialTwin, { tags: { a: 1 }, properties: { desired: { b: 2 } } });
    const { responseBody: read } = await client.getIndividualEnrollment(registrationId);
    assert.deepEqual(read, created);
    const { responseBody: mechanism } = await client.getIndividualEnrollmentAttestationMechanism(registrationId);
    const keys = mechanism.symmetricKey;
    remember(keys.primaryKey);
    remember(keys.secondaryKey);
    assert.ok(keys.primaryKey && keys.secondaryKey);

    // Read, modify, write: the etag goes along, and the keys stay.
    const { responseBody: updated } = await client.createOrUpdateIndividualEnrollment({ ...read, provisioningStatus: 'disabled' });
    assert.equal(updated.provisioningStatus, 'disabled');
    assert.deepEqual((await client.getIndividualEnrollmentAttestationMechanism(registrationId)).responseBody.symmetricKey, keys);
    await assert.rejects(client.createOrUpdateIndividualEnrollment(read), (error) => [409, 412].includes(error.response.statusCode));
    await assert.rejects(client.createOrUpdateIndividualEnrollment({ registrationId, attestation: generated() }), status(409));
    await assert.rejects(client.deleteIndividualEnrollment(read), (error) => [409, 412].includes(error.response.statusCode));
    await client.deleteIndividualEnrollment(updated);
    await assert.rejects(client.getIndividualEnrollment(registrationId), status(404));
  });

  test('custom allocation by a policy of the hub', async () => {
    const enrollmentGroupId = unique();
    const customAllocationDefinition = { webhookUrl: 'nave:policy/by-site@1.2.0', apiVersion: '2021-10-01' };
    const group = { enrollmentGroupId, attestation: generated(), allocationPolicy: 'custom', customAllocationDefinition };
    const { responseBody: created } = await client.createOrUpdateEnrollmentGroup(group);
    assert.equal(created.allocationPolicy, 'custom');
    assert.deepEqual(created.customAllocationDefinition, customAllocationDefinition);
    const { responseBody: updated } = await client.createOrUpdateEnrollmentGroup({ ...created, provisioningStatus: 'disabled' });
    assert.deepEqual(updated.customAllocationDefinition, customAllocationDefinition);
    const wrong = { ...updated, customAllocationDefinition: { webhookUrl: 'nave:policy/', apiVersion: '2021-10-01' } };
    await assert.rejects(client.createOrUpdateEnrollmentGroup(wrong), status(400));
    await client.deleteEnrollmentGroup(enrollmentGroupId);
  });

  test('enrollment group', async () => {
    const enrollmentGroupId = unique();
    const attestation = { type: 'x509', x509: { signingCertificates: { primary: { certificate: pki.root().cert } } } };
    const { responseBody: created } = await client.createOrUpdateEnrollmentGroup({ enrollmentGroupId, attestation });
    assert.equal(created.attestation.type, 'x509');
    assert.equal(created.attestation.x509.signingCertificates.primary.info.subjectName, 'CN=Nave test root');
    const { responseBody: updated } = await client.createOrUpdateEnrollmentGroup({ ...created, provisioningStatus: 'disabled' });
    assert.equal(updated.provisioningStatus, 'disabled');
    await client.deleteEnrollmentGroup(enrollmentGroupId, updated.etag);
    await assert.rejects(client.getEnrollmentGroup(enrollmentGroupId), status(404));
  });

  test('group attestation mechanism', async () => {
    const enrollmentGroupId = unique();
    await client.createOrUpdateEnrollmentGroup({ enrollmentGroupId, attestation: generated() });
    const { responseBody } = await client.getEnrollmentGroupAttestationMechanism(enrollmentGroupId);
    remember(responseBody.symmetricKey.primaryKey);
    remember(responseBody.symmetricKey.secondaryKey);
    assert.equal(responseBody.type, 'symmetricKey');
    assert.ok(responseBody.symmetricKey.primaryKey);
  });

  test('bulk and query in pages', async () => {
    const enrollments = Array.from({ length: 5 }, () => ({ registrationId: unique('-bulk'), attestation: generated() }));
    assert.equal((await bulk({ mode: 'create', enrollments })).isSuccessful, true);
    const again = await bulk({ mode: 'create', enrollments: [enrollments[0], { registrationId: unique('-bulk'), attestation: generated() }] });
    assert.equal(again.isSuccessful, false);
    assert.equal(again.errors[0].registrationId, enrollments[0].registrationId);
    const [found, pages] = await all(client.createIndividualEnrollmentQuery({ query: 'SELECT * FROM enrollments' }, 2));
    assert.ok(pages >= 3);
    for (const { registrationId } of enrollments) {
      assert.equal(found.filter((item) => item.registrationId === registrationId).length, 1, registrationId);
    }
    assert.equal((await bulk({ mode: 'delete', enrollments })).isSuccessful, true);
    await assert.rejects(client.getIndividualEnrollment(enrollments[0].registrationId), status(404));
  });

  test('groups in pages', async () => {
    const names = [unique('-group'), unique('-group'), unique('-group')];
    for (const enrollmentGroupId of names) {
      await client.createOrUpdateEnrollmentGroup({ enrollmentGroupId, attestation: generated() });
    }
    const [found] = await all(client.createEnrollmentGroupQuery({ query: 'SELECT * FROM enrollmentgroups' }, 1));
    for (const name of names) {
      assert.equal(found.filter((group) => group.enrollmentGroupId === name).length, 1);
    }
  });

  test('registration states', async () => {
    const [group, key] = [unique('-group'), newKey()];
    await here.dps.putGroup(group, symmetric(key));
    const name = unique('-device');
    const { host, idScope } = here.dps.endpoint;
    const security = new SymmetricKeySecurityClient(name, derive(key, name));
    const registered = await ProvisioningDeviceClient.create(host, idScope, new Http(), security).register();
    const { responseBody: state } = await client.getDeviceRegistrationState(name);
    assert.equal(state.status, 'assigned');
    assert.equal(state.assignedHub, registered.assignedHub);
    const [states] = await all(client.createEnrollmentGroupDeviceRegistrationStateQuery({ query: '*' }, group));
    assert.deepEqual(states.map((item) => item.registrationId), [name]);
    await client.deleteDeviceRegistrationState(state);
    await assert.rejects(client.getDeviceRegistrationState(name), status(404));
    assert.ok(await hubNamed(state.assignedHub).exists(name));
  });

  test('a bad key is refused', async () => {
    const stranger = ProvisioningServiceClient.fromConnectionString(
      `HostName=${here.dps.endpoint.host};SharedAccessKeyName=${here.dps.endpoint.policy};SharedAccessKey=${newKey()}`);
    await assert.rejects(stranger.getIndividualEnrollment('any'), { name: 'UnauthorizedError' });
  });
});
