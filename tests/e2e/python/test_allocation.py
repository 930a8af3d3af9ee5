"""Which hub a device gets, and how it moves to another."""

import collections

import pytest

from harness import devices, sas
from harness.secrets import new_key

MIGRATE = {"updateHubAssignment": True, "migrateDeviceData": True}
RESET = {"updateHubAssignment": True, "migrateDeviceData": False}
NEVER = {"updateHubAssignment": False, "migrateDeviceData": False}


def symmetric(primary: str, secondary: str) -> dict:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}


@pytest.fixture
def pinned(dps, hub1, hub2, unique):
    """A device that is enrolled for the first hub and registered there; `move` sends it to the second."""

    class Pinned:
        def __init__(self, policy):
            self.name, self.key, self.attestation = unique(), new_key(), None
            self.fields = {"reprovisionPolicy": policy, "allocationPolicy": "static",
                           "initialTwin": {"tags": {"initial": 1}, "properties": {"desired": {"initial": 1}}}}
            self.attestation = symmetric(self.key, new_key())
            self.put(hub1)
            answer = self.register()
            assert answer["registrationState"]["assignedHub"] == hub1.endpoint.host

        def put(self, hub):
            etag = "*" if dps.request("GET", f"/enrollments/{self.name}").status_code == 200 else None
            dps.put_enrollment(self.name, self.attestation, iotHubs=[hub.endpoint.host], if_match=etag, **self.fields)

        def register(self):
            return dps.register(self.name, self.key)

    return Pinned


def test_static_allocation(hub1, hub2, pinned):
    device = pinned(MIGRATE)
    assert hub1.exists(device.name) and not hub2.exists(device.name)


def test_hashed_allocation_uses_both_hubs_and_is_stable(dps, hubs, unique):
    primary = new_key()
    group = unique("-group")
    dps.put_group(group, symmetric(primary, new_key()), allocationPolicy="hashed")
    names = [unique(f"-{n}") for n in range(24)]
    first = {name: dps.register(name, sas.derive(primary, name))["registrationState"]["assignedHub"] for name in names}
    # 24 fair coins on one side: once in eight million.
    assert set(collections.Counter(first.values())) == set(hubs)
    again = {name: dps.register(name, sas.derive(primary, name))["registrationState"]["assignedHub"] for name in names[:6]}
    assert again == {name: first[name] for name in names[:6]}


def test_hubs_of_the_enrollment_are_the_candidates(dps, hub2, unique):
    primary = new_key()
    group = unique("-group")
    dps.put_group(group, symmetric(primary, new_key()), allocationPolicy="hashed", iotHubs=[hub2.endpoint.host])
    for n in range(5):
        name = unique(f"-{n}")
        answer = dps.register(name, sas.derive(primary, name))
        assert answer["registrationState"]["assignedHub"] == hub2.endpoint.host


def test_unknown_hub_in_an_enrollment(dps, unique):
    """Refused when it is written, or a failed registration later."""
    name, key = unique(), new_key()
    body = {"registrationId": name, "attestation": symmetric(key, new_key()), "iotHubs": ["nowhere.nave.test"],
            "allocationPolicy": "static"}
    response = dps.request("PUT", f"/enrollments/{name}", json=body)
    if response.status_code == 200:
        answer = dps.register(name, key)
        assert answer["status"] == "failed"
        assert answer["registrationState"]["errorCode"] // 1000 == 400
    else:
        assert response.status_code == 400, response.text


def test_migration_takes_the_twin_along(nave, hub1, hub2, connect, pinned):
    device = pinned(MIGRATE)
    text = f"HostName={hub1.endpoint.host};DeviceId={device.name};SharedAccessKey={device.key}"
    at_first = connect.adopt(devices.from_connection_string(text, nave.ca, connection_retry=False))
    at_first.client.patch_twin_reported_properties({"reported": [1, {"a": "b"}]})
    hub1.patch_twin(device.name, {"tags": {"later": 2}, "properties": {"desired": {"later": {"x": 1}}}})

    device.put(hub2)
    state = device.register()["registrationState"]
    assert (state["assignedHub"], state["substatus"]) == (hub2.endpoint.host, "deviceDataMigrated")
    assert not hub1.exists(device.name)
    at_first.wait_connected(False)
    twin = hub2.twin(device.name)
    assert twin["tags"] == {"initial": 1, "later": 2}
    desired, reported = twin["properties"]["desired"], twin["properties"]["reported"]
    assert {k: v for k, v in desired.items() if k[0] != "$"} == {"initial": 1, "later": {"x": 1}}
    assert {k: v for k, v in reported.items() if k[0] != "$"} == {"reported": [1, {"a": "b"}]}

    text = f"HostName={hub2.endpoint.host};DeviceId={device.name};SharedAccessKey={device.key}"
    at_second = connect.adopt(devices.from_connection_string(text, nave.ca))
    assert at_second.client.get_twin()["desired"]["later"] == {"x": 1}


def test_reset_starts_again_from_the_initial_twin(hub1, hub2, pinned):
    device = pinned(RESET)
    hub1.patch_twin(device.name, {"tags": {"later": 2}, "properties": {"desired": {"later": 1}}})
    device.put(hub2)
    state = device.register()["registrationState"]
    assert (state["assignedHub"], state["substatus"]) == (hub2.endpoint.host, "deviceDataReset")
    assert not hub1.exists(device.name)
    twin = hub2.twin(device.name)
    assert twin["tags"] == {"initial": 1}
    assert {k: v for k, v in twin["properties"]["desired"].items() if k[0] != "$"} == {"initial": 1}


def test_reset_at_the_same_hub(hub1, pinned):
    device = pinned(RESET)
    hub1.patch_twin(device.name, {"tags": {"later": 2}})
    state = device.register()["registrationState"]
    assert (state["assignedHub"], state["substatus"]) == (hub1.endpoint.host, "deviceDataReset")
    assert hub1.twin(device.name)["tags"] == {"initial": 1}


def test_never_stays(hub1, hub2, pinned):
    device = pinned(NEVER)
    hub1.patch_twin(device.name, {"tags": {"later": 2}})
    device.put(hub2)
    assert device.register()["registrationState"]["assignedHub"] == hub1.endpoint.host
    assert hub1.twin(device.name)["tags"] == {"initial": 1, "later": 2}
    assert not hub2.exists(device.name)


def test_there_and_back_again(hub1, hub2, pinned):
    device = pinned(MIGRATE)
    hub1.patch_twin(device.name, {"tags": {"seen": "hub1"}})
    device.put(hub2)
    device.register()
    hub2.patch_twin(device.name, {"tags": {"seen": "hub2"}})
    device.put(hub1)
    assert device.register()["registrationState"]["assignedHub"] == hub1.endpoint.host
    assert hub1.twin(device.name)["tags"] == {"initial": 1, "seen": "hub2"}
    assert not hub2.exists(device.name)
