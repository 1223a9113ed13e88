"""Completion: what is offered, and that real shells take it up."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwex.cli.complete import SHELLS, answer, candidates, split, state_directory
from qwex.cli.completion import SCRIPTS
from qwex.config import SETTINGS, Paths
from qwex.model.jobs import JobSpec
from qwex.store import RunStore


def offered(*words: str) -> list[str]:
    found = candidates(list(words))
    assert not isinstance(found, str), found
    return [value for value, _ in found if value.startswith(words[-1])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ba"], ["batch"]),
        (["con"], ["config"]),
        (["host", ""], ["add", "list", "check", "remove"]),
        (["config", "se"], ["set"]),
        (["-q", "ba"], ["batch"]),
        (["batch", "--det"], ["--detach"]),
        (["batch", "--on", "lo"], ["local"]),
        (["batch", "--on=lo"], ["--on=local"]),
        (["batch", "--on-interrupt", ""], ["detach", "cancel"]),
        (["batch", "--cpus", ""], []),
        (["list", "--status", "su"], ["suspended", "succeeded"]),
        (["list", "--user", ""], ["me"]),
        (["config", "get", "run.o"], ["run.on", "run.out", "run.on_interrupt"]),
        (["config", "get", "run.on", ""], []),
        (["logs", "la"], ["last"]),
        (["logs", "last", ""], []),
        (["status", "last", "la"], ["last"]),
        (["batch", "--after", "01:"], ["01:ok", "01:fail", "01:any"]),
        (["completion", ""], list(SHELLS)),
    ],
)
def test_what_is_offered(words: list[str], expected: list[str], home: Path, project: Path) -> None:
    assert offered(*words) == expected


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["submit", ""], "files"),
        (["batch", "--env-file", ""], "files"),
        (["pull", "--to", ""], "dirs"),
        (["batch", "py"], "command 2"),
        (["batch", "--on", "local", "-d", "py"], "command 5"),
        (["batch", "--", "py"], "command 3"),
        (["batch", "python", "--on", ""], "command 2"),
        (["exec", "last", "l"], "command 3"),
    ],
)
def test_what_is_left_to_the_shell(words: list[str], left: str) -> None:
    assert candidates(words) == left


def test_runs_are_offered_with_what_they_do(home: Path) -> None:
    with RunStore.open(Paths.from_environment().state / "runs.db") as store:
        runs = store.add([(JobSpec(("true",)), "local", "ada"), (JobSpec(("true",)), "gpu1", "ada")], 1763934000)
    found = candidates(["status", ""])
    assert isinstance(found, list)
    assert dict(found) == {"last": "the newest run", runs[1].id: "queued on gpu1", runs[0].id: "queued on local"}
    assert offered("logs", runs[0].id) == [runs[0].id]


def test_a_damaged_database_offers_nothing_and_says_nothing(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = Path(state_directory())
    state.mkdir(parents=True)
    (state / "runs.db").write_bytes(b"no database" * 100)
    assert answer("fish", ["logs", ""]) == 0
    assert capfd.readouterr() == ("last\tthe newest run\n", "")


def test_hosts_of_all_files_are_offered(home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Paths.from_environment().config_file
    config.parent.mkdir(parents=True)
    config.write_text("[hosts.gpu1]\nuser = 'ada'\n")
    (project / "qwex.toml").write_text("[hosts.gpu2]\n")
    (home / ".ssh").mkdir()
    (home / ".ssh/config").write_text("Host box  *.example.org\n  User ada\nHost=other\n")
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert offered("batch", "--on", "") == ["local", "gpu1", "gpu2", "box", "other"]
    assert offered("host", "remove", "") == ["gpu1", "gpu2"]


def test_a_broken_file_is_not_completion_s_to_report(home: Path, project: Path) -> None:
    (project / "qwex.toml").write_text("[hosts")
    assert offered("batch", "--on", "") == ["local"]


def test_the_state_directory_is_that_of_the_rest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_directory() == str(Paths.from_environment().state)
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_directory() == str(Paths.from_environment().state)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "elsewhere"))
    assert state_directory() == str(Paths.from_environment().state)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", [""]),
        ("qwex ", ["qwex", ""]),
        ("qwex  batch a", ["qwex", "batch", "a"]),
        ("qwex batch 'a b' \"c d", ["qwex", "batch", "a b", "c d"]),
        ("qwex batch a\\ b", ["qwex", "batch", "a b"]),
    ],
)
def test_lines_are_split_as_shells_do(line: str, words: list[str]) -> None:
    assert split(line) == words


def test_every_setting_is_known_to_completion() -> None:
    assert offered("config", "get", "") == [setting.name for setting in SETTINGS]


def test_bash_gets_only_what_follows_its_word_break(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert answer("bash", ["qwex batch --after 01:", " \t\n\"'><=;|&(:"]) == 0
    assert capfd.readouterr().out == "ok\nfail\nany\n"


class Interactive:
    """A shell on a terminal of its own, typed at."""

    def __init__(self, argv: list[str], directory: Path) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.execvp(argv[0], argv)
        self._seen = b""

    def type(self, text: str) -> None:
        self._seen = b""
        os.write(self._fd, text.encode())

    def expect(self, text: str) -> None:
        """Read until ``text`` was shown since the last typing."""
        end = time.monotonic() + 20
        while text.encode() not in self._seen:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} never came, but {self._seen!r}"
            self._seen += os.read(self._fd, 65536)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@pytest.fixture
def shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path) -> Iterator[list[Interactive]]:
    """Where started shells are put, to be ended. ``qwex`` is on their path."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "qwex").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m qwex "$@"\n')
    (place / "qwex").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("PS1", "> ")
    started: list[Interactive] = []
    yield started
    for one in started:
        one.close()


