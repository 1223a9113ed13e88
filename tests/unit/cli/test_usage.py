"""What the command line says to those who get it wrong, and what it says of itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qwex import __version__
from qwex.cli import app, describe
from qwex.cli.describe import commands

QWEX = [sys.executable, "-m", "qwex"]


def qwex(*words: str | bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*QWEX, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_version() -> None:
    done = qwex("--version")
    assert (done.stdout, done.stderr, done.returncode) == (f"qwex {__version__}\n", "", 0)
    assert qwex("-V", "--quiet").stdout == done.stdout


def test_overview_names_every_command() -> None:
    overview = qwex("--help").stdout
    for name, entry in app.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.help)}$", overview, re.MULTILINE)
    assert set(app.COMMANDS) == {name for name in commands() if name and " " not in name}


@pytest.mark.parametrize("name", [name for name in commands() if name])
def test_every_command_has_help(name: str) -> None:
    done = qwex(*name.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: qwex {name}")
    assert "--debug" in done.stdout
    assert not done.stderr


def test_every_option_says_what_it_does() -> None:
    silent = [
        (name, option)
        for name, (_, options, _) in commands().items()
        for option, (_, text) in options.items()
        if not text
    ]
    assert not silent


def test_the_completion_table_is_up_to_date() -> None:
    assert describe.FILE.read_text(encoding="utf-8") == describe.source(), "run: python -m qwex.cli.describe"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["bach"], "no qwex command is called 'bach'", "did you mean 'batch'?"),
        (["host", "ad"], "no qwex host command is called 'ad'", "did you mean 'add'?"),
        (["batch", "--cpu", "2", "ls"], "qwex batch has no option --cpu", "did you mean --cpus?"),
        (["batch", "-x", "ls"], "qwex batch has no option -x", "comes after --"),
        (["list", "--limit", "many"], "invalid value for '--limit'", "qwex list --help"),
        (["list", "--limit"], "option '--limit' requires an argument", "qwex list --help"),
        (["list", "--status", "runing"], "no state is called 'runing'", "did you mean 'running'?"),
        (["batch"], "missing argument 'COMMAND...'", "qwex batch --help"),
        (["batch", "--on-interrupt", "stop", "ls"], "--on-interrupt 'stop'", ""),
        (["batch", "--json", "ls"], "--json goes with --detach or --dry-run", "--detach"),
        (["batch", "--env", "NO_SUCH", "ls"], "--env 'NO_SUCH': there is no such variable here", "NO_SUCH=VALUE"),
        (["batch", "--cpus", "none", "ls"], "--cpus 'none'", ""),
        (["batch", "--on", "nowhere", "ls"], "no place is called 'nowhere'", "known: local"),
        (["logs", "--since", "yesterdayish", "last"], "--since 'yesterdayish' is no time", "14:30"),
        (["logs", "--resume", "--tail", "3", "last"], "--resume goes on where you stopped", ""),
        (["wait", "--timeout", "soon", "last"], "--timeout: 'soon' is not a duration", ""),
        (["status", "nosuch!"], "'nosuch!' is not a run id", "qwex list"),
        (["status", "last"], "no run is called 'last'", "no run was submitted yet"),
        (["config", "get", "run.cpu"], "no setting is called 'run.cpu'", "did you mean 'run.cpus'?"),
        (["config", "set", "run.cpus", "zero"], "run.cpus cannot be 'zero'", ""),
        (["completion", "tcsh"], "no shell is called 'tcsh'", "known: bash, zsh, fish"),
        (["host", "add", "x", "a b", "--no-check"], "'a b' is not a machine", ""),
    ],
)
def test_errors_name_the_thing_and_what_to_do(words: list[str], message: str, hint: str, project: Path) -> None:
    done = qwex(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    first, _, rest = done.stderr.partition("\n")
    assert first.startswith(f"error: {message}"), done.stderr
    assert hint in rest
    assert not hint or rest.startswith("hint: ")
    assert "Traceback" not in done.stderr


def test_no_command_shows_the_overview_and_fails() -> None:
    done = qwex()
    assert (done.returncode, done.stdout) == (2, "")
    assert "batch" in done.stderr


def test_debug_shows_where_before_and_after_the_command(project: Path) -> None:
    for words in (["--debug", "status", "last"], ["status", "--debug", "last"]):
        done = qwex(*words)
        assert "Traceback" in done.stderr
        assert "error: no run is called 'last'" in done.stderr


def test_a_configuration_that_cannot_be_read_is_one_clear_error(project: Path) -> None:
    (project / "qwex.toml").write_text("[run]\ncpu = 3\n")
    done = qwex("list")
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: {project / 'qwex.toml'}: no setting is called 'run.cpu'\nhint: did you mean 'run.cpus'?"
    )


def test_a_fault_of_qwex_is_one_line_and_a_traceback_on_demand(project: Path) -> None:
    broken = "import qwex.services.starting as s, sys\ns.init = lambda d: 1 / 0\nfrom qwex.cli.app import run\nsys.exit(run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", broken, "init"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: something unexpected happened: ZeroDivisionError: division by zero\nhint: ")
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", broken, "init", "--debug"], capture_output=True, text=True, check=False
    )
    assert "Traceback" in done.stderr


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", sys.executable, "-P", "-m", "qwex", "list"],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the current directory is gone\nhint: ")


def test_quiet_silences_notes(project: Path) -> None:
    assert "qwex: " in qwex("init").stderr
    (project / "qwex.toml").unlink()
    assert qwex("init", "-q").stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["config", "show"], ["completion", "bash"]])
def test_a_full_disk_is_said(words: list[str], project: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*QWEX, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: no space left on device\n"


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["config", "show"], ["completion", "bash", "-q"]])
def test_a_reader_that_left_ends_it_quietly(words: list[str], project: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*QWEX, *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_output_never_becomes_a_file_of_ours(project: Path) -> None:
    """With descriptor 1 closed the records' file would otherwise be opened as standard output."""
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *QWEX, "config", "show"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: it is closed\n"
