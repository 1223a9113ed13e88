"""Job files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qwex.errors import UsageError
from qwex.services.jobfile import KEYS, parse, read
from qwex.services.submission import Request

DIRECTORY = Path("/jobs")


def requests(text: str, *, yaml: bool = False) -> list[Request]:
    return parse(text.encode(), "file", DIRECTORY, yaml=yaml)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('command = ["python", "main.py", 3]', {"argv": ("python", "main.py", "3"), "shell": False}),
        ('command = "a | b"', {"argv": ("a | b",), "shell": True}),
        (
            'command = "x"\ncpus = 2\nmem = "4G"\ntime = 60\narray = "0-9"\non = "gpu1"',
            {"argv": ("x",), "shell": True, "cpus": "2", "mem": "4G", "time": "60", "array": "0-9", "on": "gpu1"},
        ),
        (
            'command = "x"\nafter = "last"\nsecrets = ["A"]',
            {"argv": ("x",), "shell": True, "after": ("last",), "secrets": ("A",)},
        ),
        (
            'command = "x"\nenv_files = "a.env"\n[env]\nA = 1',
            {"argv": ("x",), "shell": True, "env": (("A", "1"),), "env_files": (DIRECTORY / "a.env",)},
        ),
    ],
)
def test_one_job(text: str, expected: dict[str, Any]) -> None:
    assert requests(text) == [Request(**expected)]


GRAPH_TOML = """
[defaults]
cpus = 2
env = { A = "1", B = "1" }
[[jobs]]
name = "prepare"
command = ["make", "data"]
[[jobs]]
name = "train"
command = "python train.py"
needs = ["prepare:any"]
cpus = 4
env = { B = "2" }
"""
GRAPH_YAML = """
defaults: {cpus: 2, env: {A: "1", B: "1"}}
jobs:
  prepare: {command: [make, data]}
  train:
    command: python train.py
    needs: prepare:any
    cpus: 4
    env: {B: 2}
"""


@pytest.mark.parametrize(("text", "yaml"), [(GRAPH_TOML, False), (GRAPH_YAML, True)])
def test_graph_with_defaults(text: str, yaml: bool) -> None:
    first, second = requests(text, yaml=yaml)
    assert (first.name, first.argv, first.cpus, dict(first.env)) == (
        "prepare",
        ("make", "data"),
        "2",
        {"A": "1", "B": "1"},
    )
    assert (second.name, second.needs, second.cpus, dict(second.env)) == (
        "train",
        ("prepare:any",),
        "4",
        {"A": "1", "B": "2"},
    )


def test_yaml_words_stay_words() -> None:
    (one,) = requests("command: x\non: gpu1\nname: no\ntime: 1:30:00\n", yaml=True)
    assert (one.on, one.name, one.time) == ("gpu1", "no", "5400")


def test_json_is_yaml() -> None:
    assert requests('{"command": ["x"]}', yaml=True) == [Request(("x",), shell=False)]


@pytest.mark.parametrize(
    ("text", "yaml", "words"),
    [
        ('comand = "x"', False, ["'comand'", "did you mean 'command'?"]),
        ("cpus = 2", False, ["no command"]),
        ("command = []", False, ["command cannot be []"]),
        ('command = ""', False, ["command cannot be ''"]),
        ('command = "x"\ncpus = true', False, ["cpus cannot be True"]),
        ('command = "x"\nenv = 3', False, ["env cannot be 3", "table"]),
        ('[[jobs]]\ncommand = "x"\nneed = "y"', False, ["job 1", "'need'", "did you mean 'needs'?"]),
        ('[[jobs]]\nname = "a"\ncpus = 1', False, ["job 'a' has no command"]),
        ('cpus = 1\n[[jobs]]\ncommand = "x"', False, ["'cpus'", "defaults"]),
        ('[defaults]\ncommand = "x"\n[[jobs]]', False, ["defaults", "'command'"]),
        ("jobs = []", False, ["jobs is empty"]),
        ("jobs = 3", False, ["jobs is a list"]),
        ("jobs = [3]", False, ["job 1", "table"]),
        ('[jobs.a]\nname = "b"\ncommand = "x"', False, ["job 'a'", "twice"]),
        ("command = ", False, ["not TOML"]),
        ("a: [", True, ["not YAML"]),
        ("- x", True, ["is a table"]),
        ("", True, ["is a table"]),
        ("jobs:\n  a: {command: x}\n  a: {command: y}\n", True, ["'a' is said twice"]),
        ("command: !!python/object/apply:os.system [true]", True, ["not YAML"]),
    ],
)
def test_wrong_files(text: str, yaml: bool, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        requests(text, yaml=yaml)
    said = f"{caught.value.message} {caught.value.hint}"
    assert all(word in said for word in ["file", *words]), said


def test_ending_of_the_name_says_the_form(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('command = ["x"]')
    (tmp_path / "a.yaml").write_text("command: [x]")
    assert read(tmp_path / "a.toml") == read(tmp_path / "a.yaml") == [Request(("x",), shell=False)]
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "b.toml")


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[3] / "runner/docs/jobfile.md").read_text()
    assert [key for key in KEYS if f"`{key}`" not in text] == []
