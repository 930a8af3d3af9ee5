"""Telemetry as the SDKs for C, C# and Java write it, and what ends a connection."""

import pytest

from raw.client import (PUBACK, SUBACK, UNSUBACK, Closed, events, packet, publish, random_bytes, subscribe, text,
                        unsubscribe)


def sent(hub, feed, device, topic, body=b"x", qos=1, **fields):
    with hub.log_in(device) as client:
        client.send(publish(topic, body, qos, 5 if qos else None, **fields))
        if qos:
            assert client.expect(PUBACK).identifier == 5
        client.ping()
        client.disconnect()
    return feed.wait(device["deviceId"])[-1]


def test_qos_0(hub, feed, device):
    body = random_bytes(1000)
    event = sent(hub, feed, device, events(device, "a=b"), body, qos=0)
    assert event.body == body
    assert event.properties == {"a": "b"}


@pytest.mark.parametrize("suffix", ["", "/"])
def test_topic_with_and_without_the_last_slash(hub, feed, device, suffix):
    event = sent(hub, feed, device, f"devices/{device['deviceId']}/messages/events{suffix}")
    assert (event.body, event.properties) == (b"x", {})


def test_bag_of_c(hub, feed, device):
    """Application properties first, nothing encoded, then the system properties."""
    bag = "my prop=a value: ü&b=1&%24.mid=m 1&%24.ct=application/json&%24.ce=utf-8"
    event = sent(hub, feed, device, events(device, bag))
    assert event.properties == {"my prop": "a value: ü", "b": "1"}
    assert event.system["message-id"] == "m 1"
    assert event.system["content-type"] == "application/json"
    assert event.system["content-encoding"] == "utf-8"


def test_bag_of_csharp(hub, feed, device):
    """A slash after the bag, and a name without a value for null."""
    event = sent(hub, feed, device, events(device, "%24.mid=1&a=%2F%26%3D&nothing&empty=/"))
    assert event.system["message-id"] == "1"
    assert event.properties["a"] == "/&="
    assert event.properties["empty"] == ""
    assert event.properties.get("nothing", None) in (None, "")


def test_bag_of_java(hub, feed, device):
    """The dollar sign as it is, and the device's own idea of who it is."""
    event = sent(hub, feed, device, events(device, "$.mid=1&$.cid=2&$.cdid=somebody-else&$.ct=UTF-8&p=1"))
    assert event.system["message-id"] == "1"
    assert event.system["correlation-id"] == "2"
    assert event.system["content-type"] == "UTF-8"
    assert event.system["iothub-connection-device-id"] == device["deviceId"]
    assert event.device_id == device["deviceId"]
    assert event.properties == {"p": "1"}


def test_bag_behind_a_question_mark(hub, feed, device):
    assert sent(hub, feed, device, events(device, "?a=1")).properties == {"a": "1"}


def test_plus_is_a_plus(hub, feed, device):
    assert sent(hub, feed, device, events(device, "a=1%2B1&b=c%20d")).properties == {"a": "1+1", "b": "c d"}


def test_lone_percent_sign(hub, feed, device):
    assert sent(hub, feed, device, events(device, "a=100%&b=%zz")).properties == {"a": "100%", "b": "%zz"}


def test_client_cannot_forge_what_the_hub_stamps(hub, feed, device):
    event = sent(hub, feed, device, events(
        device, "iothub-connection-device-id=other&iothub-connection-auth-method=none&%24.cmid=m&a=1"))
    assert event.system["iothub-connection-device-id"] == device["deviceId"]
    assert "iothub-connection-module-id" not in event.system
    assert "other" not in str(event.system)


def test_retain_becomes_a_property(hub, feed, device):
    event = sent(hub, feed, device, events(device, "a=1"), retain=True)
    assert event.properties == {"a": "1", "mqtt-retain": "true"}
    with hub.log_in(device) as client:
        client.ping()


def test_dup_is_not_removed(hub, feed, device):
    with hub.log_in(device) as client:
        client.send(publish(events(device), b"same", 1, 9), publish(events(device), b"same", 1, 9, dup=True))
        assert [client.expect(PUBACK).identifier for _ in range(2)] == [9, 9]
    assert [event.body for event in feed.wait(device["deviceId"], 2)] == [b"same", b"same"]


