"""``qwex wait``: until runs have ended."""

from __future__ import annotations

from typing import Annotated

import typer

from qwex.cli.arguments import Json, Refs
from qwex.cli.bridge import Signals, run
from qwex.cli.records import print_json, run_record
from qwex.cli.rendering import state_text
from qwex.cli.shape import command, terminal_of
from qwex.errors import UsageError
from qwex.model.units import parse_duration
from qwex.services import runs
from qwex.services.context import Context
from qwex.services.runs import Waited

__all__ = ["app"]

app, _command = command()


@_command
def wait(
    ctx: typer.Context,
    refs: Refs,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="DURATION", help="Give up after so long, as 90s or 2h.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> int:
    """Wait until runs have ended, and end with the first exit code that is not zero.

    124 when the time was over first. Results are not fetched.
    """
    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from error
    terminal = terminal_of(ctx)

    async def work(context: Context, _: Signals) -> Waited:
        return await runs.wait(context, refs, seconds)

    done = run(terminal, work)
    if as_json:
        records = [run_record(one) for one in done.runs]
        print_json(records[0] if len(records) == 1 else records)
    for one in done.runs:
        still = "" if one.state.final else "still "
        terminal.note(f"run {one.id} {still}{state_text(one.last)}")
    return done.exit_status
