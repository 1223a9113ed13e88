"""What ``batch``, ``submit`` and ``rerun`` have in common: plan, submit, stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from qwex.cli.bridge import Signals, Stopped, run
from qwex.cli.output import BROKEN_PIPE, OutputClosed, write_text
from qwex.cli.records import print_json, run_record
from qwex.cli.rendering import state_text, took
from qwex.model.states import Reason, State
from qwex.services.runs import cancel, exit_status
from qwex.services.submission import plan, submit

if TYPE_CHECKING:
    from qwex.cli.terminal import Terminal
    from qwex.model.runs import Observation, Run
    from qwex.services.context import Context
    from qwex.services.submission import Request

__all__ = ["attached", "detached", "dry_run", "follow", "leave"]

Requests = Callable[["Context"], Sequence["Request"]]


def dry_run(terminal: Terminal, requests: Requests, as_json: bool) -> int:
    """Print what would be sent and run."""

    async def work(ctx: Context, _: Signals) -> int:
        sent = await plan(ctx, requests(ctx))
        if as_json:
            print_json(sent.to_json())
        else:
            from qwex.cli.preview import preview

            write_text(preview(sent))
        return 0

    return run(terminal, work)


def detached(terminal: Terminal, requests: Requests, as_json: bool) -> int:
    """Submit and print the ids, one a line, or the runs' records."""

    async def work(ctx: Context, _: Signals) -> int:
        leave(terminal, await _submitted(ctx, requests(ctx)), as_json)
        return 0

    return run(terminal, work)


def attached(terminal: Terminal, request: Request, settings: Mapping[str, object]) -> int:
    """Submit, stay with the run, and end as it ends. ``settings`` override those of the files."""

    async def work(ctx: Context, signals: Signals) -> int:
        ctx.settings = ctx.settings.overridden(settings)
        (one,) = await _submitted(ctx, [request])
        return await follow(ctx, terminal, signals, one)

    return run(terminal, work)


async def _submitted(ctx: Context, requests: Sequence[Request]) -> list[Run]:
    try:
        return await submit(ctx, requests)
    except KeyboardInterrupt:
        ctx.reporter.warn("stopped while submitting: `qwex list` says whether the run was taken up")
        raise


def leave(terminal: Terminal, runs: Sequence[Run], as_json: bool) -> None:
    """Say which runs there are now: the data of a detached command."""
    if as_json:
        records = [run_record(one, tasks=True) for one in runs]
        print_json(records[0] if len(records) == 1 else records)
        return
    for one in runs:
        _announce(terminal, one)
    write_text("".join(f"{one.id}\n" for one in runs))


def _announce(terminal: Terminal, one: Run) -> None:
    name = f" ({one.spec.name})" if one.spec.name else ""
    many = f", {len(one.spec.array.indexes)} tasks" if one.spec.array else ""
    terminal.note(f"run {one.id}{name} submitted to {one.place}{many}")


async def follow(ctx: Context, terminal: Terminal, signals: Signals, one: Run, *, announce: bool = True) -> int:
    """Pass its output on until it ends; its exit status. A signal or a closed output detaches, or cancels where that is set."""
    from qwex.cli.streaming import Sink, passing_on
    from qwex.services.following import attach

    if announce:
        _announce(terminal, one)
    try:
        with closing(Sink(signals)) as sink:
            last = await passing_on(signals, attach(ctx, one, sink, stdin=0))
    except Stopped as stop:
        await _part(ctx, terminal, one, interrupted=stop.number == 2)
        raise
    except OutputClosed:
        await _part(ctx, terminal, one, interrupted=False)
        return BROKEN_PIPE
    ended = one._replace(last=last)
    _report(terminal, ended, last)
    return exit_status(ended)


async def _part(ctx: Context, terminal: Terminal, one: Run, *, interrupted: bool) -> None:
    """The client goes and the run stays, unless Ctrl-C is set to cancel it."""
    if interrupted and ctx.settings.get("run.on_interrupt") == "cancel":
        await cancel(ctx, [one.id])
        terminal.note(f"run {one.id} is being cancelled")
        return
    terminal.note(f"detached: run {one.id} goes on")
    terminal.note(f"come back with: qwex logs --follow --resume {one.id}")


def _report(terminal: Terminal, ended: Run, last: Observation) -> None:
    """How it ended, unless all went well."""
    if last.state is State.SUCCEEDED:
        return
    after = f" after {spent}" if (spent := took(ended, time.time())) else ""
    detail = f": {last.detail}" if last.detail and (ended.spec.array or last.reason is not Reason.EXIT_CODE) else ""
    terminal.note(f"run {ended.id} {state_text(last)}{after}{detail}")
