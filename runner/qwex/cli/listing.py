"""``qwex list``: runs, the newest first."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from qwex.cli.arguments import Json
from qwex.cli.bridge import Signals, run
from qwex.cli.output import write_text
from qwex.cli.records import print_json, run_record
from qwex.cli.rendering import command_text, paint, state_text, table, took
from qwex.cli.shape import command, terminal_of
from qwex.cli.terminal import coloured, printable
from qwex.errors import UnknownName
from qwex.model.runs import Run
from qwex.model.states import FINAL, Reason, State
from qwex.model.units import duration_text
from qwex.services.context import Context
from qwex.services.launch import current_user
from qwex.services.runs import ListQuery, list_runs

__all__ = ["STATES", "app", "list_table"]

app, _command = command()

STATES = {
    **{state.value: (state,) for state in State},
    "active": tuple(state for state in State if state not in FINAL),
    "ended": tuple(state for state in State if state in FINAL),
}
"""What ``--status`` takes, and which states it means."""


@_command
def list_(
    ctx: typer.Context,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="USER", help="Runs of this account; me for yours.", show_default=False),
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status", metavar="STATE", help="A state, active or ended. May be repeated.", show_default=False
        ),
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", metavar="PLACE", help="Runs of this place.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="COUNT", min=1, help="At most so many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="However many there are.")] = False,
    as_json: Json = False,
) -> int:
    """List runs, the newest first.

    Places of runs that go on are asked, for two seconds at most; running? is what was last seen at one that did not answer.
    """
    words = [word for text in status or () for word in text.split(",") if word]
    for word in words:
        if word not in STATES:
            raise UnknownName("state", word, STATES)

    query = ListQuery(
        states=tuple(dict.fromkeys(state for word in words for state in STATES[word])),
        user=current_user() if user == "me" else user,
        place=on,
        limit=2**31 if everything else limit,
    )
    terminal = terminal_of(ctx)

    async def work(context: Context, _: Signals) -> list[Run]:
        return await list_runs(context, query)

    runs = run(terminal, work)
    if as_json:
        print_json([run_record(one) for one in runs])
        return 0
    _print(runs)
    for place, why in {
        one.place: one.last.detail for one in runs if one.last.reason is Reason.HOST_UNREACHABLE
    }.items():
        terminal.note(f"{place}: {why}")
    return 0


def _print(runs: Sequence[Run]) -> None:

    columns = shutil.get_terminal_size().columns if os.isatty(1) else None
    write_text(list_table(runs, time.time(), columns=columns, colour=coloured(1)))


def list_table(runs: Sequence[Run], now: float, *, columns: int | None, colour: bool) -> str:
    """The table as text; ``columns`` is the terminal's width, None for a pipe. "" for no runs: no heading without content."""

    if not runs:
        return ""
    rows = [("ID", "NAME", "PLACE", "STATE", "AGE", "TIME")]
    rows += [
        (
            one.id,
            printable(one.spec.name) or command_text(one.spec),
            printable(one.place),
            state_text(one.last, one.last.detail if one.spec.array else ""),
            duration_text(max(0.0, now - one.created)),
            took(one, now),
        )
        for one in runs
    ]
    lines = []
    for at, cells in enumerate(table(rows, columns=columns, shrink=1)):
        if at:
            cells[3] = paint(cells[3], runs[at - 1].state, colour)
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)
