"""The soak of load.py: moderate work for a long time, and whether memory stays flat.

Devices send telemetry, patch twins, answer methods, and come and go; every part of that is a short run of the load tool, so its
devices also reconnect each time. Resident memory is written down every ten seconds.
"""

import json
import os
import subprocess
import sys
import threading
import time

SAMPLE_SECONDS = 10
RATE = 200  # Messages per second.
PAUSE_SECONDS = 20  # Between two runs of a part.
TWIN_PAUSE_SECONDS = 5

# The first third is the warm-up. After it, memory rises and falls with the store's table of new entries, which is written out at
# 64 MiB: every six minutes with what is done here. Memory is flat if the peak of the last third is at most so much above that of
# the second.
FLAT_RATIO, FLAT_BYTES = 1.05, 4 << 20


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Part(threading.Thread):
    """One kind of work, over and over until the end."""

    def __init__(self, tool, name, arguments, end, pause=PAUSE_SECONDS):
        super().__init__(daemon=True)
        self.command = [tool, *map(str, arguments), "--label", name]
        self.end, self.pause = end, pause
        self.operations = self.errors = self.runs = 0
        self.first_error = None

    def run(self):
        while time.monotonic() < self.end:
            done = subprocess.run(self.command, capture_output=True, text=True)
            self.runs += 1
            if done.returncode == 0:
                line = json.loads(done.stdout)
                self.operations += line.get("ops", 0)
                errors, error = line["errors"], line.get("first_error")
            else:
                errors, error = 1, done.stderr.strip()
            self.errors += errors
            self.first_error = self.first_error or (error if errors else None)
            time.sleep(max(0, min(self.pause, self.end - time.monotonic())))


def soak(run, minutes, work):
    """Runs `work`, a list of (server, pid, parts), for so many minutes; `parts` are (name, arguments, pause).

    Returns whether the memory of every server was flat.
    """
    start = time.monotonic()
    end = start + minutes * 60
    servers = {}
    for server, pid, parts in work:
        threads = [Part(run.options.tool, f"{name}: {server}", arguments, end, pause) for name, arguments, pause in parts]
        servers[server] = (pid, threads, [], cpu_seconds(pid))
        for thread in threads:
            thread.start()
    while time.monotonic() < end:
        time.sleep(SAMPLE_SECONDS)
        at = round(time.monotonic() - start)
        for server, (pid, threads, curve, _) in servers.items():
            curve.append(resident(pid))
            line = {"soak": server, "seconds": at, "resident": curve[-1], "cpu_seconds": cpu_seconds(pid)}
            line["operations"] = {thread.command[-1]: thread.operations for thread in threads}
            run.write(line)
    for _, threads, _, _ in servers.values():
        for thread in threads:
            thread.join(120)
    return all([report(server, *facts, minutes) for server, facts in servers.items()])


def report(server, pid, threads, curve, cpu_before, minutes):
    third = max(1, len(curve) // 3)
    early, late = max(curve[third : 2 * third] or curve), max(curve[-third:])
    flat = late <= max(early * FLAT_RATIO, early + FLAT_BYTES)
    mib = [f"{value / 2**20:.1f}" for value in curve[:: max(1, len(curve) // 30)]]
    print(f"\n## soak of {minutes:g} minutes: {server}")
    print(f"resident MiB over time: {' '.join(mib)}")
    print(f"peak of the second third {early / 2**20:.1f} MiB, of the last {late / 2**20:.1f} MiB: {'flat' if flat else 'NOT FLAT'}")
    print(f"server CPU: {cpu_seconds(pid) - cpu_before:.1f} s")
    for thread in threads:
        print(f"{thread.command[-1]}: {thread.operations:,} operations in {thread.runs} runs, {thread.errors} errors")
        if thread.first_error:
            print(f"{thread.command[-1]}: first error: {thread.first_error}", file=sys.stderr)
    return flat
