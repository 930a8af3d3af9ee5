"""CONNECT: every form of user name, password and certificate that the SDKs use, and those that are refused."""

import socket
import ssl
import time
from urllib.parse import quote

import pytest

from harness import pki, sas
from harness.policies import policy_key
from harness.secrets import new_key
from raw.client import (CONNACK, PUBACK, Client, Closed, connect, events, packet, publish, subscribe, text)


def is_refused(client: Client, code: int | None = 5) -> None:
    answer = client.expect(CONNACK)
    assert answer.body[0] == 0, "no session is present where nobody is let in"
    assert answer.body[1] == code if code else answer.body[1] != 0
    assert client.expect_closed() == []


@pytest.mark.parametrize("tail", [
    "/?api-version=2021-04-12&DeviceClientType=py%2F2",
    "/?api-version=2021-04-12&model-id=dtmi:com:example:Thermostat;1&DeviceClientType=node",
    "/?DeviceClientType=x&api-version=2020-09-30",
    "/api-version=2016-11-14&DeviceClientType=old",
    "/api-version=2016-11-14/DeviceClientType=C/1.2 (linux)",
    "/?api-version=2021-04-12&unknown=1",
    "",
], ids=["usual", "model", "order", "no-question-mark", "legacy", "unknown-parameter", "bare"])
def test_forms_of_the_user_name(hub, device, tail):
    with hub.log_in(device, username=f"{hub.host}/{device['deviceId']}{tail}") as client:
        client.ping()


def test_user_name_in_any_case_of_the_host(hub, device):
    with hub.log_in(device, username=f"{hub.host.upper()}/{device['deviceId']}/?api-version=2021-04-12") as client:
        client.ping()


def test_model_id_is_shown(hub, hub1, feed, device):
    model = "dtmi:com:example:Thermostat;1"
    name = f"{hub.host}/{device['deviceId']}/?api-version=2021-04-12&model-id={model}"
    with hub.log_in(device, username=name) as client:
        client.send(publish(events(device), b"x", 1, 1))
        client.expect(PUBACK)
    (event,) = feed.wait(device["deviceId"])
    assert event.system["dt-dataschema"] == model
    assert hub1.twin(device["deviceId"])["modelId"] == model


@pytest.mark.parametrize("encode", [True, False], ids=["encoded", "raw-like-C"])
@pytest.mark.parametrize("skn", [None, "", "id"], ids=["none", "empty-like-old-C", "id-like-C-over-https"])
def test_tokens_as_the_sdks_write_them(hub, device, encode, skn):
    name = device["deviceId"]
    key = device["authentication"]["symmetricKey"]["primaryKey"]
    token = sas.token(f"{hub.host}/devices/{name}", key, name if skn == "id" else skn, encode=encode)
    with hub.log_in(device, token=token) as client:
        client.ping()


def test_doubly_encoded_resource_like_csharp(hub, hub1, unique):
    device = hub1.create_device(unique("$'"))
    key = device["authentication"]["symmetricKey"]["primaryKey"]
    token = sas.token(f"{hub.host}/devices/{quote(device['deviceId'], safe='')}", key)
    with hub.log_in(device, token=token) as client:
        client.ping()


def test_lower_case_escapes_like_node(hub, hub1, unique):
    device = hub1.create_device(unique("!'()*"))
    expiry = int(time.time()) + 3600
    sr = quote(f"{hub.host}/devices/{device['deviceId']}", safe="")
    for sign in "!'()*":
        sr = sr.replace(f"%{ord(sign):02X}", f"%{ord(sign):02x}")
    signature = quote(sas.sign(device["authentication"]["symmetricKey"]["primaryKey"], f"{sr}\n{expiry}"), safe="")
    with hub.log_in(device, token=f"SharedAccessSignature sr={sr}&sig={signature}&se={expiry}") as client:
        client.ping()


def test_policy_with_device_connect(nave, hub, hub1, device):
    key = policy_key(nave, hub1, "device")
    for resource in (hub.host, f"{hub.host}/devices", f"{hub.host}/devices/{device['deviceId']}"):
        with hub.log_in(device, token=sas.token(resource, key, "device")) as client:
            client.ping()


def test_policy_without_device_connect(nave, hub, hub1, device, control):
    with hub.open() as client:
        client.send(hub.connect_packet(device, token=sas.token(hub.host, policy_key(nave, hub1, "service"), "service")))
        is_refused(client)


