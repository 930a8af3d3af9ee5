"""Registration of devices with the SDK, by each kind of attestation, and what they find at the hub that they got."""

import base64

import pytest
from azure.iot.device.exceptions import ClientError, CredentialError

from harness import devices, pki, sas
from harness.secrets import new_key

INITIAL_TWIN = {"tags": {"line": 7}, "properties": {"desired": {"interval": 30, "nested": {"a": True}}}}


def symmetric(primary: str = "", secondary: str = "") -> dict:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}


def client_certificate(primary: pki.Certificate, secondary: pki.Certificate | None = None) -> dict:
    return {"type": "x509", "x509": {"clientCertificates": {
        "primary": {"certificate": primary.pem},
        **({"secondary": {"certificate": secondary.pem}} if secondary else {})}}}


def signing_certificate(certificate: pki.Certificate) -> dict:
    der = base64.b64encode(certificate.der).decode()
    return {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": der}}}}


@pytest.fixture
def by_key(nave, dps):
    def register(registration_id, key, payload=None):
        client = devices.provisioning_with_key(
            dps.endpoint.host, dps.endpoint.id_scope, registration_id, key, nave.ca)
        client.provisioning_payload = payload
        return devices.register(client)
    return register


@pytest.fixture
def by_certificate(nave, dps):
    def register(registration_id, certificate, chain=True):
        return devices.register(devices.provisioning_with_certificate(
            dps.endpoint.host, dps.endpoint.id_scope, registration_id, certificate, nave.ca, chain))
    return register


def is_assigned(result, device_id, hubs, substatus="initialAssignment"):
    assert result.status == "assigned"
    state = result.registration_state
    assert state.device_id == device_id
    assert state.assigned_hub in hubs
    assert state.sub_status == substatus
    assert state.created_date_time.endswith("Z") and state.last_update_date_time.endswith("Z")
    assert state.etag
    return hubs[state.assigned_hub]


def is_refused(status: int, register) -> None:
    """The SDK hides the answer in the cause; a refusal at CONNECT has none."""
    with pytest.raises((ClientError, CredentialError)) as refusal:
        register()
    if not isinstance(refusal.value, CredentialError):
        assert f"status code {status}" in str(refusal.value.__cause__)


def works_at(hub, connect, client, device_id) -> None:
    sdk = connect.adopt(client)
    twin = sdk.client.get_twin()
    assert twin["desired"] == {**INITIAL_TWIN["properties"]["desired"], "$version": twin["desired"]["$version"]}
    assert hub.twin(device_id)["tags"] == INITIAL_TWIN["tags"]
    sdk.client.patch_twin_reported_properties({"provisioned": True})
    assert hub.twin(device_id)["properties"]["reported"]["provisioned"] is True


def test_individual_symmetric_key(nave, dps, hubs, connect, unique, by_key):
    name, device_id = unique(), unique("-at-hub")
    dps.put_enrollment(name, symmetric(), deviceId=device_id, initialTwin=INITIAL_TWIN)
    primary, secondary = dps.symmetric_keys("enrollments", name)
    hub = is_assigned(by_key(name, primary), device_id, hubs)
    keys = hub.device(device_id)["authentication"]["symmetricKey"]
    assert keys == {"primaryKey": primary, "secondaryKey": secondary}
    text = f"HostName={hub.endpoint.host};DeviceId={device_id};SharedAccessKey={primary}"
    works_at(hub, connect, devices.from_connection_string(text, nave.ca), device_id)


def test_individual_symmetric_key_by_the_secondary(dps, hubs, unique, by_key):
    name, primary, secondary = unique(), new_key(), new_key(64)
    dps.put_enrollment(name, symmetric(primary, secondary))
    is_assigned(by_key(name, secondary), name, hubs)


def test_group_symmetric_key(nave, dps, hubs, connect, unique, by_key):
    group, name = unique("-group"), unique("-device")
    dps.put_group(group, symmetric(), initialTwin=INITIAL_TWIN)
    primary, secondary = dps.symmetric_keys("enrollmentGroups", group)
    key = sas.derive(primary, name)
    hub = is_assigned(by_key(name, key), name, hubs)
    keys = hub.device(name)["authentication"]["symmetricKey"]
    assert keys == {"primaryKey": key, "secondaryKey": sas.derive(secondary, name)}
    text = f"HostName={hub.endpoint.host};DeviceId={name};SharedAccessKey={key}"
    works_at(hub, connect, devices.from_connection_string(text, nave.ca), name)


def test_group_symmetric_key_by_the_secondary(dps, hubs, unique, by_key):
    group, name, primary, secondary = unique("-group"), unique("-device"), new_key(), new_key()
    dps.put_group(group, symmetric(primary, secondary))
    is_assigned(by_key(name, sas.derive(secondary, name)), name, hubs)


def test_individual_certificate(nave, dps, hubs, connect, unique, by_certificate):
    name, device_id = unique(), unique("-at-hub")
    certificate = pki.self_signed(name)
    dps.put_enrollment(name, client_certificate(certificate), deviceId=device_id, initialTwin=INITIAL_TWIN)
    hub = is_assigned(by_certificate(name, certificate), device_id, hubs)
    authentication = hub.device(device_id)["authentication"]
    assert authentication["type"] == "selfSigned"
    assert authentication["x509Thumbprint"]["primaryThumbprint"].upper() in (
        certificate.thumbprint(), certificate.thumbprint("sha256"))
    works_at(hub, connect, devices.from_certificate(hub.endpoint.host, device_id, certificate, nave.ca), device_id)


def test_individual_certificate_by_the_secondary(dps, hubs, unique, by_certificate):
    name = unique()
    first, second = pki.self_signed(name), pki.self_signed(name, rsa_key=True)
    dps.put_enrollment(name, client_certificate(first, second))
    is_assigned(by_certificate(name, second), name, hubs)


def test_group_certificate_through_an_intermediate(nave, dps, hubs, connect, unique, by_certificate):
    group, name = unique("-group"), unique("-device")
    middle = pki.intermediate(pki.root())
    certificate = pki.leaf(middle, name)
    dps.put_group(group, signing_certificate(middle), initialTwin=INITIAL_TWIN)
    hub = is_assigned(by_certificate(name, certificate), name, hubs)
    assert hub.device(name)["authentication"]["type"] == "selfSigned"
    works_at(hub, connect, devices.from_certificate(hub.endpoint.host, name, certificate, nave.ca), name)
    state = dps.registration(name)
    assert state["assignedHub"] == hub.endpoint.host


def test_group_of_the_root_takes_a_chain_of_two(dps, hubs, unique, by_certificate):
    group, name = unique("-group"), unique("-device")
    top = pki.root()
    certificate = pki.leaf(pki.intermediate(pki.intermediate(top, "upper"), "lower"), name)
    dps.put_group(group, signing_certificate(top))
    is_assigned(by_certificate(name, certificate), name, hubs)


def test_group_certificate_renewed_leaf(nave, dps, hubs, connect, unique, by_certificate):
    group, name = unique("-group"), unique("-device")
    middle = pki.intermediate(pki.root())
    dps.put_group(group, signing_certificate(middle))
    first, second = pki.leaf(middle, name), pki.leaf(middle, name)
    hub = is_assigned(by_certificate(name, first), name, hubs)
    assert by_certificate(name, second).status == "assigned"
    client = devices.from_certificate(hub.endpoint.host, name, second, nave.ca)
    assert connect.adopt(client).client.connected
    client = devices.from_certificate(hub.endpoint.host, name, first, nave.ca, connection_retry=False)
    with pytest.raises(CredentialError):
        connect.adopt(client)


def test_chain_without_its_intermediate_is_refused(dps, unique, by_certificate):
    group, name = unique("-group"), unique("-device")
    top = pki.root()
    dps.put_group(group, signing_certificate(top))
    is_refused(401, lambda: by_certificate(name, pki.leaf(pki.intermediate(top), name), chain=False))


def test_chain_of_another_root_with_the_same_names_is_refused(dps, unique, by_certificate):
    group, name = unique("-group"), unique("-device")
    dps.put_group(group, signing_certificate(pki.root("same name")))
    is_refused(401, lambda: by_certificate(name, pki.leaf(pki.intermediate(pki.root("same name")), name)))


def test_leaf_cannot_issue(dps, unique, by_certificate):
    group, name = unique("-group"), unique("-device")
    top = pki.root()
    dps.put_group(group, signing_certificate(top))
    no_authority = pki.leaf(top, "no-authority")
    is_refused(401, lambda: by_certificate(name, pki.leaf(no_authority, name)))


def test_certificate_of_another_name_is_refused(dps, unique, by_certificate):
    group, name = unique("-group"), unique("-device")
    middle = pki.intermediate(pki.root())
    dps.put_group(group, signing_certificate(middle))
    is_refused(401, lambda: by_certificate(name, pki.leaf(middle, unique("-other"))))


def test_expired_certificate_is_refused(dps, hubs, unique, by_certificate):
    group, name = unique("-group"), unique("-device")
    middle = pki.intermediate(pki.root())
    dps.put_group(group, signing_certificate(middle))
    is_refused(401, lambda: by_certificate(name, pki.leaf(middle, name, days=(-20, -10))))
    is_refused(401, lambda: by_certificate(name, pki.leaf(middle, name, days=(10, 20))))
    is_assigned(by_certificate(name, pki.leaf(middle, name)), name, hubs)


def test_other_certificate_for_an_individual_enrollment_is_refused(dps, unique, by_certificate):
    name = unique()
    dps.put_enrollment(name, client_certificate(pki.self_signed(name)))
    is_refused(401, lambda: by_certificate(name, pki.self_signed(name)))


def test_wrong_key_is_refused(dps, unique, by_key):
    name = unique()
    dps.put_enrollment(name, symmetric())
    is_refused(401, lambda: by_key(name, new_key()))
    is_refused(401, lambda: by_key(unique("-unknown"), new_key()))


def test_key_derived_for_another_device_is_refused(dps, unique, by_key):
    group, name, primary = unique("-group"), unique("-device"), new_key()
    dps.put_group(group, symmetric(primary, new_key()))
    is_refused(401, lambda: by_key(name, sas.derive(primary, unique("-other"))))


def test_disabled_enrollment_decides_before_its_group(dps, hubs, unique, by_key):
    group, name, primary = unique("-group"), unique("-device"), new_key()
    dps.put_group(group, symmetric(primary, new_key()))
    key = sas.derive(primary, name)
    enrollment = dps.put_enrollment(name, symmetric(key, key), provisioningStatus="disabled")
    with pytest.raises((ClientError, CredentialError)):
        by_key(name, key)
    assert not any(hub.exists(name) for hub in hubs.values())
    dps.put_enrollment(name, symmetric(key, key), provisioningStatus="enabled", if_match=enrollment["etag"])
    is_assigned(by_key(name, key), name, hubs)


def test_disabled_group(dps, hubs, unique, by_key):
    group, name, primary = unique("-group"), unique("-device"), new_key()
    dps.put_group(group, symmetric(primary, new_key()), provisioningStatus="disabled")
    with pytest.raises((ClientError, CredentialError)):
        by_key(name, sas.derive(primary, name))
    assert not any(hub.exists(name) for hub in hubs.values())


def test_payload_is_taken(dps, hubs, unique, by_key):
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key, new_key()))
    is_assigned(by_key(name, key, {"model": "x", "nested": [1, None, "grüße"]}), name, hubs)


def test_registration_id_ignores_case(dps, hubs, unique, by_key):
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key, new_key()))
    result = by_key(name.upper(), key)
    assert result.status == "assigned"
    assert result.registration_state.device_id == name


def test_second_registration_finds_the_same_device(nave, dps, hubs, connect, unique, by_key):
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key, new_key()), initialTwin=INITIAL_TWIN)
    hub = is_assigned(by_key(name, key), name, hubs)
    generation = hub.device(name)["generationId"]
    hub.patch_twin(name, {"tags": {"line": 8}})
    result = by_key(name, key)
    assert result.registration_state.assigned_hub == hub.endpoint.host
    assert result.registration_state.sub_status == "reprovisionedToInitialAssignment"
    assert hub.device(name)["generationId"] == generation
    assert hub.twin(name)["tags"] == {"line": 8}, "the twin is not reset"
