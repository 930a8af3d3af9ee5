"""A bare MQTT 3.1.1 client: it sends what it is told to, and hides nothing of what comes back."""

import json
import os
import socket
import ssl
import struct
from dataclasses import dataclass

from harness import sas

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 8, 9, 10, 11, 12, 13, 14

SECONDS = 20
HUB_VERSION = "2021-04-12"
DPS_VERSION = "2019-03-31"


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    length, header = len(body), bytearray([kind << 4 | flags])
    while True:
        length, digit = divmod(length, 128)
        header.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(header) + body


def connect(client_id: str, username: str | None, password: str | None, *, clean=False, keep_alive=60,
            will: tuple[str, bytes, int, bool] | None = None, level=4, name="MQTT") -> bytes:
    flags = 0x02 if clean else 0
    payload = text(client_id)
    if will:
        topic, body, qos, retain = will
        flags |= 0x04 | qos << 3 | (0x20 if retain else 0)
        payload += text(topic) + text(body)
    if username is not None:
        flags |= 0x80
        payload += text(username)
    if password is not None:
        flags |= 0x40
        payload += text(password)
    return packet(CONNECT, text(name) + bytes([level, flags]) + struct.pack(">H", keep_alive) + payload)


def publish(topic: str | bytes, body: bytes = b"", qos=0, identifier: int | None = None, retain=False, dup=False) -> bytes:
    middle = struct.pack(">H", identifier) if qos else b""
    return packet(PUBLISH, text(topic) + middle + body, (8 if dup else 0) | qos << 1 | int(retain))


def subscribe(identifier: int, *filters: tuple[str, int]) -> bytes:
    body = struct.pack(">H", identifier) + b"".join(text(name) + bytes([qos]) for name, qos in filters)
    return packet(SUBSCRIBE, body, 2)


def unsubscribe(identifier: int, *filters: str) -> bytes:
    return packet(UNSUBSCRIBE, struct.pack(">H", identifier) + b"".join(map(text, filters)), 2)


def puback(identifier: int) -> bytes:
    return packet(PUBACK, struct.pack(">H", identifier))


@dataclass(frozen=True)
class Packet:
    """A packet that came in; the members that its kind does not have are empty."""

    kind: int
    flags: int
    body: bytes
    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    identifier: int = 0

    def json(self):
        return json.loads(self.payload)

    def query(self) -> list[tuple[str, str]]:
        """What follows the question mark of the topic, in order and not decoded."""
        return [tuple(pair.split("=", 1)) for pair in self.topic.split("?", 1)[1].split("&")]


class Closed(Exception):
    """The server ended the connection."""


