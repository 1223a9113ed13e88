"""The command line as a whole: its commands, and what becomes of errors. The only place where Qwex ends with a status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType

import click
import typer
from typer.main import get_command

from qwex.cli.output import BROKEN_PIPE, OutputClosed, failure, flush, write_text
from qwex.cli.shape import Entry, LazyGroup
from qwex.cli.terminal import Terminal
from qwex.errors import QwexError
from qwex.version import __version__

__all__ = ["COMMANDS", "Qwex", "root", "run"]

_RUN, _LOOK, _STEER, _SET = "Run", "Look", "Steer", "Set up"
COMMANDS = {
    "batch": Entry("qwex.cli.batch", _RUN, "Run a command in this directory's snapshot, here or elsewhere."),
    "submit": Entry("qwex.cli.submit", _RUN, "Submit the jobs of a file: one, many, or a graph."),
    "rerun": Entry("qwex.cli.rerun", _RUN, "Submit a run once more."),
    "list": Entry("qwex.cli.listing", _LOOK, "List runs, the newest first."),
    "status": Entry("qwex.cli.status", _LOOK, "Show all that is known of runs."),
    "logs": Entry("qwex.cli.logs", _LOOK, "Show what a run wrote."),
    "why": Entry("qwex.cli.why", _LOOK, "Say what a run waits for, or why it ended as it did."),
    "wait": Entry("qwex.cli.wait", _LOOK, "Wait until runs have ended."),
    "pull": Entry("qwex.cli.pull", _LOOK, "Fetch the results of runs."),
    "cancel": Entry("qwex.cli.cancel", _STEER, "End runs, or elements of arrays."),
    "suspend": Entry("qwex.cli.suspend", _STEER, "Stop running runs where they are; hold waiting ones."),
    "resume": Entry("qwex.cli.resume", _STEER, "Let suspended runs go on."),
    "exec": Entry("qwex.cli.execute", _STEER, "Run a command inside a running job's directory."),
    "host": Entry("qwex.cli.host", _SET, "Name the machines to run on, and check them."),
    "init": Entry("qwex.cli.init", _SET, "Write a qwex.toml for this directory."),
    "config": Entry("qwex.cli.config", _SET, "Show and change settings."),
    "doctor": Entry("qwex.cli.doctor", _SET, "Find what is broken here, and mend it."),
    "completion": Entry("qwex.cli.completion", _SET, "Print the completion script for a shell."),
}
"""Every command in the order of ``qwex --help``."""


class Qwex(LazyGroup):
    """The top of it."""

    table = COMMANDS


_app = typer.Typer(
    cls=Qwex, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False, no_args_is_help=True
)


def _show_version(value: bool) -> None:
    if value:
        write_text(f"qwex {__version__}\n")
        raise typer.Exit


@_app.callback()
def _qwex(
    version: bool = typer.Option(
        False, "--version", "-V", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Run this directory's command here, or on any machine with an SSH server."""


def root() -> click.Command:
    """The click command of all of it."""
    return get_command(_app)


def run(argv: Sequence[str]) -> int:
    """Do what ``argv`` (without the program's name) says, and its exit status.

    Errors of Qwex and of usage are told on stderr. Any other exception goes on, and ``sys.excepthook`` makes one line of it.
    """
    terminal = Terminal()
    sys.excepthook = _Unexpected(terminal)
    try:
        # Not click's own main(): it would turn signals and broken pipes into statuses of its own.
        command = root()
        with command.make_context("qwex", list(argv), obj=terminal) as ctx:
            status = command.invoke(ctx)
        flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except QwexError as error:
        _trace(terminal)
        terminal.error(error.message, error.hint)
        return error.exit_status
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return 2
    except click.ClickException as error:
        terminal.error(*_explain(error, argv))
        return error.exit_code
    except OutputClosed:
        _drop_output()
        return BROKEN_PIPE
    except KeyboardInterrupt as stop:
        _trace(terminal)
        return getattr(stop, "exit_status", 130)
    except OSError as error:
        _trace(terminal)
        terminal.error(_os_error(error))
        _drop_output()
        return 1
    finally:
        terminal.close()
    return status if isinstance(status, int) else 0


def _trace(terminal: Terminal) -> None:
    if terminal.debug:
        import traceback

        traceback.print_exc()


def _drop_output() -> None:
    """What Python still holds for standard output goes nowhere: a second error at exit would say nothing new."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _os_error(error: OSError) -> str:
    if error.filename is None:
        return failure(error)
    name = error.filename if isinstance(error.filename, str) else repr(error.filename)
    return f"{name}: {(error.strerror or str(error)).lower()}"


def _explain(error: click.ClickException, argv: Sequence[str]) -> tuple[str, str | None]:
    """Message and hint of a usage error of click's."""
    named = next((f"qwex {word}" for word in argv if word in COMMANDS), "qwex")
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else named
    look = f"`{path} --help` shows what it takes"
    if isinstance(error, click.NoSuchOption):
        near = f"did you mean {error.possibilities[0]}? " if error.possibilities else ""
        dash = "a command that begins with a dash comes after --; " if path in {"qwex batch", "qwex exec"} else ""
        return f"{path} has no option {error.option_name}", f"{near}{dash}{look}"
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:], look


class _Unexpected:
    """``sys.excepthook``: one line about a fault of Qwex itself; all of it with ``--debug``."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if self._terminal.debug:
            sys.__excepthook__(kind, error, trace)
        self._terminal.error(
            f"something unexpected happened: {kind.__name__}: {error}",
            "this is a fault of Qwex; add --debug to see where, and report it with that",
        )
