"""``qwex submit``: the jobs of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwex.cli import submitting
from qwex.cli.arguments import Json, Yes
from qwex.cli.shape import command, terminal_of
from qwex.services.context import Context
from qwex.services.jobfile import read
from qwex.services.submission import Request

__all__ = ["app"]

app, _command = command()


@_command
def submit(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="PLACE", help="Where to run them, whatever the file says.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent and run; do nothing.")] = False,
    as_json: Json = False,
    yes: Yes = False,
) -> int:
    """Submit the jobs of a file: one, many, or a graph.

    FILE is TOML or YAML; - reads YAML from standard input. The ids are printed in the order of the file.
    """

    def requests(_: Context) -> list[Request]:
        return [one._replace(on=on or one.on, yes=yes) for one in read(file)]

    act = submitting.dry_run if dry_run else submitting.detached
    return act(terminal_of(ctx), requests, as_json)
