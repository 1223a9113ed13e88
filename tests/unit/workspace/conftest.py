"""Directories for the workspace's tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwex.config import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    base = tmp_path / "own"
    return Paths(state=base / "state", config=base / "config", cache=base / "cache")


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of an ordinary user's, and the test acts as that user (root reads everything)."""
    place = Path(tempfile.mkdtemp())
    monkeypatch.setenv("HOME", str(place))
    if os.geteuid() == 0:
        os.chown(place, 65534, 65534)
        os.seteuid(65534)
    try:
        yield place
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "qwex", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)
