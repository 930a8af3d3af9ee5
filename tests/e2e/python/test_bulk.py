"""Many changes in one request, and what is counted."""

from azure.iot.hub.models import ExportImportDevice
from azure.iot.hub.protocol.models import DeviceCapabilities, PropertyContainer

from harness.secrets import new_key
from test_registry import failure


def item(name, mode, **fields):
    return ExportImportDevice(id=name, import_mode=mode, status=fields.pop("status", "enabled"), **fields)


def test_create_update_delete(hub1, registry, unique):
    names = [unique(f"-{number}") for number in range(100)]
    done = registry.bulk_create_or_update_devices([item(name, "create") for name in names])
    assert (done.is_successful, done.errors, done.warnings) == (True, [], [])
    assert {device.device_id for device in registry.get_devices()} >= set(names)
    keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
    changes = [
        item(names[0], "update", status="disabled", status_reason="why"),
        item(names[1], "update", authentication={"type": "sas", "symmetricKey": keys}),
        item(names[2], "update", capabilities=DeviceCapabilities(iot_edge=True)),
        item(names[3], "updateTwin", tags={"site": "x"}, properties=PropertyContainer(desired={"n": 1})),
        item(names[4], "create", module_id="m"),
    ]
    assert registry.bulk_create_or_update_devices(changes).is_successful
    assert (hub1.device(names[0])["status"], hub1.device(names[0])["statusReason"]) == ("disabled", "why")
    assert hub1.device(names[1])["authentication"]["symmetricKey"] == keys
    assert len(registry.get_modules(names[2])) == 2
    twin = hub1.twin(names[3])
    assert (twin["tags"], twin["properties"]["desired"]["n"]) == ({"site": "x"}, 1)
    assert registry.get_module(names[4], "m").module_id == "m"
    assert registry.bulk_create_or_update_devices([item(name, "delete") for name in names]).is_successful
    assert not any(hub1.exists(name) for name in names[:5])


def test_what_fails_is_named_and_the_rest_is_done(hub1, unique):
    there, new = unique(), unique()
    etag = hub1.create_device(there)["etag"]
    body = [
        {"id": there, "importMode": "create", "status": "enabled"},
        {"id": new, "importMode": "create", "status": "enabled"},
        {"id": unique(), "importMode": "delete", "status": "enabled"},
    ]
    response = hub1.request("POST", "/devices", json=body)
    assert response.status_code == 400
    assert response.headers["IotHubErrorCode"] == "BulkRegistryOperationFailure"
    result = response.json()
    assert result["isSuccessful"] is False
    assert sorted((error["deviceId"], error["errorCode"], error["operation"]) for error in result["errors"]) == sorted(
        [(there, "DeviceAlreadyExists", "create"), (body[2]["id"], "DeviceNotFound", "delete")])
    assert hub1.exists(new)
    stale = [{"id": there, "eTag": "stale", "importMode": "updateIfMatchETag", "status": "disabled"}]
    assert hub1.request("POST", "/devices", json=stale).json()["errors"][0]["errorCode"] == "PreconditionFailed"
    fresh = [{**stale[0], "eTag": f'"{etag}"'}]
    assert hub1.request("POST", "/devices/", json=fresh).status_code == 200
    assert hub1.device(there)["status"] == "disabled"


def test_limits(registry, unique):
    failure(413, "TooManyDevices", lambda: _get(registry, [item(unique(f"-{n}"), "create") for n in range(101)]))


def _get(registry, items):
    result = registry.bulk_create_or_update_devices(items)
    raise AssertionError(f"accepted: {result}")


def test_statistics(hub1, registry, unique, connect):
    def figures():
        counted = registry.get_device_registry_statistics()
        return counted.total_device_count, counted.enabled_device_count, counted.disabled_device_count

    total, enabled, disabled = figures()
    connected = registry.get_service_statistics().connected_device_count
    device = hub1.create_device(unique())
    hub1.create_device(unique(), status="disabled")
    hub1.create_module(device["deviceId"], "not-a-device")
    assert figures() == (total + 2, enabled + 1, disabled + 1)
    connect(device)
    assert registry.get_service_statistics().connected_device_count == connected + 1
    hub1.delete_device(device["deviceId"])
    assert figures() == (total + 1, enabled, disabled + 1)


def test_connection_state_and_last_activity(hub1, registry, device, connect):
    sdk = connect(device)
    connected = registry.get_device(device["deviceId"])
    assert connected.connection_state == "Connected"
    assert connected.connection_state_updated_time.year > 2000
    sdk.client.send_message("x")
    sdk.client.disconnect()
    hub1.wait_for(device["deviceId"], "Disconnected")
    left = registry.get_device(device["deviceId"])
    assert left.connection_state_updated_time > connected.connection_state_updated_time
    assert left.last_activity_time >= connected.last_activity_time
    twin = registry.get_twin(device["deviceId"])
    assert (twin.connection_state, twin.last_activity_time) == ("Disconnected", left.last_activity_time)
