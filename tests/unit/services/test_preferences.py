"""Settings written to files."""

from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.services.fake import Recorder

from qwex.errors import ConfigError, UnknownName, UsageError
from qwex.services.context import Context
from qwex.services.preferences import change, with_setting


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[run]\ncpus = 2\n"),
        ("[run]\n", "[run]\ncpus = 2\n"),
        ("[run] # mine\nmem = '1G'\n", "[run] # mine\ncpus = 2\nmem = '1G'\n"),
        ("[run]\ncpus = 8\n[hosts.a]\n", "[run]\ncpus = 2\n[hosts.a]\n"),
        ("# why\n[workspace]\ninclude = []", "# why\n[workspace]\ninclude = []\n\n[run]\ncpus = 2\n"),
    ],
)
def test_the_rest_of_the_file_stays(before: str, after: str) -> None:
    assert with_setting(before, "run.cpus", "2") == after


def test_what_cannot_be_edited_safely_is_left_alone() -> None:
    with pytest.raises(ConfigError, match="edit safely"):
        with_setting("run = { cpus = 8 }\n", "run.cpus", "2")
    with pytest.raises(ConfigError, match="edit safely"):
        with_setting('[run]\nout = [\n"a",\n"b",\n]\n', "run.out", '["c"]')


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("run.cpus", "0.5", 0.5),
        ("run.priority", "-3", -3),
        ("run.mem", "4G", "4G"),
        ("run.time", "1h30m", "1h30m"),
        ("run.gpus", "a100:2", "a100:2"),
        ("run.shell", "yes", True),
        ("run.out", "a, *.csv", ["a", "*.csv"]),
        ("run.secrets", "KEY", ["KEY"]),
        ("run.on", 'ada@"gpu1', 'ada@"gpu1'),
    ],
)
def test_values_are_written_as_toml(name: str, text: str, value: object, project: Path) -> None:
    ctx = Context.open(project, Recorder())
    file = change(ctx, name, text, project=True)
    section, key = name.split(".")
    assert file == project / "qwex.toml"
    assert tomllib.loads(file.read_text()) == {section: {key: value}}
    assert ctx.settings.source(name) == str(file)


def test_the_users_file_is_the_usual_one(project: Path, home: Path) -> None:
    ctx = Context.open(project, Recorder())
    file = change(ctx, "run.cpus", "2")
    assert file == home / ".config/qwex/config.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert ctx.settings.get("run.cpus") == 2


def test_two_at_a_time_take_turns(project: Path, home: Path) -> None:
    first, second = Context.open(project, Recorder()), Context.open(project, Recorder())
    with ThreadPoolExecutor(2) as pool:
        mine = pool.submit(lambda: [change(first, "run.cpus", str(number)) for number in range(2, 52)])
        theirs = pool.submit(lambda: [change(second, "run.priority", str(number)) for number in range(2, 52)])
        file = mine.result()[0]
        theirs.result()
    assert tomllib.loads(file.read_text())["run"] == {"cpus": 51, "priority": 51}


def test_wrong_names_and_values(project: Path) -> None:
    ctx = Context.open(project, Recorder())
    with pytest.raises(UnknownName):
        change(ctx, "run.cpu", "2")
    with pytest.raises(UsageError, match=r"run\.cpus cannot be 'two'"):
        change(ctx, "run.cpus", "two")
    assert not (project / "qwex.toml").exists()
