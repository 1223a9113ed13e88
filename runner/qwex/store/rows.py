"""Rows to values and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from qwex.model.jobs import JobSpec, Resources, parse_array
from qwex.model.runs import Attempt, Observation, Run, Task
from qwex.model.states import Reason, State

__all__ = ["RUN", "counts_text", "plain", "read_run", "read_spec", "read_tasks", "write_json", "write_spec"]

RUN = (
    "id, place, user, created, spec, handle, state, reason, detail, exit_code, started, ended, result_bytes, result_files, "
    "seen, pulled, seq"
)
"""The columns ``read_run`` takes."""

_FIELDS = JobSpec._fields
_NEEDS = Resources._fields
_TASKS = "SELECT idx, state, reason, detail, exit_code, attempt, started FROM tasks WHERE run = ? ORDER BY idx"
_ATTEMPTS = """SELECT idx, number, state, reason, detail, exit_code, started, ended FROM attempts
WHERE run = ? ORDER BY idx, number"""


def write_json(value: object) -> str:
    """ASCII, so that lone surrogates (odd bytes of file names and arguments) survive."""
    return json.dumps(value, separators=(",", ":"))


def plain(text: str) -> str:
    """A sentence for people that SQLite can hold: odd bytes are written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_spec(spec: JobSpec) -> str:
    """As ``JobSpec.to_json``, but the indexes of an array as spans: a hundred thousand of them are a few bytes."""
    # Field by field: a deep copy would cost more than all the rest of a submission.
    data = {name: getattr(spec, name) for name in _FIELDS}
    data["resources"] = {name: getattr(spec.resources, name) for name in _NEEDS}
    data["array"] = str(spec.array) if spec.array else None
    data["after"] = [{"run_id": one.run_id, "condition": one.condition} for one in spec.after]
    return write_json(data)


def read_spec(text: str) -> JobSpec:
    data: dict[str, Any] = json.loads(text)
    array = data["array"]
    spec = JobSpec.from_json({**data, "array": None})
    return spec.replace(array=parse_array(array)) if array else spec


def read_tasks(db: sqlite3.Connection, seq: int) -> tuple[Task, ...]:
    """The tasks of a run with their attempts, the running one last."""
    ended: dict[int, list[Attempt]] = {}
    for index, number, state, reason, detail, code, started, until in db.execute(_ATTEMPTS, (seq,)):
        ended.setdefault(index, []).append(
            Attempt(number, State(state), Reason(reason), detail, code, started, until),
        )
    tasks = []
    for index, state_, reason, detail, code, number, started in db.execute(_TASKS, (seq,)):
        state = State(state_)
        attempts = ended.get(index, [])
        if state in (State.RUNNING, State.SUSPENDED) and (not attempts or attempts[-1].number < number):
            attempts.append(Attempt(number, state, started=started))
        tasks.append(Task(index, state, Reason(reason), detail, code, tuple(attempts)))
    return tuple(tasks)


def read_run(row: tuple[Any, ...], tasks: tuple[Task, ...] = ()) -> Run:
    id_, place, user, created, spec, handle, state, reason, detail, code, started, ended, size, files, seen, pulled = (
        row[:16]
    )
    last = Observation(State(state), Reason(reason), detail, code, started, ended, tasks, size, files)
    return Run(id_, place, user, created, read_spec(spec), json.loads(handle), last, seen, json.loads(pulled))


def counts_text(counts: Mapping[str, int]) -> str:
    """``3 queued, 1 running`` as ``model.runs.overall`` says it."""
    return ", ".join(f"{counts[state]} {state}" for state in State if counts.get(state))
