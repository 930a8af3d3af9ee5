"""Cloud-to-device messages: sent by REST, received by the official device client over MQTT."""

import datetime
import queue

from harness.devices import connections_to, cut_connections


def listening(sdk) -> queue.Queue:
    messages: queue.Queue = queue.Queue()
    sdk.client.on_message_received = messages.put
    return messages


def test_message_arrives_with_everything_that_was_said(hub1, device, connect):
    messages = listening(connect(device))
    expiry = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = bytes(range(256))
    hub1.send(device["deviceId"], body, messageid="m-1", correlationid="c-1", userid="u-1", contenttype="text/plain",
              contentencoding="utf-8", ack="full", expiry=expiry, app_colour="blue & red")
    got = messages.get(timeout=30)
    assert got.data == body
    assert (got.message_id, got.correlation_id, got.user_id) == ("m-1", "c-1", "u-1")
    assert (got.content_type, got.content_encoding, got.ack) == ("text/plain", "utf-8", "full")
    assert got.expiry_time_utc == expiry.replace("Z", ".0000000Z")
    assert got.custom_properties == {"colour": "blue & red"}
    # The SDK's library acknowledges by itself.
    hub1.wait_queued(device["deviceId"], 0)
    outcome = [record for record in hub1.feedback() if record["deviceId"] == device["deviceId"]]
    assert [(record["originalMessageId"], record["statusCode"]) for record in outcome] == [("m-1", "Success")]
    assert outcome[0]["deviceGenerationId"] == device["generationId"]


def test_messages_wait_for_the_device(hub1, device, connect):
    for number in range(50):
        hub1.send(device["deviceId"], str(number))
    full = hub1.request("POST", f"/devices/{device['deviceId']}/messages/deviceBound", data=b"one more")
    assert (full.status_code, full.headers["iothub-errorcode"]) == (403, "DeviceMaximumQueueDepthExceeded")
    messages = listening(connect(device))
    assert [messages.get(timeout=30).data for _ in range(50)] == [str(number).encode() for number in range(50)]
    hub1.wait_queued(device["deviceId"], 0)


def test_reconnection_and_restart(nave, hub1, device, connect):
    others = connections_to(8883)
    sdk = connect(device)
    messages = listening(sdk)
    hub1.send(device["deviceId"], "1")
    assert messages.get(timeout=30).data == b"1"
    assert cut_connections(8883, keep=others) == 1
    sdk.wait_connected(False)
    hub1.send(device["deviceId"], "2")
    assert messages.get(timeout=30).data == b"2"
    sdk.client.disconnect()
    hub1.wait_for(device["deviceId"], "Disconnected")
    hub1.send(device["deviceId"], "3")
    nave.kill()
    nave.start()
    assert hub1.queued(device["deviceId"]) == 1, "what was accepted is on disk"
    sdk.client.connect()
    assert messages.get(timeout=30).data == b"3"


def test_purge(hub1, device):
    for _ in range(3):
        hub1.send(device["deviceId"], "x", ack="negative")
    purged = hub1.ok("DELETE", f"/devices/{device['deviceId']}/commands").json()
    assert purged == {"totalMessagesPurged": 3, "deviceId": device["deviceId"], "moduleId": None}
    mine = [record["statusCode"] for record in hub1.feedback() if record["deviceId"] == device["deviceId"]]
    assert mine == ["Purged"] * 3


def test_command_line(nave, hub1, device, connect):
    messages = listening(connect(device))

    def run(*words: str) -> str:
        return nave.run(*words, "--data-dir", str(nave.data_dir)).stdout

    run("send", device["deviceId"], "open the window", "--property", "room=kitchen", "--ack", "full",
        "--message-id", "cli-1", "--expires-in", "60", "--content-type", "text/plain")
    got = messages.get(timeout=30)
    assert (got.data, got.message_id, got.content_type) == (b"open the window", "cli-1", "text/plain")
    assert got.custom_properties == {"room": "kitchen"}
    hub1.wait_queued(device["deviceId"], 0)
    assert "cli-1" in run("feedback", "--keep")
    assert "Success" in run("feedback")
