"""The hub as a process."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import requests

from harness.sas import parse_connection_string
from harness.secrets import collect, remember

REPOSITORY = Path(__file__).resolve().parents[4]
CONFIGURATION = REPOSITORY / "tests/e2e/nave.toml"
NAMES = ("hub1.nave.test", "hub2.nave.test", "dps.nave.test")
PORTS = (8883, 443)

READY_SECONDS = 60
"""Until the ready file is there. A first start compiles the components, on a busy machine."""
STOP_SECONDS = 30


class HarnessError(Exception):
    """The tests cannot run here; the message says what to do."""


def binary() -> Path:
    path = Path(os.environ.get("NAVE_BIN") or REPOSITORY / "target/release/nave")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise HarnessError(f"there is no hub to test at {path}: run `cargo xtask build`, or name one by NAVE_BIN")
    return path


def ensure_names() -> None:
    """The SDKs dial names, not addresses: puts the names into the hosts file if they are not there."""

    def missing() -> list[str]:
        gone = []
        for name in NAMES:
            try:
                addresses = {info[4][0] for info in socket.getaddrinfo(name, 8883, proto=socket.IPPROTO_TCP)}
            except OSError:
                gone.append(name)
                continue
            if not addresses <= {"127.0.0.1", "::1"}:
                raise HarnessError(f"{name} is {addresses}, not this machine")
        return gone

    if not missing():
        return
    command = [str(binary()), "hosts", "--write", "--config", str(CONFIGURATION)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    gone = missing()
    if gone:
        raise HarnessError(
            f"the names {', '.join(gone)} are not in the hosts file; run as root: {' '.join(command)}\n"
            f"(tried, exit code {done.returncode}: {done.stdout}{done.stderr})"
        )


def ensure_ports_free() -> None:
    for port in PORTS:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise HarnessError(f"something listens on port {port} already: stop it, the SDKs dial fixed ports")


_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """A hub that outlives a run that was killed would hold the ports (Linux; elsewhere there is no such thing)."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Endpoint:
    """A hub or the provisioning service: its names and its owner's key."""

    def __init__(self, description: dict):
        parts = parse_connection_string(description["serviceConnectionString"])
        self.connection_string: str = description["serviceConnectionString"]
        self.policy: str = parts["SharedAccessKeyName"]
        self.key: str = remember(parts["SharedAccessKey"])
        self.name: str | None = description.get("name")
        names = [description["hostName"], *description.get("aliases", [])]
        # What DPS answers as the assigned hub, and what SDKs accept everywhere: the name with a dot.
        self.host: str = next((name for name in names if "." in name), names[0])
        self.names: list[str] = names
        self.id_scope: str | None = description.get("idScope")

    def service_connection_string(self) -> str:
        return f"HostName={self.host};SharedAccessKeyName={self.policy};SharedAccessKey={self.key}"


class Nave:
    """One hub process with a data directory of its own."""

    def __init__(self, data_dir: Path | None = None):
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="nave-e2e-"))
        self.log = self.data_dir.with_name(self.data_dir.name + ".log")
        # A copy, so that a test may change it and have it read again.
        self.configuration = self.data_dir.with_name(self.data_dir.name + ".toml")
        self.configuration.write_text(CONFIGURATION.read_text())
        self._process: subprocess.Popen | None = None
        self.connection: dict = {}

    @property
    def ready_file(self) -> Path:
        return self.data_dir / "connection.json"

    @property
    def ca(self) -> str:
        """The path of the certificate that vouches for the server's."""
        return self.connection["caCertificate"]

    @property
    def ca_pem(self) -> str:
        return Path(self.ca).read_text()

    def hub(self, name: str) -> Endpoint:
        return Endpoint(next(hub for hub in self.connection["hubs"] if hub["name"] == name))

    def provisioning(self) -> Endpoint:
        return Endpoint(self.connection["provisioning"])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        assert self._process is None, "it runs already"
        program = binary()
        ensure_names()
        ensure_ports_free()
        command = [str(program), "serve", "--data-dir", str(self.data_dir), "--config", str(self.configuration)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready_file.exists():
            code = self._process.poll()
            if code is not None:
                self._process = None
                raise HarnessError(f"`{' '.join(command)}` ended with exit code {code}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise HarnessError(f"no {self.ready_file} after {READY_SECONDS} s:\n{self.log_tail()}")
            time.sleep(0.02)
        self.connection = json.loads(self.ready_file.read_text())
        token = self.connection.get("admin", {}).get("token")
        if token:
            remember(token)
        for key in (self.data_dir / "tls").glob("*.key"):
            remember(key.read_text())

    def stop(self) -> None:
        """Asks it to stop, as an init system does. Anything but a clean end is an error."""
        if self.is_running():
            self.collect()
        process, self._process = self._process, None
        assert process is not None, "it does not run"
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"it did not stop within {STOP_SECONDS} s after SIGTERM:\n{self.log_tail()}") from None
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.log_tail()}"
        assert not self.ready_file.exists(), "the ready file is still there after a clean stop"

    def collect(self) -> None:
        """Notes what it says of itself, to be searched for secrets."""
        admin = self.connection.get("admin")
        if admin is None:
            # Another host of the functions, which has no such interface.
            return
        for path in ("/metrics", "/admin/status", "/admin/configuration"):
            answer = requests.get(admin["url"] + path, headers={"Authorization": f"Bearer {admin['token']}"}, timeout=60)
            answer.raise_for_status()
            collect(path, answer.text)

    def kill(self) -> None:
        """Ends it without a chance to tidy up."""
        process, self._process = self._process, None
        assert process is not None, "it does not run"
        process.kill()
        process.wait()
        self.ready_file.unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self.start()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess:
        """A command of the hub's own CLI, against this hub."""
        command = [str(binary()), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        # Standard output shows keys to whoever asks for them.
        collect(f"nave {args[0]}", done.stderr)
        if check:
            done.check_returncode()
        return done

    def remove(self) -> None:
        if self._process is not None:
            self.kill()
        collect("log", self.log_text())
        if not os.environ.get("NAVE_KEEP"):
            shutil.rmtree(self.data_dir, ignore_errors=True)
            self.log.unlink(missing_ok=True)
            self.configuration.unlink(missing_ok=True)
