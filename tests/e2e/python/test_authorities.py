"""Certificate authorities that vouch for devices, and the proof that their key is in the right hands."""

import pytest
from azure.iot.device.exceptions import ClientError, CredentialError

from harness import devices, pki
from harness.admin import Admin

SIGNED = {"type": "certificateAuthority"}


@pytest.fixture
def admin(nave):
    return Admin(nave)


@pytest.fixture
def connect_signed(nave, hub1, connect):
    def attempt(name, certificate, hub=hub1):
        client = devices.from_certificate(hub.endpoint.host, name, certificate, nave.ca, connection_retry=False)
        return connect.adopt(client)
    return attempt


def test_device_signed_through_an_intermediate(admin, hub1, hub2, feed, connect_signed, unique):
    name = unique()
    root = pki.root()
    certificate = pki.leaf(pki.intermediate(root), name)
    for hub in (hub1, hub2):
        hub.create_device(name, authentication=SIGNED)
    with pytest.raises(CredentialError):
        connect_signed(name, certificate)
    admin.add_authority("hubs/hub1", unique("-ca"), root.pem)
    connect_signed(name, certificate).client.send_message("signed")
    assert feed.wait(name)[0].body == b"signed"
    with pytest.raises(CredentialError):
        connect_signed(name, certificate, hub2)


def test_only_the_device_that_the_certificate_names(admin, hub1, connect_signed, unique):
    name, other = unique(), unique("-other")
    root = pki.root()
    admin.add_authority("hubs/hub1", unique("-ca"), root.pem)
    hub1.create_device(name, authentication=SIGNED)
    for bad in (pki.leaf(root, other), pki.leaf(root, name, days=(-20, -10)), pki.leaf(pki.root(), name),
                pki.self_signed(name)):
        with pytest.raises(CredentialError):
            connect_signed(name, bad)
    assert connect_signed(name, pki.leaf(root, name)).client.connected


def test_proof_of_possession(admin, hub1, connect_signed, unique):
    name, authority = unique(), unique("-ca")
    root = pki.root()
    added = admin.add_authority("hubs/hub1", authority, root.pem, verified=False)
    assert added["verified"] is False and added["verificationCode"]
    hub1.create_device(name, authentication=SIGNED)
    certificate = pki.leaf(root, name)
    with pytest.raises(CredentialError):
        connect_signed(name, certificate)
    for bad in (pki.leaf(root, "another code"), pki.leaf(pki.root(), added["verificationCode"])):
        assert admin.verify_authority("hubs/hub1", authority, bad.pem).status_code == 400
    with pytest.raises(CredentialError):
        connect_signed(name, certificate)
    verified = admin.verify_authority("hubs/hub1", authority, pki.leaf(root, added["verificationCode"]).pem)
    assert verified.status_code == 200, verified.text
    assert verified.json()["verified"] is True
    assert connect_signed(name, certificate).client.connected
    assert admin.request("DELETE", f"/admin/hubs/hub1/authorities/{authority}").status_code == 204
    with pytest.raises(CredentialError):
        connect_signed(name, certificate)


def test_enrollment_group_of_a_registered_authority(nave, admin, dps, hubs, unique):
    group, name, authority = unique("-group"), unique("-device"), unique("-ca")
    root = pki.root()
    certificate = pki.leaf(pki.intermediate(root), name)
    attestation = {"type": "x509", "x509": {"caReferences": {"primary": authority}}}
    admin.add_authority("provisioning", authority, root.pem)
    dps.put_group(group, attestation)

    def register(presented):
        client = devices.provisioning_with_certificate(
            dps.endpoint.host, dps.endpoint.id_scope, name, presented, nave.ca)
        return devices.register(client)

    assert register(certificate).registration_state.assigned_hub in hubs
    with pytest.raises((ClientError, CredentialError)):
        register(pki.leaf(pki.root(), name))


def test_admin_wants_its_token(admin):
    for token in ("", "wrong"):
        assert admin.request("GET", "/admin/status", token=token).status_code == 401
    assert admin.request("GET", "/admin/status").status_code == 200
