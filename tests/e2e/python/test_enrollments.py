"""The provisioning service's own REST: enrollments, groups, registration states."""

import pytest

from harness import pki, sas
from harness.rest import segment
from harness.secrets import new_key


def symmetric(primary: str = "", secondary: str = "") -> dict:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}


def is_error(response, status: int, code: int | None = None) -> dict:
    assert response.status_code == status, response.text
    body = response.json()
    assert body["errorCode"] // 1000 == status
    if code:
        assert body["errorCode"] == code
    assert body["trackingId"] and body["message"] and body["timestampUtc"].endswith("Z")
    assert response.headers["x-ms-error-code"]
    assert response.headers["x-ms-request-id"]
    return body


KINDS = {"enrollments": "registrationId", "enrollmentGroups": "enrollmentGroupId"}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def body_of(kind: str, name: str, **fields) -> dict:
    return {KINDS[kind]: name, "attestation": symmetric(), **fields}


def put(dps, kind, name, etag=None, **fields):
    headers = {"If-Match": etag} if etag else {}
    return dps.request("PUT", f"/{kind}/{segment(name)}", json=body_of(kind, name, **fields), headers=headers)


def test_life_of_an_enrollment(dps, kind, unique):
    name = unique()
    created = put(dps, kind, name, initialTwin={"tags": {"a": 1}, "properties": {"desired": {"b": 2}}})
    assert created.status_code == 200, created.text
    created = created.json()
    assert created[KINDS[kind]] == name
    assert created["etag"][0] == created["etag"][-1] == '"', "the quotes are part of it"
    assert created["provisioningStatus"] == "enabled"
    assert created["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}
    assert created["initialTwin"] == {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}}
    assert created["createdDateTimeUtc"].endswith("Z")
    assert list(created["attestation"])[-1] == "type", "setters of one SDK override the type: it comes last"
    keys = created["attestation"].get("symmetricKey") or {}
    assert not any(keys.values()), "answers hold no secrets"

    read = dps.ok("GET", f"/{kind}/{name}").json()
    assert read == created
    updated = put(dps, kind, name, created["etag"], provisioningStatus="disabled").json()
    assert updated["provisioningStatus"] == "disabled"
    assert updated["etag"] != created["etag"]
    assert updated["createdDateTimeUtc"] == created["createdDateTimeUtc"]
    response = put(dps, kind, name, created["etag"])
    assert response.status_code in (409, 412), response.text
    response = dps.request("DELETE", f"/{kind}/{name}", headers={"If-Match": created["etag"]})
    assert response.status_code in (409, 412), response.text
    gone = dps.request("DELETE", f"/{kind}/{name}", headers={"If-Match": updated["etag"]})
    assert (gone.status_code, gone.content) == (204, b"")
    is_error(dps.request("GET", f"/{kind}/{name}"), 404, 404201 if kind == "enrollments" else 404204)
    is_error(dps.request("DELETE", f"/{kind}/{name}"), 404)


def test_create_only(dps, kind, unique):
    name = unique()
    assert put(dps, kind, name).status_code == 200
    is_error(put(dps, kind, name), 409, 409201 if kind == "enrollments" else 409202)


@pytest.mark.parametrize("form", ["{quoted}", "{bare}", 'W/{quoted}', "*", '"*"'])
def test_every_form_of_if_match(dps, kind, unique, form):
    name = unique()
    etag = put(dps, kind, name).json()["etag"]
    response = put(dps, kind, name, form.format(quoted=etag, bare=etag.strip('"')))
    assert response.status_code == 200, response.text


def test_generated_keys_are_long_and_shown_on_request_only(dps, kind, unique):
    name = unique()
    put(dps, kind, name)
    primary, secondary = dps.symmetric_keys(kind, name)
    assert primary != secondary and len(primary) == len(secondary) == 88
    mechanism = dps.ok("POST", f"/{kind.lower()}/{name}/attestationmechanism").json()
    assert mechanism["type"] == "symmetricKey"
    assert mechanism["symmetricKey"] == {"primaryKey": primary, "secondaryKey": secondary}


def test_writing_back_what_was_read_keeps_the_keys(dps, kind, unique):
    name = unique()
    put(dps, kind, name)
    before = dps.symmetric_keys(kind, name)
    enrollment = dps.ok("GET", f"/{kind}/{name}").json()
    enrollment["provisioningStatus"] = "disabled"
    dps.ok("PUT", f"/{kind}/{name}", json=enrollment, headers={"If-Match": enrollment["etag"]})
    assert dps.symmetric_keys(kind, name) == before


