"""A lab leaves nothing, whether it is closed or killed, and touches no other lab."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.lab import records
from tests.lab.docker import docker, inspect, labelled
from tests.lab.lab import Lab
from tests.lab.pool import Pool
from tests.lab.removal import labs
from tests.lab.waiting import until

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]


def said(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def host() -> dict[str, set[str]]:
    """Everything on this machine that a lab could leave behind, by kind."""
    found = {
        "container": set(said("docker", "ps", "-aq", "--no-trunc")),
        "network": set(said("docker", "network", "ls", "-q", "--no-trunc")),
        "volume": set(said("docker", "volume", "ls", "-q")),
        "image": set(said("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")),
        "interface": {line.split(": ")[1].split("@")[0] for line in said("ip", "-o", "link")},
        "rule": {*said("iptables-save"), *said("ebtables", "-L")},
        "mount": {" ".join(line.split()[:3]) for line in Path("/proc/self/mounts").read_text().splitlines()},
        "loop": {path.name for path in Path("/sys/block").glob("loop*/loop")},
        "file": {str(path) for path in records.ROOT.glob("*")},
        "cgroup": {str(path) for path in Path("/sys/fs/cgroup").glob("*/docker/*/")},
    }
    found["rule"] = {re.sub(r"\[\d+:\d+\]|^#.*|bcnt.*", "", line) for line in found["rule"]}
    return found


def left(before: dict[str, set[str]]) -> dict[str, set[str]]:
    """What has come since then."""
    return {kind: new for kind, now in host().items() if (new := now - before[kind])}


def alone() -> bool:
    """Whether no other lab than this test's session lives here, so that the whole host can be compared."""
    return {owner.split(":")[1] for owner in labs().values() if records.alive(owner)} <= {str(os.getpid())}


def furnish(lab: Lab) -> list[int]:
    """Make one of everything a lab can have; every process that belongs to it."""
    first, second = lab.machines("m1", "m2")
    third = lab.machine("m3", lab.network("other"), disk=64)
    first.cut_from(second)
    first.netem(delay_ms=1)
    third.fill_disk("/", leave=1 << 20)
    first.run("systemd-run", "--unit=busy", "sleep", "3600")
    started = lab.spawn(["sleep", "3600"], log=lab.directory / "sleep.log")
    second.pause()
    pids = [
        int(line.split()[1]) for m in (first, second, third) for line in docker("top", m.container).splitlines()[1:]
    ]
    return [*pids, started.pid, *lab.record_pids()]


def mentions(lab: str) -> list[str]:
    """Whatever still carries that lab's id."""
    found = [f"{kind} {name}" for kind in ("container", "network", "volume") for name in labelled(kind, lab)]
    found += [line for line in said("ip", "-o", "link") + said("iptables-save") + said("ebtables", "-L") if lab in line]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if lab in line]
    return found + [str(path) for path in records.ROOT.glob(f"*{lab}*")]


def running(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and records.process(pid).split(":")[2] != "None"]


def test_a_closed_lab_leaves_nothing(lab: Lab, pool: Pool) -> None:
    pool.settle()
    comparable = alone()
    before = host()
    own = Lab.create(label="teardown")
    try:
        pids = furnish(own)
        volumes = [m["Name"] for c in inspect("container", list(labelled("container", own.id))) for m in c["Mounts"]
                   if m["Type"] == "volume"]  # fmt: skip
        assert len(volumes) == 8
        assert running(pids) == pids
    finally:
        own.close()
    assert mentions(own.id) == []
    assert not set(volumes) & set(said("docker", "volume", "ls", "-q"))
    until("its processes to be gone", lambda: not running(pids), within=5)
    if comparable:
        until("the host to be as before", lambda: not left(before), within=5)


def test_a_killed_lab_is_removed_by_the_next_start(lab: Lab, pool: Pool) -> None:
    pool.settle()
    comparable = alone()
    before = host()
    script = (
        "import json, time; from tests.lab.lab import Lab; from tests.lab.test_teardown import furnish\n"
        "lab = Lab.create(label='killed'); print(json.dumps([lab.id, furnish(lab)]), flush=True); time.sleep(600)"
    )
    dying = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert dying.stdout is not None
    line = dying.stdout.readline()
    dying.send_signal(signal.SIGKILL)
    dying.wait()
    dying.stdout.close()
    dead, pids = json.loads(line)
    assert mentions(dead)
    with Lab.create(label="next") as following:
        assert mentions(dead) == []
        assert following.id != dead
        until("its processes to be gone", lambda: not running(pids), within=5)
    assert lab.id in labs()
    if comparable:
        until("the host to be as before", lambda: not left(before), within=5)


def test_down_removes_what_was_killed_and_nothing_living(lab: Lab) -> None:
    script = "import os; from tests.lab.lab import Lab\nlab = Lab.create(); lab.network(); print(lab.id, flush=True); os._exit(9)"
    dead = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert mentions(dead.strip())
    down = subprocess.run(
        [sys.executable, "-m", "tests.lab", "down"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert down.returncode == 0, down.stderr
    assert mentions(dead.strip()) == []
    assert labs()[lab.id] == lab.owner


def test_labs_side_by_side(lab: Lab) -> None:
    with ThreadPoolExecutor(2) as workers:
        one, two = workers.map(lambda label: Lab.create(label=label), ("one", "two"))
        try:
            first, second = workers.map(lambda each: each.machine("same"), (one, two))
            assert len({lab.network().subnet, one.network().subnet, two.network().subnet}) == 3
            assert first.ssh("hostname").stdout == second.ssh("hostname").stdout == "same\n"
            assert first.run("ping", "-c1", "-W2", second.address, check=False).returncode != 0
            one.close()
            assert second.ssh("hostname").stdout == "same\n"
        finally:
            one.close()
            two.close()


def test_a_lab_that_failed_half_way_leaves_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(labs())
    monkeypatch.setattr("tests.lab.lab.image.loaded", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Lab.create()
    assert {each for each, owner in labs().items() if owner == records.me()} <= before