class Client:
    """A TLS connection that speaks packets."""

    def __init__(self, host: str, ca: str, *, port=8883, certificate: tuple[str, str] | None = None, tls=None,
                 sni: bool = True):
        context = ssl.create_default_context(cafile=ca)
        if tls is not None:
            context.minimum_version = context.maximum_version = tls
        if certificate:
            context.load_cert_chain(*certificate)
        if not sni:
            context.check_hostname = False
        self.socket = context.wrap_socket(
            socket.create_connection((host, port), SECONDS), server_hostname=host if sni else None)
        self.socket.settimeout(SECONDS)
        self._buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *packets: bytes) -> None:
        self.socket.sendall(b"".join(packets))

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                chunk = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError) as error:
                if isinstance(error, TimeoutError):
                    raise
                raise Closed(str(error)) from error
            if not chunk:
                raise Closed("end of stream")
            self._buffer += chunk
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def receive(self) -> Packet:
        """The next packet. Raises `Closed` at the end, `TimeoutError` if nothing comes."""
        first = self._take(1)[0]
        length = shift = 0
        while True:
            digit = self._take(1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                break
        kind, flags, body = first >> 4, first & 15, self._take(length)
        if kind == PUBLISH:
            size = struct.unpack(">H", body[:2])[0]
            topic, rest, qos = body[2:2 + size].decode(), body[2 + size:], flags >> 1 & 3
            identifier = struct.unpack(">H", rest[:2])[0] if qos else 0
            return Packet(kind, flags, body, topic, rest[2:] if qos else rest, qos, identifier)
        identifier = struct.unpack(">H", body[:2])[0] if kind in (PUBACK, SUBACK, UNSUBACK) else 0
        return Packet(kind, flags, body, identifier=identifier)

    def expect(self, kind: int) -> Packet:
        got = self.receive()
        assert got.kind == kind, f"{got} instead of a packet of kind {kind}"
        return got

    def expect_closed(self) -> list[Packet]:
        """Reads until the server closes; what came before that."""
        packets = []
        while True:
            try:
                packets.append(self.receive())
            except Closed:
                return packets

    def log_in(self, packet_: bytes) -> bool:
        """Sends a CONNECT and wants it accepted; whether a session was present."""
        self.send(packet_)
        answer = self.expect(CONNACK)
        assert answer.body[1] == 0, f"refused with {answer.body[1]}"
        return answer.body[0] == 1

    def ping(self) -> None:
        """The connection works: everything that was sent before has been handled."""
        self.send(packet(PINGREQ))
        self.expect(PINGRESP)

    def sub(self, *filters: tuple[str, int], identifier: int = 1) -> bytes:
        """Subscribes; the return codes."""
        self.send(subscribe(identifier, *filters))
        answer = self.expect(SUBACK)
        assert answer.identifier == identifier
        return answer.body[2:]

    def disconnect(self) -> None:
        self.send(packet(DISCONNECT))
        self.socket.close()


class Hub:
    """How devices and modules log in at a hub."""

    def __init__(self, rest):
        self.host, self.ca, self.rest = rest.endpoint.host, rest.ca, rest

    def connect_packet(self, device: dict, *, key="primaryKey", token: str | None = None, username: str | None = None,
                       client_id: str | None = None, password: bool = True, **fields) -> bytes:
        module = device.get("moduleId")
        name = device["deviceId"] if module is None else f"{device['deviceId']}/{module}"
        if token is None and password:
            resource = f"{self.host}/devices/{name.replace('/', '/modules/')}"
            token = sas.token(resource, device["authentication"]["symmetricKey"][key])
        if username is None:
            username = f"{self.host}/{name}/?api-version={HUB_VERSION}&DeviceClientType=raw"
        return connect(name if client_id is None else client_id, username, token if password else None, **fields)

    def open(self, **options) -> Client:
        return Client(self.host, self.ca, **options)

    def log_in(self, device: dict, **fields) -> Client:
        options = {name: fields.pop(name) for name in ("certificate", "tls", "sni") if name in fields}
        client = self.open(**options)
        client.session_present = client.log_in(self.connect_packet(device, **fields))
        return client


class Provisioning:
    """How to log in at the provisioning service."""

    def __init__(self, rest):
        self.host, self.ca, self.scope = rest.endpoint.host, rest.ca, rest.endpoint.id_scope

    def username(self, registration_id: str, agent: str | None = "raw") -> str:
        tail = "" if agent is None else f"&ClientVersion={agent}"
        return f"{self.scope}/registrations/{registration_id}/api-version={DPS_VERSION}{tail}"

    def log_in(self, registration_id: str, key: str | None, *, policy="registration", encode=True, agent="raw",
               clean=True, keep_alive=60, certificate=None) -> Client:
        token = None
        if key is not None:
            token = sas.token(f"{self.scope}/registrations/{registration_id}", key, policy, encode=encode)
        client = Client(self.host, self.ca, certificate=certificate)
        client.session_present = client.log_in(connect(
            registration_id, self.username(registration_id, agent), token, clean=clean, keep_alive=keep_alive))
        return client


def events(device: dict, bag: str = "") -> str:
    module = f"/modules/{device['moduleId']}" if "moduleId" in device else ""
    return f"devices/{device['deviceId']}{module}/messages/events/{bag}"


def random_bytes(count: int) -> bytes:
    return os.urandom(count)
