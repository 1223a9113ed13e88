"""The walk-throughs of the documents, run for real on the local backend."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tests.golden.transcript import compare, even, perform, steps

from qwex.cli.describe import commands

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "runner/docs/commands.md"
TRANSCRIPTS = sorted([REFERENCE, *(ROOT / "tests/golden").glob("*.md")])


@pytest.fixture
def binaries(tmp_path: Path) -> Path:
    """A directory with ``qwex`` and ``python`` of this environment."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, words in (("qwex", "-m qwex "), ("python", "")):
        script = place / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        script.chmod(0o755)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("document", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_holds(document: Path, project: Path, home: Path, binaries: Path) -> None:
    places = {str(project): "/home/ada/project", str(home): "/home/ada"}
    for step in steps(document):
        printed = [even(line, places) for line in perform(step, project, binaries)]
        expected = [even(line, {}) for line in step.expected]
        shown = "\n".join(printed)
        assert compare(expected, printed), f"{document.name}:{step.line}: $ {step.command}\n{shown}"


def section(name: str) -> str:
    """What the reference says about a command: from its heading to the next."""
    found = re.search(
        rf"^##+ `qwex {re.escape(name)}`$(.*?)(?=^##+ |\Z)", REFERENCE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found, f"{REFERENCE.name} has no section `qwex {name}`"
    return found[1]


LEAVES = [name for name in commands() if name and not any(other.startswith(f"{name} ") for other in commands())]
GENERAL = {"--quiet", "-q", "--debug", "--help", "-h"}


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_is_documented_with_an_example_that_is_run(name: str) -> None:
    text = section(name)
    _, options, _ = commands()[name]
    missing = [
        one for one in options if one not in GENERAL and not re.search(rf"`[^`\n]*(?<![\w-]){one}(?![\w-])", text)
    ]
    assert not missing
    assert re.search(
        rf"^\$ .*\bqwex {name}\b", "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)), re.MULTILINE
    )


def test_the_general_options_are_documented() -> None:
    text = REFERENCE.read_text()
    assert not [one for one in GENERAL | {"--version", "-V"} if f"`{one}`" not in text]


def test_no_command_is_documented_that_does_not_exist() -> None:
    named = re.findall(r"^##+ `qwex ([a-z ]+)`$", REFERENCE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(LEAVES)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        (["a", "..."], ["a", "b", "c"], True),
        (["...", "c"], ["a", "b", "c"], True),
        (["...", "c"], ["a", "b"], False),
        (["a..."], ["abc"], True),
        ([], ["a"], False),
        (["a"], [], False),
    ],
)
def test_the_comparison_can_fail(expected: list[str], printed: list[str], same: bool) -> None:
    assert compare(expected, printed) is same


def test_what_differs_between_runs_is_evened_out() -> None:
    line = "run 1p4c8zq0a ended 2026-11-23 21:43:29 +0100 after 2h07m in /tmp/x/project: 12.5 KiB"
    assert even(line, {"/tmp/x": "~"}) == "run <id> ended <moment> after <time> in ~/project: <size>"
