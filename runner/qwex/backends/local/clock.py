"""Time as the worker sees it: a monotonic clock for durations and limits, a wall clock for what people are shown."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Clock", "Timer", "Timers"]


@dataclass(frozen=True, slots=True)
class Clock:
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


@dataclass(slots=True)
class Timer:
    action: Callable[[], None] | None

    def cancel(self) -> None:
        self.action = None


@dataclass(slots=True)
class Timers:
    """What is to be done later, in seconds of a monotonic clock."""

    clock: Clock
    _heap: list[tuple[float, int, Timer]] = field(default_factory=list)
    _number: itertools.count[int] = field(default_factory=itertools.count)

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        timer = Timer(action)
        heapq.heappush(self._heap, (self.clock.monotonic() + seconds, next(self._number), timer))
        return timer

    def wait(self) -> float | None:
        """Seconds until the next one, None when there is none."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - self.clock.monotonic()) if self._heap else None

    def run(self) -> None:
        """Do what is due."""
        now = self.clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.action is not None:
                timer.action()
