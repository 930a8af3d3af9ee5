"""Who may connect: keys, tokens, certificates, and what ends a session."""


import pytest
from azure.iot.device.exceptions import ConnectionDroppedError, ConnectionFailedError, CredentialError

from harness import devices, pki, sas
from harness.secrets import new_key


def with_status(device: dict, status: str) -> dict:
    return {**device, "status": status}


def with_keys(device: dict, primary: str, secondary: str) -> dict:
    return {**device, "authentication": {
        "type": "sas", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}}


def refused(connect, device, key="primaryKey", **options):
    with pytest.raises(CredentialError):
        connect(device, key=key, connection_retry=False, **options)


def test_both_keys_connect(device, connect):
    connect(device).client.disconnect()
    connect(device, key="secondaryKey").client.disconnect()


def test_wrong_key_is_refused_and_the_right_one_works_after_it(device, connect):
    refused(connect, with_keys(device, new_key(), new_key()))
    assert connect(device).client.connected


def test_unknown_device_is_refused(device, connect, unique):
    refused(connect, {**device, "deviceId": unique()})


def test_key_of_another_hub_is_refused(hub2, device, connect):
    refused(connect, device, hub=hub2)


def test_key_roll_over(hub1, registry, device, connect):
    """Keys are changed one after the other, as the documentation says to: a device always has one that works."""
    keys = device["authentication"]["symmetricKey"]
    on_primary = connect(device)
    fresh_secondary = new_key()
    registry.update_device_with_sas(
        device["deviceId"], device["etag"], keys["primaryKey"], fresh_secondary, "enabled")
    refused(connect, device, key="secondaryKey")

    renewed = with_keys(device, keys["primaryKey"], fresh_secondary)
    on_secondary = connect(renewed, key="secondaryKey")
    on_primary.wait_connected(False)
    fresh_primary = new_key()
    registry.update_device_with_sas(device["deviceId"], None, fresh_primary, fresh_secondary, "enabled")
    refused(connect, device)
    assert connect(with_keys(device, fresh_primary, fresh_secondary)).client.connected
    on_secondary.wait_connected(False)
    authentication = registry.get_device(device["deviceId"]).authentication.symmetric_key
    assert (authentication.primary_key, authentication.secondary_key) == (fresh_primary, fresh_secondary)


def test_new_keys_end_the_session(hub1, device, connect):
    sdk = connect(device)
    hub1.update_device(with_keys(device, new_key(), new_key()))
    sdk.wait_connected(False)
    with pytest.raises(CredentialError):
        sdk.client.connect()


def test_disabled_device_is_dropped_refused_and_accepted_again(hub1, registry, device, connect):
    sdk = connect(device)
    keys = device["authentication"]["symmetricKey"]
    disabled = registry.update_device_with_sas(
        device["deviceId"], device["etag"], keys["primaryKey"], keys["secondaryKey"], "disabled",
        status_reason="stolen")
    assert (disabled.status, disabled.status_reason) == ("disabled", "stolen")
    sdk.wait_connected(False)
    hub1.wait_for(device["deviceId"], "Disconnected")
    refusal = (CredentialError, ConnectionFailedError, ConnectionDroppedError)
    with pytest.raises(refusal):
        connect(device, connection_retry=False)
    registry.update_device_with_sas(
        device["deviceId"], disabled.etag, keys["primaryKey"], keys["secondaryKey"], "enabled")
    assert connect(device).client.connected
    assert hub1.device(device["deviceId"])["connectionState"] == "Connected"


def test_update_that_changes_neither_keys_nor_status_keeps_the_session(hub1, device, connect):
    sdk = connect(device, methods=True)
    hub1.update_device({**device, "statusReason": "checked"})
    assert hub1.invoke(device["deviceId"], "still-there").status_code == 200
    assert sdk.client.connected


def test_deleted_device_is_dropped_and_refused(hub1, registry, device, connect):
    sdk = connect(device)
    sdk.client.patch_twin_reported_properties({"a": 1})
    registry.delete_device(device["deviceId"])
    sdk.wait_connected(False)
    refused(connect, device)
    # A new device of the same name is another one.
    again = hub1.create_device(device["deviceId"])
    assert again["generationId"] != device["generationId"]
    assert connect(again).client.get_twin() == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    refused(connect, device)