def test_many_in_one_write_are_acknowledged_in_order(hub, feed, device):
    count = 500
    with hub.log_in(device) as client:
        client.send(*(publish(events(device), str(n).encode(), 1, n) for n in range(1, count + 1)))
        assert [client.expect(PUBACK).identifier for _ in range(count)] == list(range(1, count + 1))
    bodies = [event.body for event in feed.wait(device["deviceId"], count)]
    assert bodies == [str(n).encode() for n in range(1, count + 1)]


def test_qos_0_and_1_mixed_keep_their_order(hub, feed, device):
    with hub.log_in(device) as client:
        client.send(*(publish(events(device), str(n).encode(), n % 2, n if n % 2 else None) for n in range(1, 41)))
        for _ in range(20):
            client.expect(PUBACK)
        client.ping()
    assert [event.body for event in feed.wait(device["deviceId"], 40)] == [str(n).encode() for n in range(1, 41)]


def test_largest_message(hub, feed, device):
    """262144 bytes of body and properties."""
    body = random_bytes(262_144 - len("name" + "value"))
    event = sent(hub, feed, device, events(device, "name=value"), body)
    assert event.body == body


def is_cut_off(hub, device, control, *packets):
    with hub.log_in(device) as client:
        try:
            client.send(*packets)
        except OSError:
            pass  # the end may come while we are still sending
        answers = client.expect_closed()
    control()
    return answers


def test_oversized_message(hub, feed, device, control):
    answers = is_cut_off(hub, device, control, publish(events(device), b"x" * 262_145, 1, 1))
    assert answers == []
    answers = is_cut_off(hub, device, control, publish(events(device, "name=value"), b"x" * 262_144, 1, 1))
    assert answers == []
    answers = is_cut_off(hub, device, control, publish(events(device), b"x" * 5_000_000, 1, 1))
    assert answers == []
    with hub.log_in(device) as client:
        client.send(publish(events(device), b"fine", 1, 1))
        client.expect(PUBACK)
    assert [event.body for event in feed.wait(device["deviceId"])] == [b"fine"]


def test_qos_2_publish(hub, device, control):
    answers = is_cut_off(hub, device, control, publish(events(device), b"x", 2, 1))
    assert not [answer for answer in answers if answer.kind == PUBACK]


@pytest.mark.parametrize("topic", [
    "unknown", "devices/somebody-else/messages/events/", "$iothub/unknown/1", "$iothub/twin/GET/", "",
    "$iothub/twin/GET/foo/?$rid=1", "devices/{id}/messages/devicebound/", "$dps/registrations/PUT/iotdps-register/?$rid=1",
    "devices/{ID}/messages/events/", "devices/{id}/messages/events/#", "devices/+/messages/events/", "$SYS/x",
])
def test_wrong_topic(hub, feed, device, control, topic):
    name = device["deviceId"]
    topic = topic.replace("{id}", name).replace("{ID}", name.upper())
    assert is_cut_off(hub, device, control, publish(topic, b"", 1, 1)) == []
    assert feed.of(name) == [] and feed.of("somebody-else") == []


@pytest.mark.parametrize("bad", [
    b"\x36\x00", b"\x32\x02\x00\x05", b"\x32\x00", b"\x30\xff\xff\xff\xff\x01", packet(8, b"\x00\x01", 2),
    packet(8, b"\x00\x01" + text("a") + b"\x00", 0), packet(8, b"\x00\x01" + text("a") + b"\x07", 2),
    packet(10, b"\x00\x01", 2), packet(3, text(b"\xff\xfe")), packet(3, text("a\x00b")), b"\x00\x00", b"\xf0\x00",
    packet(2, b"\x00\x00"), packet(5, b"\x00\x01"), packet(6, b"\x00\x01", 2), packet(7, b"\x00\x01"),
    packet(9, b"\x00\x01\x00"), packet(13), packet(12, b"x"), packet(3, text("a") + b"\x00\x00", 2),
], ids=["qos-3", "topic-beyond-end", "no-topic", "length", "no-filter", "subscribe-flags", "subscribe-qos",
        "no-filter-unsubscribe", "utf-8", "nul", "kind-0", "kind-15", "connack", "pubrec", "pubrel", "pubcomp",
        "suback", "pingresp", "ping-with-body", "identifier-0"])
