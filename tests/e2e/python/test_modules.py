"""Modules through the official SDKs: identities, twins, methods, telemetry, sessions."""

import pytest
from azure.iot.device.exceptions import CredentialError
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties
from msrest.exceptions import HttpOperationError

from harness import devices, pki
from harness.admin import Admin
from harness.secrets import new_key
from test_methods import nested
from test_registry import failure


@pytest.fixture
def module(hub1, device):
    """A new module on a new device."""
    return hub1.create_module(device["deviceId"], "camera")


@pytest.fixture
def connect_module(nave, hub1, connect):
    def connect_module(module, **features):
        client = devices.module_from_connection_string(hub1.module_connection_string(module), nave.ca)
        return connect.adopt(client, **features)

    return connect_module


def test_life_of_a_module(registry, device, unique):
    name, primary, secondary = device["deviceId"], new_key(), new_key()
    created = registry.create_module_with_sas(name, "m", "me", primary, secondary)
    assert (created.module_id, created.device_id, created.managed_by) == ("m", name, "me")
    assert created.authentication.symmetric_key.primary_key == primary
    assert created.connection_state == "Disconnected"
    assert registry.get_module(name, "m").as_dict() == created.as_dict()
    failure(409, "ModuleAlreadyExistsOnDevice", lambda: registry.create_module_with_sas(name, "m", "", primary, secondary))

    updated = registry.update_module_with_sas(name, "m", "you", created.etag, secondary, primary)
    assert (updated.managed_by, updated.generation_id) == ("you", created.generation_id)
    failure(412, "PreconditionFailed",
            lambda: registry.update_module_with_sas(name, "m", "", created.etag, primary, secondary))
    registry.create_module_with_certificate_authority(name, "a", "")
    assert [listed.module_id for listed in registry.get_modules(name)] == ["a", "m"]
    failure(412, "PreconditionFailed", lambda: registry.delete_module(name, "m", created.etag))
    registry.delete_module(name, "m", updated.etag)
    failure(404, "ModuleNotFound", lambda: registry.get_module(name, "m"))
    failure(404, "ModuleNotFound", lambda: registry.delete_module(name, "m"))
    registry.delete_device(name)
    failure(401, "IotHubUnauthorizedAccess", lambda: registry.get_module(name, "a"))
    registry.create_device_with_sas(name, primary, secondary, "enabled")
    assert registry.get_modules(name) == []


def test_edge_device_and_its_child(hub1, registry, unique):
    name, child = unique(), unique("-child")
    edge = registry.create_device_with_sas(name, new_key(), new_key(), "enabled", iot_edge=True)
    assert edge.device_scope.startswith(f"ms-azure-iot-edge://{name}-")
    modules = registry.get_modules(name)
    assert [module.module_id for module in modules] == ["$edgeAgent", "$edgeHub"]
    assert {module.managed_by for module in modules} == {"iotEdge"}
    leaf = registry.create_device_with_sas(child, new_key(), new_key(), "enabled", device_scope=edge.device_scope)
    assert leaf.parent_scopes == [edge.device_scope]
    assert hub1.twin(child)["deviceScope"] == edge.device_scope


def test_twin_in_both_directions(registry, module, connect_module):
    name, patch = module["deviceId"], {"interval": 5, "nested": {"a": [1, {"b": "ü"}]}}
    sdk = connect_module(module, patches=True)
    before = registry.get_module_twin(name, "camera")
    assert (before.module_id, before.device_etag, before.connection_state) == ("camera", module["etag"], "Connected")
    update = Twin(tags={"site": "x"}, properties=TwinProperties(desired=patch))
    after = registry.update_module_twin(name, "camera", update, before.etag)
    assert sdk.next_patch() == {**patch, "$version": 2}
    failure(412, "PreconditionFailed", lambda: registry.update_module_twin(name, "camera", update, before.etag))
    sdk.client.patch_twin_reported_properties({"firmware": "1.0"})
    twin = registry.get_module_twin(name, "camera")
    assert (twin.properties.reported["firmware"], twin.tags, twin.etag) == ("1.0", {"site": "x"}, after.etag)
    replaced = registry.replace_module_twin(name, "camera", Twin(properties=TwinProperties(desired={"only": True})))
    assert sdk.next_patch() == {"only": True, "$version": 3}
    assert replaced.tags == {}
    own = sdk.client.get_twin()
    assert own == {"desired": {"only": True, "$version": 3}, "reported": {"firmware": "1.0", "$version": 2}}
    assert registry.get_twin(name).properties.desired["$version"] == 1, "the device's own twin is another"


