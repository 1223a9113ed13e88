"""Runs whose submission was cut short by the death of the client.

A run is recorded before its place is asked, with an empty handle; the handle is written when the place has it. Whoever submits holds
a shared lock meanwhile, so a run without a handle while nobody holds that lock was abandoned: it is handed over again if its content
is still there (``Backend.submit`` is idempotent on the id), else it ends as failed with reason submission-failed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwex.errors import QwexError, StoreError, Unreachable, WorkspaceError
from qwex.model.jobs import StdinMode
from qwex.model.runs import Observation
from qwex.model.states import Reason, State

if TYPE_CHECKING:
    from qwex.config import Paths
    from qwex.model.runs import Run
    from qwex.services.context import Context

__all__ = ["end", "handed_over", "spool_file", "submitting", "take_up"]

_POLL = 0.1


@contextmanager
def submitting(paths: Paths) -> Iterator[None]:
    """Held from before a run is recorded until its handle is. The kernel lets go of it when the process dies."""
    fd = _lock_file(paths)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def _lock_file(paths: Paths) -> int:
    try:
        paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(paths.state / "submitting.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"{paths.state} cannot be written: {error.strerror}", hint="check its owner and free space"
        ) from error


def _abandoned(ctx: Context, run_id: str) -> bool:
    """Whether no submitter is alive that could still write this run's handle."""
    fd = _lock_file(ctx.paths)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run = ctx.store.get(run_id)
        return not run.handle and not run.state.final
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def spool_file(paths: Paths, run_id: str) -> Path:
    """Where a run's standard input is kept (StdinMode.FILE)."""
    return paths.state / "stdin" / run_id


def end(ctx: Context, runs: list[Run], state: State, reason: Reason, detail: str) -> list[Run]:
    """Record that these runs ended without having started."""
    now = time.time()
    over = Observation(state, reason, detail, ended=now)
    ctx.store.record({run.id: over for run in runs}, now)
    return [run._replace(last=over, seen=now) for run in runs]


async def take_up(ctx: Context, run: Run) -> Run:
    """The run with its handle; unchanged while its submitter is alive. Unreachable when its place cannot be asked now."""
    if run.handle or run.state.final or not _abandoned(ctx, run.id):
        return run
    from qwex.backends.base import Submission
    from qwex.services import snapshots
    from qwex.services.places import resolve

    try:
        place = resolve(ctx, run.place)
        backend = await ctx.backend(place)
        submission = Submission(run.id, run.spec)
        if run.id not in await backend.observe({run.id: {"run": run.id}}):
            submission = replace(submission, source=snapshots.restore(ctx, place, run.spec), stdin=_input(ctx, run))
        handles = await backend.submit([submission], snapshots.silent)
    except Unreachable:
        raise
    except QwexError as error:
        detail = f"the client died while submitting, and it could not be taken up: {error.message}"
        return end(ctx, [run], State.FAILED, Reason.SUBMISSION_FAILED, detail)[0]
    ctx.store.set_handles(handles)
    return ctx.store.get(run.id)


def _input(ctx: Context, run: Run) -> Path | None:
    if run.spec.secrets:
        raise WorkspaceError("its secrets were not kept")
    if run.spec.stdin is StdinMode.NONE:
        return None
    kept = spool_file(ctx.paths, run.id)
    if run.spec.stdin is StdinMode.LIVE or not kept.exists():
        raise WorkspaceError("its standard input is gone")
    return kept


async def handed_over(ctx: Context, run: Run) -> Run:
    """Wait until the run has a handle or ended, taking it up when its submitter is dead."""
    while not run.handle and not run.state.final:
        run = await take_up(ctx, ctx.store.get(run.id))
        if run.handle or run.state.final:
            break
        await asyncio.sleep(_POLL)
    return run
