"""The official device clients, with what they receive put into queues."""

import os
import queue
import socket
import threading
import time

from azure.iot.device import (IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse,
                              ProvisioningDeviceClient, X509)

from harness.pki import Certificate

SECONDS = 30
RETRY_SECONDS = 1
"""Between attempts to reconnect: the SDK's default of ten makes restart tests slow."""


class Device:
    """A connected device. What the hub sends is in `methods` and `patches`; `answer` decides what methods answer."""

    def __init__(self, client: IoTHubDeviceClient, methods: bool = False, patches: bool = False):
        self.client = client
        self.methods: queue.Queue = queue.Queue()
        self.patches: queue.Queue = queue.Queue()
        self.failures: queue.Queue = queue.Queue()
        self.answer = lambda request: (200, {"echo": request.payload})
        self._state = threading.Condition()
        client.on_connection_state_change = self._state_changed
        client.on_background_exception = self.failures.put
        client.connect()
        if methods:
            client.on_method_request_received = self._method
        if patches:
            client.on_twin_desired_properties_patch_received = self.patches.put

    def _state_changed(self) -> None:
        with self._state:
            self._state.notify_all()

    def _method(self, request) -> None:
        self.methods.put(request)
        answer = self.answer(request)
        if answer is not None:
            status, payload = answer
            self.client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    def wait_connected(self, connected: bool, seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        with self._state:
            while self.client.connected != connected:
                left = deadline - time.monotonic()
                assert left > 0, f"the client is {'dis' if connected else ''}connected after {seconds} s"
                # The SDK tells before it has changed its own mind: look again soon.
                self._state.wait(min(left, 0.1))

    def next_patch(self, seconds: float = SECONDS) -> dict:
        return self.patches.get(timeout=seconds)

    def wait_patch(self, wanted, seconds: float = SECONDS) -> dict:
        """The first patch that `wanted` says yes to; after a reconnection the SDK also passes on the whole section."""
        deadline = time.monotonic() + seconds
        while not wanted(patch := self.patches.get(timeout=max(0.001, deadline - time.monotonic()))):
            pass
        return patch

    def next_method(self, seconds: float = SECONDS):
        return self.methods.get(timeout=seconds)

    def close(self) -> None:
        self.client.shutdown()


def from_connection_string(text: str, ca: str, **options) -> IoTHubDeviceClient:
    options.setdefault("connection_retry_interval", RETRY_SECONDS)
    return IoTHubDeviceClient.create_from_connection_string(text, server_verification_cert=_read(ca), **options)


def module_from_connection_string(text: str, ca: str, **options) -> IoTHubModuleClient:
    options.setdefault("connection_retry_interval", RETRY_SECONDS)
    return IoTHubModuleClient.create_from_connection_string(text, server_verification_cert=_read(ca), **options)


def module_from_certificate(host: str, device_id: str, module_id: str, certificate: Certificate, ca: str,
                            **options) -> IoTHubModuleClient:
    options.setdefault("connection_retry_interval", RETRY_SECONDS)
    certificate_file, key_file = certificate.files()
    return IoTHubModuleClient.create_from_x509_certificate(
        X509(certificate_file, key_file), host, device_id, module_id, server_verification_cert=_read(ca), **options)


def from_certificate(host: str, device_id: str, certificate: Certificate, ca: str, **options) -> IoTHubDeviceClient:
    options.setdefault("connection_retry_interval", RETRY_SECONDS)
    certificate_file, key_file = certificate.files()
    return IoTHubDeviceClient.create_from_x509_certificate(
        X509(certificate_file, key_file), host, device_id, server_verification_cert=_read(ca), **options)


def provisioning_with_key(host: str, scope: str, registration_id: str, key: str, ca: str,
                          **options) -> ProvisioningDeviceClient:
    return ProvisioningDeviceClient.create_from_symmetric_key(
        host, registration_id, scope, key, server_verification_cert=_read(ca), **options)


def provisioning_with_certificate(host: str, scope: str, registration_id: str, certificate: Certificate, ca: str,
                                  chain: bool = True, **options) -> ProvisioningDeviceClient:
    certificate_file, key_file = certificate.files(chain)
    return ProvisioningDeviceClient.create_from_x509_certificate(
        host, registration_id, scope, X509(certificate_file, key_file), server_verification_cert=_read(ca), **options)


def register(client: ProvisioningDeviceClient):
    """Registers and leaves nothing running; the SDK shuts down by itself only after an assignment."""
    try:
        return client.register()
    except Exception:
        client._pipeline.shutdown(callback=lambda **_: None)
        raise


def message(body, **fields) -> Message:
    made = Message(body)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def connections_to(port: int) -> set[int]:
    """This process's sockets that are connected to `port`, as their local ports."""
    return {local for _, local in _sockets(port)}


def cut_connections(port: int, keep: set[int] = frozenset()) -> int:
    """Ends this process's TCP connections to `port` as a lost network does, without telling the SDK; how many."""
    count = 0
    for fd, local in _sockets(port):
        if local in keep:
            continue
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
        count += 1
    return count


def _sockets(port: int) -> list[tuple[int, int]]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as duplicate:
                if duplicate.family in (socket.AF_INET, socket.AF_INET6) and duplicate.getpeername()[1] == port:
                    found.append((int(name), duplicate.getsockname()[1]))
        except OSError:
            continue
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
