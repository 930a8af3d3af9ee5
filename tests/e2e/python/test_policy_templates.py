"""The example policies of the templates, each in another language, deployed to the hub: the SDK registers devices by them.

`cargo xtask policies` makes the components (`nave policy new`, then what the README.md of each project says).
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from azure.iot.device.exceptions import ClientError

from harness import devices, pki
from harness.secrets import new_key
from harness.server import REPOSITORY, binary

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
COMPONENTS = TARGET / "policies"


@pytest.fixture(scope="module")
def deployed(nave):
    """Pushes the component of a template's project and makes it decide; what an enrollment says of it."""
    done = set()

    def deploy(project: str, configuration: dict | None = None) -> dict:
        component = COMPONENTS / f"{project}.wasm"
        assert component.is_file(), f"{component} is not there: run `cargo xtask policies`"
        if project not in done:
            # The interpreters of JavaScript and Python take long to compile on a busy machine.
            run = subprocess.run([str(binary()), "policy", "push", str(component), "--name", project, "--activate",
                                  "--data-dir", str(nave.data_dir)], capture_output=True, text=True, timeout=300)
            assert run.returncode == 0, f"{project}: {run.stdout}{run.stderr}"
            done.add(project)
        definition = {"webhookUrl": f"nave:policy/{project}", "apiVersion": "2021-10-01"}
        if configuration is not None:
            definition["configuration"] = configuration
        return {"allocationPolicy": "custom", "customAllocationDefinition": definition}

    return deploy


@pytest.fixture
def register(nave, dps):
    def register(name: str, key_or_certificate, payload=None):
        here = (dps.endpoint.host, dps.endpoint.id_scope, name, key_or_certificate, nave.ca)
        if isinstance(key_or_certificate, str):
            client = devices.provisioning_with_key(*here)
        else:
            client = devices.provisioning_with_certificate(*here)
        client.provisioning_payload = payload
        return devices.register(client).registration_state
    return register


def keys(key: str) -> dict:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": new_key()}}


def test_rust_by_a_tag_of_the_enrollment(dps, hubs, unique, deployed, register):
    for host in hubs:
        name, key, site = unique(), new_key(), host.split(".")[0]
        dps.put_enrollment(name, keys(key), initialTwin={"tags": {"site": site}}, **deployed("by-site"))
        assert register(name, key).assigned_hub == host
    # The configuration names another tag, and is checked by the schema that the policy exports.
    name, key = unique(), new_key()
    twin = {"tags": {"site": "hub1", "line": "hub2"}}
    dps.put_enrollment(name, keys(key), initialTwin=twin, **deployed("by-site", {"tag": "line"}))
    assert register(name, key).assigned_hub == "hub2.nave.test"
    wrong = {"registrationId": unique(), "attestation": keys(new_key()), **deployed("by-site", {"tga": "line"})}
    assert dps.request("PUT", f"/enrollments/{wrong['registrationId']}", json=wrong).status_code == 400


def test_javascript_by_the_region_in_the_payload(dps, hubs, unique, deployed, register):
    for host in hubs:
        name, key, region = unique(), new_key(), host.split(".")[0]
        dps.put_enrollment(name, keys(key), **deployed("by-region"))
        state = register(name, key, {"region": region.upper()})
        assert state.assigned_hub == host
        assert json.loads(state.response_payload) == {"region": region}
    name, key = unique(), new_key()
    dps.put_enrollment(name, keys(key), **deployed("by-region"))
    with pytest.raises(ClientError):
        register(name, key)
    assert "registration payload must be" in dps.registration(name)["errorMessage"]


def test_python_by_the_organisation_in_the_certificate(dps, hubs, unique, deployed, register):
    for host, hub in hubs.items():
        name, organisation = unique(), host.split(".")[0].capitalize()
        certificate = pki.self_signed(name, organisation=organisation)
        attestation = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": certificate.pem}}}}
        dps.put_enrollment(name, attestation, **deployed("by-organisation"))
        assert register(name, certificate).assigned_hub == host
        assert hub.twin(name)["tags"] == {"organisation": organisation}


def test_c_stays_where_it_is(dps, hubs, unique, deployed, register):
    name, key = unique(), new_key()
    dps.put_enrollment(name, keys(key), **deployed("sticky"))
    first = register(name, key).assigned_hub
    assert first in hubs
    assert {register(name, key).assigned_hub for _ in range(3)} == {first}
