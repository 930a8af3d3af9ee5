"""Twin requests and methods as they look on the wire."""

import json
import re
import threading

import pytest

from raw.client import PUBACK, Packet, events, publish

TWIN = ("$iothub/twin/res/#", 0)
DESIRED = ("$iothub/twin/PATCH/properties/desired/#", 1)
METHODS = ("$iothub/methods/POST/#", 0)


@pytest.fixture
def client(hub, device):
    with hub.log_in(device) as opened:
        opened.sub(TWIN)
        yield opened
        opened.disconnect()


def ask(client, topic: str, body: bytes = b"", qos: int = 0) -> Packet:
    client.send(publish(topic, body, qos, 3 if qos else None))
    if qos:
        assert client.expect(PUBACK).identifier == 3
    return client.receive()


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("body", [b"", b" "], ids=["empty", "blank"])
@pytest.mark.parametrize("rid", ["1", "e6d3cc2e-4f4b-4d8f-8a6c-5a0a5a0a5a0a", "f5c9a7d8-suffix.1", "65535"])
def test_get(client, qos, body, rid):
    answer = ask(client, f"$iothub/twin/GET/?$rid={rid}", body, qos)
    assert answer.topic == f"$iothub/twin/res/200/?$rid={rid}"
    assert answer.qos == 0 and not answer.flags & 1
    assert answer.json() == {"desired": {"$version": 1}, "reported": {"$version": 1}}


def test_patch(client, hub1, device):
    answer = ask(client, "$iothub/twin/PATCH/properties/reported/?$rid=9", b'{"a":{"b":1}}')
    assert answer.topic == "$iothub/twin/res/204/?$rid=9&$version=2"
    assert answer.payload == b""
    assert hub1.twin(device["deviceId"])["properties"]["reported"]["a"] == {"b": 1}


def test_patch_without_rid_is_applied_in_silence(client, hub1, device):
    client.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=", b'{"a":1}'))
    client.ping()
    assert hub1.twin(device["deviceId"])["properties"]["reported"]["a"] == 1


def test_duplicate_rid(client):
    client.send(publish("$iothub/twin/GET/?$rid=1"), publish("$iothub/twin/GET/?$rid=1"))
    assert [client.receive().topic for _ in range(2)] == ["$iothub/twin/res/200/?$rid=1"] * 2
    # Within one topic a name given twice is no request; whatever the hub does, it answers or closes, and stays up.


def test_many_requests_in_one_write(client):
    client.send(*(publish(f"$iothub/twin/PATCH/properties/reported/?$rid={n}", json.dumps({"n": n}).encode())
                  for n in range(1, 51)))
    answers = [client.receive().topic for _ in range(50)]
    assert answers == [f"$iothub/twin/res/204/?$rid={n}&$version={n + 1}" for n in range(1, 51)]


@pytest.mark.parametrize("body", [b"", b"{", b"text", b"[1]", b"1", b"null", b'{"a":1}x', b"\xff\xfe", b'{"a":[null]}',
                                  b'{"$version":1}', b'{"a.b":1}', b'{"a":4503599627370496}', b"[" * 100_000])
def test_bad_patch(client, control, body):
    answer = ask(client, "$iothub/twin/PATCH/properties/reported/?$rid=4", body)
    assert answer.topic == "$iothub/twin/res/400/?$rid=4"
    error = answer.json()
    assert error["errorCode"] // 1000 == 400
    assert error["trackingId"] and error["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", error["timestampUtc"])
    assert ask(client, "$iothub/twin/GET/?$rid=5").json()["reported"] == {"$version": 1}


def test_rule_is_named(client):
    error = ask(client, "$iothub/twin/PATCH/properties/reported/?$rid=4", b'{"$version":1}').json()
    assert error["errorCode"] == 400004
    assert error["message"].startswith("Provided json is not a valid 'tags' or 'properties' object: ")


def test_section_that_grows_too_large(client):
    status = []
    for n in range(9):
        answer = ask(client, f"$iothub/twin/PATCH/properties/reported/?$rid={n}", json.dumps({f"k{n}": "x" * 4000}).encode())
        status.append(answer.topic.split("/")[3])
    assert status == ["204"] * 8 + [status[8]]
    assert status[8] in ("400", "413")


def test_conditional_patch(client):
    good = ask(client, "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=1", b'{"a":1}')
    assert good.topic == "$iothub/twin/res/204/?$rid=1&$version=2"
    stale = ask(client, "$iothub/twin/PATCH/properties/reported/?$rid=2&$version=1", b'{"a":2}')
    assert stale.topic.startswith("$iothub/twin/res/412/?$rid=2")
    assert ask(client, "$iothub/twin/GET/?$rid=3").json()["reported"] == {"a": 1, "$version": 2}


def test_answer_is_dropped_without_a_subscription(hub, device):
    with hub.log_in(device, clean=True) as client:
        client.send(publish("$iothub/twin/GET/?$rid=1"))
        client.ping()


