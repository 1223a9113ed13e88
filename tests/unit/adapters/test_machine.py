from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qwex.adapters import machine

LINUX = sys.platform.startswith("linux")


def poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_this_machine() -> None:
    assert 0 < machine.cpus() <= (os.cpu_count() or 1)
    assert machine.memory() > 1 << 27
    assert machine.boot_id()
    assert machine.boot_id() == machine.boot_id()
    assert machine.oom_kills() >= 0


def test_limits_of_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not LINUX:
        pytest.skip("cgroups are Linux's")
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/a/b\n")
    (groups / "a/b").mkdir(parents=True)
    (groups / "a/cpu.max").write_text("50000 100000\n")
    (groups / "a/b/cpu.max").write_text("max 100000\n")
    (groups / "a/memory.max").write_text("1048576\n")
    (groups / "a/b/memory.max").write_text("max\n")
    (groups / "a/b/memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    monkeypatch.setattr(machine, "_PROC", proc)
    monkeypatch.setattr(machine, "_CGROUP", groups)
    assert (machine.cpus(), machine.memory(), machine.oom_kills()) == (0.5, 1 << 20, 2)
    (proc / "self/cgroup").write_text("4:memory:/c\n3:cpu,cpuacct:/c\n")
    (groups / "memory/c").mkdir(parents=True)
    (groups / "cpu,cpuacct/c").mkdir(parents=True)
    (groups / "memory/c/memory.limit_in_bytes").write_text("2097152\n")
    (groups / "cpu,cpuacct/c/cpu.cfs_quota_us").write_text("25000\n")
    (groups / "cpu,cpuacct/c/cpu.cfs_period_us").write_text("100000\n")
    assert (machine.cpus(), machine.memory()) == (0.25, 2 << 20)


def nvidia(directory: Path, script: str) -> dict[str, str]:
    directory.mkdir(exist_ok=True)
    tool = directory / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def test_gpus(tmp_path: Path) -> None:
    env = nvidia(tmp_path / "bin", "printf '0, NVIDIA A100\\n1, Tesla T4\\n'")
    both = (machine.Gpu(0, "NVIDIA A100"), machine.Gpu(1, "Tesla T4"))
    assert machine.gpus(env) == both
    assert machine.gpus({**env, "CUDA_VISIBLE_DEVICES": "1"}) == both[1:]
    assert machine.gpus({**env, "CUDA_VISIBLE_DEVICES": ""}) == ()
    assert machine.gpus({**env, "CUDA_VISIBLE_DEVICES": "GPU-8f2a"}) == both
    assert machine.gpus(nvidia(tmp_path / "broken", "echo no driver; exit 9")) == ()
    assert machine.gpus({"PATH": str(tmp_path)}) == ()


def test_processes() -> None:
    child = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo; wait"], env={**os.environ, "MARK": "x y"}, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert machine.alive(child.pid)
        assert machine.started(child.pid) == machine.started(child.pid) != ""
        assert b"sleep 60" in machine.command_line(child.pid)
        (sleeper,) = machine.descendants(child.pid)
        assert sleeper in machine.descendants(os.getpid())
        if LINUX:
            assert child.pid in machine.children(os.getpid())
            assert b"MARK=x y" in machine.environment_of(sleeper)
            assert {child.pid, sleeper} <= set(machine.owned_processes([b"MARK=x y"]))
    finally:
        machine.signal_tree(child.pid, signal.SIGKILL)
        watched = machine.watch(child.pid)
        child.communicate()
        if watched is not None:
            os.close(watched)
    poll(lambda: not machine.alive(sleeper))
    assert machine.started(child.pid) == ""
    assert machine.command_line(child.pid) == b""
    machine.kill(child.pid)


def test_a_group_and_those_who_left_it() -> None:
    code = "import os, time; os.setsid(); print(flush=True); time.sleep(60)"
    child = subprocess.Popen(
        ["sh", "-c", 'exec 3>&1; "$1" -c "$2" & wait', "sh", sys.executable, code],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    (apart,) = machine.descendants(child.pid)
    machine.signal_tree(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    poll(lambda: not machine.alive(apart))
    child.stdout.close()


def test_what_is_left_of_a_session_is_found_by_its_marks() -> None:
    child = subprocess.Popen(["sleep", "60"], env={**os.environ, "MARK": "kill me"}, start_new_session=True)

    def killed() -> bool:  # a process that is just being started does not show its environment yet
        machine.kill_marked(child.pid, [b"MARK=kill me"])
        return child.poll() is not None

    poll(killed)
    assert child.returncode == -signal.SIGKILL