def test_token_of_the_devices_own_making(nave, hub1, device, connect):
    resource = f"{hub1.endpoint.host}/devices/{device['deviceId']}"
    key = device["authentication"]["symmetricKey"]["primaryKey"]
    client = devices.IoTHubDeviceClient.create_from_sastoken(
        sas.token(resource, key), server_verification_cert=nave.ca_pem)
    assert connect.adopt(client).client.connected


def test_token_of_a_hub_policy(nave, hub1, device, connect):
    resource = f"{hub1.endpoint.host}/devices/{device['deviceId']}"
    token = sas.token(resource, hub1.endpoint.key, hub1.endpoint.policy)
    client = devices.IoTHubDeviceClient.create_from_sastoken(token, server_verification_cert=nave.ca_pem)
    assert connect.adopt(client).client.connected


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@pytest.mark.parametrize("position", ["primary", "secondary"])
def test_certificate_with_a_known_thumbprint(nave, hub1, feed, connect, unique, algorithm, position):
    certificate = pki.self_signed(unique())
    other = pki.self_signed("other")
    thumbprints = {"primaryThumbprint": other.thumbprint(algorithm), "secondaryThumbprint": other.thumbprint(algorithm)}
    thumbprints[f"{position}Thumbprint"] = certificate.thumbprint(algorithm)
    device = hub1.create_device(
        certificate.common_name, authentication={"type": "selfSigned", "x509Thumbprint": thumbprints})
    client = devices.from_certificate(hub1.endpoint.host, device["deviceId"], certificate, nave.ca)
    connect.adopt(client).client.send_message("by certificate")
    (event,) = feed.wait(device["deviceId"])
    assert '"x509"' in event.system["iothub-connection-auth-method"]


def test_other_certificate_is_refused(nave, hub1, connect, unique):
    name = unique()
    known, presented = pki.self_signed(name), pki.self_signed(name)
    hub1.create_device(name, authentication={
        "type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": known.thumbprint(), "secondaryThumbprint": None}})
    client = devices.from_certificate(hub1.endpoint.host, name, presented, nave.ca, connection_retry=False)
    with pytest.raises(CredentialError):
        connect.adopt(client)
    client = devices.from_certificate(hub1.endpoint.host, name, known, nave.ca)
    assert connect.adopt(client).client.connected


def test_new_thumbprint_ends_the_session(nave, hub1, connect, unique):
    name = unique()
    old, new = pki.self_signed(name), pki.self_signed(name)

    def authentication(certificate):
        return {"type": "selfSigned", "x509Thumbprint": {
            "primaryThumbprint": certificate.thumbprint(), "secondaryThumbprint": None}}

    device = hub1.create_device(name, authentication=authentication(old))
    sdk = connect.adopt(devices.from_certificate(hub1.endpoint.host, name, old, nave.ca, connection_retry=False))
    hub1.update_device({**device, "authentication": authentication(new)})
    sdk.wait_connected(False)
    assert connect.adopt(devices.from_certificate(hub1.endpoint.host, name, new, nave.ca)).client.connected


def test_certificate_device_cannot_use_a_key_nor_the_other_way_round(nave, hub1, connect, unique, device):
    certificate = pki.self_signed(device["deviceId"])
    client = devices.from_certificate(
        hub1.endpoint.host, device["deviceId"], certificate, nave.ca, connection_retry=False)
    with pytest.raises(CredentialError):
        connect.adopt(client)
    name = unique()
    by_certificate = pki.self_signed(name)
    created = hub1.create_device(name, authentication={"type": "selfSigned", "x509Thumbprint": {
        "primaryThumbprint": by_certificate.thumbprint(), "secondaryThumbprint": None}})
    refused(connect, with_keys(created, new_key(), new_key()))


def test_device_connection_is_visible_and_ends(hub1, device, connect):
    sdk = connect(device)
    assert hub1.wait_for(device["deviceId"], "Connected")["connectionStateUpdatedTime"] > "2020"
    sdk.client.send_message("active")
    assert hub1.device(device["deviceId"])["lastActivityTime"] > "2020"
    sdk.client.disconnect()
    hub1.wait_for(device["deviceId"], "Disconnected")
