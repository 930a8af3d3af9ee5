"""What goes beyond the protocol, switched on while the hub runs: the SDKs work as before, and who asks for more gets it."""

import pytest

from harness import devices
from harness.admin import Admin
from harness.secrets import new_key
from raw.client import Hub, Provisioning, publish

TEXT = "a text that is long enough not to be sent twice"


@pytest.fixture
def ahead(nave):
    """Both settings are on."""
    def reload(text):
        nave.configuration.write_text(text)
        answer = Admin(nave).request("POST", "/admin/reload")
        assert answer.status_code == 200, answer.text

    before = nave.configuration.read_text()
    name = 'name = "hub1"\n'
    assert name in before and before.rstrip().endswith("allow_loopback_webhooks = true")
    reload(before.replace(name, name + "twin_catch_up = true\n") + "answer_at_once = true\n")
    yield
    reload(before)


@pytest.fixture
def enrolled(dps, unique):
    name, key = unique(), new_key()
    attestation = {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": new_key()}}
    dps.put_enrollment(name, attestation)
    return name, key


def test_registration_with_the_sdk(ahead, nave, dps, hubs, enrolled):
    name, key = enrolled
    result = devices.register(devices.provisioning_with_key(
        dps.endpoint.host, dps.endpoint.id_scope, name, key, nave.ca))
    assert result.status == "assigned"
    assert result.registration_state.assigned_hub in hubs
    assert result.registration_state.device_id == name


def test_registration_over_https(ahead, dps, hubs, enrolled):
    name, key = enrolled
    answer = dps.device_request("PUT", name, "/register", key, json={"registrationId": name})
    assert answer.status_code == 200, answer.text
    assert "Retry-After" not in answer.headers and "Location" not in answer.headers
    body = answer.json()
    assert body["status"] == body["registrationState"]["status"] == "assigned" and body["operationId"]
    assert body["registrationState"]["assignedHub"] in hubs


def test_registration_on_the_wire(ahead, dps, enrolled):
    name, key = enrolled
    with Provisioning(dps).log_in(name, key) as client:
        client.sub(("$dps/registrations/res/#", 1))
        client.send(publish("$dps/registrations/PUT/iotdps-register/?$rid=1", b"{}"))
        answer = client.receive()
        assert answer.topic == "$dps/registrations/res/200/?$rid=1"
        assert answer.json()["status"] == "assigned"
        client.disconnect()


def test_twin_with_the_sdk(ahead, hub1, device, connect):
    sdk = connect(device)
    assert sdk.client.get_twin() == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"a": 1}}})
    assert sdk.client.get_twin() == {"desired": {"a": 1, "$version": 2}, "reported": {"$version": 1}}


def test_what_changed_of_a_twin(ahead, hub1, device):
    identifier = device["deviceId"]

    def ask(query):
        with Hub(hub1).log_in(device) as client:
            client.sub(("$iothub/twin/res/#", 0))
            client.send(publish(f"$iothub/twin/GET/?$rid=1{query}"))
            answer = client.receive()
            assert answer.topic == "$iothub/twin/res/200/?$rid=1"
            client.disconnect()
            return answer.json()

    hub1.patch_twin(identifier, {"properties": {"desired": {"a": TEXT, "b": {"c": TEXT, "d": 1}, "e": 1}}})
    first = ask("&$since=0")["desired"]
    assert first["b"] == {"c": TEXT, "d": 1} and "$since" not in first
    hub1.patch_twin(identifier, {"properties": {"desired": {"b": {"d": None}, "f": [1]}}})
    hub1.patch_twin(identifier, {"properties": {"desired": {"e": None}}})
    lineage = first["$lineage"]
    assert ask(f"&$since=2&$lineage={lineage}") == {
        "desired": {"b": {"$unchanged": ["c"]}, "f": [1], "$unchanged": ["a"],
                    "$since": 2, "$version": 4, "$lineage": lineage},
        "reported": {"$version": 1}}
    assert ask("") == {"desired": {"a": TEXT, "b": {"c": TEXT}, "f": [1], "$version": 4}, "reported": {"$version": 1}}
    # A device of the same name counts anew.
    hub1.delete_device(identifier)
    device.update(hub1.create_device(identifier))
    for n in range(3):
        hub1.patch_twin(identifier, {"properties": {"desired": {"n": n}}})
    again = ask(f"&$since=2&$lineage={lineage}")["desired"]
    assert again["n"] == 2 and "$since" not in again and again["$lineage"] != lineage
