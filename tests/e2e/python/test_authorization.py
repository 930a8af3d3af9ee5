"""Which token opens which door."""

import json

import pytest

from harness import sas
from harness.policies import policy_key
from harness.rest import HubRest
from harness.secrets import new_key

OPERATIONS = {
    "read identity": ("GET", "/devices/{id}", None, {"iothubowner", "registryRead", "registryReadWrite"}),
    "list identities": ("GET", "/devices?top=1", None, {"iothubowner", "registryRead", "registryReadWrite"}),
    "write identity": ("PUT", "/devices/{id}", {"deviceId": "{id}"}, {"iothubowner", "registryReadWrite"}),
    "read twin": ("GET", "/twins/{id}", None, {"iothubowner", "service"}),
    "patch twin": ("PATCH", "/twins/{id}", {"tags": {}}, {"iothubowner", "service"}),
    "replace twin": ("PUT", "/twins/{id}", {"tags": {}}, {"iothubowner", "service"}),
    "invoke method": ("POST", "/twins/{id}/methods", {"methodName": "m"}, {"iothubowner", "service"}),
    "read events": ("GET", "/events?consumerGroup=$Default&partition=0&from=latest", None, {"iothubowner", "service"}),
}
POLICIES = ("iothubowner", "service", "device", "registryRead", "registryReadWrite")


def is_unauthorized(response, names=("IotHubUnauthorizedAccess", "IotHubUnauthorized")) -> None:
    assert response.status_code == 401, response.text
    assert response.headers["iothub-errorcode"] in names
    body = response.json()
    assert any(name in json.dumps(body) for name in ("Unauthorized", "401002", "401003")), body
    assert "Message" in body and "ExceptionMessage" in body


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_hub_policies(nave, hub1, device, operation, policy):
    method, path, body, allowed = OPERATIONS[operation]
    name = device["deviceId"]
    token = sas.token(hub1.endpoint.host, policy_key(nave, hub1, policy), policy)
    headers = {"If-Match": "*"} if method == "PUT" else {}
    body = None if body is None else json.loads(json.dumps(body).replace("{id}", name))
    response = hub1.request(method, path.replace("{id}", name), json=body, token=token, headers=headers, stream=True)
    with response:
        if policy in allowed:
            # The method fails for want of a device, not of a right.
            assert response.status_code == (404 if "methods" in path else 200), response.status_code
            if "methods" in path:
                assert response.headers["iothub-errorcode"] == "DeviceNotOnline"
        else:
            is_unauthorized(response)


def test_delete_wants_registry_write(nave, hub1, device):
    path = f"/devices/{device['deviceId']}"
    for policy in ("service", "device", "registryRead"):
        token = sas.token(hub1.endpoint.host, policy_key(nave, hub1, policy), policy)
        is_unauthorized(hub1.request("DELETE", path, token=token, headers={"If-Match": "*"}))
    assert hub1.exists(device["deviceId"])
    token = sas.token(hub1.endpoint.host, policy_key(nave, hub1, "registryReadWrite"), "registryReadWrite")
    assert hub1.request("DELETE", path, token=token, headers={"If-Match": "*"}).status_code == 204


@pytest.mark.parametrize("make", [
    lambda hub: "",
    lambda hub: "SharedAccessSignature",
    lambda hub: "SharedAccessSignature sr=x",
    lambda hub: "Bearer eyJhbGciOiJub25lIn0.e30.",
    lambda hub: "Basic dXNlcjpwYXNz",
    lambda hub: sas.token(hub.host, hub.key, "nobody"),
    lambda hub: sas.token(hub.host, hub.key),
    lambda hub: sas.token(hub.host, new_key(), hub.policy),
    lambda hub: sas.token(hub.host, hub.key, hub.policy, lifetime=-3600),
    lambda hub: sas.token("other.nave.test", hub.key, hub.policy),
    lambda hub: sas.token(f"{hub.host}/devices/other", hub.key, hub.policy),
    lambda hub: sas.token(f"{hub.host}/dev", hub.key, hub.policy),
    lambda hub: sas.token(hub.host, hub.key, hub.policy).replace("sig=", "sig=A"),
], ids=["none", "bare", "half", "bearer", "basic", "unknown-policy", "no-policy", "wrong-key", "expired", "other-host",
        "other-path", "half-segment", "forged"])
def test_bad_tokens(hub1, device, make):
    is_unauthorized(hub1.request("GET", f"/devices/{device['deviceId']}", token=make(hub1.endpoint)))


def test_token_of_one_hub_does_not_open_the_other(hub1, hub2, device):
    token = sas.token(hub2.endpoint.host, hub2.endpoint.key, hub2.endpoint.policy)
    is_unauthorized(hub1.request("GET", f"/devices/{device['deviceId']}", token=token))


@pytest.mark.parametrize("resource", ["{host}/devices", "{host}/devices/{id}", "https://{host}", "{host}/", "{HOST}"])
def test_tokens_for_a_part_of_the_hub(hub1, device, resource):
    name, host = device["deviceId"], hub1.endpoint.host
    token = sas.token(resource.format(host=host, HOST=host.upper(), id=name), hub1.endpoint.key, hub1.endpoint.policy)
    assert hub1.request("GET", f"/devices/{name}", token=token).status_code == 200


def test_resource_is_signed_as_it_was_sent(hub1, device):
    name, host = device["deviceId"], hub1.endpoint.host
    raw = sas.token(f"{host}/devices/{name}", hub1.endpoint.key, hub1.endpoint.policy, encode=False)
    assert hub1.request("GET", f"/devices/{name}", token=raw).status_code == 200


def test_refusal_says_nothing_about_existence(nave, hub1, device, unique):
    token = sas.token(hub1.endpoint.host, policy_key(nave, hub1, "service"), "service")
    there = hub1.request("GET", f"/devices/{device['deviceId']}", token=token)
    not_there = hub1.request("GET", f"/devices/{unique()}", token=token)
    assert there.status_code == not_there.status_code == 401


@pytest.mark.parametrize("make", [
    lambda dps: "",
    lambda dps: sas.token(dps.host, dps.key, "nobody"),
    lambda dps: sas.token(dps.host, new_key(), dps.policy),
    lambda dps: sas.token(dps.host, dps.key, dps.policy, lifetime=-3600),
    lambda dps: sas.token("other.nave.test", dps.key, dps.policy),
], ids=["none", "unknown-policy", "wrong-key", "expired", "other-host"])
def test_provisioning_service_refuses_bad_tokens(dps, make):
    response = dps.request("POST", "/enrollments/query", json={"query": "SELECT *"}, token=make(dps.endpoint))
    assert response.status_code == 401, response.text
    body = response.json()
    assert body["errorCode"] // 1000 == 401
    assert body["trackingId"] and body["message"] and body["timestampUtc"]
    assert response.headers["x-ms-error-code"]


def test_device_policy_key_opens_no_service_door_by_device_token(hub1, device):
    key = device["authentication"]["symmetricKey"]["primaryKey"]
    token = sas.token(f"{hub1.endpoint.host}/devices/{device['deviceId']}", key)
    is_unauthorized(hub1.request("GET", f"/devices/{device['deviceId']}", token=token))
    is_unauthorized(hub1.request("GET", f"/twins/{device['deviceId']}", token=token))


def test_both_hub_names_reach_the_first_hub(nave, hub1, device):
    for name in hub1.endpoint.names:
        rest = HubRest(hub1.endpoint, nave.ca)
        assert rest.request("GET", f"/devices/{device['deviceId']}", host=name).status_code == 200, name