def test_user_name_without_version_may_send_but_not_patch(hub, feed, device):
    with hub.log_in(device, username=f"{hub.host}/{device['deviceId']}") as client:
        client.sub(TWIN)
        assert ask(client, "$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"a":1}').topic.startswith(
            "$iothub/twin/res/400/?$rid=1")
        client.send(publish(events(device), b"telemetry", 1, 1))
        client.expect(PUBACK)
    assert feed.wait(device["deviceId"])[0].body == b"telemetry"


def test_desired_notification(client, hub1, device):
    client.sub(DESIRED, identifier=2)
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"a": {"b": None}, "ü": "世界"}}})
    got = client.receive()
    assert got.topic == "$iothub/twin/PATCH/properties/desired/?$version=2"
    assert got.json() == {"a": {"b": None}, "ü": "世界", "$version": 2}
    assert not got.flags & 1, "never retained"


def test_notifications_come_in_order(client, hub1, device):
    client.sub(DESIRED, identifier=2)
    for n in range(20):
        hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"n": n}}})
    assert [client.receive().json() for _ in range(20)] == [{"n": n, "$version": n + 2} for n in range(20)]


def test_unsubscribed_device_is_not_notified(client, hub1, device):
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"a": 1}}})
    client.ping()


def test_java_twin_patch_is_a_post(hub1, device):
    """`POST` with `X-HTTP-Method-Override: PATCH`."""
    response = hub1.request("POST", f"/twins/{device['deviceId']}", json={"tags": {"a": 1}},
                            headers={"X-HTTP-Method-Override": "PATCH"})
    assert response.status_code == 200, response.text
    assert response.json()["tags"] == {"a": 1}
    assert hub1.request("POST", f"/twins/{device['deviceId']}", json={"tags": {"a": 2}}).status_code in (404, 405)
    assert hub1.twin(device["deviceId"])["tags"] == {"a": 1}


@pytest.fixture
def methods(hub, device):
    with hub.log_in(device) as opened:
        opened.sub(METHODS)
        yield opened
        opened.disconnect()


def called(methods, hub1, device, answer, name="reboot", **fields):
    """Calls, lets `answer(request)` say what the device sends, and gives the request and the caller's response."""
    result = {}
    caller = threading.Thread(target=lambda: result.update(response=hub1.invoke(
        device["deviceId"], name, **{"responseTimeoutInSeconds": 10, **fields})))
    caller.start()
    request = methods.receive()
    methods.send(*answer(request))
    caller.join(60)
    return request, result["response"]


def rid(request) -> str:
    ((name, value),) = request.query()
    assert name == "$rid"
    return value


def test_method_request_on_the_wire(methods, hub1, device):
    request, response = called(
        methods, hub1, device, lambda r: [publish(f"$iothub/methods/res/207/?$rid={rid(r)}", b'{"x": [1, 2]}')],
        payload={"a": 1})
    assert re.fullmatch(r"\$iothub/methods/POST/reboot/\?\$rid=[0-9A-Za-z]+", request.topic), request.topic
    assert request.json() == {"a": 1}
    assert response.json() == {"status": 207, "payload": {"x": [1, 2]}}


def test_method_without_payload_has_null(methods, hub1, device):
    request, response = called(methods, hub1, device, lambda r: [publish(f"$iothub/methods/res/200/?$rid={rid(r)}")])
    assert request.payload == b"null"
    assert response.json() == {"status": 200, "payload": None}


def test_answer_at_quality_1(methods, hub1, device):
    _, response = called(methods, hub1, device, lambda r: [publish(f"$iothub/methods/res/200/?$rid={rid(r)}", b"1", 1, 8)])
    assert response.json() == {"status": 200, "payload": 1}
    assert methods.expect(PUBACK).identifier == 8


@pytest.mark.parametrize("status, body", [("200", b"{"), ("200", b"not json"), ("ok", b"{}"), ("200", b"\xff")])
def test_malformed_answer(methods, hub1, device, control, status, body):
    _, response = called(methods, hub1, device, lambda r: [publish(f"$iothub/methods/res/{status}/?$rid={rid(r)}", body)])
    assert response.status_code == 502, response.text
    assert response.headers["iothub-errorcode"]
    methods.ping()


def test_answer_to_an_unknown_request(methods, hub1, device):
    methods.send(publish("$iothub/methods/res/200/?$rid=ffff", b"{}", 1, 3))
    assert methods.expect(PUBACK).identifier == 3
    _, response = called(
        methods, hub1, device,
        lambda r: [publish("$iothub/methods/res/200/?$rid=other", b'"wrong"'),
                   publish(f"$iothub/methods/res/200/?$rid={rid(r)}", b'"right"')])
    assert response.json()["payload"] == "right"


def test_second_answer_is_ignored(methods, hub1, device):
    _, response = called(
        methods, hub1, device,
        lambda r: [publish(f"$iothub/methods/res/200/?$rid={rid(r)}", b"1"),
                   publish(f"$iothub/methods/res/500/?$rid={rid(r)}", b"2")])
    assert response.json() == {"status": 200, "payload": 1}
    methods.ping()
