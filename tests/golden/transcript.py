"""Transcripts: documents whose commands are run, and whose output is compared.

A block that begins with three backticks and ``console`` is run: each line ``$ command`` (continued by lines ``> more``) by ``sh``, and
the lines after it are what it prints, both streams together. The blocks of a document follow each other in one directory, which
starts as an empty git repository. What differs between two runs, ids, times, sizes and directories, is evened out on both
sides; a line ``...`` stands for any lines, and at the end of a line for the rest of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Step", "compare", "even", "perform", "steps"]

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EVENED = (
    (re.compile(r"\b[01][0-9a-hjkmnp-tv-z]{8}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: [+-]\d{4})?"), "<moment>"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:[KMGT]iB|B)\b"), "<size>"),
    (re.compile(r"\b(?:\d+d\d\dh|\d+h\d\dm|\d+m\d\ds|\d+(?:\.\d+)? ?s)\b"), "<time>"),
    (re.compile(r"\b\d+(?:\.\d+)? CPUs?\b"), "<n> CPUs"),
    (re.compile(r" +"), " "),
)


@dataclass(frozen=True)
class Step:
    """One command of a transcript and what it should print."""

    line: int
    command: str
    expected: tuple[str, ...]


def steps(document: Path) -> list[Step]:
    """The commands of a document, in order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for block in _BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1)) + 1
        command, line, expected = "", 0, list[str]()
        for at, content in enumerate(block[1].splitlines(), first):
            if content.startswith("$ "):
                if command:
                    found.append(Step(line, command, tuple(expected)))
                command, line, expected = content[2:], at, []
            elif (content == ">" or content.startswith("> ")) and not expected:
                command += "\n" + content[2:]
            else:
                expected.append(content)
        if command:
            found.append(Step(line, command, tuple(expected)))
    return found


def even(line: str, places: dict[str, str]) -> str:
    """``line`` without what differs between two runs."""
    for directory, name in places.items():
        line = line.replace(directory, name)
    for pattern, name in _EVENED:
        line = pattern.sub(name, line)
    return line.rstrip()


def compare(expected: list[str], printed: list[str]) -> bool:
    """Whether the printed lines are those expected, ``...`` standing for anything."""
    if not expected:
        return not printed
    first, *rest = expected
    if first == "...":
        return any(compare(rest, printed[at:]) for at in range(len(printed) + 1))
    if not printed:
        return False
    fits = printed[0].startswith(first[:-3]) if first.endswith("...") else first == printed[0]
    return fits and compare(rest, printed[1:])


def perform(step: Step, directory: Path, binaries: Path) -> list[str]:
    """Run it; the lines it printed."""
    env = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100", "TZ": "UTC"}
    done = subprocess.run(
        [shutil.which("sh") or "/bin/sh", "-c", step.command],
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return done.stdout.decode("utf-8", "backslashreplace").splitlines()
