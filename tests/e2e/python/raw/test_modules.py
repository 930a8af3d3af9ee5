"""Modules as bare clients: what identifies them, what they may subscribe to, and whose messages are theirs."""

import pytest

from harness import sas
from raw.client import CONNACK, PUBACK, PUBLISH, Closed, events, publish


@pytest.fixture
def module(hub1, device):
    return hub1.create_module(device["deviceId"], "m")


def refused(hub, packet) -> int:
    with hub.open() as client:
        client.send(packet)
        return client.expect(CONNACK).body[1]


def test_telemetry_of_java_and_csharp(hub, feed, module):
    """A slash after the bag, with and without an output."""
    with hub.log_in(module) as client:
        client.send(publish(events(module, "%24.on=out&a=1/"), b"1", 1, 1), publish(events(module), b"2", 1, 2))
        assert [client.expect(PUBACK).identifier for _ in range(2)] == [1, 2]
        client.disconnect()
    first, second = feed.wait(module["deviceId"], 2)
    assert (first.system["iothub-outputname"], first.properties) == ("out", {"a": "1"})
    assert [event.module_id for event in (first, second)] == ["m", "m"]


@pytest.mark.parametrize("topic", ["devices/{d}/messages/events/", "devices/{d}/modules/other/messages/events/"])
def test_messages_of_others_end_the_connection(hub, feed, module, control, topic):
    with hub.log_in(module) as client:
        client.send(publish(topic.format(d=module["deviceId"]), b"forged", 1, 1))
        assert client.expect_closed() == []
    assert feed.of(module["deviceId"]) == []


def test_filters(hub, module):
    own = f"devices/{module['deviceId']}/modules/m"
    with hub.log_in(module, clean=True) as client:
        codes = client.sub((f"{own}/inputs/#", 1), (f"{own}/messages/devicebound/#", 1), ("$iothub/twin/res/#", 0),
                           (f"devices/{module['deviceId']}/messages/devicebound/#", 1),
                           (f"devices/{module['deviceId']}/modules/other/#", 1))
        assert list(codes) == [1, 1, 0, 0x80, 0x80]
        client.disconnect()


def test_twin(hub, module):
    with hub.log_in(module, clean=True) as client:
        client.sub(("$iothub/twin/res/#", 0))
        client.send(publish("$iothub/twin/GET/?$rid=1", b" "))
        answer = client.expect(PUBLISH)
        assert answer.topic == "$iothub/twin/res/200/?$rid=1"
        assert answer.json() == {"desired": {"$version": 1}, "reported": {"$version": 1}}
        client.disconnect()


def test_credentials_of_others_are_refused(hub, hub1, device, module):
    other = hub1.create_module(device["deviceId"], "other")
    for_module = f"{hub.host}/devices/{device['deviceId']}/modules/m"
    foreign = {
        "the device's key": sas.token(for_module, device["authentication"]["symmetricKey"]["primaryKey"]),
        "another module's key": sas.token(for_module, other["authentication"]["symmetricKey"]["primaryKey"]),
        "another module's token": sas.token(
            f"{hub.host}/devices/{device['deviceId']}/modules/other",
            other["authentication"]["symmetricKey"]["primaryKey"]),
        "the token of the whole device": sas.token(
            f"{hub.host}/devices/{device['deviceId']}", module["authentication"]["symmetricKey"]["primaryKey"]),
    }
    for what, token in foreign.items():
        assert refused(hub, hub.connect_packet(module, token=token)) == 5, what
    assert refused(hub, hub.connect_packet({**module, "moduleId": "absent"})) == 5
    policy = sas.token(hub.host, hub1.endpoint.key, hub1.endpoint.policy)
    with hub.log_in(module, token=policy) as client:
        client.ping()


def test_client_id_and_user_name_agree(hub, module):
    packet = hub.connect_packet(module, client_id=module["deviceId"])
    assert refused(hub, packet) == 5


def test_one_connection_per_module(hub, module, device):
    with hub.log_in(device) as of_device, hub.log_in(module) as first:
        with hub.log_in(module) as second:
            with pytest.raises(Closed):
                first.receive()
            second.ping()
        of_device.ping()


def test_subscriptions_of_a_module_survive(hub, hub1, module):
    with hub.log_in(module) as client:
        client.sub(("$iothub/twin/PATCH/properties/desired/#", 1))
        client.disconnect()
    with hub.log_in(module) as client:
        assert client.session_present
        patch = {"properties": {"desired": {"x": 1}}}
        hub1.ok("PATCH", f"/twins/{module['deviceId']}/modules/m", json=patch)
        assert client.expect(PUBLISH).json() == {"x": 1, "$version": 2}


def test_new_keys_end_the_session(hub, hub1, module):
    with hub.log_in(module) as client:
        path = f"/devices/{module['deviceId']}/modules/m"
        hub1._remember(hub1.ok("PUT", path, json={"moduleId": "m"}, headers={"If-Match": "*"}).json())
        assert client.expect_closed() == []
    assert refused(hub, hub.connect_packet(module)) == 5