TYPED = [("qwex bat\t", "batch "), ("--on lo\t", "local "), ("--detach --after la\t", "last ")]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(shells: list[Interactive], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPTS["bash"])
    bash = Interactive(["bash", "--noprofile", "--norc", "-i"], tmp_path)
    shells.append(bash)
    bash.type("source ./script; bind 'set enable-bracketed-paste off'; echo rea''dy\n")
    bash.expect("ready")
    for keys, shown in TYPED:
        bash.type(keys)
        bash.expect(shown)
    bash.type("\x15qwex submit scr\t")
    bash.expect("script ")
    bash.type("\x15qwex batch basenam\t")
    bash.expect("basename ")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_completes(shells: list[Interactive], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPTS["zsh"])
    zsh = Interactive(["zsh", "-f", "-i"], tmp_path)
    shells.append(zsh)
    zsh.type("autoload -Uz compinit; compinit -u -D; source ./script; echo rea''dy\n")
    zsh.expect("ready")
    for keys, shown in TYPED:
        zsh.type(keys)
        zsh.expect(shown)
    zsh.type("\x15qwex submit scr\t")
    zsh.expect("script ")
    zsh.type("\x15qwex batch basenam\t")
    zsh.expect("basename ")


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qwex bat", "batch"),
        ("qwex batch --on lo", "local"),
        ("qwex submit scr", "script"),
        ("qwex batch basenam", "basename"),
        ("qwex batch --detach basename --suf", "--suffix"),
    ],
)
def test_fish_completes(line: str, expected: str, shells: list[Interactive], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPTS["fish"])
    done = subprocess.run(
        [
            "fish",
            "--no-config",
            "-c",
            "source ./script; complete -c basename -l suffix; complete -C $argv[1]",
            "--",
            line,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert expected in [row.split("\t")[0].strip() for row in done.stdout.splitlines()], done


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_have_no_syntax_errors(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(SCRIPTS[shell])
    done = subprocess.run([shell, "-n", "script"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
