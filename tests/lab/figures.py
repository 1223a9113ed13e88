"""How quick and how large the lab is: the figures of its benchmark and of its proof, measured one after another in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.lab.bundle import Bundle
from tests.lab.cluster import create
from tests.lab.lab import Lab
from tests.lab.machine import Machine

__all__ = ["Measured", "measure", "memory"]

IDLE = 30.0  # seconds after a cluster is ready, in which its start calms down


class Measured(NamedTuple):
    """A figure: `value` and the `goal` that it shall not exceed, both in `unit`."""

    what: str
    value: float
    goal: float
    unit: str

    def __str__(self) -> str:
        return f"{self.what} {self.value:.1f} {self.unit}"


def memory(machines: Sequence[Machine]) -> int:
    """Bytes that the processes of these machines hold, each shared page counted once (`Pss`)."""
    script = "cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {sum += $2} END {print sum * 1024}'"
    return sum(int(float(machine.run("sh", "-c", script).stdout)) for machine in machines)


def _seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def _gib(count: int) -> float:
    return count / (1 << 30)


def measure(bundle: Bundle, say: Callable[[str], None]) -> list[Measured]:
    """All of them, in about five minutes. `say` is told each as it comes; nothing is left when it ends, however it ends."""
    found: list[Measured] = []

    def note(what: str, value: float, goal: float, unit: str) -> None:
        found.append(Measured(what, value, goal, unit))
        say(f"{found[-1]} (goal {goal:g})")

    lab = Lab.create(label="figures")
    try:
        note("two machines", _seconds(lambda: lab.machines("a", "b")), 10, "s")
        for machine in list(lab.all_machines.values()):
            lab.discard(machine)
        began = time.monotonic()
        cluster = create(lab, bundle)
        note("cluster with Kueue", time.monotonic() - began, 75, "s")
        time.sleep(IDLE)
        note("idle", _gib(memory(cluster.machines)), 1.5, "GiB")
    finally:
        took = _seconds(lab.close)
    note("teardown", took, 15, "s")
    with Lab.create(label="figures") as lab:
        five = create(lab, bundle, servers=3, agents=2, kueue=False)
        with open("/proc/meminfo") as file:
            total = int(file.readline().split()[1]) << 10
        note("three servers and two agents", _gib(memory(five.machines)), _gib(total), "GiB")
    return found
