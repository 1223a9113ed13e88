"""``qwex doctor``: what is broken here."""

from __future__ import annotations

from typing import Annotated

import typer

from qwex.cli.arguments import Json
from qwex.cli.bridge import Signals, run
from qwex.cli.output import write_text
from qwex.cli.records import print_json
from qwex.cli.rendering import paint
from qwex.cli.shape import command, terminal_of
from qwex.cli.terminal import coloured, printable
from qwex.errors import QwexError
from qwex.model.states import State
from qwex.services.context import Context
from qwex.services.doctor import Check, Health, examine

__all__ = ["app"]

app, _command = command()

_COLOURS = {Health.OK: State.SUCCEEDED, Health.WARN: State.CANCELLED, Health.FAIL: State.FAILED}


@_command
def doctor(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="HOST...")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended safely.")] = False,
    as_json: Json = False,
) -> int:
    """Examine this machine, and the hosts named; say what is broken and how to mend it. Status 1 if something is."""
    terminal = terminal_of(ctx)
    colour = coloured(1)

    async def work(context: Context, _: Signals) -> list[tuple[Check, str]]:
        found = []
        async for check in examine(context, names or ()):
            mended = ""
            if fix and check.fix is not None:
                try:
                    mended = check.fix()
                except QwexError as error:
                    terminal.warn(f"{check.name}: {error.message}")
            found.append((check, mended))
            if not as_json:
                write_text(_text(check, mended, colour))
        return found

    found = run(terminal, work)
    if as_json:
        print_json(
            [
                {"name": one.name, "health": one.health, "text": one.text, "remedy": one.remedy, "fixed": mended}
                for one, mended in found
            ]
        )
    if not fix and any(one.fix is not None for one, _ in found):
        terminal.note("`qwex doctor --fix` mends some of it")
    return int(any(one.health is Health.FAIL and not mended for one, mended in found))


def _text(check: Check, mended: str, colour: bool) -> str:
    word = paint(f"{check.health:<4}", _COLOURS[check.health], colour)
    text = f"{word}  {check.name}: {printable(check.text)}\n"
    if mended:
        return f"{text}      fixed: {printable(mended)}\n"
    return f"{text}      {printable(check.remedy)}\n" if check.remedy else text
