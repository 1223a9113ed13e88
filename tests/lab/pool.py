"""Machines ready before they are asked for. A machine is given out once and thrown away: no test sees another's traces."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.lab.lab import Lab
from tests.lab.machine import Machine

__all__ = ["Pool"]


class Pool:
    """Keeps `spare` machines of a lab's first network booted, from the first demand on. `close` before the lab."""

    def __init__(self, lab: Lab, spare: int = 2) -> None:
        self._lab, self._spare = lab, spare
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._coming: deque[Future[Machine]] = deque()
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="machines")
        self._leaving: list[Future[None]] = []

    def take(self, count: int) -> list[Machine]:
        """That many fresh machines, reachable by SSH; MachineError or DockerError when one does not boot."""
        with self._lock:
            self._boot(count - len(self._coming))
            mine = [self._coming.popleft() for _ in range(count)]
        machines = [each.result() for each in mine]
        with self._lock:
            self._boot(self._spare - len(self._coming))  # only now: these must not slow down those that were waited for
        return machines

    def _boot(self, count: int) -> None:
        network = self._lab.network()
        for _ in range(count):
            name = f"m{next(self._numbers)}"
            self._coming.append(self._workers.submit(self._lab.machine, name, network))

    def give_back(self, machines: list[Machine]) -> None:
        """Throw them away, in the background."""
        with self._lock:
            self._leaving += [self._workers.submit(self._lab.discard, machine) for machine in machines]

    def settle(self) -> None:
        """Wait until nothing is booting or leaving: for tests that look at the whole host."""
        with self._lock:
            busy: list[Future[Any]] = [*self._coming, *self._leaving]
        for each in busy:
            each.result()

    def close(self) -> None:
        """Wait for what is under way; raises what went wrong when machines were thrown away."""
        with self._lock:
            for each in self._coming:
                each.cancel()
        self._workers.shutdown(wait=True)
        for gone in self._leaving:
            gone.result()