def test_malformed_packet(hub, device, control, bad):
    assert is_cut_off(hub, device, control, bad) == []


def test_subscriptions(hub, device):
    with hub.log_in(device) as client:
        codes = client.sub(
            (f"devices/{device['deviceId']}/messages/devicebound/#", 1), ("$iothub/methods/POST/#", 0),
            ("$iothub/twin/res/#", 0), ("$iothub/twin/PATCH/properties/desired/#", 2), ("nothing/of/ours", 1))
        assert codes[0] in (0, 1)
        assert codes[1:3] == bytes([0, 0])
        assert codes[3] in (0, 1), "quality 2 is granted as 1 at most"
        assert codes[4] == 0x80
        for name in ("#", "devices/+/messages/events/#", "devices/other/messages/devicebound/#", "$SYS/#"):
            assert client.sub((name, 0), identifier=2) == b"\x80", name
        client.send(unsubscribe(3, "$iothub/methods/POST/#", "never/subscribed"))
        assert client.expect(UNSUBACK).identifier == 3
        client.ping()


def test_subscriptions_in_one_write(hub, device):
    with hub.log_in(device) as client:
        client.send(subscribe(1, ("$iothub/methods/POST/#", 0)), subscribe(2, ("$iothub/twin/res/#", 1)))
        assert [client.expect(SUBACK).identifier for _ in range(2)] == [1, 2]


def test_will(hub, hub1, feed, device):
    """Sent when the connection is lost, with a sign that it is one."""
    will = (events(device, "reason=lost"), b"last words", 1, True)
    client = hub.log_in(device, will=will)
    client.ping()
    client.socket.close()
    (event,) = feed.wait(device["deviceId"])
    assert event.body == b"last words"
    assert event.properties == {"reason": "lost", "iothub-MessageType": "Will", "mqtt-retain": "true"}


def test_will_of_a_displaced_connection(hub, feed, device):
    first = hub.log_in(device, will=(events(device), b"displaced", 0, False))
    with hub.log_in(device):
        assert first.expect_closed() == []
        assert feed.wait(device["deviceId"])[0].body == b"displaced"


def test_will_is_dropped_by_a_disconnect(hub, feed, device):
    client = hub.log_in(device, will=(events(device), b"last words", 1, False))
    client.disconnect()
    with hub.log_in(device) as second:
        second.send(publish(events(device), b"marker", 1, 1))
        second.expect(PUBACK)
        second.disconnect()
    assert [event.body for event in feed.wait(device["deviceId"])] == [b"marker"]


def test_client_that_goes_away_in_the_middle_of_a_packet(hub, feed, device, control):
    client = hub.log_in(device)
    client.send(publish(events(device), b"x" * 1000, 1, 1)[:500])
    client.socket.close()
    control()
    with hub.log_in(device) as second:
        second.send(publish(events(device), b"whole", 1, 1))
        second.expect(PUBACK)
    assert [event.body for event in feed.wait(device["deviceId"])] == [b"whole"]


def test_client_that_does_not_read(hub, hub1, device, control):
    """It asks without end and takes no answer: its connection ends, and nobody else notices."""
    client = hub.log_in(device)
    client.sub(("$iothub/twin/res/#", 0))
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {f"k{n}": "x" * 4000 for n in range(7)}}})
    client.socket.settimeout(10)
    sent_bytes = 0
    try:
        while sent_bytes < 20_000_000:
            client.send(*(publish(f"$iothub/twin/GET/?$rid={n}") for n in range(200)))
            sent_bytes += 200 * 30
            if sent_bytes % 60_000 == 0:
                control()
    except (OSError, Closed):
        pass
    control()
    client.socket.close()
