"""Device identities through the service SDK and bare requests."""

import re

import pytest
from msrest.exceptions import HttpOperationError

from harness import pki
from harness.rest import segment
from harness.secrets import new_key


def failure(status: int, name: str, action) -> HttpOperationError:
    with pytest.raises(HttpOperationError) as caught:
        action()
    response = caught.value.response
    assert response.status_code == status, response.text
    assert response.headers["iothub-errorcode"] == name
    body = response.json()
    assert body["Message"].startswith(f"ErrorCode:{name};"), body
    assert re.match(r"Tracking ID:[0-9a-fA-F]{32}-G:\S+-TimeStamp:\d\d/\d\d/\d{4} \d\d:\d\d:\d\d$", body["ExceptionMessage"])
    return caught.value


def test_life_of_a_device(hub1, registry, unique):
    name, primary, secondary = unique(), new_key(), new_key(64)
    created = registry.create_device_with_sas(name, primary, secondary, "enabled")
    assert created.device_id == name
    assert created.status == "enabled"
    assert created.connection_state == "Disconnected"
    assert created.authentication.type == "sas"
    assert created.authentication.symmetric_key.primary_key == primary
    assert created.authentication.symmetric_key.secondary_key == secondary
    assert created.capabilities.iot_edge is False
    assert created.cloud_to_device_message_count == 0
    assert registry.get_device(name).as_dict() == created.as_dict()

    updated = registry.update_device_with_sas(name, created.etag, secondary, primary, "disabled", status_reason="why")
    assert updated.etag != created.etag
    assert updated.generation_id == created.generation_id
    assert (updated.status, updated.status_reason) == ("disabled", "why")
    assert updated.authentication.symmetric_key.primary_key == secondary

    failure(412, "PreconditionFailed",
            lambda: registry.update_device_with_sas(name, created.etag, primary, secondary, "enabled"))
    failure(412, "PreconditionFailed", lambda: registry.delete_device(name, created.etag))
    registry.delete_device(name, updated.etag)
    failure(404, "DeviceNotFound", lambda: registry.get_device(name))
    failure(404, "DeviceNotFound", lambda: registry.delete_device(name))


def test_create_is_create_only(registry, unique):
    name = unique()
    registry.create_device_with_sas(name, new_key(), new_key(), "enabled")
    failure(409, "DeviceAlreadyExists",
            lambda: registry.create_device_with_sas(name, new_key(), new_key(), "enabled"))


def test_update_is_update_only(registry, unique):
    name = unique()
    failure(404, "DeviceNotFound",
            lambda: registry.update_device_with_sas(name, None, new_key(), new_key(), "enabled"))


def test_delete_wants_an_etag(hub1, device):
    response = hub1.request("DELETE", f"/devices/{device['deviceId']}")
    assert response.status_code == 412, response.text
    assert response.headers["iothub-errorcode"] == "PreconditionFailed"


@pytest.mark.parametrize("form", ["{}", '"{}"', 'W/"{}"', "*", '"*"'])
def test_every_form_of_if_match(hub1, device, form):
    path = f"/devices/{device['deviceId']}"
    response = hub1.request("PUT", path, json={**device, "statusReason": "seen"},
                            headers={"If-Match": form.format(device["etag"])})
    assert response.status_code == 200, response.text
    updated = response.json()
    assert response.headers["ETag"] == f'"{updated["etag"]}"'
    response = hub1.request("DELETE", path, headers={"If-Match": form.format(updated["etag"])})
    assert (response.status_code, response.content) == (204, b"")


def test_etag_in_the_body_is_no_precondition(hub1, device):
    response = hub1.request("PUT", f"/devices/{device['deviceId']}", json=device)
    assert response.status_code == 409
    assert response.headers["iothub-errorcode"] == "DeviceAlreadyExists"


def test_form_of_a_device(hub1, unique):
    name = unique()
    response = hub1.ok("PUT", f"/devices/{name}", json={"deviceId": name})
    device = response.json()
    assert response.headers["Content-Type"].replace(" ", "").lower() == "application/json;charset=utf-8"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", response.headers["x-ms-request-id"].lower())
    hub1._remember(device)
    assert list(device["authentication"])[-1] == "type", "setters of one SDK override the type: it comes last"
    assert device["authentication"]["type"] == "sas"
    keys = device["authentication"]["symmetricKey"]
    assert keys["primaryKey"] and keys["secondaryKey"] and keys["primaryKey"] != keys["secondaryKey"]
    assert device["authentication"]["x509Thumbprint"] == {"primaryThumbprint": None, "secondaryThumbprint": None}
    assert device["status"] == "enabled"
    assert device["connectionStateUpdatedTime"].startswith("0001-01-01T00:00:00")
    assert device["lastActivityTime"].startswith("0001-01-01T00:00:00")


def test_empty_keys_are_made_by_the_hub(hub1, unique):
    name = unique()
    authentication = {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}
    keys = hub1.create_device(name, authentication=authentication)["authentication"]["symmetricKey"]
    assert len(keys["primaryKey"]) >= 24 and keys["primaryKey"] != keys["secondaryKey"]


