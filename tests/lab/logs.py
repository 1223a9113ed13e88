"""What every component has to say, in files of bounded size, for whoever looks into a failure."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.machine import Machine

__all__ = ["LIMIT", "collect", "tail"]

LIMIT = 2 << 20  # bytes kept of each log, its end
PATIENCE = 20  # seconds for each question

# What is asked of a running machine; what fails there (no k3s, no such file) says so in its own file.
QUESTIONS = {
    "journal.log": ("journalctl", "--boot", "--no-pager", "--output=short-precise", "--lines=20000"),
    "units.txt": ("systemctl", "list-units", "--all", "--no-pager", "--full"),
    "processes.txt": ("ps", "-eo", "pid,ppid,stat,rss,etime,args", "--sort=pid"),
    "addresses.txt": ("ip", "address"),
    "routes.txt": ("ip", "route", "show", "table", "all"),
    "mounts.txt": ("cat", "/proc/mounts"),
    "disks.txt": ("df", "-h"),
}
CLUSTER = {
    "events.txt": ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
    "pods.txt": ("get", "pods", "--all-namespaces", "--output=wide"),
    "nodes.yaml": ("get", "nodes", "--output=yaml"),
}
FILES = ("/var/lib/rancher/k3s/agent/containerd/containerd.log", "/var/log/pods")
KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"


def tail(data: bytes, limit: int = LIMIT) -> bytes:
    """The end of it, from a whole line on, with a first line that says so when something was left out."""
    if len(data) <= limit:
        return data
    kept = data[-limit:]
    kept = kept[kept.find(b"\n") + 1 :]
    return f"[{len(data) - len(kept)} bytes left out]\n".encode() + kept


def collect(to: Path, machines: Sequence[Machine], collectors: Mapping[str, Callable[[Path], None]]) -> None:
    """A directory for each machine and each collector. One that fails leaves its error there, and the rest goes on."""
    for machine in machines:
        place = to / machine.name
        place.mkdir(parents=True, exist_ok=True)
        try:
            _machine(place, machine)
        except Exception as error:  # noqa: BLE001
            (place / "error.txt").write_text(f"{error}\n")
    for name, collector in collectors.items():
        place = to / name
        place.mkdir(parents=True, exist_ok=True)
        try:
            collector(place)
        except Exception as error:  # noqa: BLE001
            (place / "error.txt").write_text(f"{error}\n")


def _host(*argv: str) -> bytes:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {PATIENCE} s\n".encode()
    return done.stdout + done.stderr


def _machine(place: Path, machine: Machine) -> None:
    name = machine.container
    (place / "docker-inspect.json").write_text(json.dumps(machine.facts(), indent=1))
    (place / "console.log").write_bytes(tail(_host("docker", "logs", "--tail=5000", name)))
    if machine.state() != "running":
        (place / "state.txt").write_text(f"{machine.state()}\n")
        return
    for file, argv in QUESTIONS.items():
        (place / file).write_bytes(tail(_host("docker", "exec", name, "timeout", str(PATIENCE), *argv)))
    if machine.run("test", "-e", KUBECONFIG, check=False).returncode == 0:
        for file, argv in CLUSTER.items():
            asked = ("k3s", "kubectl", "--request-timeout=10s", *argv)
            (place / file).write_bytes(tail(_host("docker", "exec", name, "timeout", str(PATIENCE), *asked)))
    script = 'find "$@" -type f -name "*.log" 2>/dev/null | while read -r f; do echo "==> $f"; tail -c 65536 "$f"; done'
    (place / "pods.log").write_bytes(tail(_host("docker", "exec", name, "sh", "-c", script, "sh", *FILES)))
