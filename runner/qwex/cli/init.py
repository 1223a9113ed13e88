"""``qwex init``: settings beside the code."""

from __future__ import annotations

from pathlib import Path

import typer

from qwex.cli.output import write_text
from qwex.cli.shape import command, terminal_of
from qwex.services import starting

__all__ = ["app"]

app, _command = command()


@_command
def init(ctx: typer.Context) -> int:
    """Write a commented qwex.toml here: how to run this directory."""
    file = starting.init(Path.cwd())
    write_text(f"{file}\n")
    terminal_of(ctx).note("everything in it is a comment: take away the # of what you want to set")
    return 0
