#!/usr/bin/env python3
"""Registrations per second by who chooses the hub: built in, policies in C, Rust and JavaScript, and a web hook beside them.

    cargo xtask build && cargo xtask policies
    python3 tests/bench/policies.py --tool PATH [--rounds 3] [--count 1000] [--concurrency 16]

One hub process with ten hubs; an enrollment group with a twin of 2 KB for each way to choose. The web hook is a server of
Node.js (or Python, if there is none) on the loopback interface that answers at once; its connections are kept, and it is
warm. The policy in JavaScript is by_tag.js, because the load tool sends no payload and has no certificate, which the
examples in JavaScript and Python want. Each round runs all of them one after the other, so compare the rows of one run; the last column is the share of the
built-in policy's rate. CPU is that of the hub, and of the web hook's server beside it. The load tool is the one of load.py.
"""

import argparse
import base64
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import load

COMPONENTS = Path(os.environ.get("CARGO_TARGET_DIR") or load.ROOT / "target") / "policies"
EXAMPLES = {"C": "sticky", "Rust": "by-site", "JavaScript": "by_tag"}
HUBS = 10
WARM_UP = 100
HOOK_PORT = 28886

load.CONFIG = "".join(f'[[hub]]\nname = "hub{n}"\nhost_name = "hub{n}.nave.test"\n' for n in range(1, HUBS + 1)) + """
[provisioning]
host_name = "dps.nave.test"
allow_loopback_webhooks = true
"""

NODE_HOOK = """
require("http").createServer({ keepAliveTimeout: 60000 }, (request, response) => {
  let body = "";
  request.on("data", (chunk) => body += chunk);
  request.on("end", () => {
    const hubs = JSON.parse(body).linkedHubs;
    const id = JSON.parse(body).deviceRuntimeContext.registrationId;
    const hub = hubs[[...id].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % hubs.length];
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ iotHubHostName: hub }));
  });
}).listen(PORT, "127.0.0.1");
"""

PYTHON_HOOK = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        hubs = asked["linkedHubs"]
        hub = hubs[sum(asked["deviceRuntimeContext"]["registrationId"].encode()) % len(hubs)]
        body = json.dumps({"iotHubHostName": hub}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
"""


def key(name):
    return base64.b64encode(hashlib.sha512(f"for measurements only: {name}".encode()).digest()).decode()


def component(example):
    """The component of an example; the one that is not built with the templates is built in the project of one."""
    file = COMPONENTS / f"{example}.wasm"
    source = Path(__file__).with_name(f"{example}.js")
    if source.exists() and not (file.exists() and file.stat().st_mtime > source.stat().st_mtime):
        project = COMPONENTS / "by-region"
        command = ["node_modules/.bin/jco", "componentize", source, "--wit", "wit", "--world-name", "allocation-policy"]
        subprocess.run([*command, "--disable", "all", "--out", file.resolve()], cwd=project, check=True, stdout=sys.stderr)
    if not file.exists():
        sys.exit(f"{file} is not there: cargo xtask policies")
    return file


def enroll(hub, name, url):
    keys = {"primaryKey": key(name), "secondaryKey": key(name)}
    desired = {f"setting{number:02}": {"value": number, "unit": "celsius"} for number in range(48)}
    group = {
        "enrollmentGroupId": name.lower().replace(" ", "-"),
        "attestation": {"type": "symmetricKey", "symmetricKey": keys},
        "initialTwin": {"tags": {"site": "hub1"}, "properties": {"desired": desired}},
        "allocationPolicy": "custom" if url else "hashed",
    }
    if url:
        group["customAllocationDefinition"] = {"webhookUrl": url, "apiVersion": "2021-10-01"}
    path = f"/enrollmentGroups/{group['enrollmentGroupId']}?api-version=2021-10-01"
    hub.request("provisioning", "PUT", path, group)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def register(options, hub, name, first, count):
    command = [options.tool, "register", "--port", load.MQTTS, "--tls", "--insecure", "--id-scope", hub.scope]
    command += ["--group-key", key(name), "--n", count, "--first", first, "--concurrency", options.concurrency]
    command += ["--server-pid", hub.pid, "--poll-ms", 0, "--src-addrs", 4, "--label", name]
    command += ["--prefix", f"{name.lower().replace(' ', '-')}-", "--limit", 600]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stderr}")
    line = json.loads(done.stdout)
    if line["errors"]:
        print(f"{name}: {line['errors']} errors, first: {line.get('first_error')}", file=sys.stderr)
    return line


def measure(options, directory):
    log = open(directory / "servers.log", "w")
    node = shutil.which("node")
    script = (NODE_HOOK if node else PYTHON_HOOK).replace("PORT", str(HOOK_PORT))
    command = [node, "-e", script] if node else [sys.executable, "-c", script]
    results = {}
    with load.Process(command, log) as hook, load.Hub(options.nave, directory / "hub", log) as hub:
        ways = {"built in": None}
        for language, example in EXAMPLES.items():
            where = ["--data-dir", directory / "hub"]
            push = [options.nave, "policy", "push", component(example), "--name", example, "--activate", *where]
            # The usual 50 ms are for a machine that has time.
            limits = [options.nave, "policy", "set", example, "--limits", '{"deadlineMs":1000,"queue":40}', *where]
            for command in (push, limits):
                subprocess.run(command, check=True, stdout=log, stderr=log)
            ways[language] = f"nave:policy/{example}"
        ways["web hook"] = f"http://127.0.0.1:{HOOK_PORT}/allocate"
        for name, url in ways.items():
            enroll(hub, name, url)
            register(options, hub, name, 1, WARM_UP)
        for number in range(options.rounds):
            for name in ways:
                before = cpu_seconds(hook.pid)
                line = register(options, hub, name, 1_000 + number * options.count, options.count)
                line["hook_cpu_ms_per_1k"] = (cpu_seconds(hook.pid) - before) * 1e6 / options.count
                results.setdefault(name, []).append(line)
                time.sleep(0.2)
    log.close()
    return results


def report(options, results):
    def median(name, column):
        values = [line[column] for line in results[name] if isinstance(line.get(column), (int, float))]
        return statistics.median(values) if values else float("nan")

    print("| the hub is chosen by | registrations/s | p50 ms | hub CPU µs | web hook CPU µs | of built in |")
    print("|---|---|---|---|---|---|")
    for name in results:
        hook = f"{median(name, 'hook_cpu_ms_per_1k'):.0f}" if name == "web hook" else ""
        # Of the same round, so that a machine that others use changes it least.
        shares = [line["ops_s"] / base["ops_s"] for line, base in zip(results[name], results["built in"])]
        print(
            f"| {name} | {median(name, 'ops_s'):,.0f} | {median(name, 'p50_us') / 1000:.1f} "
            f"| {median(name, 'server_cpu_ms_per_1k'):.0f} | {hook} | {statistics.median(shares):.0%} |"
        )
    print(f"\n{options.count} registrations, {options.concurrency} at once; medians of {options.rounds} rounds")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default=os.environ.get("NAVE_LOAD_TOOL"), help="the load tool (or NAVE_LOAD_TOOL)")
    parser.add_argument("--nave", default=str(load.ROOT / "target/release/nave"), help="the binary to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="registrations of a round and a way to choose")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--dir", default=str(load.ROOT / "target"), help="a directory on the disk to measure")
    options = parser.parse_args()
    if not options.tool or not os.access(options.tool, os.X_OK):
        parser.error("--tool must name the load tool's binary")
    directory = Path(tempfile.mkdtemp(prefix="nave-policies-", dir=options.dir))
    try:
        report(options, measure(options, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
