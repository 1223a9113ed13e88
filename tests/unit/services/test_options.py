"""Options as typed → what is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.services.fake import Cluster, open_context

from qwex.errors import UsageError
from qwex.model.jobs import ArrayRange, Condition, Dependency, JobSpec, Resources
from qwex.services.context import Context
from qwex.services.options import parse_after, read_env_file, read_request
from qwex.services.places import LOCAL, resolve
from qwex.services.submission import Request


def spec_of(ctx: Context, **options: Any) -> JobSpec:
    return read_request(ctx, Request(**{"argv": ("true",), **options}), LOCAL).spec


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ({"argv": ("a b", "", "é\n", "--x")}, "argv", ("a b", "", "é\n", "--x")),
        ({"argv": ("echo", "$HOME"), "shell": True}, "argv", ("echo $HOME",)),
        ({}, "cwd", "."),
        ({"cpus": "0.5", "mem": "4G", "gpus": "a100:2"}, "resources", Resources(0.5, 4 << 30, 2, "a100")),
        ({"time": "1h30m"}, "time_limit", 5400.0),
        ({"time": "90"}, "time_limit", 90.0),
        ({"priority": "-5"}, "priority", -5),
        ({"retries": "3"}, "retries", 3),
        ({"array": "0-4:2%2"}, "array", ArrayRange((0, 2, 4), 2)),
        ({"name": "größe 7"}, "name", "größe 7"),
        ({"env": (("A", "1"), ("A", "2"))}, "env", (("A", "2"),)),
        ({"out": ("*.csv",)}, "out", ("*.csv",)),
        ({"secrets": ("B=2", "A=1"), "env": (("A", "shown"),)}, "secrets", ("A", "B")),
        ({"secrets": ("A=1",), "env": (("A", "shown"),)}, "env", ()),
    ],
)
async def test_options_become_a_spec(ctx: Context, options: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(spec_of(ctx, **options), field) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"argv": ()}, ["no command"]),
        ({"argv": ("a\0b",)}, ["NUL"]),
        ({"cpus": "two"}, ["--cpus 'two'", "above 0"]),
        ({"cpus": "0"}, ["--cpus '0'"]),
        ({"mem": "4X"}, ["--mem", "'4X'", "512M"]),
        ({"gpus": "a100:"}, ["--gpus 'a100:'", "a100:2"]),
        ({"time": "soon"}, ["--time", "'soon'", "1h30m"]),
        ({"priority": "high"}, ["--priority 'high'", "whole number"]),
        ({"retries": "-1"}, ["--retries '-1'", "0 or more"]),
        ({"retries": "5000"}, ["--retries 5000"]),
        ({"array": "9-1"}, ["--array", "'9-1'", "0-99%10"]),
        ({"array": "0-99999,100000-200000"}, ["--array", "100,000"]),
        ({"array": "0-9999999"}, ["--array", "100,000"]),
        ({"name": "x" * 101}, ["--name", "100"]),
        ({"name": "a\nb"}, ["--name"]),
        ({"env": (("A-B", "1"),)}, ["--env 'A-B'", "letters"]),
        ({"secrets": ("MISSING_SECRET",)}, ["MISSING_SECRET", "not in the environment"]),
        ({"secrets": ("1A=x",)}, ["--secret '1A'"]),
        ({"after": ("zzzz",)}, ["'zzzz'"]),
        ({"after": ("zzzz:maybe",)}, ["--after 'zzzz:maybe'", "ok, fail or any"]),
        ({"env_files": (Path("nowhere.env"),)}, ["--env-file", "nowhere.env", "no such file"]),
    ],
)
async def test_wrong_options_are_named(ctx: Context, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        spec_of(ctx, **options)
    said = f"{caught.value.message} {caught.value.hint}"
    assert all(word in said for word in words), said


async def test_settings_are_what_is_not_typed(project: Path, home: Path, cluster: Cluster) -> None:
    (project / "qwex.toml").write_text(
        '[run]\ncpus = 2\nmem = "1G"\nretries = 2\nout = ["r/"]\nsecrets = ["TOKEN"]\n[run.env]\nA = "file"\nB = "file"\n'
    )
    (project / "src").mkdir()
    (project / "src/x.env").write_text("A=envfile\nC=3\n")
    async with open_context(project / "src", home, cluster, TOKEN="hush") as ctx:
        wanted = read_request(ctx, Request(("true",), mem="2G", env=(("C", "4"),), env_files=(Path("x.env"),)), LOCAL)
    assert wanted.spec.resources == Resources(2.0, 2 << 30)
    assert (wanted.spec.retries, wanted.spec.out, wanted.spec.cwd) == (2, ("r/",), "src")
    assert dict(wanted.spec.env) == {"A": "envfile", "B": "file", "C": "4"}
    assert wanted.secrets == {"TOKEN": "hush"}
    assert "hush" not in str(wanted.spec.to_json())


async def test_dependencies_are_runs_of_the_same_place(ctx: Context) -> None:
    there, here = ctx.store.add([(JobSpec(("a",)), "gpu1", "u"), (JobSpec(("b",)), "local", "u")], 0)
    assert spec_of(ctx, after=(f"{here.id}:any",)).after == (Dependency(here.id, Condition.ANY),)
    with pytest.raises(UsageError, match=f"run {there.id} is on gpu1 and this one goes to local"):
        spec_of(ctx, after=(there.id,))
    with pytest.raises(UsageError, match="whole runs"):
        spec_of(ctx, after=(f"{here.id}.0",))
    remote = read_request(ctx, Request(("true",), after=(there.id,)), resolve(ctx, "gpu1"))
    assert remote.spec.after == (Dependency(there.id),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", ("a", Condition.OK)), ("a:fail", ("a", Condition.FAIL)), ("last:any", ("last", Condition.ANY))],
)
def test_conditions(text: str, expected: tuple[str, Condition]) -> None:
    assert parse_after("--after", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only a comment\n\n", {}),
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("export A=1\r\n", {"A": "1"}),
        ("A = spaced out \n", {"A": "spaced out"}),
        ("A=x # why\nB=x#y\n", {"A": "x", "B": "x#y"}),
        ("A=\nB=#nothing\n", {"A": "", "B": ""}),
        ("A='a \"b\" $c \\n' # c\n", {"A": 'a "b" $c \\n'}),
        ('A="a\\tb\\"c\\\\ $d"\n', {"A": 'a\tb"c\\ $d'}),
        ("A='two\nlines'\nB=2\n", {"A": "two\nlines", "B": "2"}),
        ("A=a=b\n", {"A": "a=b"}),
        ("A=1\nA=2\n", {"A": "2"}),
    ],
)
def test_env_files(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    file = tmp_path / "x.env"
    file.write_bytes(text.encode())
    assert read_env_file(file) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\nnonsense\n", "line 2: 'nonsense' is not NAME=VALUE"),
        ("A-B=1\n", "line 1"),
        ("A='x\nB=2\n", "line 1: the quotes of A"),
        ('A="x" y\n', "line 1: the quotes of A"),
        ("A=\0\n", "line 1: A holds a NUL"),
    ],
)
def test_env_files_that_are_wrong(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "x.env"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_env_file(file)
