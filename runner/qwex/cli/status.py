"""``qwex status``: all that is known of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import typer

from qwex.cli.arguments import Json, Refs
from qwex.cli.bridge import Signals, run
from qwex.cli.output import write_text
from qwex.cli.records import print_json, run_record, task_record
from qwex.cli.rendering import clock, command_text, paint, state_text, table, took
from qwex.cli.shape import command, terminal_of
from qwex.cli.terminal import coloured, printable
from qwex.model.runs import Attempt, Observation, Run, Task
from qwex.model.states import Reason
from qwex.model.units import duration_text, size_text
from qwex.services import runs
from qwex.services.context import Context
from qwex.services.runs import Status

__all__ = ["app", "status_text"]

_MOST_TASKS = 30

app, _command = command()


@_command
def status(ctx: typer.Context, refs: Refs, as_json: Json = False) -> int:
    """Show all that is known of runs: state and why, attempts, place, command, results, times."""

    async def work(context: Context, _: Signals) -> list[Status]:
        return [await runs.status(context, ref) for ref in refs]

    found = run(terminal_of(ctx), work)
    if as_json:
        records = []
        for one in found:
            record = run_record(one.run, tasks=True)
            if one.task is not None:
                record["tasks"] = [task_record(task) for task in one.run.last.tasks if task.index == one.task]
            records.append(record)
        print_json(records[0] if len(records) == 1 else records)
    else:
        now, colour = time.time(), coloured(1)
        write_text("\n".join(status_text(one, now, colour=colour) for one in found))
    return 0


def status_text(one: Status, now: float, *, colour: bool) -> str:
    """Label and value, line by line; then a line for each task or attempt."""

    facts = [(label, value) for label, value in _facts(one, now, colour) if value]
    lines = ["  ".join(row) for row in table(facts)]
    lines += _parts(one.run, one.task)
    return "\n".join(lines) + "\n"


def _facts(one: Status, now: float, colour: bool) -> Iterator[tuple[str, str]]:

    that, last, spec = one.run, one.run.last, one.run.spec
    seen: Observation | Task = last
    if one.task is not None:
        seen = next((task for task in last.tasks if task.index == one.task), last)
    yield "run", that.id if one.task is None else f"{that.id}.{one.task}"
    yield "name", printable(spec.name)
    yield "state", paint(state_text(seen), seen.state, colour)
    yield "", printable(seen.detail)
    if last.reason is Reason.HOST_UNREACHABLE:
        yield "last seen", f"{duration_text(max(0.0, now - that.seen))} ago"
    yield "place", printable(that.place)
    yield "command", command_text(spec)
    yield "directory", printable(f"{spec.root}/{spec.cwd}" if spec.cwd != "." else spec.root)
    yield "needs", _needs(that)
    yield "array", f"{spec.array} ({len(spec.array.indexes)} tasks)" if spec.array else ""
    yield (
        "waits for",
        ", ".join(_dependency(dependency.run_id, dependency.condition, other) for dependency, other in one.after),
    )
    yield "needed by", ", ".join(other.id for other in one.dependants)
    yield "submitted", clock(that.created)
    yield "started", clock(last.started) if last.started is not None else ""
    yield "ended", clock(last.ended) if last.ended is not None and last.state.final else ""
    yield "time", took(that, now)
    yield "results", _results(that)


def _needs(run: Run) -> str:

    spec, needs = run.spec, run.spec.resources
    parts = [
        f"{needs.cpus:g} CPU{'s' * (needs.cpus != 1)}",
        f"{size_text(needs.mem)} memory" if needs.mem else "",
        f"{needs.gpus} GPU {needs.gpu_product}".strip() if needs.gpus else "",
        f"{duration_text(spec.time_limit)} at most" if spec.time_limit else "",
        f"priority {spec.priority}" if spec.priority else "",
        f"{spec.retries} retries" if spec.retries else "",
    ]
    return ", ".join(part for part in parts if part)


def _dependency(run_id: str, condition: str, other: Run | None) -> str:
    return f"{run_id}:{condition} ({other.state if other else 'no longer recorded'})"


def _results(run: Run) -> str:

    files, size = run.last.result_files, run.last.result_bytes
    amount = f"{files} file{'s' * (files != 1)}, {size_text(size or 0)}" if files is not None else ""
    if run.pulled:
        return printable(run.pulled) + (f" ({amount})" if amount else "")
    if files:
        return f"{amount}; `qwex pull {run.id}` fetches them"
    return "none" if run.state.final and files == 0 else ""


def _parts(run: Run, task: int | None) -> Iterator[str]:
    """A line for each element of an array, or for each attempt of one task when there were several."""

    tasks = [one for one in run.last.tasks if task is None or one.index == task]
    if run.spec.array and task is None:
        shown = tasks[:_MOST_TASKS]
        rows = [(f"  {run.id}.{one.index}", state_text(one), _spent(one)) for one in shown]
        yield from ("  ".join(row).rstrip() for row in table(rows))
        if len(tasks) > len(shown):
            yield f"  and {len(tasks) - len(shown)} more: `qwex status --json {run.id}` has all"
        return
    attempts = [attempt for one in tasks for attempt in one.attempts]
    if len(attempts) > 1:
        rows = [(f"  attempt {one.number}", state_text(one), _attempt_spent(one)) for one in attempts]
        yield from ("  ".join(row).rstrip() for row in table(rows))


def _spent(task: Task) -> str:
    return _attempt_spent(task.attempts[-1]) if task.attempts else ""


def _attempt_spent(one: Attempt) -> str:

    return duration_text(max(0.0, one.ended - one.started)) if one.started is not None and one.ended is not None else ""
