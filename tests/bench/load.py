#!/usr/bin/env python3
"""Measures a running hub from outside, with Mosquitto beside it.

    cargo xtask build
    python3 tests/bench/load.py --tool PATH [--rounds 3] [--only connect,twin] [--out results.jsonl]
    python3 tests/bench/load.py --tool PATH --connections 50,1000,10000      how the cost grows with connections
    python3 tests/bench/load.py --tool PATH --soak 30                        whether memory is flat; exits with 1 if not

The load tool is a program of its own; PERFORMANCE.md says what its modes do. Everything stays on the loopback interface.
Every scenario is run `--rounds` times, hub and rival alternating, and the medians are printed. Each round starts a new hub on
an empty data directory.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from soak import PAUSE_SECONDS, RATE, TWIN_PAUSE_SECONDS, soak

ROOT = Path(__file__).resolve().parents[2]
MQTTS, HTTPS, RIVAL = 28883, 28443, 28884
DEVICES = 5000  # Idle connections.
BUSY = 50  # Connections that do something.
CONFIG = """
[[hub]]
name = "hub1"
host_name = "hub1.nave.test"

[provisioning]
host_name = "dps.nave.test"
"""
RIVAL_CONFIG = """
allow_anonymous true
persistence false
log_type error
set_tcp_nodelay true
max_connections -1
max_inflight_messages 1000
max_queued_messages 100000
listener {port} 127.0.0.1
certfile {tls}/server.pem
keyfile {tls}/server.key
"""
GROUP_KEY = base64.b64encode(hashlib.sha512(b"a key for measurements only").digest()).decode()


class Process:
    """A server that this script started, and ends."""

    def __init__(self, command, log):
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.pid = self.process.pid

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Hub(Process):
    """`nave serve` on `data`; `ready_ms` is the time from its start to the ready file."""

    def __init__(self, binary, data, log):
        data.mkdir(parents=True, exist_ok=True)
        config = data / "bench.toml"
        config.write_text(CONFIG)
        ready = data / "connection.json"
        start = time.perf_counter()
        super().__init__(
            [binary, "serve", "--data-dir", data, "--config", config, "--log-level", "warn"]
            + ["--listen-mqtts", f"127.0.0.1:{MQTTS}", "--listen-https", f"127.0.0.1:{HTTPS}"],
            log,
        )
        while not ready.exists():
            if self.process.poll() is not None or time.perf_counter() > start + 60:
                sys.exit(f"the hub did not start: see {log.name}")
            time.sleep(0.0005)
        self.ready_ms = (time.perf_counter() - start) * 1000
        self.facts = json.loads(ready.read_text())
        self.scope = self.facts["provisioning"]["idScope"]

    def owner_key(self):
        return self.facts["hubs"][0]["serviceConnectionString"].split("SharedAccessKey=", 1)[1]

    def request(self, service, method, path, body):
        """One request to a service, with the key of its owner."""
        facts = self.facts["provisioning"] if service == "provisioning" else self.facts["hubs"][0]
        parts = dict(part.split("=", 1) for part in facts["serviceConnectionString"].split(";"))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", facts["httpsPort"], context=ssl._create_unverified_context(), timeout=30
        )
        token = sas(parts["HostName"], parts["SharedAccessKey"], parts["SharedAccessKeyName"])
        headers = {"Authorization": token, "Content-Type": "application/json", "Host": parts["HostName"]}
        connection.request(method, path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text}")


def sas(resource, key, policy):
    resource, expiry = urllib.parse.quote(resource, safe=""), int(time.time()) + 3600
    digest = hmac.new(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"


class Run:
    def __init__(self, options):
        self.options = options
        self.results = {}
        self.directory = Path(tempfile.mkdtemp(prefix="nave-load-", dir=options.dir))
        self.log = open(self.directory / "servers.log", "w")
        self.out = open(options.out, "a") if options.out else None

    def tool(self, label, *arguments):
        """Runs the load tool once; its JSON line counts."""
        command = [self.options.tool, *map(str, arguments), "--label", label]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        line = json.loads(done.stdout)
        self.results.setdefault(label, []).append(line)
        self.write(line)
        if line["errors"]:
            print(f"{label}: {line['errors']} errors, first: {line.get('first_error')}", file=sys.stderr)
        return line

    def write(self, line):
        if self.out:
            print(json.dumps(line), file=self.out, flush=True)

    def wanted(self, what):
        return not self.options.only or what in self.options.only.split(",")

    def hub(self, data="hub"):
        return Hub(self.options.nave, self.directory / data, self.log)

    def rival(self, tls):
        config = self.directory / "mosquitto.conf"
        config.write_text(RIVAL_CONFIG.format(port=RIVAL, tls=tls))
        # It gives up root and would not read the key then.
        process = Process(["mosquitto", "-c", config] , self.log)
        time.sleep(0.5)
        return process

    def round(self):
        shutil.rmtree(self.directory / "hub", ignore_errors=True)
        with self.hub() as hub:
            tls = Path(hub.facts["caCertificate"]).parent
            self.enroll(hub)
            self.floors(tls)
            self.register(hub)
        self.start_up()
        rival_tls = self.readable_tls(tls)
        for name, scenario in [("connect", self.connect), ("telemetry", self.telemetry)]:
            if self.wanted(name):
                with self.hub() as hub:
                    scenario("nave", hub.pid, MQTTS, ["--group-key", GROUP_KEY])
                if shutil.which("mosquitto"):
                    with self.rival(rival_tls) as rival:
                        scenario("mosquitto", rival.pid, RIVAL, ["--anonymous"])
        with self.hub() as hub:
            self.twins_and_methods(hub)

    def readable_tls(self, tls):
        """The hub's certificate where the rival, which gives up root, can read it: both serve the same one."""
        copy = Path(tempfile.mkdtemp(prefix="nave-load-tls-"))
        copy.chmod(0o755)
        for name in ["server.pem", "server.key"]:
            shutil.copy(tls / name, copy / name)
            (copy / name).chmod(0o644)
        self.throw_away = [*getattr(self, "throw_away", []), copy]
        return copy

    def enroll(self, hub):
        keys = {"primaryKey": GROUP_KEY, "secondaryKey": GROUP_KEY}
        group = {"enrollmentGroupId": "load", "attestation": {"type": "symmetricKey", "symmetricKey": keys}}
        hub.request("provisioning", "PUT", "/enrollmentGroups/load?api-version=2021-10-01", group)

    def floors(self, tls):
        if self.wanted("floors"):
            files = ["--cert", tls / "server.pem", "--key-file", tls / "server.key"]
            self.tool("floor: TLS 1.3 handshake", "tls-floor", *files, "--insecure", "--n", 8000, "--src-addrs", 4)
            self.tool("floor: 4 KiB append, fdatasync", "fsync-floor", "--secs", 2, "--dir", self.directory)

    def register(self, hub):
        """Registers the devices of all scenarios; each also gets an identity and a twin in the hub."""
        common = ["--port", MQTTS, "--tls", "--insecure", "--id-scope", hub.scope, "--group-key", GROUP_KEY]
        for concurrency in [16, 256]:
            first = 1 if concurrency == 256 else 100_001
            count = DEVICES if concurrency == 256 else 4000
            self.tool(
                f"register, {concurrency} at once: nave", "register", *common, "--n", count, "--first", first,
                "--concurrency", concurrency, "--server-pid", hub.pid, "--poll-ms", 0, "--src-addrs", 4,
            )  # fmt: skip

    def register_some(self, hub, count):
        self.enroll(hub)
        self.tool(
            "register, 64 at once: nave", "register", "--port", MQTTS, "--tls", "--insecure", "--id-scope", hub.scope,
            "--group-key", GROUP_KEY, "--n", count, "--concurrency", 64, "--server-pid", hub.pid, "--poll-ms", 0,
            "--src-addrs", 4, "--limit", 3600,
        )  # fmt: skip

    def growth(self, counts):
        """The same work over more and more connections, and what an idle one takes."""
        shutil.rmtree(self.directory / "hub", ignore_errors=True)
        with self.hub() as hub:
            tls = self.readable_tls(Path(hub.facts["caCertificate"]).parent)
            self.register_some(hub, max(counts))
        for count in counts:
            with self.hub() as hub:
                self.at(count, "nave", hub.pid, MQTTS, ["--group-key", GROUP_KEY])
                twin = ["--port", MQTTS, "--tls", "--insecure", "--group-key", GROUP_KEY, "--server-pid", hub.pid]
                self.tool(
                    f"twin patch, {count} connections: nave", "twin", *twin, "--conns", count, "--max-ops", 20_000,
                    "--secs", 60, "--src-addrs", 4, "--limit", 600,
                )  # fmt: skip
            if shutil.which("mosquitto"):
                with self.rival(tls) as rival:
                    self.at(count, "mosquitto", rival.pid, RIVAL, ["--anonymous"])

    def at(self, count, name, pid, port, who):
        common = ["--port", port, "--tls", "--insecure", *who, "--server-pid", pid, "--src-addrs", 4, "--limit", 600]
        self.tool(f"connect, {count}: {name}", "connect", *common, "--n", count, "--concurrency", 64, "--hold", 4)
        self.tool(
            f"telemetry, QoS 1, 2,000/s, {count} connections: {name}", "telemetry", *common, "--conns", count,
            "--bytes", 256, "--rate", 2_000, "--secs", 20,
        )  # fmt: skip

    def soak(self, minutes):
        """Moderate work for a long time; whether memory was flat."""
        with self.hub() as hub:
            self.register_some(hub, 400)
            with self.rival(self.readable_tls(Path(hub.facts["caCertificate"]).parent)) as rival:
                common = ["--tls", "--insecure", "--limit", 300]
                ours = ["--port", MQTTS, "--group-key", GROUP_KEY, *common]
                theirs = ["--port", RIVAL, "--anonymous", *common]
                service = ["--http-port", HTTPS, "--service-key", hub.owner_key()]

                def both(who):
                    send = ["telemetry", *who, "--conns", 50, "--bytes", 256, "--rate", RATE, "--secs", 60]
                    come = ["connect", *who, "--first", 301, "--n", 100, "--hold", 5]
                    return [("telemetry", send, 0), ("connect", come, PAUSE_SECONDS)]

                twins = ["twin", *ours, "--first", 101, "--conns", 50, "--max-ops", 1000, "--secs", 60]
                methods = ["method", *ours, *service, "--first", 201, "--conns", 50, "--max-ops", 1000, "--secs", 60]
                own = [("twin", twins, TWIN_PAUSE_SECONDS), ("method", methods, PAUSE_SECONDS)]
                work = [("nave", hub.pid, both(ours) + own), ("mosquitto", rival.pid, both(theirs))]
                return soak(self, minutes, work)

    def start_up(self):
        if self.wanted("ready"):
            for _ in range(5):
                with self.hub() as hub:
                    self.results.setdefault("ready, warm cache: nave", []).append({"ready_ms": hub.ready_ms})

    def connect(self, name, pid, port, who):
        self.tool(
            f"connect: {name}", "connect", "--port", port, "--tls", "--insecure", *who, "--n", DEVICES,
            "--concurrency", 64, "--hold", 4, "--src-addrs", 4, "--server-pid", pid,
        )  # fmt: skip

    def telemetry(self, name, pid, port, who):
        common = ["--port", port, "--tls", "--insecure", *who, "--conns", BUSY, "--bytes", 256, "--server-pid", pid]
        self.tool(f"telemetry, QoS 1, window 20: {name}", "telemetry", *common, "--qos", 1, "--window", 20, "--secs", 6)
        self.tool(f"telemetry, QoS 1, 20,000/s: {name}", "telemetry", *common, "--qos", 1, "--rate", 20_000, "--secs", 5)
        self.tool(f"telemetry, QoS 0, window 20: {name}", "telemetry", *common, "--qos", 0, "--window", 20, "--secs", 4)

    def twins_and_methods(self, hub):
        who = ["--port", MQTTS, "--tls", "--insecure", "--group-key", GROUP_KEY, "--conns", BUSY, "--server-pid", hub.pid]
        if self.wanted("twin"):
            # 2 KB: half of it desired, half reported.
            desired = {f"setting{number:02}": {"value": number, "unit": "celsius"} for number in range(24)}
            for number in range(1, BUSY + 1):
                body = {"properties": {"desired": desired}}
                hub.request("hub", "PATCH", f"/twins/load-{number:06}?api-version=2021-04-12", body)
            self.tool("twin set-up: nave", "twin", *who, "--fields", 85, "--max-ops", BUSY, "--secs", 5)
            self.tool("twin patch, window 1: nave", "twin", *who, "--window", 1, "--secs", 6)
            self.tool("twin patch, window 4: nave", "twin", *who, "--window", 4, "--secs", 6)
            self.tool("twin read, window 1: nave", "twin", *who, "--window", 1, "--secs", 4, "--get")
        if self.wanted("method"):
            service = ["--http-port", HTTPS, "--service-key", hub.owner_key()]
            self.tool("method, 8 callers: nave", "method", *who, *service, "--concurrency", 8, "--secs", 6)
            self.tool("method, 1 caller: nave", "method", *who, *service, "--concurrency", 1, "--secs", 4)

    def report(self):
        columns = ["ops_s", "server_cpu_ms_per_1k", "p50_us", "p99_us", "p999_us", "bytes_per_conn_after_hold"]
        columns += ["other_cores", "ready_ms"]
        print("| scenario | per second | server CPU µs/op | p50 µs | p99 µs | p99.9 µs | bytes/connection | other cores | ms |")
        print("|---|" + "---|" * len(columns))
        for label, lines in self.results.items():
            cells = []
            for column in columns:
                values = [line[column] for line in lines if isinstance(line.get(column), (int, float))]
                cells.append(f"{statistics.median(values):,.6g}" if values else "")
            print(f"| {label} | " + " | ".join(cells) + " |")
        print(f"\nbinary: {os.path.getsize(self.options.nave):,} bytes; rounds: {self.options.rounds}")

    def clean(self):
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        for directory in getattr(self, "throw_away", []):
            shutil.rmtree(directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default=os.environ.get("NAVE_LOAD_TOOL"), help="the load tool (or NAVE_LOAD_TOOL)")
    parser.add_argument("--nave", default=str(ROOT / "target/release/nave"), help="the binary to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="of floors, ready, connect, telemetry, twin, method; registration always runs")
    parser.add_argument("--dir", default=str(ROOT / "target"), help="a directory on the disk to measure")
    parser.add_argument("--out", help="a file to which each result is appended as one JSON line")
    parser.add_argument("--connections", help="numbers of connections, such as 50,1000,10000; nothing else is measured then")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="run for a long time; nothing else is measured then")
    options = parser.parse_args()
    if not options.tool or not os.access(options.tool, os.X_OK):
        parser.error("--tool must name the load tool's binary")
    run = Run(options)
    try:
        if options.soak:
            sys.exit(0 if run.soak(options.soak) else 1)
        for _ in range(options.rounds):
            run.growth([int(count) for count in options.connections.split(",")]) if options.connections else run.round()
        run.report()
    finally:
        run.clean()


if __name__ == "__main__":
    main()
