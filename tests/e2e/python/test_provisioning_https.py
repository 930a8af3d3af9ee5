"""The provisioning service's device side over HTTPS, without an SDK."""

import pytest
import requests

from harness import pki, sas
from harness.rest import DPS_DEVICE_VERSION
from harness.secrets import new_key


def symmetric(primary: str) -> dict:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": primary, "secondaryKey": new_key()}}


@pytest.fixture
def enrolled(dps, unique):
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key))
    return name, key


def is_error(response, status: int) -> dict:
    assert response.status_code == status, response.text
    body = response.json()
    assert body["errorCode"] // 1000 == status
    assert body["trackingId"] and body["message"] and body["timestampUtc"].endswith("Z")
    assert response.headers["x-ms-error-code"]
    return body


def test_answers_of_a_registration(dps, hubs, enrolled):
    name, key = enrolled
    answer = dps.device_request("PUT", name, "/register", key, json={"registrationId": name})
    assert answer.status_code == 202, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["x-ms-request-id"]
    body = answer.json()
    assert body["status"] == "assigning" and body["operationId"]
    assert body["operationId"] in answer.headers["Location"]

    state = dps.register(name, key)["registrationState"]
    assert state["registrationId"] == name
    assert state["assignedHub"] in hubs
    assert state["status"] == "assigned"
    assert state["createdDateTimeUtc"].endswith("Z") and len(state["createdDateTimeUtc"]) == len("2020-04-10T03:11:13.0276997Z")


def test_lookup(dps, enrolled):
    name, key = enrolled
    is_error(dps.device_request("POST", name, "", key, json={"registrationId": name}), 404)
    registered = dps.register(name, key)
    found = dps.device_request("POST", name, "", key, json={"registrationId": name})
    assert found.status_code == 200, found.text
    assert found.json()["assignedHub"] == registered["registrationState"]["assignedHub"]
    assert found.json()["deviceId"] == name


@pytest.mark.parametrize("data", [None, b"", b"{}", b'{"registrationId":null}', b'{"payload":null}'])
def test_bodies_that_say_little(dps, enrolled, data):
    name, key = enrolled
    answer = dps.device_request("PUT", name, "/register", key, data=data)
    assert answer.status_code in (200, 202), answer.text


@pytest.mark.parametrize("data", [b"{", b"[1]", b'"text"', b"\xff"])
def test_body_that_is_no_registration(dps, enrolled, data):
    name, key = enrolled
    is_error(dps.device_request("PUT", name, "/register", key, data=data), 400)


def test_id_in_the_body_of_another(dps, enrolled):
    name, key = enrolled
    is_error(dps.device_request("PUT", name, "/register", key, json={"registrationId": "other"}), 400)
    answer = dps.device_request("PUT", name, "/register", key, json={"registrationId": name.upper()})
    assert answer.status_code in (200, 202), answer.text


@pytest.mark.parametrize("payload", [{"a": 1}, "a string, as one SDK sends it", 1, [1], None])
def test_any_payload(dps, enrolled, payload):
    name, key = enrolled
    answer = dps.device_request("PUT", name, "/register", key, json={"registrationId": name, "payload": payload})
    assert answer.status_code in (200, 202), answer.text


@pytest.mark.parametrize("resource, policy, encode", [
    ("{scope}/registrations/{name}", None, True),
    ("{scope}/registrations/{name}", "registration", True),
    ("{scope}/registrations/{name}", "", False),
    ("{scope}/registrations/{name}", "registration", False),
], ids=["python-no-skn", "node", "java-empty-skn-raw-slashes", "c-raw-slashes"])
def test_tokens_as_the_sdks_write_them(dps, enrolled, resource, policy, encode):
    name, key = enrolled
    token = sas.token(resource.format(scope=dps.endpoint.id_scope, name=name), key, policy, encode=encode)
    answer = dps.device_request("PUT", name, "/register", key, token=token, json={"registrationId": name})
    assert answer.status_code in (200, 202), answer.text


def test_bad_tokens(dps, enrolled, unique):
    name, key = enrolled
    scope = dps.endpoint.id_scope

    def attempt(token, path_name=name):
        return dps.device_request("PUT", path_name, "/register", None, token=token, json={"registrationId": path_name})

    is_error(attempt(""), 401)
    is_error(attempt("garbage"), 401)
    is_error(attempt(sas.token(f"{scope}/registrations/{name}", new_key(), "registration")), 401)
    is_error(attempt(sas.token(f"{scope}/registrations/{name}", key, "registration", lifetime=-3600)), 401)
    is_error(attempt(sas.token(f"{scope}/registrations/other", key, "registration")), 401)
    is_error(attempt(sas.token(f"0ne99999999/registrations/{name}", key, "registration")), 401)
    assert attempt(sas.token(f"{scope}/registrations/{name}", key, "registration")).status_code in (200, 202)


def test_unknown_scope(dps, enrolled):
    name, key = enrolled
    token = sas.token(f"0ne99999999/registrations/{name}", key, "registration")
    response = dps.request("PUT", f"/0ne99999999/registrations/{name}/register", version=DPS_DEVICE_VERSION,
                           token=token, json={"registrationId": name})
    assert response.status_code in (401, 404), response.text
    assert response.json()["errorCode"]


def test_unknown_operation(dps, enrolled):
    name, key = enrolled
    dps.register(name, key)
    is_error(dps.device_request("GET", name, "/operations/5.0.nothing", key), 404)


def test_operation_of_another_device(dps, enrolled, unique):
    name, key = enrolled
    operation = dps.device_request("PUT", name, "/register", key, json={"registrationId": name}).json()["operationId"]
    other, other_key = unique(), new_key()
    dps.put_enrollment(other, symmetric(other_key))
    is_error(dps.device_request("GET", other, f"/operations/{operation}", other_key), 404)


def test_certificate_and_its_wrong_key(nave, dps, hubs, unique):
    name = unique()
    certificate = pki.self_signed(name)
    dps.put_enrollment(name, {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": certificate.pem}}}})
    assert dps.register(name, cert=certificate.files())["registrationState"]["assignedHub"] in hubs
    with pytest.raises(requests.exceptions.RequestException):
        dps.device_request("PUT", name, "/register", None, cert=certificate.stolen_files(), json={"registrationId": name})


def test_get_with_a_body(dps, enrolled):
    """As one SDK polls."""
    name, key = enrolled
    operation = dps.device_request("PUT", name, "/register", key, json={"registrationId": name}).json()["operationId"]
    answer = dps.device_request("GET", name, f"/operations/{operation}", key, data=b"{}")
    assert answer.status_code in (200, 202), answer.text
    assert dps.device_request("GET", name, f"/operations/{operation}", key).status_code in (200, 202), "the connection is in step"


def test_force_registration(dps, hub1, hub2, unique):
    name, key = unique(), new_key()
    attestation = symmetric(key)
    never = {"updateHubAssignment": False, "migrateDeviceData": False}
    enrollment = dps.put_enrollment(name, attestation, iotHubs=[hub1.endpoint.host], reprovisionPolicy=never)
    dps.register(name, key)
    dps.put_enrollment(name, attestation, iotHubs=[hub2.endpoint.host], reprovisionPolicy=never, if_match=enrollment["etag"])
    answer = dps.device_request("PUT", name, "/register", key, params={"forceRegistration": "true"},
                                json={"registrationId": name})
    assert answer.status_code in (200, 202), answer.text
