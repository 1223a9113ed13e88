"""``qwex config``: what is set, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qwex.cli.arguments import Json
from qwex.cli.bridge import context
from qwex.cli.output import write_text
from qwex.cli.records import print_json
from qwex.cli.rendering import table
from qwex.cli.shape import group, terminal_of
from qwex.cli.terminal import printable
from qwex.config import PROJECT_FILE, SETTINGS, Setting
from qwex.errors import UnknownName
from qwex.model.units import duration_text, size_text
from qwex.services import preferences

__all__ = ["app", "value_text"]

app, _command = group("Show and change settings.")
Project = Annotated[bool, typer.Option("--project", help="The project's qwex.toml, not the user's config.toml.")]


@_command("show")
def show(ctx: typer.Context, as_json: Json = False) -> int:
    """Show every setting, its value here, and where that comes from."""
    settings = context(terminal_of(ctx)).settings
    if as_json:
        print_json(
            {
                one.name: {"value": _plain(one, settings.get(one.name)), "source": settings.source(one.name)}
                for one in SETTINGS
            }
        )
        return 0
    rows = [("SETTING", "VALUE", "FROM")]
    rows += [
        (one.name, value_text(one, settings.get(one.name)), printable(settings.source(one.name))) for one in SETTINGS
    ]
    hosts = settings.hosts.items()
    rows += [(f"hosts.{name}", place.host, printable(settings.source(f"hosts.{name}"))) for name, place in hosts]
    write_text("".join("  ".join(row).rstrip() + "\n" for row in table(rows)))
    return 0


@_command("get")
def get(ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="SETTING")], as_json: Json = False) -> int:
    """Print the value of one setting."""
    setting = _find(name)
    value = context(terminal_of(ctx)).settings.get(name)
    if as_json:
        print_json(_plain(setting, value))
    else:
        write_text(value_text(setting, value) + "\n")
    return 0


@_command("set")
def set_(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SETTING")],
    value: Annotated[str, typer.Argument(metavar="VALUE")],
    project: Project = False,
) -> int:
    """Write a setting to the user's config.toml, or with --project to qwex.toml. Lists are separated by commas."""
    terminal = terminal_of(ctx)
    here = context(terminal)
    file = preferences.change(here, name, value, project=project)
    terminal.note(f"{name} is set in {file}")
    source = here.settings.source(name)
    if source != str(file):
        terminal.warn(f"{name} stays {value_text(_find(name), here.settings.get(name))} here: {source} goes before it")
    return 0


@_command("path")
def path(ctx: typer.Context, project: Project = False) -> int:
    """Print where the file is, whether it exists or not."""
    here = context(terminal_of(ctx))
    write_text(f"{here.settings.root / PROJECT_FILE if project else here.paths.config_file}\n")
    return 0


def _find(name: str) -> Setting:
    known = {setting.name: setting for setting in SETTINGS}
    if name not in known:
        raise UnknownName("setting", name, known)
    return known[name]


def value_text(setting: Setting, value: Any) -> str:
    """A value as it could be written; "" for an empty list, "detected" where Qwex finds it out."""
    if value is None:
        return "detected"
    if setting.kind == "gpus":
        count, product = value
        return f"{product}:{count}" if product else str(count)
    if setting.kind == "table":
        return printable(", ".join(f"{name}={one}" for name, one in value))
    if isinstance(value, tuple):
        return printable(", ".join(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if setting.kind == "size" and value:
        return size_text(value)
    if setting.kind == "duration" and value:
        return duration_text(value)
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


def _plain(setting: Setting, value: Any) -> Any:
    """For JSON: sizes in bytes, durations in seconds, tables as objects, gpus as text."""
    if setting.kind == "table":
        return dict(value)
    return value_text(setting, value) if setting.kind == "gpus" else value
