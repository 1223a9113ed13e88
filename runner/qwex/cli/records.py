"""Runs as JSON. These names are stable: new ones may come, none goes. Times are Unix seconds, sizes bytes; null is unknown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qwex.cli.output import write_text
from qwex.model.states import Reason

if TYPE_CHECKING:
    from qwex.model.runs import Attempt, Run, Task

__all__ = ["print_json", "run_record", "task_record"]


def print_json(value: object) -> None:
    """One JSON document on standard output. Bytes that are no UTF-8 appear as lone surrogates, as in the store."""
    write_text(json.dumps(value, indent=2) + "\n")


def run_record(run: Run, *, tasks: bool = False) -> dict[str, Any]:
    """``known`` is false when the place did not answer and the state is what was last ``seen``. ``tasks``: with all of them."""
    last, spec = run.last, run.spec
    record: dict[str, Any] = {
        "id": run.id,
        "name": spec.name,
        "command": list(spec.argv),
        "shell": spec.shell,
        "place": run.place,
        "user": run.user,
        "state": last.state,
        "reason": last.reason,
        "detail": last.detail,
        "exit_code": last.exit_code,
        "known": last.reason is not Reason.HOST_UNREACHABLE,
        "created": run.created,
        "started": last.started,
        "ended": last.ended,
        "seen": run.seen,
        "root": spec.root,
        "cwd": spec.cwd,
        "array": str(spec.array) if spec.array else None,
        "results": {"directory": run.pulled or None, "bytes": last.result_bytes, "files": last.result_files},
    }
    if tasks:
        record["cpus"], record["mem"] = spec.resources.cpus, spec.resources.mem
        record["gpus"], record["gpu_product"] = spec.resources.gpus, spec.resources.gpu_product
        record["time_limit"], record["priority"], record["retries"] = spec.time_limit, spec.priority, spec.retries
        record["after"] = [{"run": one.run_id, "condition": one.condition} for one in spec.after]
        record["secrets"], record["snapshot"] = list(spec.secrets), spec.snapshot
        record["tasks"] = [task_record(task) for task in last.tasks]
    return record


def task_record(task: Task) -> dict[str, Any]:
    return {
        "index": task.index,
        "state": task.state,
        "reason": task.reason,
        "detail": task.detail,
        "exit_code": task.exit_code,
        "attempts": [_attempt_record(one) for one in task.attempts],
    }


def _attempt_record(one: Attempt) -> dict[str, Any]:
    return {
        "number": one.number,
        "state": one.state,
        "reason": one.reason,
        "detail": one.detail,
        "exit_code": one.exit_code,
        "started": one.started,
        "ended": one.ended,
    }
