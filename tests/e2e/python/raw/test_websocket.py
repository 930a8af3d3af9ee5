"""MQTT over WebSocket as no SDK sends it: odd openings, odd frames, and what must not be done."""

import base64
import hashlib
import os
import struct

import pytest

from raw.client import (CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, Client, Closed, events, packet, publish)

BINARY, TEXT, CLOSE, PING, PONG = 2, 1, 8, 9, 10
PATH = "/$iothub/websocket"


def frame(opcode: int, payload: bytes = b"", *, final=True, masked=True, reserved=0) -> bytes:
    head = bytes([(0x80 if final else 0) | reserved | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class WebSocket(Client):
    """A raw client whose packets travel in frames; `raw` sends bytes as they are."""

    def __init__(self, hub, *, path=PATH, headers: dict | None = None, **options):
        super().__init__(hub.host, hub.ca, port=443, **options)
        self.key = base64.b64encode(os.urandom(16)).decode()
        fields = {"Host": hub.host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": self.key,
                  "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "mqtt", **(headers or {})}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
        self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += super()._take(1)
        status, *rest = head.decode().split("\r\n")
        self.status = status
        self.answer = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        self.control: list[tuple[int, bytes]] = []
        self._data = b""

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send(self, *packets: bytes) -> None:
        self.raw(frame(BINARY, b"".join(packets)))

    def read_frame(self) -> tuple[int, bytes]:
        first, second = super()._take(2)
        assert first & 0x70 == 0 and first & 0x80 and second & 0x80 == 0, (first, second)
        length = second
        if length == 126:
            length = struct.unpack(">H", super()._take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", super()._take(8))[0]
        return first & 15, super()._take(length)

    def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            opcode, payload = self.read_frame()
            if opcode == BINARY:
                self._data += payload
            else:
                self.control.append((opcode, payload))
                if opcode == CLOSE:
                    raise Closed("close frame")
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def expect_close(self) -> int:
        """Reads to the close frame and the end behind it; the code."""
        assert self.expect_closed() == []
        (code,) = struct.unpack(">H", self.control[-1][1][:2])
        with pytest.raises(Closed):
            self.read_frame()
        return code


@pytest.fixture
def ws(hub, device, control):
    client = WebSocket(hub)
    assert client.status.startswith("HTTP/1.1 101 "), client.status
    client.log_in(hub.connect_packet(device))
    with client:
        yield client


@pytest.mark.parametrize("path, headers", [
    (PATH, {}),
    (PATH + "?iothub-no-client-cert=true", {}),
    ("https://localhost/$iothub/websocket?iothub-no-client-cert=true", {"Connection": "Upgrade,Keep-Alive"}),
    ("/%24iothub/websocket", {}),
    ("/mqtt", {"Host": "localhost:443"}),
    (PATH, {"Sec-WebSocket-Protocol": "MQTT"}),
    (PATH, {"Sec-WebSocket-Protocol": "chat, mqtt", "Sec-WebSocket-Extensions": "permessage-deflate"}),
    (PATH, {"Origin": "https://somewhere.example", "Upgrade": "WebSocket"}),
], ids=["usual", "query", "java", "encoded", "java-dps", "capitals", "choice", "browser"])
def test_forms_of_the_opening(hub, device, control, path, headers):
    with WebSocket(hub, path=path, headers=headers) as client:
        assert client.status == "HTTP/1.1 101 Switching Protocols"
        digest = hashlib.sha1((client.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert client.answer["sec-websocket-accept"] == base64.b64encode(digest).decode()
        wanted = headers.get("Sec-WebSocket-Protocol", "mqtt")
        assert client.answer["sec-websocket-protocol"] == wanted.split(", ")[-1]
        assert "sec-websocket-extensions" not in client.answer
        client.log_in(hub.connect_packet(device))
        client.ping()


@pytest.mark.parametrize("path, headers, status", [
    (PATH, {"Upgrade": None}, 426),
    (PATH, {"Connection": "keep-alive"}, 400),
    (PATH, {"Sec-WebSocket-Version": "12"}, 426),
    (PATH, {"Sec-WebSocket-Key": "short"}, 400),
    (PATH, {"Sec-WebSocket-Key": None}, 400),
    (PATH, {"Sec-WebSocket-Protocol": None}, 400),
    (PATH, {"Sec-WebSocket-Protocol": "AMQPWSB10"}, 400),
    (PATH, {"Content-Length": "3"}, 400),
    ("/$iothub/elsewhere", {}, 404),
    ("/devices/any?api-version=2021-04-12", {}, 401),
])
def test_openings_that_are_refused(hub, control, path, headers, status):
    with WebSocket(hub, path=path, headers=headers) as client:
        assert client.status.startswith(f"HTTP/1.1 {status} "), client.status


def test_packets_and_frames_have_nothing_to_do_with_each_other(hub, device, control):
    login = hub.connect_packet(device)
    stream = login + publish(events(device), b"x" * 1000, 1, 1) + publish(events(device), b"y", 1, 2) + packet(PINGREQ)
    with WebSocket(hub) as client:
        client.raw(b"".join(frame(BINARY, stream[index:index + 1]) for index in range(0, 40)))
        client.raw(frame(BINARY, stream[40:600], final=False) + frame(0, stream[600:601], final=False)
                   + frame(PING, b"between") + frame(0, b"", final=False) + frame(0, stream[601:]))
        assert client.expect(CONNACK).body[1] == 0
        # A ping of MQTT is answered at once; an acknowledgement comes when the message is on the disk.
        got = sorted((answer.kind, answer.identifier) for answer in (client.receive() for _ in range(3)))
        assert got == [(PUBACK, 1), (PUBACK, 2), (PINGRESP, 0)]
        assert client.control == [(PONG, b"between")]


def test_certificate_of_a_client(hub, hub1, control, unique):
    from harness import pki
    certificate = pki.self_signed(unique())
    created = hub1.create_device(certificate.common_name, authentication={
        "type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": certificate.thumbprint()}})
    with WebSocket(hub, certificate=certificate.files()) as client:
        client.log_in(hub.connect_packet(created, password=False))
        client.ping()
    other = pki.self_signed(certificate.common_name)
    with WebSocket(hub, certificate=other.files()) as client:
        client.send(hub.connect_packet(created, password=False))
        assert client.expect(CONNACK).body[1] == 5
        assert client.expect_close() == 1008


@pytest.mark.parametrize("data, code", [
    (frame(BINARY, packet(PINGREQ), masked=False), 1002),
    (frame(TEXT, packet(PINGREQ)), 1003),
    (frame(0, packet(PINGREQ)), 1002),
    (frame(BINARY, b"", final=False) + frame(BINARY, packet(PINGREQ)), 1002),
    (frame(BINARY, packet(PINGREQ), reserved=0x40), 1002),
    (frame(3, b""), 1002),
    (frame(PING, b"x" * 126), 1002),
    (frame(PING, b"x", final=False), 1002),
    (bytes([0x82, 0xFF]) + struct.pack(">Q", 1 << 62) + b"mask", 1009),
    (bytes([0x82, 0xFF]) + b"\xff" * 8 + b"mask", 1002),
    (frame(BINARY, b"", final=False) + frame(0, b"", final=False) * 5000, 1008),
], ids=["unmasked", "text", "continuation", "nested", "reserved", "opcode", "long-ping", "ping-in-pieces", "huge",
        "negative", "endless-fragments"])
def test_broken_frames_end_the_connection(ws, data, code):
    ws.raw(data)
    assert ws.expect_close() == code


def test_broken_mqtt_inside_good_frames(ws):
    ws.send(b"\xff\xff\xff\xff\xff\xff")
    assert ws.expect_close() == 1002


def test_goodbye_of_mqtt_closes_in_order(ws, device):
    ws.send(publish(events(device), b"last", 1, 9), packet(DISCONNECT))
    assert ws.expect(PUBACK).identifier == 9
    assert ws.expect_close() == 1000


def test_goodbye_of_websocket_is_answered(ws):
    ws.raw(frame(CLOSE, struct.pack(">H", 1001) + b"going"))
    assert ws.expect_close() == 1000


def test_a_will_is_sent_when_the_websocket_closes_without_disconnect(hub, feed, device, control):
    will = (events(device), b"gone", 1, False)
    with WebSocket(hub) as client:
        client.log_in(hub.connect_packet(device, will=will))
        client.raw(frame(CLOSE))
        assert client.expect_close() == 1000
    (event,) = feed.wait(device["deviceId"])
    assert event.body == b"gone"
    assert event.properties["iothub-MessageType"] == "Will"
