"""What every command of Qwex has: its place in a lazy table, and the options that go with all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, TypeVar, cast

import click
import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from qwex.cli.output import write_text
from qwex.cli.terminal import Terminal

__all__ = ["Command", "Entry", "Group", "LazyGroup", "command", "group", "terminal_of"]

_F = TypeVar("_F", bound=Callable[..., Any])


class Entry(NamedTuple):
    """A command that is loaded when it is called for: ``module.app`` is its typer app, ``help`` its line in the overview."""

    module: str
    section: str
    help: str


def terminal_of(ctx: click.Context) -> Terminal:
    """The terminal of this invocation."""
    return cast(Terminal, ctx.find_root().obj)


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        terminal_of(ctx).quiet = True


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        terminal_of(ctx).debug = True


def _show_help(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        write_text(ctx.get_help() + "\n")
        ctx.exit()


def general_options() -> list[click.Parameter]:
    """Taken before and after the name of every command. (Help is ours, and not click's, for its errors of output.)"""
    return [
        click.Option(
            ["--quiet", "-q"], is_flag=True, expose_value=False, callback=_set_quiet, help="No notes on stderr."
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_set_debug, help="Show a traceback with an error."
        ),
        click.Option(
            ["--help", "-h"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_help,
            help="Show this message and exit.",
        ),
    ]


_ARGUMENTS = {
    "RUN": "An id, its beginning or last; ID.7 is one element of an array.",
    "RUN...": "Ids, their beginnings or last; ID.7 is one element of an array.",
    "COMMAND...": "The command and its arguments, passed on exactly as they are.",
    "FILE": "A job file, or - for standard input.",
    "HOST": "A named host.",
    "HOST...": "Named hosts, or other places.",
    "NAME": "What to call it.",
    "[USER@]HOST[:PORT]": "Where it is.",
    "SETTING": "A setting, as run.cpus.",
    "VALUE": "Its new value.",
    "bash|zsh|fish": "The shell.",
}
"""What stands for an argument in a usage line, in words."""


class Command(TyperCommand):
    """A command that also takes the general options, and shows itself without rich."""

    def __init__(self, name: str | None, **attributes: Any) -> None:
        attributes["params"] = [*(attributes.get("params") or ()), *general_options()]
        attributes["add_help_option"] = False
        super().__init__(name, **{**attributes, "rich_markup_mode": None})

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Arguments in words, then options. (typer 0.25 loses the help of arguments with click 8.5.)"""
        arguments = [param for param in self.params if isinstance(param, click.Argument)]
        rows = [(name, _ARGUMENTS[name]) for param in arguments if (name := param.metavar)]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        options = [param for param in self.get_params(ctx) if not isinstance(param, click.Argument)]
        with formatter.section("Options"):
            formatter.write_dl([row for param in options if (row := param.get_help_record(ctx))])


class Group(TyperGroup):
    """A command with subcommands, as ``qwex host``."""

    def __init__(self, **attributes: Any) -> None:
        attributes["params"] = [*(attributes.get("params") or ()), *general_options()]
        attributes["add_help_option"] = False
        super().__init__(**{**attributes, "rich_markup_mode": None, "suggest_commands": False})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but an unknown name is answered with the known ones."""
        name = args[0]
        found = self.get_command(ctx, name)
        if found is not None:
            return found.name, found, args[1:]
        if name.startswith("-"):
            return super().resolve_command(ctx, args)
        from qwex.errors import UnknownName

        raise UnknownName(f"{ctx.command_path} command", name, self.list_commands(ctx))


class LazyGroup(Group):
    """The commands of ``table``; a module is imported when its command is called, and not for the overview."""

    table: Mapping[str, Entry] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        found = get_command(import_module(self.table[cmd_name].module).app)
        found.name = cmd_name
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in self.table.values()):
            with formatter.section(section):
                rows = [(name, entry.help) for name, entry in self.table.items() if entry.section == section]
                formatter.write_dl(rows)


def command(settings: Mapping[str, Any] | None = None) -> tuple[typer.Typer, Callable[[_F], _F]]:
    """A typer app for one command, and the decorator that makes a function that command."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    return app, app.command(cls=Command, context_settings=dict(settings or {}))


def group(what: str) -> tuple[typer.Typer, Callable[[str], Callable[[_F], _F]]]:
    """A typer app with subcommands, and what makes a function one of them by name."""
    app = typer.Typer(
        cls=Group,
        help=what,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
        no_args_is_help=True,
    )

    @app.callback()
    def only_a_group() -> None: ...

    def subcommand(name: str) -> Callable[[_F], _F]:
        return app.command(name, cls=Command)

    return app, subcommand
