"""The right certificate with the wrong key: a certificate is public, only the handshake's signature proves anything."""

import ssl

import pytest

from harness import pki
from raw.client import CONNACK, Client, Closed, connect


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls12", "tls13"])
def test_right_certificate_with_the_wrong_key(hub, hub1, unique, control, tls):
    name = unique()
    certificate = pki.self_signed(name)
    device = hub1.create_device(name, authentication={"type": "selfSigned", "x509Thumbprint": {
        "primaryThumbprint": certificate.thumbprint(), "secondaryThumbprint": None}})
    with hub.log_in(device, certificate=certificate.files(), tls=tls, password=False) as client:
        client.ping()
    # TLS 1.2 fails within the handshake; with 1.3 the client is done before the server has looked.
    with pytest.raises((ssl.SSLError, ConnectionError, Closed)):
        with hub.open(certificate=certificate.stolen_files(), tls=tls) as client:
            client.send(hub.connect_packet(device, password=False))
            answer = client.receive()
            assert answer.kind == CONNACK
            pytest.fail("the server let it in" if answer.body[1] == 0 else "the server answered instead of ending TLS")
    assert hub1.device(name)["connectionState"] == "Disconnected" or hub1.wait_for(name, "Disconnected")


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls12", "tls13"])
def test_provisioning_with_the_wrong_key(dps, provisioning, unique, control, tls):
    name = unique()
    certificate = pki.self_signed(name)
    dps.put_enrollment(name, {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": certificate.pem}}}})
    with pytest.raises((ssl.SSLError, ConnectionError, Closed)):
        with Client(provisioning.host, provisioning.ca, certificate=certificate.stolen_files(), tls=tls) as client:
            client.send(connect(name, provisioning.username(name), None, clean=True))
            client.receive()
            pytest.fail("the server answered instead of ending TLS")
    assert dps.request("GET", f"/registrations/{name}").status_code == 404
