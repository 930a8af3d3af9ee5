"""Everything that a device does, over WebSocket on port 443, with the SDK's `websockets=True`."""

import pytest
from azure.iot.device.exceptions import CredentialError

from harness import devices, pki
from harness.devices import connections_to, cut_connections, message
from harness.secrets import new_key

HTTPS = 443


def test_telemetry_twin_and_methods(hub1, feed, device, connect):
    sdk = connect(device, methods=True, patches=True, websockets=True)
    assert connections_to(HTTPS), "the SDK went another way"
    body = bytes(range(256)) * 900
    sdk.client.send_message(message(body, message_id="over-ws"))
    (event,) = feed.wait(device["deviceId"])
    assert event.body == body
    assert event.system["message-id"] == "over-ws"

    sdk.client.patch_twin_reported_properties({"via": "websocket"})
    assert hub1.twin(device["deviceId"])["properties"]["reported"]["via"] == "websocket"
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"interval": 5}}})
    assert sdk.wait_patch(lambda patch: "interval" in patch)["interval"] == 5

    sdk.answer = lambda request: (201, {"was": request.payload})
    assert hub1.invoke(device["deviceId"], "echo", payload=[1]).json() == {"status": 201, "payload": {"was": [1]}}


def test_messages_keep_their_order(feed, device, connect):
    client = connect(device, websockets=True).client
    for number in range(50):
        client.send_message(str(number))
    assert [event.body for event in feed.wait(device["deviceId"], 50)] == [str(n).encode() for n in range(50)]


def test_certificate_of_a_client(nave, hub1, feed, connect, unique):
    certificate = pki.self_signed(unique())
    name = certificate.common_name
    hub1.create_device(name, authentication={"type": "selfSigned", "x509Thumbprint": {
        "primaryThumbprint": certificate.thumbprint(), "secondaryThumbprint": None}})
    client = devices.from_certificate(hub1.endpoint.host, name, certificate, nave.ca, websockets=True)
    connect.adopt(client).client.send_message("proved")
    (event,) = feed.wait(name)
    assert '"x509"' in event.system["iothub-connection-auth-method"]


def test_wrong_key_is_refused(device, connect):
    wrong = {**device, "authentication": {
        "type": "sas", "symmetricKey": {"primaryKey": new_key(), "secondaryKey": new_key()}}}
    with pytest.raises(CredentialError):
        connect(wrong, websockets=True, connection_retry=False)


def test_client_comes_back_after_a_lost_connection(hub1, feed, device, connect):
    others = connections_to(HTTPS)
    sdk = connect(device, methods=True, websockets=True)
    assert cut_connections(HTTPS, keep=others) == 1
    sdk.wait_connected(False)
    sdk.wait_connected(True)
    assert hub1.invoke(device["deviceId"], "hello", connectTimeoutInSeconds=20).json()["status"] == 200
    sdk.client.send_message("back")
    assert feed.wait(device["deviceId"])[-1].body == b"back"


def test_a_newer_connection_over_tls_takes_over(device, connect):
    over_websocket = connect(device, websockets=True, connection_retry=False)
    connect(device)
    over_websocket.wait_connected(False)


def test_provisioning_with_a_key(nave, dps, hubs, connect, unique):
    name, key = unique(), new_key()
    dps.put_enrollment(name, {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": new_key()}})
    state = devices.register(devices.provisioning_with_key(
        dps.endpoint.host, dps.endpoint.id_scope, name, key, nave.ca, websockets=True)).registration_state
    hub = hubs[state.assigned_hub]
    text = f"HostName={hub.endpoint.host};DeviceId={name};SharedAccessKey={key}"
    assert connect.adopt(devices.from_connection_string(text, nave.ca, websockets=True)).client.get_twin()


def test_provisioning_with_a_certificate(nave, dps, hubs, unique):
    name = unique()
    certificate = pki.self_signed(name)
    dps.put_enrollment(name, {"type": "x509", "x509": {
        "clientCertificates": {"primary": {"certificate": certificate.pem}}}})
    state = devices.register(devices.provisioning_with_certificate(
        dps.endpoint.host, dps.endpoint.id_scope, name, certificate, nave.ca, websockets=True)).registration_state
    assert state.device_id == name and state.assigned_hub in hubs
