"""Handing specs over to a place: recorded first, then submitted, then with their handles."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qwex.backends.base import Submission
from qwex.errors import QwexError, Unreachable, UnsupportedHere
from qwex.model.jobs import Condition, Dependency, JobSpec, StdinMode
from qwex.model.states import Reason, State
from qwex.model.units import size_text
from qwex.services import recovery, snapshots

if TYPE_CHECKING:
    from qwex.backends.base import Backend, Handle, Progress, Source
    from qwex.model.places import Capabilities, Place
    from qwex.model.runs import Run
    from qwex.services.context import Context

__all__ = ["Job", "check", "current_user", "demanding", "launch"]

_WITHDRAWAL = 5.0


class Job(NamedTuple):
    """A spec with what is in no record: the values of its secrets, and needs by name until their runs have ids."""

    spec: JobSpec
    needs: tuple[tuple[str, Condition], ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)


def current_user() -> str:
    """The account this runs under, as ``list --user`` names it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account without an entry, as in some containers
        return str(os.getuid())


def demanding(job: Job) -> bool:
    """Whether it asks for anything a place might not have."""
    spec, needs = job.spec, job.spec.resources
    more = needs.cpus > 1 or needs.mem or needs.gpus or spec.array or spec.after or job.needs or spec.priority
    return bool(more) or spec.stdin is StdinMode.LIVE


def check(job: Job, place: Place, can: Capabilities) -> None:
    """UnsupportedHere, with both numbers, when the place can never run this."""
    spec, needs = job.spec, job.spec.resources
    if can.cpus is not None and needs.cpus > can.cpus:
        raise UnsupportedHere(
            f"{place.name} has {can.cpus:g} CPUs, and the job asks for {needs.cpus:g}", hint="ask for fewer with --cpus"
        )
    if can.mem is not None and needs.mem > can.mem:
        raise UnsupportedHere(
            f"{place.name} has {size_text(can.mem)} of memory, and the job asks for {size_text(needs.mem)}",
            hint="ask for less with --mem",
        )
    if can.gpus is not None and needs.gpus > can.gpus:
        what = f"{needs.gpus} {needs.gpu_product}".strip()
        raise UnsupportedHere(
            f"{place.name} has {can.gpus or 'no'} GPUs, and the job asks for {what}",
            hint="choose another place with --on",
        )
    for wanted, able, what in (
        (spec.array is not None, can.arrays, "arrays"),
        (bool(spec.after or job.needs), can.dependencies, "dependencies between runs"),
        (spec.priority != 0, can.priorities, "priorities"),
        (spec.stdin is StdinMode.LIVE, can.live_stdin, "standard input while a job runs"),
    ):
        if wanted and not able:
            raise UnsupportedHere(f"{place.name} has no {what}", hint="choose another place with --on")


async def launch(
    ctx: Context,
    place: Place,
    jobs: Sequence[Job],
    order: Sequence[int],
    source: Source | None,
    links: Mapping[bytes, bytes],
    spooled: Path | None,
    progress: Progress = snapshots.silent,
) -> list[Run]:
    """Record and submit; the runs in the order of ``jobs``. ``order`` goes through the jobs so that needs come first.

    ``spooled`` becomes the standard input of the jobs with StdinMode.FILE (there is one at most) and belongs to their record then.
    """
    with recovery.submitting(ctx.paths):
        runs = _record(ctx, place, jobs, order)
        submissions = []
        for job, run in zip(jobs, runs, strict=True):
            kept = None
            if run.spec.stdin is StdinMode.FILE and spooled is not None:
                kept = spooled.rename(recovery.spool_file(ctx.paths, run.id))
            submissions.append(Submission(run.id, run.spec, source, links, job.secrets, kept))
        try:
            handles = await _submit(ctx, place, submissions, progress)
        except Unreachable as error:
            first = runs[0].id
            raise type(error)(
                f"{error.message} while run {first} was submitted: it may have started there",
                hint=f"`qwex status {first}` finds out once {place.name} answers, `qwex cancel {first}` ends it",
            ) from error
        except asyncio.CancelledError:
            await _withdraw(ctx, place, runs)
            raise
        except QwexError as error:
            recovery.end(ctx, runs, State.FAILED, Reason.SUBMISSION_FAILED, error.message)
            raise
        ctx.store.set_handles(handles)
    return [run._replace(handle=handles[run.id]) for run in runs]


async def _submit(
    ctx: Context, place: Place, submissions: Sequence[Submission], progress: Progress
) -> dict[str, Handle]:
    """Submit; once more over a new connection when it breaks, which the ids make harmless."""
    backend: Backend = await ctx.backend(place)
    try:
        return await backend.submit(submissions, progress)
    except Unreachable:
        await ctx.drop(place, backend)
        backend = await ctx.backend(place)
        return await backend.submit(submissions, progress)


async def _withdraw(ctx: Context, place: Place, runs: list[Run]) -> None:
    """The user interrupted the submission. A place that does not answer leaves it to the next command (``recovery``)."""
    try:
        async with asyncio.timeout(_WITHDRAWAL):
            await (await ctx.backend(place)).cancel({run.id: {"run": run.id} for run in runs})
    except (QwexError, TimeoutError):
        ctx.reporter.warn(
            f"{place.name} was interrupted while it took {runs[0].id}: `qwex status {runs[0].id}` finds out"
        )
    else:
        recovery.end(ctx, runs, State.CANCELLED, Reason.CANCELLED_BY_USER, "interrupted while it was submitted")


def _record(ctx: Context, place: Place, jobs: Sequence[Job], order: Sequence[int]) -> list[Run]:
    """All records in one transaction, level by level of a graph: what is needed has its id before it is named."""
    user, now = current_user(), time.time()
    made: dict[int, Run] = {}
    by_name = {job.spec.name: at for at, job in enumerate(jobs)}
    waiting = list(order)
    with ctx.store.database.writing():
        while waiting:
            level = [at for at in waiting if all(by_name[name] in made for name, _ in jobs[at].needs)]
            specs = []
            for at in level:
                needs = tuple(Dependency(made[by_name[name]].id, condition) for name, condition in jobs[at].needs)
                specs.append((jobs[at].spec.replace(after=(*jobs[at].spec.after, *needs)), place.name, user))
            made.update(zip(level, ctx.store.add(specs, now), strict=True))
            waiting = [at for at in waiting if at not in made]
    return [made[at] for at in range(len(jobs))]
