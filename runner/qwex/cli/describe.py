"""``python -m qwex.cli.describe`` writes ``assets/completion.py``: the command line as a table, which completion reads without typer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from qwex import assets
from qwex.cli.app import root
from qwex.cli.listing import STATES
from qwex.config import SETTINGS

__all__ = ["FILE", "commands", "source"]

FILE = Path(assets.__file__).parent / "completion.py"
Table = dict[str, tuple[str, dict[str, tuple[str, str]], tuple[str, ...]]]


def commands() -> Table:
    """Command ("" is the top, "host add" is one below) → help, options → (metavar or "", help), metavars of its arguments."""
    table: Table = {}
    top = root()
    context = click.Context(top, info_name="qwex")
    _describe(top, context, "", table)
    return table


def _describe(command: click.Command, context: click.Context, name: str, table: Table) -> None:
    options: dict[str, tuple[str, str]] = {}
    arguments: list[str] = []
    for param in command.get_params(context):
        if isinstance(param, click.Option):
            metavar = "" if param.is_flag or param.count else param.metavar or "VALUE"
            for option in (*param.opts, *param.secondary_opts):
                options[option] = (metavar, param.help or "")
        elif isinstance(param, click.Argument):
            arguments.append(param.metavar or "")
    table[name] = (command.get_short_help_str(200), options, tuple(arguments))
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None:
                _describe(found, click.Context(found, parent=context), f"{name} {below}".strip(), table)


def source() -> str:
    """What ``assets/completion.py`` should be."""
    settings = {setting.name: setting.doc for setting in SETTINGS}
    return (
        '"""Made by ``python -m qwex.cli.describe``: what completion knows of the command line. Not to be edited."""\n\n'
        + _assigned("COMMANDS", "dict[str, tuple[str, dict[str, tuple[str, str]], tuple[str, ...]]]", commands())
        + _assigned("STATES", "tuple[str, ...]", tuple(STATES))
        + _assigned("SETTINGS", "dict[str, str]", settings)
    )


def _assigned(name: str, kind: str, value: Any) -> str:
    return f"{name}: {kind} = {_literal(value, 0)}\n"


def _literal(value: Any, depth: int) -> str:
    """As the formatter would write it with everything on a line of its own."""
    pad = "    " * (depth + 1)
    if isinstance(value, str):
        return repr(value) if '"' in value and "'" not in value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        if not value:
            return "{}"
        rows = [f"{pad}{_literal(key, 0)}: {_literal(one, depth + 1)},\n" for key, one in value.items()]
        return "{\n" + "".join(rows) + "    " * depth + "}"
    if len(value) < 2:
        return f"({_literal(value[0], depth)},)" if value else "()"
    rows = [f"{pad}{_literal(one, depth + 1)},\n" for one in value]
    return "(\n" + "".join(rows) + "    " * depth + ")"


if __name__ == "__main__":
    FILE.write_text(source(), encoding="utf-8")