def test_method_call_and_answer(registry, module, connect_module):
    sdk = connect_module(module, methods=True)
    sdk.answer = lambda request: (201, {"was": request.payload})
    request = CloudToDeviceMethod(method_name="zoom", payload={"x": 2}, response_timeout_in_seconds=30)
    result = registry.invoke_device_module_method(module["deviceId"], "camera", request)
    assert (result.status, result.payload) == (201, {"was": {"x": 2}})
    # Neither the device nor another module is there.
    for code, call in {
        404103: lambda: registry.invoke_device_method(module["deviceId"], request),
        404001: lambda: registry.invoke_device_module_method(module["deviceId"], "other", request),
    }.items():
        with pytest.raises(HttpOperationError) as refused:
            call()
        assert nested(refused.value.response)["errorCode"] == code


def test_telemetry_names_the_module(feed, module, connect_module):
    sdk = connect_module(module)
    sdk.client.send_message(devices.message("plain", message_id="1", custom_properties={"a": "b"}))
    sdk.client.send_message_to_output(devices.message("to an output"), "alerts")
    first, second = feed.wait(module["deviceId"], 2)
    assert (first.body, first.module_id, first.properties) == (b"plain", "camera", {"a": "b"})
    assert first.system["iothub-connection-module-id"] == "camera"
    assert first.system["iothub-connection-device-id"] == module["deviceId"]
    assert first.system["iothub-connection-auth-generation-id"] == module["generationId"]
    assert first.system["iothub-connection-auth-method"] == '{"scope":"module","type":"sas","issuer":"iothub"}'
    assert second.system["iothub-outputname"] == "alerts"


def test_device_and_module_are_connected_at_the_same_time(hub1, device, module, connect, connect_module):
    of_device, of_module = connect(device), connect_module(module)
    assert (of_device.client.connected, of_module.client.connected) == (True, True)
    assert hub1.module(module["deviceId"], "camera")["connectionState"] == "Connected"
    of_module.client.disconnect()
    assert hub1.wait_for(device["deviceId"], "Connected")


def test_certificate(nave, hub1, device, connect):
    certificate = pki.self_signed("any")
    authentication = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": certificate.thumbprint()}}
    hub1.create_module(device["deviceId"], "x", authentication=authentication)
    client = devices.module_from_certificate(hub1.endpoint.host, device["deviceId"], "x", certificate, nave.ca)
    sdk = connect.adopt(client)
    sdk.client.patch_twin_reported_properties({"x": 1})
    assert hub1.ok("GET", f"/twins/{device['deviceId']}/modules/x").json()["authenticationType"] == "selfSigned"


def test_certificate_of_an_authority_names_device_and_module(nave, hub1, device, connect, unique):
    root, name = pki.root(), device["deviceId"]
    Admin(nave).add_authority("hubs/hub1", unique("-ca"), root.pem)
    hub1.create_module(name, "s", authentication={"type": "certificateAuthority"})

    def attempt(common_name):
        certificate = pki.leaf(root, common_name)
        return connect.adopt(devices.module_from_certificate(
            hub1.endpoint.host, name, "s", certificate, nave.ca, connection_retry=False))

    for foreign in (name, "s", f"{name}/other"):
        with pytest.raises(CredentialError):
            attempt(foreign)
    assert attempt(f"{name}/s").client.connected


def test_what_happens_to_the_device_happens_to_its_modules(hub1, device, module, connect_module):
    sdk = connect_module(module)
    hub1.update_device({**device, "status": "disabled"})
    sdk.wait_connected(False)
    sdk.close()
    hub1.update_device({**device, "status": "enabled"})
    again = connect_module(module)
    hub1.delete_device(device["deviceId"])
    again.wait_connected(False)
