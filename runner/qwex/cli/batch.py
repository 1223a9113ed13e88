"""``qwex batch``: run a command, here or there."""

# Without `from __future__ import annotations`: typer would have to compile every annotation again, 5 ms before each run.

import os
from pathlib import Path
from typing import Annotated

import typer

from qwex.cli.arguments import Json, SyncBack, Yes
from qwex.cli.shape import command, terminal_of
from qwex.errors import UsageError

__all__ = ["app", "read_pair"]

app, _command = command({"allow_interspersed_args": False})


def _text(name: str, metavar: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, metavar=metavar, help=what, show_default=False)
    return option


@_command
def batch(
    ctx: typer.Context,
    argv: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND...",
            help="The command and its arguments, passed on exactly as they are.",
            show_default=False,
        ),
    ],
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="PLACE",
            help="local, user@host[:port], an ssh_config name or a named host.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Submit, print the run's id and leave.")] = False,
    name: Annotated[str | None, _text("--name", "NAME", "A name to recognise it by.")] = None,
    cpus: Annotated[str | None, _text("--cpus", "NUMBER", "CPUs for one task.")] = None,
    mem: Annotated[str | None, _text("--mem", "SIZE", "Memory for one task, as 512M or 4G.")] = None,
    gpus: Annotated[str | None, _text("--gpus", "GPUS", "GPUs for one task: 1, a100 or a100:2.")] = None,
    time: Annotated[
        str | None, _text("--time", "DURATION", "Longest time an attempt may run, as 90s, 30m or 1h30m.")
    ] = None,
    priority: Annotated[str | None, _text("--priority", "NUMBER", "Higher runs first.")] = None,
    retries: Annotated[str | None, _text("--retries", "COUNT", "Attempts after the first one failed.")] = None,
    array: Annotated[
        str | None,
        _text("--array", "INDEXES", "Once per index ($QWEX_TASK_INDEX): 0-99, 0-99%10 (ten at a time), 1,5,9-12."),
    ] = None,
    after: Annotated[
        list[str] | None, _text("--after", "RUN[:ok|fail|any]", "Wait for a run to end. May be repeated.")
    ] = None,
    env: Annotated[list[str] | None, _text("--env", "NAME[=VALUE]", "A variable for the job. May be repeated.")] = None,
    env_file: Annotated[
        list[Path] | None, _text("--env-file", "FILE", "Variables from a file of NAME=VALUE lines. May be repeated.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        _text("--secret", "NAME", "A variable taken from the environment, never stored or shown. May be repeated."),
    ] = None,
    out: Annotated[
        list[str] | None, _text("--out", "PATTERN", "Which files are results; none: all that changed. May be repeated.")
    ] = None,
    include: Annotated[
        list[str] | None, _text("--include", "PATTERN", "Send ignored files that match. May be repeated.")
    ] = None,
    shell: Annotated[
        bool | None,
        typer.Option("--shell/--no-shell", help="Run the command as a script of /bin/sh.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent and run; do nothing.")] = False,
    as_json: Json = False,
    sync_back: SyncBack = None,
    on_interrupt: Annotated[
        str | None, _text("--on-interrupt", "detach|cancel", "What the first Ctrl-C does to the run.")
    ] = None,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", help="Do not pass standard input to the job.")] = False,
    yes: Yes = False,
) -> int:
    """Run a command in this directory's snapshot, here or elsewhere.

    Everything after the first word that is no option is the command. Attached (without --detach) its output is passed on byte for
    byte and its exit code is this one's. Ctrl-C leaves it running and says how to come back.
    """
    attached = not detach
    if as_json and attached and not dry_run:
        raise UsageError(
            "--json goes with --detach or --dry-run: while attached, standard output is the job's",
            hint="add --detach, and follow with `qwex logs --follow ID`",
        )
    if on_interrupt not in (None, "detach", "cancel"):
        raise UsageError(f"--on-interrupt {on_interrupt!r}: write detach or cancel")
    from qwex.cli import submitting
    from qwex.services.submission import Request

    request = Request(
        argv=tuple(argv),
        on=on,
        shell=shell,
        name=name,
        cpus=cpus,
        mem=mem,
        gpus=gpus,
        time=time,
        priority=priority,
        retries=retries,
        array=array,
        after=tuple(after or ()),
        env=tuple(read_pair(one) for one in env or ()),
        env_files=tuple(env_file or ()),
        secrets=tuple(secret or ()),
        out=tuple(out) if out else None,
        include=tuple(include or ()),
        stdin=None if no_stdin or dry_run else 0,
        attached=attached,
        yes=yes,
    )
    settings = {"results.sync_back": sync_back, "run.on_interrupt": on_interrupt}
    wanted = {key: value for key, value in settings.items() if value is not None}
    terminal = terminal_of(ctx)
    if dry_run:
        return submitting.dry_run(terminal, lambda _: [request], as_json)
    if detach:
        return submitting.detached(terminal, lambda _: [request], as_json)
    return submitting.attached(terminal, request, wanted)


def read_pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE``, or ``NAME`` for what it is here."""
    name, equals, value = text.partition("=")
    if equals:
        return name, value
    if name not in os.environ:
        raise UsageError(f"--env {text!r}: there is no such variable here", hint=f"write --env {name}=VALUE")
    return name, os.environ[name]
