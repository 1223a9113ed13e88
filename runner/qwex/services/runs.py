"""What can be asked of runs that exist, and done to them.

A reference is an id, an unambiguous prefix of one, ``last``, or any of these with ``.7`` for one element of an array.
UnknownName or UsageError (ambiguous) otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qwex.errors import BackendError, PlaceError, UnknownName, Unreachable, UsageError
from qwex.model.runs import Observation
from qwex.model.states import Reason, State
from qwex.model.units import duration_text
from qwex.services.connection import Connection
from qwex.services.explanation import explain
from qwex.services.places import resolve, shares_files
from qwex.services.recovery import handed_over, take_up

if TYPE_CHECKING:
    from qwex.backends.base import Handle
    from qwex.model.jobs import Dependency
    from qwex.model.runs import Run, Task
    from qwex.services.context import Context

__all__ = [
    "ListQuery",
    "Status",
    "Waited",
    "cancel",
    "execute",
    "exit_status",
    "find",
    "list_runs",
    "record",
    "refresh",
    "rerun",
    "resume",
    "status",
    "suspend",
    "wait",
    "why",
]


class ListQuery(NamedTuple):
    """Newest first. ``states`` () is all; ``user`` None is everybody; ``place`` a name. ``refresh``: ask the places of active runs."""

    states: tuple[State, ...] = ()
    user: str | None = None
    place: str | None = None
    limit: int = 50
    refresh: bool = True


_RECENT = ListQuery()
_PATIENCE = 2.0  # seconds one place may take before a listing goes on without it
_CANCELLED = 130
_TIME_OVER = 124


class Status(NamedTuple):
    """A run, which element was asked for, what it waits for (run None: no longer recorded), and active runs that wait for it."""

    run: Run
    task: int | None
    after: tuple[tuple[Dependency, Run | None], ...]
    dependants: tuple[Run, ...]


class Waited(NamedTuple):
    """``runs`` in the order asked for. ``exit_status``: the first non-zero of them, 124 when the time was over first."""

    runs: tuple[Run, ...]
    timed_out: bool
    exit_status: int


def find(ctx: Context, ref: str) -> tuple[Run, int | None]:
    """The record and the element meant, without asking any place."""
    run_id, task = ctx.store.resolve(ref)
    return ctx.store.get(run_id), task


def exit_status(run: Run, task: int | None = None) -> int:
    """What a command that stayed with this run ends with, 0 while it goes on.

    124 when its time limit ended it; else its own code if it has one, 130 cancelled, 1 for every other end that is no success
    (a dependency failed, lost, never taken up).
    """
    seen: Observation | Task = run.last
    if task is not None:
        seen = next((one for one in run.last.tasks if one.index == task), run.last)
    if not seen.state.final or seen.state is State.SUCCEEDED:
        return 0
    if seen.reason is Reason.TIME_LIMIT:
        return _TIME_OVER
    if seen.reason is Reason.DEPENDENCY_FAILED:
        return 1
    if seen.exit_code:
        return seen.exit_code
    return _CANCELLED if seen.state is State.CANCELLED else 1


def record(ctx: Context, runs: Sequence[Run], observed: Mapping[str, Observation]) -> list[Run]:
    """These runs as they are now known to their place. One it does not know any more is lost, unless it had ended."""
    now = time.time()
    news = dict(observed)
    for run in runs:
        if run.id not in news and not run.state.final:
            news[run.id] = Observation(State.LOST, Reason.UNKNOWN, f"{run.place} does not know this run any more")
    ctx.store.record(news, now)
    return [run._replace(last=news[run.id], seen=now) if run.id in news else run for run in runs]


async def refresh(ctx: Context, runs: Sequence[Run]) -> list[Run]:
    """Ask the places of those that have not ended, all at once. See ``list_runs`` for those that do not answer."""
    by_place: dict[str, list[Run]] = {}
    for run in runs:
        if not run.state.final:
            by_place.setdefault(run.place, []).append(run)
    if not by_place:
        return list(runs)
    answers = await asyncio.gather(*(_ask(ctx, name, group) for name, group in by_place.items()))
    fresh = {run.id: run for answer in answers for run in answer}
    return [fresh.get(run.id, run) for run in runs]


async def _ask(ctx: Context, name: str, runs: list[Run]) -> list[Run]:
    place = None
    try:
        place = resolve(ctx, name)
        async with asyncio.timeout(None if shares_files(place) else _PATIENCE):
            runs = [await take_up(ctx, run) for run in runs]
            backend = await ctx.backend(place)
            asked = [run for run in runs if run.handle and not run.state.final]
            if not asked:
                return runs
            observed = await backend.observe({run.id: run.handle for run in asked})
    except TimeoutError:
        reason = f"{name} did not answer within {_PATIENCE:g} s"
    except (PlaceError, BackendError, UnknownName) as error:
        reason = error.message
    else:
        known = {run.id: run for run in record(ctx, asked, observed)}
        return [known.get(run.id, run) for run in runs]
    if place is not None and ctx.connected(place):
        await ctx.drop(place, await ctx.backend(place))
    return [run._replace(last=run.last._replace(reason=Reason.HOST_UNREACHABLE, detail=reason)) for run in runs]


async def list_runs(ctx: Context, query: ListQuery = _RECENT) -> list[Run]:
    """Recorded runs. Active remote ones are asked for at once, 2 s per place.

    A place that does not answer in time: its runs are as last seen (``Run.seen``), with reason HOST_UNREACHABLE and why in ``detail``:
    show their state with a question mark.
    """
    if query.refresh and query.states and (active := ctx.store.active(query.place)):
        await refresh(ctx, active)  # so that the states asked for are today's
    runs = ctx.store.list(states=query.states, user=query.user, place=query.place, limit=query.limit)
    if not query.refresh:
        return runs
    fresh = await refresh(ctx, runs)
    return [run for run in fresh if not query.states or run.state in query.states]


async def status(ctx: Context, ref: str) -> Status:
    """One run in full. Unreachable places as in ``list_runs``."""
    run, task = find(ctx, ref)
    (fresh,) = await refresh(ctx, [run])
    if fresh.last.reason is not Reason.HOST_UNREACHABLE:
        fresh = ctx.store.get(run.id)
    after = tuple((one, _recorded(ctx, one.run_id)) for one in run.spec.after)
    waiting = ctx.store.active(run.place)
    dependants = tuple(other for other in waiting if any(one.run_id == run.id for one in other.spec.after))
    return Status(fresh, task, after, dependants)


def _recorded(ctx: Context, run_id: str) -> Run | None:
    try:
        return ctx.store.get(run_id)
    except UnknownName:
        return None


async def _reach(ctx: Context, refs: Sequence[str]) -> list[tuple[Run, int | None]]:
    """The active ones of these, handed over, by reference."""
    found = [find(ctx, ref) for ref in refs]
    ready = [(await take_up(ctx, run), task) for run, task in found]
    for run, _ in ready:
        if not run.handle and not run.state.final:
            raise UsageError(f"run {run.id} is being submitted at this moment", hint="try again when that is done")
    return [(run, task) for run, task in ready if not run.state.final]


def _grouped(runs: Sequence[Run]) -> dict[str, dict[str, Handle]]:
    groups: dict[str, dict[str, Handle]] = {}
    for run in runs:
        groups.setdefault(run.place, {})[run.id] = run.handle
    return groups


async def cancel(ctx: Context, refs: Sequence[str]) -> list[Run]:
    """Ask for the end of runs or elements. Returns at once, with the runs as last seen; ended ones are left alone."""
    reached = await _reach(ctx, refs)
    whole = {run.id for run, task in reached if task is None}
    for name, handles in _grouped([run for run, task in reached if task is None]).items():
        await (await ctx.backend(resolve(ctx, name))).cancel(handles)
    tasks: dict[str, tuple[Run, list[int]]] = {}
    for run, task in reached:
        if task is not None and run.id not in whole:
            tasks.setdefault(run.id, (run, []))[1].append(task)
    for run, listed in tasks.values():
        await (await ctx.backend(resolve(ctx, run.place))).cancel({run.id: run.handle}, listed)
    return _once(ctx, refs)


def _once(ctx: Context, refs: Sequence[str]) -> list[Run]:
    return [ctx.store.get(run_id) for run_id in dict.fromkeys(find(ctx, ref)[0].id for ref in refs)]


async def suspend(ctx: Context, refs: Sequence[str]) -> list[Run]:
    """Stop running tasks where they are and hold waiting ones. UnsupportedHere where a place cannot."""
    for name, handles in _grouped(_whole(await _reach(ctx, refs), "suspended")).items():
        await (await ctx.backend(resolve(ctx, name))).suspend(handles)
    return await refresh(ctx, _once(ctx, refs))


async def resume(ctx: Context, refs: Sequence[str]) -> list[Run]:
    """Let suspended and held ones go on."""
    for name, handles in _grouped(_whole(await _reach(ctx, refs), "resumed")).items():
        await (await ctx.backend(resolve(ctx, name))).resume(handles)
    return await refresh(ctx, _once(ctx, refs))


def _whole(reached: Sequence[tuple[Run, int | None]], what: str) -> list[Run]:
    for run, task in reached:
        if task is not None:
            raise UsageError(f"{run.id}.{task}: only whole runs can be {what}", hint=f"write {run.id}")
    return [run for run, _ in reached]


async def wait(ctx: Context, refs: Sequence[str], seconds: float | None = None) -> Waited:
    """Until all of them ended, wherever they are; at most ``seconds``. Results are not fetched."""
    found = [find(ctx, ref) for ref in refs]
    by_place: dict[str, list[tuple[Run, int | None]]] = {}
    for run, task in found:
        by_place.setdefault(run.place, []).append((run, task))
    timed_out = False
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for name, wanted in by_place.items():
                group.create_task(_wait_at(ctx, name, wanted))
    except TimeoutError:
        timed_out = True
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    runs = tuple(ctx.store.get(run.id) for run, _ in found)
    codes = (exit_status(run, task) for run, (_, task) in zip(runs, found, strict=True))
    return Waited(runs, timed_out, _TIME_OVER if timed_out else next((code for code in codes if code), 0))


def _over(last: Observation, task: int | None) -> bool:
    return last.state.final or any(one.index == task and one.state.final for one in last.tasks)


async def _wait_at(ctx: Context, name: str, wanted: Sequence[tuple[Run, int | None]]) -> None:
    open_ = {run.id: run for run in [await handed_over(ctx, run) for run, _ in wanted] if not run.state.final}
    tasks = {run_id: [task for run, task in wanted if run.id == run_id] for run_id in open_}
    if not open_:
        return
    connection = Connection(ctx, resolve(ctx, name))
    while open_:
        backend = await connection.open()
        try:
            handles = {run.id: run.handle for run in open_.values()}
            first = await backend.observe(handles)
            connection.works()
            record(ctx, list(open_.values()), first)
            _strike(open_, tasks, {run_id: first.get(run_id) for run_id in open_})
            if not open_:
                return
            async for changed in backend.watch({run_id: handles[run_id] for run_id in open_}):
                connection.works()
                record(ctx, [], changed)
                _strike(open_, tasks, dict(changed))
                if not open_:
                    return
        except Unreachable as error:
            await connection.broke(error)


def _strike(
    open_: dict[str, Run], tasks: Mapping[str, Sequence[int | None]], seen: Mapping[str, Observation | None]
) -> None:
    """Take out those that need no more waiting: ended, or unknown to their place (None)."""
    for run_id, last in seen.items():
        if last is None or all(_over(last, task) for task in tasks.get(run_id, ())):
            open_.pop(run_id, None)


async def why(ctx: Context, ref: str) -> list[str]:
    """One sentence on what the run waits for, does, or how it ended; then evidence line by line."""
    run, task = find(ctx, ref)
    (fresh,) = await refresh(ctx, [run])
    if fresh.last.reason is Reason.HOST_UNREACHABLE:
        ago = duration_text(max(0.0, time.time() - fresh.seen))
        return [f"what {run.id} does is not known: {fresh.last.detail}", f"{ago} ago it was {run.state}"]
    if fresh.state.final or fresh.state is State.RUNNING:
        return explain(fresh, task, time.time())
    if not fresh.handle:
        return [f"{run.id} is being submitted to {run.place}"]
    backend = await ctx.backend(resolve(ctx, run.place))
    return await backend.why(fresh.handle) or explain(fresh, task, time.time())


async def rerun(ctx: Context, ref: str, *, fresh: bool = False, yes: bool = False) -> Run:
    """Submit it again: same spec, same place, same snapshot, or ``fresh`` a new one of its directory. WorkspaceError when it is gone."""
    from qwex.services.repetition import repeat

    return await repeat(ctx, find(ctx, ref)[0], fresh=fresh, yes=yes)


async def execute(
    ctx: Context,
    ref: str,
    argv: Sequence[str],
    *,
    stdin: int = 0,
    stdout: int = 1,
    stderr: int = 2,
    terminal: bool = False,
) -> int:
    """Run a command inside a running job's directory, wired to these descriptors; its exit code. BackendError when it does not run."""
    run, task = find(ctx, ref)
    if not argv:
        raise UsageError("no command was given", hint=f"qwex exec {ref} ls -l")
    if task is None and run.spec.array is not None:
        raise UsageError(f"run {run.id} is an array: which element?", hint=f"write {run.id}.{run.spec.indexes[0]}")
    run = await take_up(ctx, run)
    if not run.handle or run.state.final:
        raise BackendError(f"run {run.id} does not run: it is {run.state}")
    backend = await ctx.backend(resolve(ctx, run.place))
    return await backend.execute(run.handle, argv, task or 0, stdin, stdout, stderr, terminal)
