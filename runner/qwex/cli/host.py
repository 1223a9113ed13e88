"""``qwex host``: the machines one runs on, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from qwex.cli.arguments import Json, Yes
from qwex.cli.bridge import Signals, context, run
from qwex.cli.output import write_text
from qwex.cli.records import print_json
from qwex.cli.rendering import paint, table
from qwex.cli.shape import group, terminal_of
from qwex.cli.terminal import Terminal, coloured, printable
from qwex.errors import UsageError
from qwex.model.places import Capabilities, Place
from qwex.model.states import State
from qwex.model.units import size_text
from qwex.services import hosts
from qwex.services.context import Context
from qwex.services.hosts import HostCheck

__all__ = ["app"]

app, _command = group("Name the machines to run on, and check them.")


@_command("add")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    target: Annotated[str, typer.Argument(metavar="[USER@]HOST[:PORT]")],
    slots: Annotated[
        int | None,
        typer.Option(
            "--slots", metavar="COUNT", min=0, help="Tasks at a time; 0: as many as it has CPUs.", show_default=False
        ),
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(
            "--directory",
            metavar="PATH",
            help="Qwex's directory there: absolute, or from the home directory.",
            show_default=False,
        ),
    ] = None,
    login_shell: Annotated[bool, typer.Option("--login-shell", help="Start jobs from a login shell.")] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME=VALUE", help="A variable for every job there. May be repeated.", show_default=False
        ),
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not connect to it now.")] = False,
) -> int:
    """Name a machine, after connecting to it once. A host key that is not known yet is shown and asked about.

    It is written to the user's config.toml, and the name can be given to --on from then on.
    """
    fields: dict[str, object] = {}
    if slots is not None:
        fields["slots"] = slots
    if directory is not None:
        fields["directory"] = directory
    if login_shell:
        fields["login_shell"] = True
    pairs = [one.partition("=") for one in env or ()]
    for variable, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--env {variable!r}: write NAME=VALUE")
    if pairs:
        fields["env"] = {variable: value for variable, _, value in pairs}
    terminal = terminal_of(ctx)

    async def work(context: Context, _: Signals) -> HostCheck:
        return await hosts.add(context, name, target, fields, probe=not no_check)

    added = run(terminal, work)
    answered = "" if no_check else f"; it answered after {added.seconds:.1f}s{_has(added.capabilities)}"
    terminal.note(f"host {name} added{answered}")
    return 0


@_command("list")
def list_(ctx: typer.Context, as_json: Json = False) -> int:
    """List the named machines and the file that names each."""
    with_files = _named(terminal_of(ctx))
    if as_json:
        print_json([{**_record(place), "file": file} for place, file in with_files])
        return 0
    rows = [("NAME", "ADDRESS", "SLOTS", "FILE")]
    rows += [(place.name, _address(place), str(place.slots or "auto"), printable(file)) for place, file in with_files]
    if with_files:
        write_text("".join("  ".join(row).rstrip() + "\n" for row in table(rows)))
    return 0


@_command("check")
def check(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="HOST...")] = None,
    as_json: Json = False,
) -> int:
    """Connect to machines, all at once: to those named, or to every named one. Status 1 if one does not answer."""
    terminal = terminal_of(ctx)

    async def work(context: Context, _: Signals) -> list[HostCheck]:
        return await hosts.check(context, names or ())

    results = run(terminal, work)
    if as_json:
        print_json([_check_record(one) for one in results])
    else:
        colour = coloured(1)
        for one in results:
            good = not one.problem
            word = paint("ok" if good else "fail", State.SUCCEEDED if good else State.FAILED, colour)
            text = f"{one.seconds:.1f}s{_has(one.capabilities)}" if good else printable(one.problem)
            write_text(f"{one.place.name}  {word}  {text}\n")
            if one.remedy:
                write_text(f"  {printable(one.remedy)}\n")
    if not results:
        terminal.note("no host is named yet: `qwex host add NAME user@host`")
    return int(any(one.problem for one in results))


@_command("remove")
def remove(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="HOST")],
    purge: Annotated[bool, typer.Option("--purge", help="Delete Qwex's directory there first.")] = False,
    yes: Yes = False,
) -> int:
    """Take a machine's name out of config.toml. What Qwex keeps there stays, unless --purge deletes it."""
    terminal = terminal_of(ctx)
    terminal.agree = yes

    async def work(context: Context, _: Signals) -> int:
        await hosts.remove(context, name, purge=purge)
        return 0

    run(terminal, work)
    terminal.note(f"host {name} removed" + (", and all that Qwex kept there" if purge else ""))
    return 0


def _named(terminal: Terminal) -> list[tuple[Place, str]]:
    return hosts.list_hosts(context(terminal))


def _address(place: Place) -> str:
    return (f"{place.user}@" if place.user else "") + place.host + (f":{place.port}" if place.port else "")


def _has(can: Capabilities | None) -> str:
    if can is None:
        return ""
    parts = [
        f"{can.cpus:g} CPUs" if can.cpus is not None else "",
        size_text(can.mem) if can.mem else "",
        f"{can.gpus} GPUs" if can.gpus else "",
    ]
    return "".join(f", {part}" for part in parts if part)


def _record(place: Place) -> dict[str, object]:
    return {
        "name": place.name,
        "host": place.host,
        "user": place.user or None,
        "port": place.port or None,
        "slots": place.slots or None,
        "directory": place.directory,
        "login_shell": place.login_shell,
        "env": dict(place.env),
    }


def _check_record(one: HostCheck) -> dict[str, object]:
    can = one.capabilities
    return {
        "name": one.place.name,
        "answers": not one.problem,
        "seconds": one.seconds,
        "problem": one.problem,
        "remedy": one.remedy,
        "cpus": can.cpus if can else None,
        "mem": can.mem if can else None,
        "gpus": can.gpus if can else None,
    }