@pytest.mark.parametrize("fields", [
    {"token": ""},
    {"token": "garbage"},
    {"token": "SharedAccessSignature sr=a&sig=b&se=c"},
    {"password": False},
    {"client_id": "somebody-else"},
    {"client_id": ""},
    {"username": "hub1.nave.test"},
    {"username": ""},
    {"username": "hub1.nave.test/other/?api-version=2021-04-12"},
    {"username": "unknown.nave.test/{id}/?api-version=2021-04-12"},
    {"client_id": "{ID}", "username": "hub1.nave.test/{ID}/?api-version=2021-04-12"},
], ids=str)
def test_refusals(hub, device, control, fields):
    name = device["deviceId"]
    fields = {k: v.replace("{id}", name).replace("{ID}", name.upper()) if isinstance(v, str) else v
              for k, v in fields.items()}
    with hub.open() as client:
        client.send(hub.connect_packet(device, **fields))
        answers = client.expect_closed()
    assert [answer.kind for answer in answers] in ([CONNACK], [])
    for answer in answers:
        assert answer.body[0] == 0 and answer.body[1] in (1, 2, 4, 5)


def test_wrong_key_gets_code_five(hub, device, control):
    with hub.open() as client:
        client.send(hub.connect_packet(device, token=sas.token(f"{hub.host}/devices/{device['deviceId']}", new_key())))
        is_refused(client)


def test_refusal_is_logged_with_the_device(nave, hub, device):
    token = sas.token(f"{hub.host}/devices/{device['deviceId']}", new_key())
    with hub.open() as client:
        client.send(hub.connect_packet(device, token=token))
        is_refused(client)
    lines = [line for line in nave.log_text().splitlines() if device["deviceId"] in line]
    assert lines, "an operator cannot see who was refused"
    assert token not in "\n".join(lines)


def test_expired_token(hub, device, control):
    key = device["authentication"]["symmetricKey"]["primaryKey"]
    token = sas.token(f"{hub.host}/devices/{device['deviceId']}", key, lifetime=-3600)
    with hub.open() as client:
        client.send(hub.connect_packet(device, token=token))
        is_refused(client)


def test_session_ends_with_its_token(hub, device, control):
    """Within the clock skew of five minutes that the hub may allow; the token is as old as that already."""
    key = device["authentication"]["symmetricKey"]["primaryKey"]
    resource = f"{hub.host}/devices/{device['deviceId']}"
    for age in (297, -3):
        client = hub.open()
        with client:
            client.send(hub.connect_packet(device, token=sas.token(resource, key, lifetime=-age)))
            if client.expect(CONNACK).body[1] == 0:
                assert client.expect_closed() == []
                return
    pytest.fail("neither a token that just ends nor one that ended just within the skew is taken")


def test_token_for_a_longer_id(hub, hub1, unique, control):
    short = unique()
    device, longer = hub1.create_device(short), hub1.create_device(short + "x")
    token = sas.token(f"{hub.host}/devices/{short}", device["authentication"]["symmetricKey"]["primaryKey"])
    with hub.open() as client:
        client.send(hub.connect_packet(longer, token=token))
        is_refused(client)


def test_disabled_device(hub, hub1, device, control):
    hub1.update_device({**device, "status": "disabled"})
    with hub.open() as client:
        client.send(hub.connect_packet(device))
        answer = client.expect(CONNACK)
        assert answer.body[1] in (3, 5)
        assert client.expect_closed() == []


def test_packets_before_connack(hub, hub1, feed, device):
    """A pipelining client: everything in one write."""
    client = hub.open()
    with client:
        client.send(
            hub.connect_packet(device),
            subscribe(1, ("$iothub/twin/res/#", 0)),
            publish("$iothub/twin/GET/?$rid=1"),
            publish(events(device), b"early", 1, 7),
            packet(12),
        )
        kinds = [client.receive().kind for _ in range(5)]
    assert kinds[0] == CONNACK
    assert sorted(kinds) == sorted([CONNACK, 9, 3, PUBACK, 13])
    assert feed.wait(device["deviceId"])[0].body == b"early"


def test_packets_byte_by_byte(hub, feed, device):
    client = hub.open()
    with client:
        for byte in hub.connect_packet(device) + publish(events(device), b"slow", 1, 1):
            client.send(bytes([byte]))
        assert client.expect(CONNACK).body[1] == 0
        client.expect(PUBACK)
    assert feed.wait(device["deviceId"])[0].body == b"slow"


def test_second_connection_displaces_the_first(hub, device, control):
    first = hub.log_in(device)
    with hub.log_in(device) as second:
        assert first.expect_closed() == [], "a plain close"
        second.ping()


def test_refused_connection_displaces_nobody(hub, device):
    with hub.log_in(device) as first:
        with hub.open() as second:
            second.send(hub.connect_packet(device, token=sas.token(f"{hub.host}/devices/{device['deviceId']}", new_key())))
            is_refused(second)
        first.ping()


@pytest.mark.parametrize("first", [
    packet(12), publish("a", b""), packet(14), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\x00", b"\xf0\x00",
    packet(1, b""), packet(1, text("MQTT")), b"\x10\xff\xff\xff\xff\x7f", b"\x10\xff\xff\xff\x7f",
], ids=["ping", "publish", "disconnect", "http", "zero", "fifteen", "empty", "short", "length-too-long", "length-huge"])
def test_first_packet_is_not_a_connect(hub, control, first):
    with hub.open() as client:
        client.send(first)
        assert client.expect_closed() == []


