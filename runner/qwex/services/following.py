"""Staying with a run: its output as it comes, its end, its results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from qwex.backends.base import Cursor, LogChunk, LogRequest, Stream
from qwex.errors import BackendError, QwexError, Unreachable
from qwex.model.jobs import StdinMode
from qwex.model.runs import Observation
from qwex.model.states import State
from qwex.model.units import size_text
from qwex.services.connection import Connection
from qwex.services.places import resolve
from qwex.services.recovery import handed_over
from qwex.services.results import pull
from qwex.services.runs import find, record
from qwex.services.stdin import read_chunks

if TYPE_CHECKING:
    from qwex.model.runs import Run
    from qwex.services.context import Context

__all__ = ["Labels", "Sink", "attach", "logs"]

Sink = Callable[[Stream, bytes], None]
"""Takes output of a run, in order. May block; what it raises ends the following."""

_EVERYTHING = LogRequest()
_LONGEST_LINE = 1 << 20
_REMEMBER = 1.0


class Labels:
    """Output of many elements as whole lines that say whose they are: ``[7] epoch 1``.

    ``labels(chunk)`` gives what can be written now, ``labels.rest()`` the last lines without a newline at the end of everything.
    Lines above a mebibyte are written in pieces.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[int, int, Stream], bytes] = {}

    def __call__(self, chunk: LogChunk) -> bytes:
        key = (chunk.task, chunk.attempt, chunk.stream)
        whole, newline, rest = (self._open.pop(key, b"") + chunk.data).rpartition(b"\n")
        label = b"[%d] " % chunk.task
        text = b"".join(label + line + b"\n" for line in whole.split(b"\n")) if newline else b""
        if len(rest) > _LONGEST_LINE:
            text, rest = text + label + rest + b"\n", b""
        if rest:
            self._open[key] = rest
        return text

    def rest(self) -> list[tuple[Stream, bytes]]:
        left = [(stream, b"[%d] %s\n" % (task, data)) for (task, _, stream), data in sorted(self._open.items())]
        self._open.clear()
        return left


class _Place:
    """How far a run's output was read, remembered in the store about once a second and at the end."""

    def __init__(self, ctx: Context, run_id: str) -> None:
        self._ctx, self._run_id = ctx, run_id
        self.cursor: Cursor = ctx.store.cursor(run_id)
        self._kept = time.monotonic()

    def advance(self, chunk: LogChunk) -> None:
        _advance(self.cursor, chunk)
        if time.monotonic() - self._kept > _REMEMBER:
            self.keep()

    def keep(self) -> None:
        self._ctx.store.set_cursor(self._run_id, self.cursor)
        self._kept = time.monotonic()


def _advance(cursor: Cursor, chunk: LogChunk) -> None:
    cursor.setdefault(chunk.key, [0, 0])[chunk.stream is Stream.ERR] = chunk.offset + len(chunk.data)


def _copy(cursor: Cursor) -> Cursor:
    return {key: list(offsets) for key, offsets in cursor.items()}


async def attach(
    ctx: Context, run: Run, sink: Sink, *, stdin: int | None = None, task: int | None = None, home: bool = True
) -> Observation:
    """Stream a run's output until it ended, feed it ``stdin`` (StdinMode.LIVE), bring its results home (``home``); the final observation.

    A plain run, or the element ``task``, is passed on byte for byte; several elements get labelled lines. Continues where this user's
    last attached client stopped. A broken connection is noted, retried with back-off for as long as it takes, and noted when back.
    Cancelling the coroutine detaches: the run goes on, the place in the log is remembered.
    """
    run = await handed_over(ctx, run)
    if not run.handle:
        return run.last
    connection = Connection(ctx, resolve(ctx, run.place))
    labels = Labels() if run.spec.array is not None and task is None else None
    read = _Place(ctx, run.id)
    feeding = None
    if stdin is not None and run.spec.stdin is StdinMode.LIVE:
        feeding = asyncio.create_task(_feed(ctx, connection, run, stdin))
    try:
        async for chunk in _stream(connection, run, LogRequest(task, follow=True, cursor=read.cursor)):
            if data := labels(chunk) if labels else chunk.data:
                sink(chunk.stream, data)
            read.advance(chunk)
        observation = await _final(ctx, connection, run)
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        try:
            for stream, data in labels.rest() if labels else ():
                sink(stream, data)
        finally:
            read.keep()
    if home:
        await _bring_home(ctx, connection, run._replace(last=observation))
    return observation


async def _stream(connection: Connection, run: Run, request: LogRequest) -> AsyncIterator[LogChunk]:
    """Output across broken connections: each new one continues behind the last byte that came."""
    cursor = _copy(request.cursor)
    while True:
        backend = await connection.open()
        try:
            async for chunk in backend.logs(run.handle, replace(request, cursor=_copy(cursor))):
                connection.works()
                _advance(cursor, chunk)
                yield chunk
        except Unreachable as error:
            if not request.follow:
                raise
            await connection.broke(error)
            continue
        connection.works()
        return


async def _final(ctx: Context, connection: Connection, run: Run) -> Observation:
    observed = await connection.ask(lambda backend: backend.observe({run.id: run.handle}))
    return record(ctx, [run], observed)[0].last


async def _feed(ctx: Context, connection: Connection, run: Run, fd: int) -> None:
    try:
        backend = await connection.open()
        await backend.feed(run.handle, read_chunks(fd))
    except (Unreachable, BackendError) as error:
        ctx.reporter.warn(f"the rest of standard input did not reach run {run.id}: {error.message}")
    except OSError as error:
        ctx.reporter.warn(f"standard input cannot be read: {error.strerror}")


async def _bring_home(ctx: Context, connection: Connection, run: Run) -> None:
    """Results, and a line about them. When they cannot be fetched a run that succeeded is not reported as plain success."""
    try:
        pulled = await connection.ask(lambda _: pull(ctx, run))
    except QwexError as error:
        hint = f"`qwex pull {run.id}` fetches them"
        if run.state is State.SUCCEEDED:
            raise type(error)(
                f"run {run.id} succeeded, and its results did not come home: {error.message}", hint=hint
            ) from error
        ctx.reporter.warn(f"the results did not come home: {error.message}; {hint}")
        return
    if pulled.waiting:
        ctx.reporter.note(f"the results have {size_text(pulled.size)}: `qwex pull {run.id}` fetches them")
    elif pulled.directory is not None:
        ctx.reporter.note(pulled.describe(ctx.directory))
    for edited, beside in pulled.conflicts:
        ctx.reporter.warn(f"{edited} was edited meanwhile and left alone; the run's is {beside.name} beside it")


async def logs(
    ctx: Context, ref: str, request: LogRequest = _EVERYTHING, *, resume: bool = False
) -> AsyncIterator[LogChunk]:
    """Output of a run (``ID``, or ``ID.7`` for one element). ``resume``: from where an attached or resuming client stopped.

    With ``follow`` broken connections are retried as in ``attach``.
    """
    run, task = find(ctx, ref)
    if task is not None:
        request = replace(request, task=task)
    run = await handed_over(ctx, run)
    if not run.handle:
        return
    connection = Connection(ctx, resolve(ctx, run.place))
    if not resume:
        async for chunk in _stream(connection, run, request):
            yield chunk
        return
    read = _Place(ctx, run.id)
    try:
        async for chunk in _stream(connection, run, replace(request, cursor=read.cursor)):
            yield chunk
            read.advance(chunk)  # after the reader took it: what it did not get is not remembered as read
    finally:
        read.keep()
