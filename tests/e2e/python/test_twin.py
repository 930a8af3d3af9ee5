"""Twins in both directions."""

import queue

import pytest
from azure.iot.device.exceptions import ClientError
from azure.iot.hub.models import Twin, TwinProperties
from msrest.exceptions import HttpOperationError


def without_version(section: dict) -> dict:
    return {name: value for name, value in section.items() if not name.startswith("$")}


def nested(levels: int) -> dict:
    """A property of which `levels` objects lie within each other, below the section itself."""
    value = {"scalar": 1}
    for _ in range(levels - 1):
        value = {"deeper": value}
    return {"deep": value}


def test_new_twin(hub1, device, connect):
    twin = connect(device).client.get_twin()
    assert twin == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    seen = hub1.twin(device["deviceId"])
    assert seen["deviceId"] == device["deviceId"]
    assert seen["deviceEtag"] == device["etag"]
    assert seen["tags"] == {}
    assert seen["status"] == "enabled"
    assert seen["authenticationType"] == "sas"
    assert seen["properties"]["desired"]["$version"] == 1
    assert seen["properties"]["reported"]["$version"] == 1
    assert "$lastUpdated" in seen["properties"]["desired"]["$metadata"]
    assert seen["etag"] == "AAAAAAAAAAE="


def test_desired_patch_reaches_the_device(registry, device, connect):
    sdk = connect(device, patches=True)
    patch = Twin(properties=TwinProperties(desired={"interval": 5, "nested": {"a": [1, "2", {"x": True}], "b": None}}))
    updated = registry.update_twin(device["deviceId"], patch)
    assert sdk.next_patch() == {
        "interval": 5, "nested": {"a": [1, "2", {"x": True}], "b": None}, "$version": 2}
    assert without_version(updated.properties.desired) == {"interval": 5, "nested": {"a": [1, "2", {"x": True}]}}
    assert updated.properties.desired["$version"] == 2
    assert without_version(sdk.client.get_twin()["desired"]) == {"interval": 5, "nested": {"a": [1, "2", {"x": True}]}}


def test_null_removes_a_desired_property(registry, device, connect):
    sdk = connect(device, patches=True)
    registry.update_twin(device["deviceId"], Twin(properties=TwinProperties(desired={"a": 1, "b": {"c": 1, "d": 2}})))
    assert sdk.next_patch() == {"a": 1, "b": {"c": 1, "d": 2}, "$version": 2}
    registry.update_twin(device["deviceId"], Twin(properties=TwinProperties(desired={"a": None, "b": {"c": None}})))
    assert sdk.next_patch() == {"a": None, "b": {"c": None}, "$version": 3}
    assert sdk.client.get_twin()["desired"] == {"b": {"d": 2}, "$version": 3}


def test_replace_reaches_the_device_as_the_new_section(hub1, registry, device, connect):
    sdk = connect(device, patches=True)
    hub1.patch_twin(device["deviceId"], {"tags": {"old": 1}, "properties": {"desired": {"old": {"deep": 1}, "kept": 1}}})
    sdk.next_patch()
    replaced = registry.replace_twin(
        device["deviceId"], Twin(tags={"new": "tag"}, properties=TwinProperties(desired={"new": 1, "kept": 2})))
    assert sdk.next_patch() == {"new": 1, "kept": 2, "$version": 3}
    assert replaced.tags == {"new": "tag"}
    assert sdk.client.get_twin()["desired"] == {"new": 1, "kept": 2, "$version": 3}


def test_reported_patch_reaches_the_service(hub1, registry, device, connect):
    client = connect(device).client
    client.patch_twin_reported_properties({"firmware": "1.0", "status": {"a": 1, "b": [1, 2, {"c": "d"}]}, "gone": 1})
    client.patch_twin_reported_properties({"status": {"a": None, "e": 4.5}, "gone": None, "empty": {}})
    expected = {"firmware": "1.0", "status": {"b": [1, 2, {"c": "d"}], "e": 4.5}, "empty": {}}
    reported = registry.get_twin(device["deviceId"]).properties.reported
    assert without_version(reported) == expected
    assert reported["$version"] == 3
    assert client.get_twin()["reported"] == {**expected, "$version": 3}
    metadata = hub1.twin(device["deviceId"])["properties"]["reported"]["$metadata"]
    assert set(metadata) == {"$lastUpdated", "firmware", "status", "empty"}
    assert set(metadata["status"]) == {"$lastUpdated", "b", "e"}
    assert set(metadata["firmware"]) == {"$lastUpdated"}
    assert metadata["firmware"]["$lastUpdated"] <= metadata["status"]["e"]["$lastUpdated"]


def test_desired_metadata_names_the_version_of_each_change(hub1, device):
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"a": 1, "b": {"c": 1}}}})
    twin = hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"b": {"d": 1}}}})
    metadata = twin["properties"]["desired"]["$metadata"]
    assert metadata["a"]["$lastUpdatedVersion"] == 2
    assert metadata["b"]["c"]["$lastUpdatedVersion"] == 2
    assert metadata["b"]["d"]["$lastUpdatedVersion"] == 3
    assert metadata["b"]["$lastUpdatedVersion"] == 3
    assert metadata["$lastUpdatedVersion"] == 3
    assert all("$lastUpdated" in part for part in (metadata, metadata["a"], metadata["b"], metadata["b"]["c"]))


