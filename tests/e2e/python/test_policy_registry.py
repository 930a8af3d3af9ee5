"""Allocation policies from an OCI registry: a real one, without TLS on this machine, and with TLS and passwords."""

import base64
import datetime
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.secrets import remember
from harness.server import REPOSITORY, binary

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
COMPONENTS = REPOSITORY / Path(os.environ.get("NAVE_COMPONENTS") or "target/components") / "fixtures"
UNPACKED = TARGET / "setup/docker-registry/usr/bin/docker-registry"

USER = "pusher"
PASSWORD = "for-tests-only"
# Of that password; the registry takes no other kind.
HTPASSWD = USER + ":$2b$05$abcdefghijklmnopqrstuuZs.YZeLtYrzeLC44.kR5arqMlYS5RsS\n"


def program() -> str:
    found = str(UNPACKED) if UNPACKED.exists() else shutil.which("docker-registry")
    if not found:
        pytest.skip("there is no docker-registry: `cargo xtask policies` unpacks it on Debian")
    return found


class Registry:
    """A registry on a free port of this machine."""

    def __init__(self, folder: Path, more: dict):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        http = {"addr": f"127.0.0.1:{self.port}", **more.pop("http", {})}
        config = {"version": 0.1, "log": {"level": "warn"}, "http": http,
                  "storage": {"filesystem": {"rootdirectory": str(folder / "content")}}, **more}
        # JSON is YAML.
        (folder / "config.yml").write_text(json.dumps(config))
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([program(), "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        self.host = f"localhost:{self.port}"
        give_up = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < give_up, self.log.read_text()
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    made = Registry(tmp_path_factory.mktemp("registry"), {})
    yield made
    made.stop()


@pytest.fixture(scope="module")
def locked_registry(tmp_path_factory):
    """One with TLS by an authority of its own, and a password."""
    folder = tmp_path_factory.mktemp("locked-registry")
    authority, certificate, key = server_certificate()
    for name, text in (("ca.pem", authority), ("server.pem", certificate), ("server.key", key), ("htpasswd", HTPASSWD)):
        (folder / name).write_text(text)
    made = Registry(folder, {
        "http": {"tls": {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    })
    made.ca = folder / "ca.pem"
    yield made
    made.stop()


def server_certificate() -> tuple[str, str, str]:
    """An authority, and a certificate by it for localhost with its key."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def build(name, key, issuer, issuer_key, extension):
        return (x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=1)).add_extension(*extension)
                .sign(issuer_key, hashes.SHA256()))

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = build(name("registry CA"), ca_key, name("registry CA"), ca_key, (x509.BasicConstraints(True, None), True))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = build(name("localhost"), key, name("registry CA"), ca_key, (names, False))
    pem = serialization.Encoding.PEM
    return (ca.public_bytes(pem).decode(), leaf.public_bytes(pem).decode(),
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode())


@pytest.fixture
def policy_command(nave):
    """Runs `nave policy` without credentials of whoever runs the tests."""

    def run(*words: str, env: dict | None = None, code: int = 0) -> dict:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("NAVE_", "DOCKER_"))}
        command = [str(binary()), "policy", *words, "--data-dir", str(nave.data_dir), "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                              env={**clean, "DOCKER_CONFIG": "/nonexistent", **(env or {})})
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        assert remember(PASSWORD) not in done.stdout + done.stderr
        return json.loads(done.stdout) if code == 0 else {"error": done.stderr}

    return run


def test_a_policy_goes_through_a_registry_into_the_hub(registry, policy_command, dps, unique, tmp_path):
    component = COMPONENTS / "released-0-1-0.wasm"
    reference = f"oci://{registry.host}/policies/by-site:1.2"
    published = policy_command("push", str(component), "--to", reference)
    pinned = published["pinned"]
    assert pinned.startswith(f"oci://{registry.host}/policies/by-site@sha256:")
    # The same bytes have the same digest, whoever pushes them and whenever.
    assert policy_command("push", str(component), "--to", reference)["pinned"] == pinned
    for source in (reference, pinned):
        file = tmp_path / "pulled.wasm"
        pulled = policy_command("pull", source, str(file))
        assert (pulled["source"], file.read_bytes()) == (pinned, component.read_bytes())
    name = unique().lower()
    stored = policy_command("push", reference, "--name", name, "--version", "1.2", "--activate")
    assert (stored["source"], stored["digest"]) == (pinned, published["digest"])
    shown = dps.ok("GET", f"/allocationPolicies/{name}").json()
    assert (shown["active"], shown["versions"][0]["source"]) == ("1.2", pinned)
    # A tag may point to something else tomorrow; what is pinned stays what it is.
    other = policy_command("push", str(COMPONENTS / "hostile-policy.wasm"), "--to", reference)["pinned"]
    assert other != pinned
    policy_command("pull", pinned, str(tmp_path / "again.wasm"))
    assert (tmp_path / "again.wasm").read_bytes() == component.read_bytes()
    missing = policy_command("pull", f"oci://{registry.host}/policies/absent:1", str(tmp_path / "x"), code=3)
    assert "no such manifest" in missing["error"]
    dps.request("DELETE", f"/allocationPolicies/{name}?force=true")


def test_a_registry_with_tls_and_a_password(locked_registry, policy_command, tmp_path):
    component, reference = COMPONENTS / "released-0-1-0.wasm", f"oci://{locked_registry.host}/by-site:1"
    trusted = ("--registry-ca", str(locked_registry.ca))
    by_environment = {"NAVE_REGISTRY_USER": USER, "NAVE_REGISTRY_PASSWORD": PASSWORD}
    policy_command("push", str(component), "--to", reference, *trusted, env=by_environment)
    # What `docker login` writes.
    docker = tmp_path / "docker"
    docker.mkdir()
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (docker / "config.json").write_text(json.dumps({"auths": {locked_registry.host: {"auth": auth}}}))
    file = tmp_path / "pulled.wasm"
    policy_command("pull", reference, str(file), *trusted, env={"DOCKER_CONFIG": str(docker)})
    assert file.read_bytes() == component.read_bytes()
    # A flag and a file.
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    flags = ("--registry-user", USER, "--registry-password-file", str(secret))
    policy_command("pull", reference, str(file), *trusted, *flags)
    assert "asks who you are" in policy_command("pull", reference, str(file), *trusted, code=1)["error"]
    wrong = {**by_environment, "NAVE_REGISTRY_PASSWORD": "another"}
    assert "may not do that" in policy_command("pull", reference, str(file), *trusted, env=wrong, code=1)["error"]
    # Another authority: not trusted, and nothing was sent.
    authority = tmp_path / "other-ca.pem"
    authority.write_text(server_certificate()[0])
    refused = policy_command("pull", reference, str(file), "--registry-ca", str(authority), env=by_environment, code=4)
    assert "certificate" in refused["error"], refused