def test_certificate_of_an_enrollment_is_described_and_hidden(dps, unique):
    name = unique()
    certificate = pki.self_signed(name)
    attestation = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": certificate.pem}}}}
    created = dps.put_enrollment(name, attestation)
    primary = created["attestation"]["x509"]["clientCertificates"]["primary"]
    assert primary.get("certificate") is None
    info = primary["info"]
    assert info["subjectName"] == info["issuerName"] == f"CN={name}"
    assert info["sha1Thumbprint"].upper() == certificate.thumbprint()
    assert info["sha256Thumbprint"].upper() == certificate.thumbprint("sha256")
    assert int(info["serialNumber"], 16) == certificate.certificate.serial_number
    assert info["version"] == 3
    assert info["notBeforeUtc"] < info["notAfterUtc"]
    assert None not in info.values(), "one SDK stumbles over null members"
    # Writing back what was read keeps the certificate.
    created["provisioningStatus"] = "disabled"
    again = dps.ok("PUT", f"/enrollments/{name}", json=created, headers={"If-Match": created["etag"]}).json()
    assert again["attestation"]["x509"]["clientCertificates"]["primary"]["info"] == info


@pytest.mark.parametrize("fields", [
    {"attestation": None},
    {"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "not base64", "secondaryKey": "x"}}},
    {"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "A" * 43 + "=", "secondaryKey": ""}}},
    {"attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": "garbage"}}}}},
    {"attestation": {"type": "magic"}},
    {"provisioningStatus": "maybe"},
    {"allocationPolicy": "dice"},
    {"initialTwin": {"properties": {"desired": {"a.b": 1}}}},
    {"initialTwin": "text"},
], ids=["none", "base64", "one-key", "certificate", "type", "status", "policy", "twin-key", "twin"])
def test_bad_enrollments_are_refused(dps, unique, fields):
    name = unique()
    is_error(put(dps, "enrollments", name, **fields), 400)
    assert dps.request("GET", f"/enrollments/{name}").status_code == 404


@pytest.mark.parametrize("name", ["space in it", "ends.", "ü", "x" * 129, "a/b"])
def test_bad_ids_are_refused(dps, kind, name):
    is_error(put(dps, kind, name), 400)


def test_ids_ignore_case(dps, kind, unique):
    name = unique()
    put(dps, kind, name)
    found = dps.request("GET", f"/{kind}/{name.upper()}")
    assert found.status_code == 200, found.text


def test_query_with_continuation(dps, kind, unique):
    names = {unique(f"-{n}") for n in range(5)}
    for name in names:
        assert put(dps, kind, name).status_code == 200
    found, continuation, pages = [], None, 0
    while True:
        headers = {"x-ms-max-item-count": "2"}
        if continuation:
            headers["x-ms-continuation"] = continuation
        response = dps.ok("POST", f"/{kind}/query", json={"query": f"SELECT * FROM {kind.lower()}"}, headers=headers)
        assert response.headers["x-ms-item-type"] == ("Enrollment" if kind == "enrollments" else "EnrollmentGroup")
        page = response.json()
        assert len(page) <= 2
        found += [item[KINDS[kind]] for item in page]
        pages += 1
        assert not any((item["attestation"].get("symmetricKey") or {}).get("primaryKey") for item in page)
        if "x-ms-continuation" not in response.headers:
            break
        continuation = response.headers["x-ms-continuation"]
        assert continuation
    assert pages >= 3
    assert names <= set(found)
    assert len(found) == len(set(found)), "nothing twice"


def test_query_text_is_not_looked_at(dps, kind):
    text = "{'additional_properties': {}, 'query': 'SELECT *'}"
    assert dps.request("POST", f"/{kind}/query", json={"query": text}).status_code == 200


def bulk(dps, kind, mode, *items, path=None):
    return dps.request("POST", path or f"/{kind}", json={"mode": mode, kind: list(items)})


