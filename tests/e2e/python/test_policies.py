"""Custom allocation: policies that are deployed to the running hub, and web hooks, as devices with the SDK meet them."""

import base64
import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from azure.iot.device.exceptions import ClientError

from harness import devices, sas
from harness.secrets import new_key, remember
from harness.server import REPOSITORY

COMPONENTS = REPOSITORY / Path(os.environ.get("NAVE_COMPONENTS") or "target/components") / "fixtures"


def symmetric(primary: str) -> dict:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": primary, "secondaryKey": new_key()}}


def custom(url: str, **fields) -> dict:
    return {"allocationPolicy": "custom",
            "customAllocationDefinition": {"webhookUrl": url, "apiVersion": "2021-10-01", **fields}}


@pytest.fixture
def policy(dps, unique):
    """A policy of the hub: pushed and activated by REST, deleted after the test."""

    class Policy:
        def __init__(self):
            self.name = unique().lower()
            self.path = f"/allocationPolicies/{self.name}"

        def push(self, fixture: str, version: str) -> dict:
            component = (COMPONENTS / f"{fixture}.wasm").read_bytes()
            digest = base64.b64encode(hashlib.sha256(component).digest()).decode()
            headers = {"Content-Type": "application/wasm", "Content-Digest": f"sha-256=:{digest}:"}
            return dps.ok("PUT", f"{self.path}/versions/{version}", data=component, headers=headers).json()

        def activate(self, version: str, **fields) -> dict:
            return dps.ok("POST", f"{self.path}/activate", json={"version": version, **fields}).json()

        def deploy(self, fixture: str, version: str = "1") -> None:
            self.push(fixture, version)
            self.activate(version)

        def statistics(self, version: str) -> dict:
            shown = dps.ok("GET", self.path).json()
            return next(known["statistics"] for known in shown["versions"] if known["version"] == version)

    made = Policy()
    yield made
    dps.request("DELETE", made.path + "?force=true")


@pytest.fixture
def register(nave, dps):
    """Registers with the SDK."""
    def by_key(registration_id, key, payload=None):
        client = devices.provisioning_with_key(
            dps.endpoint.host, dps.endpoint.id_scope, registration_id, key, nave.ca)
        client.provisioning_payload = payload
        return devices.register(client)
    return by_key


def test_a_policy_places_a_device(dps, hub1, unique, policy, register):
    policy.deploy("hostile-policy")
    name, key = unique(), new_key()
    enrollment = dps.put_enrollment(name, symmetric(key), **custom(
        f"nave:policy/{policy.name}", configuration={"region": "north"}))
    assert enrollment["customAllocationDefinition"]["webhookUrl"] == f"nave:policy/{policy.name}"
    result = register(name, key, {"site": 7})
    assert (result.status, result.registration_state.assigned_hub) == ("assigned", hub1.endpoint.host)
    told = result.registration_state.response_payload
    told = json.loads(told) if isinstance(told, str) else told
    assert (told["payload"], told["config"]) == ({"site": 7}, {"region": "north"})
    assert told["enrollment"]["individualEnrollment"]["registrationId"] == name
    assert told["facts"]["symmetric-key"] == {"kind": "individual"}
    assert hub1.exists(name)


def test_a_policy_that_fails_is_an_error_of_the_registration(dps, unique, policy, register):
    policy.deploy("hostile-policy")
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key), **custom(f"nave:policy/{policy.name}"))
    for order in ("loop", "panic", "unknown-hub"):
        with pytest.raises(ClientError):
            register(name, key, order)
        state = dps.registration(name)
        assert (state["status"], state["errorCode"]) == ("failed", 400207), state
    assert policy.statistics("1")["errors"] == {"deadline": 1, "trap": 1, "unusable": 1}
    assert register(name, key).status == "assigned"


def test_versions_are_swapped_while_devices_register(dps, unique, policy, register):
    policy.deploy("hostile-policy", "1")
    policy.push("released-0-1-0", "2")
    group, key = unique("-group"), new_key()
    dps.put_group(group, symmetric(key), **custom(f"nave:policy/{policy.name}"))
    names = [unique(f"-{n}") for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(register, name, sas.derive(key, name)) for name in names]
        for version in ("2", "1", "2"):
            policy.activate(version)
        assert {result.result().status for result in results} == {"assigned"}
    decided = [policy.statistics(version) for version in ("1", "2")]
    assert sum(counts["assigned"] for counts in decided) == len(names)
    assert sum(counts["failed"] for counts in decided) == 0


@pytest.fixture
def web_hook():
    """A function app on this machine: what it was asked, and what it answers."""

    class Hook:
        def __init__(self):
            self.asked, self.answer, self.connections = [], (200, {}), set()

    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.asked.append((self.path, self.headers["Content-Type"], json.loads(body)))
            hook.connections.add(self.client_address)
            status, document = hook.answer
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The suites search the log for secrets: this one must not be there.
    hook.url = f"http://127.0.0.1:{server.server_port}/api/allocate?code={remember(new_key().replace('/', '_').replace('+', '-'))}"
    yield hook
    server.shutdown()


def test_a_web_hook_places_a_device(dps, hub2, unique, register, web_hook):
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key), initialTwin={"tags": {"a": 1}}, **custom(web_hook.url))
    web_hook.answer = (200, {"iotHubHostName": hub2.endpoint.host, "initialTwin": {"tags": {"b": 2}},
                             "payload": {"welcome": True}})
    result = register(name, key, {"site": 7})
    assert (result.status, result.registration_state.assigned_hub) == ("assigned", hub2.endpoint.host)
    path, kind, document = web_hook.asked[0]
    assert path.startswith("/api/allocate?code=") and kind.startswith("application/json")
    assert document["deviceRuntimeContext"] == {"registrationId": name, "symmetricKey": {}, "payload": {"site": 7}}
    assert document["individualEnrollment"]["attestation"] == {"type": "symmetricKey"}
    assert hub2.endpoint.host in document["linkedHubs"]
    assert hub2.twin(name)["tags"] == {"b": 2}
    register(name, key)
    context = web_hook.asked[1][2]["deviceRuntimeContext"]
    assert (context["currentIotHubHostName"], context["currentDeviceId"]) == (hub2.endpoint.host, name)
    assert len(web_hook.connections) == 1, "the connection is kept"


def test_a_web_hook_that_refuses(dps, unique, register, web_hook):
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key), **custom(web_hook.url))
    for status, code in ((400, 400207), (403, 400209), (200, 400208)):
        web_hook.answer = (status, {})
        with pytest.raises(ClientError):
            register(name, key)
        assert dps.registration(name)["errorCode"] == code
