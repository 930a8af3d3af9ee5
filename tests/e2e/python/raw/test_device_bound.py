"""Cloud-to-device messages, packet by packet."""

from raw.client import PUBLISH, SUBACK, UNSUBACK, puback, subscribe, unsubscribe


def filter_of(device):
    return f"devices/{device['deviceId']}/messages/devicebound/#"


def test_topic_and_acknowledgement(hub, hub1, device, control):
    hub1.send(device["deviceId"], b"hello", messageid="m1", app_colour="blue/red", ack="full")
    with hub.log_in(device) as client:
        client.send(subscribe(1, (filter_of(device), 1)))
        assert client.expect(SUBACK).body[2:] == b"\x01"
        got = client.expect(PUBLISH)
        name = device["deviceId"]
        assert got.topic == (
            f"devices/{name}/messages/devicebound/%24.mid=m1&%24.to=%2Fdevices%2F{name}%2Fmessages%2FdeviceBound"
            "&iothub-ack=full&colour=blue%2Fred")
        assert (got.payload, got.qos, got.flags) == (b"hello", 1, 0b0010)
        assert 0 < got.identifier < 0x8000
        # An identifier that nobody sent is ignored.
        client.send(puback(got.identifier + 1))
        client.ping()
        assert hub1.queued(device["deviceId"]) == 1
        client.send(puback(got.identifier))
        hub1.wait_queued(device["deviceId"], 0)
        client.disconnect()


def test_repetition_has_the_dup_flag_and_needs_no_subscription(hub, hub1, device, control):
    hub1.send(device["deviceId"], b"1")
    with hub.log_in(device) as client:
        client.sub((filter_of(device), 1))
        assert client.expect(PUBLISH).flags == 0b0010
    with hub.log_in(device) as client:
        assert client.session_present
        again = client.expect(PUBLISH)
        assert (again.payload, again.flags) == (b"1", 0b1010)
        client.send(puback(again.identifier))
        hub1.wait_queued(device["deviceId"], 0)


def test_acknowledgement_right_before_the_end(hub, hub1, device, control):
    hub1.send(device["deviceId"], b"1")
    with hub.log_in(device) as client:
        client.sub((filter_of(device), 1))
        client.send(puback(client.expect(PUBLISH).identifier))
        client.disconnect()
    hub1.wait_queued(device["deviceId"], 0)


def test_qos_0(hub, hub1, device, control):
    with hub.log_in(device) as client:
        assert client.sub((filter_of(device), 0)) == b"\x00"
        hub1.send(device["deviceId"], b"1")
        got = client.expect(PUBLISH)
        assert (got.payload, got.flags) == (b"1", 0)
        hub1.wait_queued(device["deviceId"], 0)


def test_unsubscribing(hub, hub1, device, control):
    with hub.log_in(device) as client:
        client.sub((filter_of(device), 1))
        client.send(unsubscribe(2, filter_of(device)))
        client.expect(UNSUBACK)
        hub1.send(device["deviceId"], b"1")
        client.ping()
        client.sub((filter_of(device), 1), identifier=3)
        assert client.expect(PUBLISH).payload == b"1"


def test_a_device_that_does_not_acknowledge_gets_no_more_than_sixteen(hub, hub1, device, control):
    for number in range(20):
        hub1.send(device["deviceId"], str(number))
    with hub.log_in(device) as client:
        client.sub((filter_of(device), 1))
        got = [client.expect(PUBLISH) for _ in range(16)]
        client.ping()
        client.send(*(puback(message.identifier) for message in reversed(got)))
        assert [client.expect(PUBLISH).payload for _ in range(4)] == [b"16", b"17", b"18", b"19"]
