"""``qwex rerun``: the same once more."""

from __future__ import annotations

import typer

from qwex.cli.arguments import Fresh, Json, Ref, Yes
from qwex.cli.bridge import Signals, run
from qwex.cli.shape import command, terminal_of
from qwex.cli.submitting import leave
from qwex.services import runs
from qwex.services.context import Context

__all__ = ["app"]

app, _command = command()


@_command
def rerun(ctx: typer.Context, ref: Ref, fresh: Fresh = False, as_json: Json = False, yes: Yes = False) -> int:
    """Submit a run once more: same command, same place, same snapshot.

    Prints the id of the new run. Secrets are taken from the environment again.
    """

    terminal = terminal_of(ctx)

    async def work(context: Context, _: Signals) -> int:
        leave(terminal, [await runs.rerun(context, ref, fresh=fresh, yes=yes)], as_json)
        return 0

    return run(terminal, work)
