"""Device-to-cloud messages: what a device sends is what a back end reads, byte for byte."""

import datetime
import json
import time

import pytest

from harness import sas
from harness.devices import message
from harness.events import Feed, open_stream, read_lines


def test_message_arrives_with_everything_that_the_sdk_can_set(hub1, feed, device, connect):
    body = bytes(range(256)) + "grüße, 世界".encode()
    sent = message(body, message_id="id-1:.+%_#*?!(),=@;$'", correlation_id="corr/1&2=3", user_id="user 1",
                   content_type="application/octet-stream", content_encoding="utf-8")
    sent.custom_properties.update({
        "plain": "value", "two words": "a b", "signs": "&=%/?#+$", "empty": "", "grüße": "世界", "$dollar": "1",
    })
    connect(device).client.send_message(sent)

    (event,) = feed.wait(device["deviceId"])
    assert event.body == body
    assert event.properties == dict(sent.custom_properties)
    expected = {
        "message-id": sent.message_id, "correlation-id": sent.correlation_id, "user-id": sent.user_id,
        "content-type": sent.content_type, "content-encoding": sent.content_encoding,
        "iothub-connection-device-id": device["deviceId"],
        "iothub-connection-auth-generation-id": device["generationId"],
        "iothub-enqueuedtime": event.enqueued_time, "iothub-message-source": "Telemetry",
    }
    assert {name: event.system.get(name) for name in expected} == expected
    method = json.loads(event.system["iothub-connection-auth-method"])
    assert {name: method.get(name) for name in ("scope", "type", "issuer")} == {
        "scope": "device", "type": "sas", "issuer": "iothub"}


def test_json_body_is_untouched(feed, device, connect):
    body = '{ "b" : 1.0e2,\n"a":"\\u00e9" , "a": 2 }'
    connect(device).client.send_message(message(body, content_type="application/json", content_encoding="utf-8"))
    (event,) = feed.wait(device["deviceId"])
    assert event.body == body.encode()
    assert event.system["content-type"] == "application/json"


def test_empty_body(feed, device, connect):
    connect(device).client.send_message(message(b""))
    (event,) = feed.wait(device["deviceId"])
    assert event.body == b""
    assert event.properties == {}


def test_messages_of_a_device_keep_their_order_and_positions(feed, device, connect):
    client = connect(device).client
    for number in range(50):
        client.send_message(str(number))
    events = feed.wait(device["deviceId"], 50)
    assert [event.body for event in events] == [str(number).encode() for number in range(50)]
    assert len({event.partition for event in events}) == 1, "a device has one partition"
    assert len({event.offset for event in events}) == 50
    times = [event.enqueued_time for event in events]
    assert times == sorted(times)


def test_sequence_numbers_of_a_partition_have_no_gap(nave, hub1, feed, device, connect):
    client = connect(device).client
    client.send_message("one")
    client.send_message("two")
    partition = feed.wait(device["deviceId"], 2)[0].partition
    numbers = []
    with open_stream(hub1.endpoint, nave.ca, partition) as response:
        for event in read_lines(response):
            numbers.append(event.sequence_number)
            if event.device_id == device["deviceId"] and event.body == b"two":
                break
    assert numbers == list(range(len(numbers)))


def test_stream_resumes_after_an_offset(nave, hub1, feed, device, connect):
    client = connect(device).client
    for number in range(3):
        client.send_message(str(number))
    first, second, _ = feed.wait(device["deviceId"], 3)
    with open_stream(hub1.endpoint, nave.ca, first.partition, first.offset) as response:
        assert response.status_code == 200, response.text
        following = next(event for event in read_lines(response) if event.device_id == device["deviceId"])
    assert following == second


def test_stream_from_latest_shows_only_what_comes_later(nave, hub1, feed, device, connect):
    client = connect(device).client
    client.send_message("before")
    partition = feed.wait(device["deviceId"])[0].partition
    with open_stream(hub1.endpoint, nave.ca, partition, "latest") as response:
        assert response.status_code == 200
        client.send_message("after")
        seen = next(event for event in read_lines(response) if event.device_id == device["deviceId"])
    assert seen.body == b"after"


def test_stream_from_a_time(nave, hub1, feed, device, connect):
    client = connect(device).client
    client.send_message("before")
    before = feed.wait(device["deviceId"])[0]
    # The clock has to have moved on between the two for the second to lie behind it.
    while (moment := datetime.datetime.now(datetime.timezone.utc)).isoformat()[:23] <= before.enqueued_time[:23]:
        time.sleep(0.001)
    time.sleep(0.002)
    client.send_message("after")
    start = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    with open_stream(hub1.endpoint, nave.ca, before.partition, start) as response:
        assert response.status_code == 200, response.text
        seen = next(event for event in read_lines(response) if event.device_id == device["deviceId"])
    assert seen.body == b"after"


@pytest.mark.parametrize("params, status", [
    ({"partition": "999"}, (400, 404)),
    ({"partition": "first"}, (400,)),
    ({"from": "yesterday"}, (400,)),
    ({"consumerGroup": "not a name"}, (400,)),
])
def test_bad_stream_requests_are_refused(nave, hub1, params, status):
    with open_stream(hub1.endpoint, nave.ca, 0, params=params) as response:
        assert response.status_code in status, response.text
        assert response.headers["iothub-errorcode"]


def test_stream_needs_a_token(nave, hub1):
    host = hub1.endpoint.host
    for token in ("", "nonsense", sas.token(host, hub1.endpoint.key, "nobody"),
                  sas.token(host, hub1.endpoint.key, hub1.endpoint.policy, lifetime=-3600)):
        with open_stream(hub1.endpoint, nave.ca, 0, token=token) as response:
            assert response.status_code == 401, (token, response.text)


def test_messages_survive_a_restart(nave, hub1, feed, device, connect):
    client = connect(device).client
    for number in range(5):
        client.send_message(str(number))
    before = feed.wait(device["deviceId"], 5)
    nave.restart()
    partition = before[0].partition
    again = []
    with open_stream(hub1.endpoint, nave.ca, partition) as response:
        for event in read_lines(response):
            if event.device_id == device["deviceId"]:
                again.append(event)
                if len(again) == 5:
                    break
    assert again == before


def test_hub_two_keeps_its_messages_to_itself(nave, hub1, hub2, feed, unique, connect):
    name = unique()
    of_one, of_two = hub1.create_device(name), hub2.create_device(name)
    connect(of_two, hub2).client.send_message("for hub2")
    connect(of_one, hub1).client.send_message("for hub1")
    second_feed = Feed(hub2.endpoint, nave.ca)
    try:
        # The second hub routes events about its devices as well: that it was created, that it is there.
        messages = [event for event in second_feed.wait(name, 3) if "opType" not in event.properties]
        assert [event.body for event in messages] == [b"for hub2"]
        assert [event.body for event in feed.wait(name)] == [b"for hub1"]
    finally:
        second_feed.close()