def test_update_without_authentication_makes_new_keys(hub1, device):
    updated = hub1.update_device({"deviceId": device["deviceId"], "status": "enabled"})
    assert updated["authentication"]["symmetricKey"] != device["authentication"]["symmetricKey"]


def test_certificate_devices(hub1, registry, unique):
    certificate = pki.self_signed("any")
    name = unique()
    created = registry.create_device_with_x509(name, certificate.thumbprint(), certificate.thumbprint("sha256"), "enabled")
    assert created.authentication.type == "selfSigned"
    assert created.authentication.x509_thumbprint.primary_thumbprint == certificate.thumbprint()
    assert created.authentication.x509_thumbprint.secondary_thumbprint == certificate.thumbprint("sha256")
    name = unique()
    created = registry.create_device_with_certificate_authority(name, "enabled")
    assert created.authentication.type == "certificateAuthority"
    body = hub1.device(name)
    assert body["authentication"]["symmetricKey"] == {"primaryKey": None, "secondaryKey": None}


@pytest.mark.parametrize("authentication", [
    {"type": "sas", "symmetricKey": {"primaryKey": "not base64!", "secondaryKey": "not base64!"}},
    {"type": "sas", "symmetricKey": {"primaryKey": "c2hvcnQ=", "secondaryKey": "c2hvcnQ="}},
    {"type": "sas", "symmetricKey": {"primaryKey": "A" * 43 + "=", "secondaryKey": None}},
    {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "zz", "secondaryThumbprint": None}},
    {"type": "none"},
    {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "A" * 40},
     "symmetricKey": {"primaryKey": "A" * 43 + "=", "secondaryKey": "B" * 43 + "="}},
], ids=["base64", "short", "one-key", "thumbprint", "none", "both"])
def test_bad_authentication_is_refused(hub1, unique, authentication):
    name = unique()
    response = hub1.request("PUT", f"/devices/{name}", json={"deviceId": name, "authentication": authentication})
    assert response.status_code == 400, response.text
    assert response.headers["iothub-errorcode"]
    assert not hub1.exists(name)


def test_path_and_body_agree(hub1, unique):
    response = hub1.request("PUT", f"/devices/{unique()}", json={"deviceId": unique()})
    assert response.status_code == 400, response.text


@pytest.mark.parametrize("name", ["space in it", "slash/in", "ü", "x" * 129])
def test_bad_ids_are_refused(hub1, name):
    response = hub1.request("PUT", f"/devices/{segment(name)}", json={"deviceId": name})
    assert response.status_code == 400, response.text


def test_every_character_of_an_id(hub1, unique):
    name = unique("A-:.+%_#*?!(),=@$'")
    created = hub1.create_device(name)
    assert created["deviceId"] == name
    assert hub1.device(name)["deviceId"] == name
    assert hub1.patch_twin(name, {"tags": {"a": 1}})["deviceId"] == name
    hub1.delete_device(name)
    assert not hub1.exists(name)


def test_ids_are_case_sensitive(hub1, unique):
    name = unique("-case")
    hub1.create_device(name)
    assert not hub1.exists(name.upper())


def test_list(hub1, registry, unique):
    names = sorted(unique(f"-{n}") for n in range(3))
    for name in names:
        registry.create_device_with_sas(name, new_key(), new_key(), "enabled")
    listed = {device.device_id for device in registry.get_devices()}
    assert set(names) <= listed
    assert len(registry.get_devices(2)) == 2
    assert len(hub1.ok("GET", "/devices/", params={"top": "1"}).json()) == 1, "a slash before the query is allowed"


@pytest.mark.parametrize("top", ["0", "-1", "1001", "many"])
def test_bad_list_size(hub1, top):
    response = hub1.request("GET", "/devices", params={"top": top})
    assert response.status_code == 400, response.text
    assert response.headers["iothub-errorcode"]


@pytest.mark.parametrize("version", [None, "1999-01-01", "nonsense"])
def test_unknown_api_version(hub1, device, version):
    response = hub1.request("GET", f"/devices/{device['deviceId']}", version=version)
    assert response.status_code == 400, response.text
    assert response.headers["iothub-errorcode"] == "InvalidProtocolVersion"
    assert response.json()["Message"].startswith("ErrorCode:InvalidProtocolVersion;")


@pytest.mark.parametrize("version", ["2018-06-30", "2019-10-01", "2020-03-13", "2020-05-31-preview", "2020-09-30",
                                     "2021-04-12", "2024-03-31"])
def test_versions_that_clients_send(hub1, device, version):
    assert hub1.request("GET", f"/devices/{device['deviceId']}", version=version).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe"])
def test_body_that_is_no_device(hub1, unique, body):
    response = hub1.request("PUT", f"/devices/{unique()}", data=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text
    assert response.headers["iothub-errorcode"]


def test_unknown_path(hub1):
    assert hub1.request("GET", "/no/such/thing").status_code == 404


def test_method_that_a_path_does_not_have(hub1, device):
    response = hub1.request("DELETE", f"/twins/{device['deviceId']}")
    assert response.status_code in (404, 405), response.text


def test_hubs_are_apart(hub1, hub2, unique):
    name = unique()
    hub1.create_device(name)
    assert hub1.exists(name)
    assert not hub2.exists(name)
