"""``qwex exec``: a command beside a running job."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from qwex.cli.arguments import Ref
from qwex.cli.bridge import Signals, run
from qwex.cli.shape import command, terminal_of
from qwex.services import runs
from qwex.services.context import Context

__all__ = ["app"]

app, _command = command({"allow_interspersed_args": False})


@_command
def execute(
    ctx: typer.Context,
    ref: Ref,
    argv: Annotated[list[str], typer.Argument(metavar="COMMAND...")],
    no_terminal: Annotated[bool, typer.Option("--no-terminal", help="No terminal for it, even from one.")] = False,
) -> int:
    """Run a command inside a running job's directory and environment, and end with its exit code.

    Of an array, say which element: ID.7. From a terminal the command has one as well.
    """
    terminal = not no_terminal and os.isatty(0) and os.isatty(1)

    async def work(context: Context, _: Signals) -> int:
        return await runs.execute(context, ref, argv, stdin=0, stdout=1, stderr=2, terminal=terminal)

    return run(terminal_of(ctx), work)
