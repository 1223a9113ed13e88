"""What a waiting run waits for, in a sentence and its evidence."""

from __future__ import annotations

from collections.abc import Iterable

from qwex.backends.local.capacity import Capacity, Free, never_fits
from qwex.model.runs import Run, Task
from qwex.model.states import Reason, State
from qwex.model.units import duration_text, size_text
from qwex.store.entries import Claim
from qwex.store.queue import Queue

__all__ = ["explain"]

_SHOWN = 10


def explain(run: Run, queue: Queue, capacity: Capacity, now: float) -> list[str]:
    """Empty when the run does not wait."""
    waiting = [task for task in run.last.tasks if task.state in (State.QUEUED, State.HELD, State.SUSPENDED)]
    if not waiting:
        return []
    many = f"{len(waiting)} tasks of it wait; the first one: " if len(waiting) > 1 else ""
    sentence, *evidence = _about(run, waiting[0], queue, capacity, now)
    return [f"{run.id} {many}{sentence}", *evidence]


def _about(run: Run, task: Task, queue: Queue, capacity: Capacity, now: float) -> list[str]:
    if task.state is State.HELD:
        return ["is held", f"`qwex resume {run.id}` lets it go on"]
    if task.state is State.SUSPENDED:
        return [
            "is suspended: its processes are stopped, its CPUs are free for others, and it keeps its memory and GPUs",
            f"`qwex resume {run.id}` lets it go on",
        ]
    parents = queue.waits_for(run.id)
    if parents:
        names = ", ".join(f"{one.run_id}{f' ({one.name})' if one.name else ''}" for one in parents[:_SHOWN])
        return [
            f"waits for {names}" + (f" and {len(parents) - _SHOWN} more" if len(parents) > _SHOWN else ""),
            *(f"{one.run_id} is {one.state}, and must have {_MUST[one.condition]}" for one in parents[:_SHOWN]),
        ]
    if task.reason is Reason.WAITING_TO_RETRY:
        due = queue.due(run.id, task.index)
        left = duration_text(max(0.0, due - now)) if due else "no time"
        last = task.attempts[-1]
        return [
            f"waits {left} before its next attempt",
            f"attempt {last.number} ended: {last.reason}"
            + (f", exit code {last.exit_code}" if last.exit_code is not None else ""),
        ]
    if task.reason is Reason.ARRAY_LIMIT:
        limit = run.spec.array.limit if run.spec.array else 0
        return [f"waits for a place: at most {limit} of its tasks run at a time (--array …%{limit})"]
    return _resources(run, task, queue, capacity)


_MUST = {"ok": "succeeded", "fail": "failed", "any": "ended"}


def _resources(run: Run, task: Task, queue: Queue, capacity: Capacity) -> list[str]:
    need = run.spec.resources
    if why := never_fits(need, capacity):
        return [f"can never start here: {why}"]
    running = queue.claims()
    free = Free.of(capacity)
    for claim in running:
        free.take(claim.spec.resources, claim.gpus, cpus=claim.state is not State.SUSPENDED)
    short = []
    if need.cpus > free.cpus:
        short.append(f"{need.cpus - max(0.0, free.cpus):g} more CPUs")
    if need.mem > free.mem:
        short.append(f"{size_text(need.mem - max(0, free.mem))} more memory")
    gpus = sum(gpu.index in free.gpus for gpu in capacity.suiting(need.gpu_product))
    if need.gpus > gpus:
        short.append(f"{need.gpus - gpus} more {need.gpu_product or ''} GPUs".replace("  ", " "))
    ahead = queue.ahead(run.id, task.index)
    place = "it is the next in the queue" if not ahead else f"{ahead} tasks stand before it in the queue"
    if not short:
        return [f"can start at any moment; {place}"]
    return [f"waits for {', '.join(short)}; {place}", *_holders(running)]


def _holders(running: Iterable[Claim]) -> list[str]:
    lines = []
    for claim in running:
        held = claim.spec.resources
        parts = [f"{held.cpus:g} CPUs"] if claim.state is not State.SUSPENDED else []
        parts += [size_text(held.mem) + " of memory"] if held.mem else []
        parts += [f"GPU {', '.join(map(str, claim.gpus))}"] if claim.gpus else []
        task = f"{claim.run_id}.{claim.index}" if claim.spec.array else claim.run_id
        lines.append(f"{task}{f' ({claim.spec.name})' if claim.spec.name else ''} has {', '.join(parts) or 'nothing'}")
    return lines[:_SHOWN] + ([f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])
