"""What is known of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from qwex.model.jobs import JobSpec
from qwex.model.states import Reason, State

__all__ = ["Attempt", "Observation", "Run", "Task", "overall"]


class Attempt(NamedTuple):
    """One try at a task, numbered from 1. Times are Unix seconds of the machine that ran it, None until known.

    ``exit_code`` is what a shell would report: 128 + n when signal n ended it.
    """

    number: int
    state: State
    reason: Reason = Reason.NONE
    detail: str = ""
    exit_code: int | None = None
    started: float | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One element of an array (``index``), or the whole of a plain run (index 0). ``attempts`` ascending, maybe empty."""

    index: int
    state: State
    reason: Reason = Reason.NONE
    detail: str = ""
    exit_code: int | None = None
    attempts: tuple[Attempt, ...] = ()


class Observation(NamedTuple):
    """A backend's answer about one run at one moment. ``result_bytes`` is None until results are counted."""

    state: State
    reason: Reason = Reason.NONE
    detail: str = ""
    exit_code: int | None = None
    started: float | None = None
    ended: float | None = None
    tasks: tuple[Task, ...] = ()
    result_bytes: int | None = None
    result_files: int | None = None


class Run(NamedTuple):
    """A run as recorded. ``place`` is what ``--on`` resolved to; ``handle`` is the backend's own, plain JSON.

    ``seen`` is when ``last`` was true (Unix seconds): old for a machine that cannot be reached.
    ``pulled`` is the directory its results were brought to, "" before that.
    """

    id: str
    place: str
    user: str
    created: float
    spec: JobSpec
    handle: dict[str, object]
    last: Observation
    seen: float
    pulled: str = ""

    @property
    def state(self) -> State:
        return self.last.state


_BY_WEIGHT = (State.RUNNING, State.SUSPENDED, State.QUEUED, State.HELD, State.LOST, State.FAILED, State.CANCELLED)


def overall(tasks: Iterable[Task]) -> tuple[State, Reason, str, int | None]:
    """State, reason, detail and exit code of a run from its tasks.

    The run goes on while a task goes on; an ended run is as bad as its worst task, and reports that task's reason and code.
    """
    listed = list(tasks)
    counts = Counter(task.state for task in listed)
    state = next((one for one in _BY_WEIGHT if counts[one]), State.SUCCEEDED)
    first = next((task for task in listed if task.state is state), None)
    if first is None:
        return state, Reason.NONE, "", None
    detail = first.detail
    if len(listed) > 1:
        detail = ", ".join(f"{counts[one]} {one}" for one in State if counts[one])
    return state, first.reason, detail, first.exit_code