@pytest.mark.parametrize("level, name", [(3, "MQIsdp"), (5, "MQTT"), (9, "MQTT")])
def test_other_protocol_levels(hub, device, control, level, name):
    with hub.open() as client:
        body = connect(device["deviceId"], "x", "y", level=level, name=name)
        if level == 5:
            flags = body.index(b"MQTT\x05") + 5
            body = packet(1, text("MQTT") + b"\x05" + body[flags:flags + 3] + b"\x00" + body[flags + 3:])
        client.send(body)
        answers = client.expect_closed()
    assert [answer.kind for answer in answers] == [CONNACK]
    assert answers[0].body[1] == (0x84 if level == 5 else 1)


def test_two_connects_on_one_connection(hub, device, control):
    with hub.log_in(device) as client:
        client.send(hub.connect_packet(device))
        assert client.expect_closed() == []


def test_tls_1_2_without_a_server_name(hub, device):
    with hub.log_in(device, tls=ssl.TLSVersion.TLSv1_2, sni=False) as client:
        assert client.socket.version() == "TLSv1.2"
        client.ping()


def test_tls_1_3(hub, device):
    with hub.log_in(device, tls=ssl.TLSVersion.TLSv1_3) as client:
        assert client.socket.version() == "TLSv1.3"
        client.ping()


def test_no_tls_at_all(hub, control):
    with socket.create_connection((hub.host, 8883), 20) as plain:
        plain.settimeout(20)
        plain.sendall(hub.connect_packet({"deviceId": "x"}, token="x"))
        rest = b""
        try:
            while chunk := plain.recv(4096):
                rest += chunk
        except ConnectionError:
            pass
    assert not rest.startswith(b"\x20"), "a CONNACK without TLS"


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls12", "tls13"])
def test_certificate(hub, hub1, unique, tls):
    name = unique()
    certificate = pki.self_signed(name)
    device = hub1.create_device(name, authentication={"type": "selfSigned", "x509Thumbprint": {
        "primaryThumbprint": certificate.thumbprint(), "secondaryThumbprint": None}})
    for password in (False, True):
        fields = {"password": False} if not password else {"token": ""}
        with hub.log_in(device, certificate=certificate.files(), tls=tls, **fields) as client:
            client.ping()


def test_expired_certificate(hub, hub1, unique, control):
    name = unique()
    certificate = pki.self_signed(name, days=(-20, -10))
    device = hub1.create_device(name, authentication={"type": "selfSigned", "x509Thumbprint": {
        "primaryThumbprint": certificate.thumbprint(), "secondaryThumbprint": None}})
    with hub.open(certificate=certificate.files()) as client:
        client.send(hub.connect_packet(device, password=False))
        is_refused(client)


def test_key_wins_over_a_certificate(hub, device):
    """A password together with a certificate: the password decides."""
    with hub.log_in(device, certificate=pki.self_signed("any").files()) as client:
        client.ping()


def test_keep_alive_ends_a_silent_connection(hub, device, control):
    client = hub.log_in(device, keep_alive=1)
    start = time.monotonic()
    with client:
        assert client.expect_closed() == []
    assert time.monotonic() - start >= 1, "not before the time that was agreed"


def test_session_present(hub, device):
    with hub.log_in(device, clean=True) as client:
        assert client.session_present is False
        client.disconnect()
    with hub.log_in(device) as client:
        assert client.session_present is False, "a clean session leaves nothing"
        client.sub(("$iothub/twin/res/#", 0))
        client.disconnect()
    with hub.log_in(device) as client:
        assert client.session_present is True
        # The subscription is live again without being asked for.
        client.send(publish("$iothub/twin/GET/?$rid=1"))
        assert client.receive().topic.startswith("$iothub/twin/res/200/")
        client.disconnect()
    with hub.log_in(device, clean=True) as client:
        assert client.session_present is False
        client.send(publish("$iothub/twin/GET/?$rid=1"))
        client.ping()


def test_session_survives_a_restart(nave, hub, hub1, device):
    with hub.log_in(device) as client:
        client.sub(("$iothub/twin/PATCH/properties/desired/#", 1), ("$iothub/twin/res/#", 0))
        client.disconnect()
    nave.restart()
    with hub.log_in(device) as client:
        assert client.session_present is True
        client.send(publish("$iothub/twin/GET/?$rid=1"))
        assert client.receive().topic.startswith("$iothub/twin/res/200/?$rid=1")
        hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"a": 1}}})
        assert client.receive().json() == {"a": 1, "$version": 2}


def test_closing_after_connack_ends_the_connection_state(hub, hub1, device):
    client = hub.log_in(device)
    hub1.wait_for(device["deviceId"], "Connected")
    client.socket.close()
    hub1.wait_for(device["deviceId"], "Disconnected")
    with pytest.raises((Closed, OSError)):
        client.receive()
