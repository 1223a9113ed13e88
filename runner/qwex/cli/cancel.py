"""``qwex cancel``: end runs."""

from __future__ import annotations

import typer

from qwex.cli.arguments import Refs
from qwex.cli.bridge import Signals, run
from qwex.cli.shape import command, terminal_of
from qwex.services import runs
from qwex.services.context import Context

__all__ = ["app"]

app, _command = command()


@_command
def cancel(ctx: typer.Context, refs: Refs) -> int:
    """End runs, or elements of arrays: TERM first, KILL after the grace of the job.

    Returns at once; `qwex wait` waits for the end. What a run has made until then comes home all the same.
    """
    terminal = terminal_of(ctx)

    async def work(context: Context, _: Signals) -> int:
        before = {runs.find(context, ref)[0].id for ref in refs}
        ended = {one for one in before if context.store.get(one).state.final}
        for one in await runs.cancel(context, refs):
            terminal.note(
                f"run {one.id} had ended: {one.state}" if one.id in ended else f"run {one.id} is being cancelled"
            )
        return 0

    return run(terminal, work)
