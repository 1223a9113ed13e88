"""Options and arguments that several commands share. A metavar says what kind of value it is: help and completion go by it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Fresh", "Json", "Ref", "Refs", "SyncBack", "To", "Yes"]

Ref = Annotated[str, typer.Argument(metavar="RUN")]
Refs = Annotated[list[str], typer.Argument(metavar="RUN...")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go on where a person would be asked.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Take a new snapshot of its directory.")]
SyncBack = Annotated[
    bool | None,
    typer.Option(
        "--sync-back/--no-sync-back",
        help="Put results into the working tree too, never over what was edited meanwhile.",
        show_default=False,
    ),
]
To = Annotated[
    Path | None,
    typer.Option("--to", metavar="DIR", help="Where to put them instead of qwex-runs/RUN.", show_default=False),
]
