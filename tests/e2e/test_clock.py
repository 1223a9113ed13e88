"""The machine's clock is set forward and back: ids stay unique, lists stay in order, limits stay as long as they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import Qwex, alive, ended, eventually

pytestmark = pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed here")
MOVES = ("+3d", "-3d", "+0", "-400d", "+20y")


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that says how far off the clock of every process started from here is; durations are as ever."""
    file = tmp_path / "offset"
    file.write_text("+0\n")
    shown = subprocess.run(["faketime", "-f", "+0", "env"], capture_output=True, text=True, check=True).stdout
    library = next(line.partition("=")[2] for line in shown.splitlines() if line.startswith("LD_PRELOAD="))
    monkeypatch.setenv("LD_PRELOAD", library)
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    monkeypatch.setenv("FAKETIME_DONT_RESET", "1")
    return file


def test_between_commands(qwex: Qwex, moved: Path) -> None:
    ids = []
    for offset in MOVES:
        moved.write_text(f"{offset}\n")
        for _ in range(2):
            done = qwex.batch("sh", "-c", "date +%Y; echo made >made")
            assert done.returncode == 0, done.stderr
            assert (qwex.directory / "qwex-runs" / qwex.json("status", "last")["id"] / "made").exists()
            ids.append(qwex.json("status", "last")["id"])
    assert len(set(ids)) == len(ids)
    listed = qwex.json("list")
    assert [run["id"] for run in listed] == ids[::-1]
    assert {run["state"] for run in listed} == {"succeeded"}
    for run in listed:
        assert run["ended"] >= run["started"]


@pytest.mark.parametrize("offset", ["+2h", "-2h"])
def test_while_a_job_runs(qwex: Qwex, moved: Path, tmp_path: Path, offset: str) -> None:
    """The limit of one job is neither met early nor missed; another waits for its retry no longer than it should."""
    go = tmp_path / "go"
    client = qwex.start(
        "batch", "--on", qwex.place, "--time", "60s", "sh", "-c", f"echo on; while [ ! -e '{go}' ]; do sleep 0.05; done"
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"on\n"
    moved.write_text(f"{offset}\n")
    limited = qwex.batch("--time", "1s", "sh", "-c", "exec sleep 600")
    assert limited.returncode == 124, limited.stderr
    again = qwex.batch("--retries", "1", "sh", "-c", "exit $((2 - $QWEX_ATTEMPT))")
    assert again.returncode == 0, again.stderr
    assert client.poll() is None
    go.touch()
    _, err = client.communicate(timeout=120)
    assert client.returncode == 0, err
    ended(qwex)
    runs = qwex.json("list")[::-1]
    assert [run["state"] for run in runs] == ["succeeded", "failed", "succeeded"]
    assert [alive(run["id"]) for run in runs] == [[], [], []]


def test_while_a_retry_waits(qwex: Qwex, moved: Path) -> None:
    """Set back by a day while it waits: the next attempt comes after seconds all the same."""
    started = time.monotonic()
    assert qwex.batch("--detach", "--retries", "1", "sh", "-c", "exit $((2 - $QWEX_ATTEMPT))").returncode == 0
    eventually(lambda: qwex.runs()[0]["reason"] == "waiting-to-retry")
    moved.write_text("-1d\n")
    (run,) = ended(qwex)
    assert run["state"] == "succeeded"
    assert time.monotonic() - started < 60


def test_files_are_seen_to_change_whatever_the_clock_says(qwex: Qwex, moved: Path) -> None:
    """The cache of what files hold trusts no time."""
    file = qwex.directory / "in"
    for number, offset in enumerate(MOVES):
        moved.write_text(f"{offset}\n")
        file.write_text(f"{number}")
        os.utime(file, (1_000_000_000, 1_000_000_000))
        done = qwex.batch("sh", "-c", f"cat in; echo {number} >in; touch -d @1000000000 in")
        assert done.stdout == b"%d" % number, done.stderr
        assert (qwex.directory / "qwex-runs" / qwex.json("status", "last")["id"] / "in").read_text() == f"{number}\n"
