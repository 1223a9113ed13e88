"""``qwex suspend``: stop runs where they are."""

from __future__ import annotations

import typer

from qwex.cli.arguments import Refs
from qwex.cli.bridge import Signals, run
from qwex.cli.rendering import state_text
from qwex.cli.shape import command, terminal_of
from qwex.services import runs
from qwex.services.context import Context

__all__ = ["app"]

app, _command = command()


@_command
def suspend(ctx: typer.Context, refs: Refs) -> int:
    """Stop running runs where they are, and hold those that wait, until `qwex resume`."""
    terminal = terminal_of(ctx)

    async def work(context: Context, _: Signals) -> int:
        for one in await runs.suspend(context, refs):
            terminal.note(f"run {one.id} is {state_text(one.last)}")
        return 0

    return run(terminal, work)
