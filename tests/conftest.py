"""Every test has a home, state and configuration of its own; no test sees the user's."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """What `nohup` has set to be ignored would be ignored by all that the tests start, and some of them send it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home directory. Whatever worker the test started is ended with it."""
    place = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("QWEX_", "GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Test")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "test@example.org")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Test")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "test@example.org")
    yield place
    lock = place / ".local/state/qwex/worker.pid"
    if lock.exists() and (text := lock.read_text().strip()).isdigit():
        try:
            os.kill(int(text), signal.SIGTERM)
        except ProcessLookupError:
            return


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty git repository, which is also the working directory."""
    place = tmp_path / "project"
    place.mkdir()
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    monkeypatch.chdir(place)
    return place
