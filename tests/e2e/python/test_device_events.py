"""What a hub tells of its devices: life cycle, twins, connections, through what the SDKs do to them."""

import json
import re

import pytest
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import Twin, TwinProperties

from harness import devices
from harness.secrets import new_key


@pytest.fixture(scope="module")
def registry2(nave, hub2):
    return IoTHubRegistryManager.from_connection_string(hub2.endpoint.service_connection_string())


def told(feed2, name, count):
    """Operation, module and body of each."""
    events = feed2.wait(name, count)
    assert len(events) == count, [event.properties for event in events]
    for event in events:
        assert event.system["iothub-connection-device-id"] == event.properties["deviceId"] == name
        assert event.system.get("iothub-connection-module-id") == event.properties.get("moduleId") == event.module_id
        assert event.properties["hubName"] == event.system["user-id"] == "hub2"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}\+00:00", event.properties["operationTimestamp"])
        assert (event.system["content-type"], event.system["content-encoding"]) == ("application/json", "utf-8")
        assert "iothub-connection-auth-method" not in event.system
    return [(event.properties["opType"], event.module_id, json.loads(event.body)) for event in events]


def test_life_of_a_device_with_a_module(feed2, registry2, unique):
    name = unique()
    registry2.create_device_with_sas(name, new_key(), new_key(), "enabled")
    registry2.create_module_with_sas(name, "m", "", new_key(), new_key())
    registry2.update_module_twin(name, "m", Twin(tags={"a": 1}, properties=TwinProperties(desired={"x": 1})), "*")
    registry2.delete_device(name)
    created, module, patched, module_gone, gone = told(feed2, name, 5)
    assert [created[:2], module[:2]] == [("createDeviceIdentity", None), ("createDeviceIdentity", "m")]
    assert (created[2]["deviceId"], created[2]["version"], created[2]["etag"]) == (name, 2, "AAAAAAAAAAE=")
    assert patched[:2] == ("updateTwin", "m")
    assert (patched[2]["tags"], patched[2]["properties"]["desired"]["$version"]) == ({"a": 1}, 2)
    assert [module_gone[:2], gone[:2]] == [("deleteDeviceIdentity", "m"), ("deleteDeviceIdentity", None)]
    assert module_gone[2]["properties"]["desired"]["x"] == 1
    sources = [event.system["iothub-message-source"] for event in feed2.of(name)]
    assert sources == ["deviceLifecycleEvents"] * 2 + ["twinChangeEvents"] + ["deviceLifecycleEvents"] * 2


def test_connections(nave, hub2, feed2, connect, unique):
    name = unique()
    device, module = hub2.create_device(name), hub2.create_module(name, "m")
    sdk = connect(device, hub=hub2)
    client = devices.module_from_connection_string(hub2.module_connection_string(module), nave.ca)
    connect.adopt(client).client.disconnect()
    # Whoever deletes the module at once is not told that its connection ended.
    feed2.wait(name, 5)
    hub2.delete_module(name, "m")
    sdk.client.patch_twin_reported_properties({"r": 1})
    sdk.client.disconnect()
    events = told(feed2, name, 8)
    of_device = [(operation, body) for operation, who, body in events if who is None]
    assert [operation for operation, _ in of_device] == [
        "createDeviceIdentity", "deviceConnected", "updateTwin", "deviceDisconnected"]
    of_module = [operation for operation, who, _ in events if who == "m"]
    assert of_module == ["createDeviceIdentity", "deviceConnected", "deviceDisconnected", "deleteDeviceIdentity"]
    first, second = (of_device[at][1]["sequenceNumber"] for at in (1, 3))
    assert re.fullmatch("[0-9A-F]{64}", first) and first < second


def test_a_killed_hub_tells_afterwards_who_is_gone(nave, hub2, feed2, connect, unique):
    device = hub2.create_device(unique())
    connect(device, hub=hub2, connection_retry=False, auto_connect=False)
    feed2.wait(device["deviceId"], 2)
    nave.kill()
    nave.start()
    operations = [operation for operation, _, _ in told(feed2, device["deviceId"], 3)]
    assert operations == ["createDeviceIdentity", "deviceConnected", "deviceDisconnected"]
