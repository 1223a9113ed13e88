"""``qwex why``: what a run waits for."""

from __future__ import annotations

import typer

from qwex.cli.arguments import Json, Ref
from qwex.cli.bridge import Signals, run
from qwex.cli.output import write_text
from qwex.cli.records import print_json
from qwex.cli.shape import command, terminal_of
from qwex.cli.terminal import printable
from qwex.services import runs
from qwex.services.context import Context

__all__ = ["app"]

app, _command = command()


@_command
def why(ctx: typer.Context, ref: Ref, as_json: Json = False) -> int:
    """Say in a sentence what a run waits for or why it ended as it did; then the evidence."""

    async def work(context: Context, _: Signals) -> list[str]:
        return await runs.why(context, ref)

    sentence, *evidence = run(terminal_of(ctx), work)
    if as_json:
        print_json({"why": sentence, "evidence": evidence})
    else:
        write_text("".join(f"{printable(line)}\n" for line in [sentence, *(f"  {line}" for line in evidence)]))
    return 0
