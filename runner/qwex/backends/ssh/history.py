"""What happened to a run there, line by line, and what that makes of it.

Lines of ``events``: ``Q t`` taken up, ``G`` queued, ``S i a t`` attempt *a* of task *i* started, ``E i a code why start end files
bytes`` it ended, ``R i a due`` it waits for attempt *a*, ``A i a`` that is queued, ``C spans`` cancelled before they started,
``X i a t`` cancelled while it waited for another attempt, ``P`` paused, ``U`` resumed, ``D run state`` will never start because of *run*,
``F state t`` ended. A line may be there twice after a crash.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress

from qwex.model.runs import Attempt, Observation, Task, overall
from qwex.model.states import Reason, State

__all__ = ["History"]

_SIGNALS = {int(one): one.name for one in signal.Signals}
_WHY = {
    "cancelled": (State.CANCELLED, Reason.CANCELLED_BY_USER, ""),
    "time-limit": (State.FAILED, Reason.TIME_LIMIT, ""),
    "memory": (State.FAILED, Reason.OUT_OF_MEMORY, ""),
    "workspace": (State.FAILED, Reason.WORKSPACE_FAILED, "its directory could not be made there; logs say why"),
    "lost": (State.LOST, Reason.WORKER_DIED, "its processes disappeared without an exit code"),
    "restarted": (State.LOST, Reason.HOST_RESTARTED, "the machine restarted"),
}


def _ending(code: int, why: str) -> tuple[State, Reason, str]:
    if why in _WHY:
        return _WHY[why]
    if code == 0:
        return State.SUCCEEDED, Reason.NONE, ""
    if code == 127:
        return State.FAILED, Reason.COMMAND_NOT_FOUND, ""
    if code == 126:
        return State.FAILED, Reason.COMMAND_NOT_EXECUTABLE, ""
    if code - 128 in _SIGNALS:
        return State.FAILED, Reason.SIGNAL, _SIGNALS[code - 128]
    return State.FAILED, Reason.EXIT_CODE, ""


def _indexes(spans: Sequence[str]) -> list[int]:
    found: list[int] = []
    for span in spans:
        low, _, high = span.partition("-")
        found.extend(range(int(low), int(high or low) + 1))
    return found


class History:
    """The events of one run, fed as they come; ``size`` counts the bytes read."""

    def __init__(self, indexes: Sequence[int], limit: int = 0) -> None:
        self._indexes = indexes
        self._part = b""
        self.size = 0
        self._attempts: dict[int, dict[int, Attempt]] = {}
        self._counts: dict[int, tuple[int, int]] = {}
        self._retry: dict[int, str] = {}
        self._cancelled: set[int] = set()
        self._queued = False
        self._paused = False
        self._because = ""
        self._limit = limit
        self._running = 0
        self._ended: float | None = None
        self.final = False

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            words = line.decode("ascii", "replace").split()
            # A line that a full disk cut short is there once more, whole.
            if words:
                with suppress(IndexError, ValueError):
                    self._line(words[0], words[1:])

    def _line(self, kind: str, words: list[str]) -> None:
        match kind:
            case "G":
                self._queued = True
            case "S":
                index, number = int(words[0]), int(words[1])
                self._retry.pop(index, None)
                known = self._attempts.setdefault(index, {})
                known.setdefault(number, Attempt(number, State.RUNNING, started=float(words[2])))
            case "E":
                self._end(words)
            case "R":
                self._retry[int(words[0])] = words[2]
            case "A":
                self._retry[int(words[0])] = ""
            case "C":
                self._cancelled.update(_indexes(words))
            case "X":
                self._cancelled.add(int(words[0]))
                self._retry.pop(int(words[0]), None)
            case "P":
                self._paused = True
            case "U":
                self._paused = False
            case "D":
                self._because = f"run {words[0]} is {words[1]}"
            case "F":
                self.final = True
                self._ended = float(words[1])

    def _end(self, words: list[str]) -> None:
        index, number, code, why = int(words[0]), int(words[1]), int(words[2]), words[3]
        state, reason, detail = _ending(code, why)
        known_code = None if state is State.LOST else code
        self._attempts.setdefault(index, {})[number] = Attempt(
            number, state, reason, detail, known_code, float(words[4]), float(words[5])
        )
        self._counts[index] = (int(words[6]), int(words[7]))

    def _task(self, index: int) -> Task:
        attempts = tuple(one for _, one in sorted(self._attempts.get(index, {}).items()))
        last = attempts[-1] if attempts else None
        if index in self._cancelled:
            return Task(index, State.CANCELLED, Reason.CANCELLED_BY_USER, "", None, attempts)
        if last is None:
            return Task(index, *self._waiting(), None, attempts)
        if index in self._retry and last.state is not State.RUNNING:
            if self._paused:
                return Task(index, State.HELD, Reason.HELD_BY_USER, "", None, attempts)
            reason = Reason.WAITING_TO_RETRY if self._retry[index] else Reason.WAITING_FOR_SLOT
            return Task(index, State.QUEUED, reason, f"after attempt {last.number}", None, attempts)
        if last.state is State.RUNNING and self._paused:
            return Task(index, State.SUSPENDED, Reason.NONE, "", None, attempts)
        return Task(index, last.state, last.reason, last.detail, last.exit_code, attempts)

    def _waiting(self) -> tuple[State, Reason, str]:
        if self._because:
            return State.CANCELLED, Reason.DEPENDENCY_FAILED, self._because
        if self._paused:
            return State.HELD, Reason.HELD_BY_USER, ""
        if not self._queued:
            return State.QUEUED, Reason.WAITING_FOR_RUN, ""
        if self._limit and self._running >= self._limit:
            return State.QUEUED, Reason.ARRAY_LIMIT, ""
        return State.QUEUED, Reason.WAITING_FOR_SLOT, ""

    def observation(self) -> Observation:
        self._running = sum(max(known.items())[1].state is State.RUNNING for known in self._attempts.values())
        tasks = tuple(self._task(index) for index in self._indexes)
        state, reason, detail, code = overall(tasks)
        started = [one.started for task in tasks for one in task.attempts if one.started is not None]
        ended = [one.ended for task in tasks for one in task.attempts if one.ended is not None]
        counts = [self._counts[index] for index in self._indexes if index in self._counts]
        return Observation(
            state,
            reason,
            detail,
            code,
            min(started, default=None),
            max(ended, default=self._ended) if state.final else None,
            tasks,
            sum(size for _, size in counts) if state.final else None,
            sum(files for files, _ in counts) if state.final else None,
        )