def test_device_is_not_told_of_its_own_report_or_of_tags(hub1, device, connect):
    sdk = connect(device, patches=True)
    sdk.client.patch_twin_reported_properties({"a": 1})
    hub1.patch_twin(device["deviceId"], {"tags": {"room": "1"}})
    hub1.patch_twin(device["deviceId"], {"properties": {"desired": {"end": True}}})
    assert sdk.next_patch() == {"end": True, "$version": 2}
    with pytest.raises(queue.Empty):
        sdk.patches.get_nowait()


def test_tags_are_hidden_from_the_device(hub1, device, connect):
    hub1.patch_twin(device["deviceId"], {"tags": {"secret": 1}})
    assert set(connect(device).client.get_twin()) == {"desired", "reported"}


@pytest.mark.parametrize("patch", [
    {"a": [1, None]},
    {"a.b": 1},
    {"$version": 3},
    {"a": 2**52},
    {"a": "x" * 4097},
    nested(11),
    {f"k{number}": "x" * 4000 for number in range(9)},
], ids=["null-in-array", "dot", "dollar", "integer", "long-string", "deep", "section-too-large"])
def test_bad_reported_patch_is_refused_and_the_connection_stays(device, connect, patch):
    client = connect(device).client
    client.patch_twin_reported_properties({"good": 1})
    with pytest.raises(ClientError) as refusal:
        client.patch_twin_reported_properties(patch)
    assert "status 400" in str(refusal.value.__cause__) or "status 413" in str(refusal.value.__cause__)
    assert client.connected
    assert client.get_twin()["reported"] == {"good": 1, "$version": 2}, "all or nothing"


def test_limits_themselves_are_allowed(device, connect):
    client = connect(device).client
    patch = {
        "max": 2**52 - 1, "min": -(2**52), "float": 1e300, "text": "x" * 4096, "key" * 300: 1, "": {},
        **nested(10),
    }
    client.patch_twin_reported_properties(patch)
    assert without_version(client.get_twin()["reported"]) == patch


@pytest.mark.parametrize("section", ["tags", "desired"])
def test_bad_service_patch_is_refused(hub1, device, section):
    bad = {"a.b": 1}
    patch = {"tags": bad} if section == "tags" else {"properties": {"desired": bad}}
    response = hub1.request("PATCH", f"/twins/{device['deviceId']}", json=patch)
    assert response.status_code == 400, response.text
    assert response.headers["iothub-errorcode"] == "ArgumentInvalid"
    assert response.json()["Message"].startswith("ErrorCode:ArgumentInvalid;")


def test_stale_etag_is_refused(registry, device):
    first = registry.get_twin(device["deviceId"])
    second = registry.update_twin(device["deviceId"], Twin(tags={"a": 1}), first.etag)
    assert second.etag != first.etag
    with pytest.raises(HttpOperationError) as refusal:
        registry.update_twin(device["deviceId"], Twin(tags={"a": 2}), first.etag)
    assert refusal.value.response.status_code == 412
    assert refusal.value.response.headers["iothub-errorcode"] == "PreconditionFailed"
    with pytest.raises(HttpOperationError) as refusal:
        registry.replace_twin(device["deviceId"], Twin(tags={}), first.etag)
    assert refusal.value.response.status_code == 412
    assert registry.update_twin(device["deviceId"], Twin(tags={"a": 3}), second.etag).tags == {"a": 3}


def test_reported_change_leaves_the_twin_etag(registry, device, connect):
    before = registry.get_twin(device["deviceId"])
    connect(device).client.patch_twin_reported_properties({"a": 1})
    after = registry.get_twin(device["deviceId"])
    assert after.etag == before.etag
    assert after.version > before.version


@pytest.mark.parametrize("form", ['{}', '"{}"', 'W/"{}"', "*", '"*"'])
def test_every_form_of_if_match(hub1, device, form):
    etag = hub1.twin(device["deviceId"])["etag"]
    response = hub1.request("PATCH", f"/twins/{device['deviceId']}", json={"tags": {"a": 1}},
                            headers={"If-Match": form.format(etag)})
    assert response.status_code == 200, response.text
    assert response.headers["ETag"] == f'"{response.json()["etag"]}"'


def test_read_modify_replace_with_what_the_sdk_read(registry, device):
    registry.update_twin(device["deviceId"], Twin(tags={"a": 1}, properties=TwinProperties(desired={"b": {"c": 2}})))
    twin = registry.get_twin(device["deviceId"])
    twin.tags["d"] = 3
    replaced = registry.replace_twin(device["deviceId"], twin, twin.etag)
    assert replaced.tags == {"a": 1, "d": 3}
    assert without_version(replaced.properties.desired) == {"b": {"c": 2}}


def test_unknown_twin(hub1, unique):
    response = hub1.request("GET", f"/twins/{unique()}")
    assert response.status_code == 404
    assert response.headers["iothub-errorcode"] == "DeviceNotFound"
    assert response.json()["Message"].startswith("ErrorCode:DeviceNotFound;")
