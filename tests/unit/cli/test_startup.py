"""What is loaded before anything is done: start-up is felt at every prompt."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = {"asyncio", "asyncssh", "pydantic", "rich", "kubernetes", "pulumi", "httpx", "yaml", "tomllib", "http", "email"}
LIST_MODULES = """
import runpy, sys
try:
    runpy.run_module("qwex", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
sys.stderr.write("\\nMODULES " + " ".join(sys.modules))
"""


def loaded(*words: str, **env: str) -> set[str]:
    """The modules of a process that ran ``qwex WORDS``."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.rpartition("MODULES ")[2].split())


@pytest.mark.parametrize(
    "words", [("--help",), ("batch", "--help"), ("batch", "--no-such-option"), ("batch",), ("bach",)]
)
def test_nothing_heavy_before_a_command_starts(words: tuple[str, ...]) -> None:
    assert not HEAVY & loaded(*words)


def test_version_does_without_typer() -> None:
    assert not (HEAVY | {"typer", "click", "json", "sqlite3"}) & loaded("--version")


@pytest.mark.parametrize("words", [("",), ("batch", "--"), ("logs", ""), ("batch", "--on", "")])
def test_completion_does_without_typer(words: tuple[str, ...]) -> None:
    assert not (HEAVY | {"typer", "click", "json"}) & loaded(*words, QWEX_COMPLETE="zsh")


def test_a_command_loads_no_other_command() -> None:
    modules = {name for name in loaded("batch", "--no-such-option") if name.startswith("qwex.")}
    assert "qwex.cli.batch" in modules
    assert not {"qwex.cli.host", "qwex.cli.listing", "qwex.services.context", "qwex.config"} & modules
