"""``qwex logs``: what a run wrote."""

from __future__ import annotations

import re
import time
from contextlib import closing
from datetime import datetime
from typing import Annotated

import typer

from qwex.backends.base import LogRequest, Stream
from qwex.cli.arguments import Ref
from qwex.cli.bridge import Signals, run
from qwex.cli.shape import command, terminal_of
from qwex.cli.streaming import Sink, passing_on
from qwex.cli.submitting import follow as stay
from qwex.errors import UsageError
from qwex.model.units import parse_duration
from qwex.services import runs
from qwex.services.context import Context
from qwex.services.following import Labels
from qwex.services.following import logs as output_of

__all__ = ["app", "moment"]

app, _command = command()


@_command
def logs(
    ctx: typer.Context,
    ref: Ref,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="WHEN", help="From then on: 10m (ago), 14:30 or 2025-11-23T14:30.", show_default=False
        ),
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option("--tail", "-n", metavar="LINES", min=0, help="The last lines of each stream.", show_default=False),
    ] = None,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", metavar="NUMBER", min=1, help="One attempt; else all.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="From where you stopped reading.")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only what it wrote to standard output.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Only what it wrote to standard error.")] = False,
) -> int:
    """Show what a run wrote, each stream on its own, byte for byte.

    Lines of several elements are labelled: [7] epoch 1. With --follow it ends as the run does, and with --resume as well the
    results come home, as if one had never been away.
    """
    request = LogRequest(attempt=attempt, follow=follow, since=None if since is None else moment(since), tail=tail)
    if resume and (since is not None or tail is not None):
        raise UsageError("--resume goes on where you stopped: it takes no --since and no --tail")
    terminal = terminal_of(ctx)
    wanted = {Stream.OUT, Stream.ERR} if stdout == stderr else {Stream.OUT if stdout else Stream.ERR}

    async def work(context: Context, signals: Signals) -> int:
        found, task = runs.find(context, ref)
        if follow and resume and task is None and attempt is None and len(wanted) == 2:
            return await stay(context, terminal, signals, found, announce=False)
        labels = Labels() if found.spec.array is not None and task is None else None
        with closing(Sink(signals)) as sink:
            await passing_on(signals, _show(context, ref, request, resume, wanted, labels, sink))
        if not follow:
            return 0
        (fresh,) = await runs.refresh(context, [found])
        return runs.exit_status(context.store.get(fresh.id), task)

    return run(terminal, work)


async def _show(
    ctx: Context,
    ref: str,
    request: LogRequest,
    resume: bool,
    wanted: set[Stream],
    labels: Labels | None,
    sink: Sink,
) -> None:
    try:
        async for chunk in output_of(ctx, ref, request, resume=resume):
            if chunk.stream in wanted and (data := labels(chunk) if labels else chunk.data):
                sink(chunk.stream, data)
    finally:
        for stream, data in labels.rest() if labels else ():
            sink(stream, data)


def moment(text: str) -> float:
    """Unix seconds of ``10m`` (ago), ``14:30`` (today, or yesterday if that is still to come) or an ISO 8601 date and time."""
    try:
        if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text):
            now = datetime.now()
            clock = datetime.strptime(text, "%H:%M:%S" if text.count(":") > 1 else "%H:%M").time()
            then = datetime.combine(now.date(), clock).timestamp()
            return then if then <= now.timestamp() else then - 86400
        if re.match(r"[0-9]{4}-", text):
            return datetime.fromisoformat(text).timestamp()
        return time.time() - parse_duration(text)
    except ValueError as error:
        raise UsageError(
            f"--since {text!r} is no time", hint="write 10m, 2h (ago), 14:30, 2025-11-23 or 2025-11-23T14:30"
        ) from error
