"""The provisioning service over MQTT as the SDKs for C, C#, Java and embedded C use it."""

import json
import time

import pytest

from harness import pki, sas
from harness.secrets import new_key
from raw.client import CONNACK, PUBACK, PUBLISH, SUBACK, Client, connect, packet, publish, subscribe

ANSWERS = ("$dps/registrations/res/#", 1)
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid={}"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={}&operationId={}"


@pytest.fixture
def enrolled(dps, unique):
    name, key = unique(), new_key()
    dps.put_enrollment(name, {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": new_key()}})
    return name, key


def poll_to_the_end(client, operation, body=b"", qos=1):
    for number in range(100, 200):
        client.send(publish(POLL.format(number, operation), body, qos, number if qos else None))
        if qos:
            client.expect(PUBACK)
        answer = client.expect(PUBLISH)
        acknowledge(client, answer)
        if answer.json()["status"] != "assigning":
            return answer
        time.sleep(0.1)
    raise AssertionError("still assigning")


def acknowledge(client, answer):
    if answer.qos:
        client.send(packet(PUBACK, answer.identifier.to_bytes(2, "big")))


def test_csharp(provisioning, hubs, enrolled):
    """Keep-alive 0, a clean session, quality 1, an empty body; it wants its PUBACK first and an answer at quality 1."""
    name, key = enrolled
    with provisioning.log_in(name, key, clean=True, keep_alive=0) as client:
        assert client.session_present is False
        assert client.sub(ANSWERS) == b"\x01"
        client.send(publish(REGISTER.format(1), b"", 1, 2))
        assert client.expect(PUBACK).identifier == 2, "before the answer"
        answer = client.expect(PUBLISH)
        assert answer.qos == 1
        assert 1 <= answer.identifier <= 32767
        acknowledge(client, answer)
        assert answer.topic.startswith("$dps/registrations/res/202/?$rid=1&retry-after=")
        assert answer.query()[0] == ("$rid", "1")
        assert answer.query()[1][0] == "retry-after" and int(answer.query()[1][1]) >= 1
        body = answer.json()
        assert body["status"] == "assigning" and body["operationId"]
        final = poll_to_the_end(client, body["operationId"])
        assert final.topic.startswith("$dps/registrations/res/200/?$rid=")
        state = final.json()["registrationState"]
        assert state["assignedHub"] in hubs and state["deviceId"] == name
        assert final.payload.isascii()


def test_session_is_never_present(provisioning, enrolled):
    name, key = enrolled
    for clean in (False, False, True):
        with provisioning.log_in(name, key, clean=clean) as client:
            assert client.session_present is False
            client.sub(ANSWERS)
            client.disconnect()


def test_c(provisioning, hubs, enrolled):
    """Quality 0; the whole body again in each poll; raw slashes in the token."""
    name, key = enrolled
    body = json.dumps({"registrationId": name}).encode()
    with provisioning.log_in(name, key, encode=False) as client:
        client.sub(ANSWERS)
        client.send(publish(REGISTER.format(1), body))
        answer = client.expect(PUBLISH)
        acknowledge(client, answer)
        final = poll_to_the_end(client, answer.json()["operationId"], body, qos=0)
        assert final.json()["status"] == final.json()["registrationState"]["status"] == "assigned"


def test_java(provisioning, hubs, enrolled):
    """Raw slashes and an empty `skn`; the version of the client where its name belongs; the payload as a string. It loses
    answers that come at once, so they come a little later."""
    name, key = enrolled
    body = json.dumps({"registrationId": name, "payload": '{"a":1}'}).encode()
    with provisioning.log_in(name, key, encode=False, policy="", agent="2019-03-31", clean=False, keep_alive=230) as client:
        client.sub(ANSWERS)
        start = time.monotonic()
        client.send(publish(REGISTER.format("4fa1"), body))
        answer = client.expect(PUBLISH)
        assert time.monotonic() - start >= 0.005
        acknowledge(client, answer)
        assert answer.query()[0] == ("$rid", "4fa1")
        assert poll_to_the_end(client, answer.json()["operationId"], qos=0).json()["status"] == "assigned"


def test_embedded_c(provisioning, enrolled):
    """Without the part about the client."""
    name, key = enrolled
    with provisioning.log_in(name, key, agent=None) as client:
        client.sub(ANSWERS)
        client.send(publish(REGISTER.format(1), b"{}", 1, 1))
        client.expect(PUBACK)
        assert client.expect(PUBLISH).json()["status"] == "assigning"


def test_pipelined(provisioning, enrolled):
    name, key = enrolled
    token = sas.token(f"{provisioning.scope}/registrations/{name}", key, "registration")
    with Client(provisioning.host, provisioning.ca) as client:
        client.send(connect(name, provisioning.username(name), token, clean=True), subscribe(1, ANSWERS),
                    publish(REGISTER.format(1), b"{}", 1, 2))
        kinds = [client.receive().kind for _ in range(4)]
    assert kinds == [CONNACK, SUBACK, PUBACK, PUBLISH]


def test_certificate_through_an_intermediate(dps, provisioning, unique, hubs):
    group, name = unique("-group"), unique("-device")
    middle = pki.intermediate(pki.root())
    dps.put_group(group, {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": middle.pem}}}})
    certificate = pki.leaf(middle, name)
    with provisioning.log_in(name, None, certificate=certificate.files()) as client:
        client.sub(ANSWERS)
        client.send(publish(REGISTER.format(1), b"", 1, 1))
        client.expect(PUBACK)
        answer = client.expect(PUBLISH)
        acknowledge(client, answer)
        state = poll_to_the_end(client, answer.json()["operationId"]).json()["registrationState"]
    assert state["assignedHub"] in hubs
    assert state["x509"] is not None


def refusal(provisioning, name, key, body=b"{}", status="401"):
    """The refusal at CONNECT (`None`) or the JSON of the one that answers the registration."""
    token = sas.token(f"{provisioning.scope}/registrations/{name}", key, "registration")
    with Client(provisioning.host, provisioning.ca) as client:
        client.send(connect(name, provisioning.username(name), token, clean=True))
        code = client.expect(CONNACK).body[1]
        if code:
            assert code == 5
            assert client.expect_closed() == []
            return None
        client.sub(ANSWERS)
        client.send(publish(REGISTER.format(7), body, 1, 1))
        client.expect(PUBACK)
        answer = client.expect(PUBLISH)
    assert answer.topic.startswith(f"$dps/registrations/res/{status}/?$rid=7"), answer.topic
    assert answer.payload.isascii()
    error = answer.json()
    assert error["errorCode"] // 1000 == int(status)
    assert error["trackingId"] and error["message"] and error["timestampUtc"].endswith("Z")
    return error


def test_wrong_key(provisioning, enrolled, control):
    refusal(provisioning, enrolled[0], new_key())


def test_unknown_registration(provisioning, unique, control):
    refusal(provisioning, unique(), new_key())


@pytest.mark.parametrize("body", [b"{", b"[]", b"text", b"\xff\xfe", b'{"registrationId":"other"}'])
def test_bad_body(provisioning, enrolled, control, body):
    assert refusal(provisioning, *enrolled, body=body, status="400")


def test_error_text_is_ascii(provisioning, enrolled, control):
    """One SDK reads answers as ASCII."""
    body = '{"registrationId":"grüße-世界"}'.encode()
    assert refusal(provisioning, *enrolled, body=body, status="400")


def test_unknown_operation(provisioning, enrolled):
    with provisioning.log_in(*enrolled) as client:
        client.sub(ANSWERS)
        client.send(publish(POLL.format(1, "5.0.nothing"), b" ", 1, 1))
        client.expect(PUBACK)
        answer = client.expect(PUBLISH)
        assert answer.topic.startswith("$dps/registrations/res/404/?$rid=1")
        assert answer.json()["errorCode"] // 1000 == 404


@pytest.mark.parametrize("make", [
    lambda name: publish(REGISTER.format(1), b"{}", 2, 1),
    lambda name: publish("devices/x/messages/events/", b"", 1, 1),
    lambda name: publish("$iothub/twin/GET/?$rid=1"),
    lambda name: publish("$dps/registrations/PUT/iotdps-register/", b"{}", 1, 1),
    lambda name: publish("$dps/registrations/unknown", b"{}", 1, 1),
    lambda name: b"\xf0\x00",
], ids=["quality-2", "telemetry", "twin", "no-rid", "unknown", "malformed"])
def test_what_ends_the_connection(provisioning, enrolled, control, make):
    with provisioning.log_in(*enrolled) as client:
        client.sub(ANSWERS)
        client.send(make(enrolled[0]))
        answers = client.expect_closed()
    assert not [answer for answer in answers if answer.kind == PUBLISH]


def test_quality_2_subscription_is_granted_as_1(provisioning, enrolled):
    with provisioning.log_in(*enrolled) as client:
        assert client.sub(("$dps/registrations/res/#", 2)) == b"\x01"
        assert client.sub(("$iothub/twin/res/#", 0), identifier=2) == b"\x80"


def test_client_id_of_another(provisioning, enrolled, control):
    name, key = enrolled
    token = sas.token(f"{provisioning.scope}/registrations/{name}", key, "registration")
    with Client(provisioning.host, provisioning.ca) as client:
        client.send(connect("other", provisioning.username(name), token, clean=True))
        answers = client.expect_closed()
    assert [answer.kind for answer in answers] == [CONNACK] and answers[0].body[1] in (2, 5)