def test_bulk(dps, unique, kind):
    first, second = unique(), unique()
    done = bulk(dps, kind, "create", body_of(kind, first), body_of(kind, second))
    assert done.status_code == 200, done.text
    assert done.json()["isSuccessful"] is True
    assert not done.json().get("errors")
    half = bulk(dps, kind, "create", body_of(kind, first), body_of(kind, unique()), path=f"/{kind}/")
    assert half.status_code == 200, half.text
    assert half.json()["isSuccessful"] is False
    (error,) = half.json()["errors"]
    assert error[KINDS[kind]] == first
    assert error["errorCode"] // 1000 == 409
    assert error["errorStatus"]
    changed = bulk(dps, kind, "update", body_of(kind, first, provisioningStatus="disabled"))
    assert changed.json()["isSuccessful"] is True, changed.text
    assert dps.ok("GET", f"/{kind}/{first}").json()["provisioningStatus"] == "disabled"
    stale = bulk(dps, kind, "updateIfMatchETag", body_of(kind, first, etag='"stale"'))
    assert stale.json()["isSuccessful"] is False, stale.text
    current = dps.ok("GET", f"/{kind}/{first}").json()
    fresh = bulk(dps, kind, "updateIfMatchETag", body_of(kind, first, etag=current["etag"]))
    assert fresh.json()["isSuccessful"] is True, fresh.text
    gone = bulk(dps, kind, "delete", {KINDS[kind]: first, "attestation": symmetric()},
                {KINDS[kind]: second, "attestation": symmetric()})
    assert gone.json()["isSuccessful"] is True, gone.text
    assert dps.request("GET", f"/{kind}/{first}").status_code == 404


def test_bulk_limits(dps, unique):
    is_error(bulk(dps, "enrollments", "create", *(body_of("enrollments", unique(f"-{n}")) for n in range(11))), 400)
    is_error(bulk(dps, "enrollments", "invent", body_of("enrollments", unique())), 400)


def test_registration_states(dps, hubs, unique):
    group, primary = unique("-group"), new_key()
    dps.put_group(group, symmetric(primary, new_key()))
    names = {unique(f"-{n}") for n in range(3)}
    for name in names:
        dps.register(name, sas.derive(primary, name))
    found = dps.ok("POST", f"/registrations/{group}/query", headers={"x-ms-max-item-count": "2"})
    assert found.headers["x-ms-item-type"] == "DeviceRegistration"
    page = found.json()
    assert len(page) == 2
    rest = dps.ok("POST", f"/registrations/{group}/query", json={},
                  headers={"x-ms-continuation": found.headers["x-ms-continuation"]})
    assert "x-ms-continuation" not in rest.headers
    assert {state["registrationId"] for state in page + rest.json()} == names

    name = names.pop()
    state = dps.registration(name)
    assert state["status"] == "assigned"
    assert state["substatus"] == "initialAssignment"
    assert state["assignedHub"] in hubs
    assert state["deviceId"] == name
    response = dps.request("DELETE", f"/registrations/{name}", headers={"If-Match": '"stale"'})
    assert response.status_code in (409, 412), response.text
    assert dps.request("DELETE", f"/registrations/{name}", headers={"If-Match": state["etag"]}).status_code == 204
    is_error(dps.request("GET", f"/registrations/{name}"), 404, 404202)
    assert hubs[state["assignedHub"]].exists(name), "the device in the hub stays"


def test_registration_state_of_an_individual_enrollment(dps, unique):
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key, new_key()))
    dps.register(name, key)
    state = dps.enrollment(name)["registrationState"]
    assert state["status"] == "assigned"
    assert dps.registration(name)["etag"]


def test_deleting_an_enrollment_leaves_the_device(dps, hubs, unique):
    name, key = unique(), new_key()
    dps.put_enrollment(name, symmetric(key, new_key()))
    hub = hubs[dps.register(name, key)["registrationState"]["assignedHub"]]
    dps.ok("DELETE", f"/enrollments/{name}")
    assert hub.exists(name)
    is_error(dps.device_request("PUT", name, "/register", key, json={"registrationId": name}), 401)


@pytest.mark.parametrize("version", [None, "1999-01-01"])
def test_unknown_api_version(dps, version):
    response = dps.request("POST", "/enrollments/query", json={"query": "SELECT *"}, version=version)
    assert response.status_code == 400, response.text
    assert response.json()["errorCode"] // 1000 == 400


@pytest.mark.parametrize("version", ["2018-09-01", "2018-11-01", "2019-03-31", "2021-06-01", "2021-10-01"])
def test_versions_that_clients_send(dps, version):
    assert dps.request("POST", "/enrollments/query", json={"query": "SELECT *"}, version=version).status_code == 200
