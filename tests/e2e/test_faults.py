"""Killed at any point, run by two hundred at a time, or given a broken disk: no run is lost or doubled, nothing stays behind."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import Qwex, alive, ended, eventually

SEED = 20_260


def worker(home: Path) -> int:
    return int((home / ".local/state/qwex/worker.pid").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("point", range(8))
def test_the_client_is_killed_at_some_point(qwex: Qwex, home: Path, tmp_path: Path, point: int) -> None:
    """Points from the first file read to the results' way home; the job notes each of its starts outside the workspace."""
    for number in range(200):
        (qwex.directory / f"file{number}").write_text(str(number) * 100)
    starts = tmp_path / "starts"
    delay = random.Random(SEED + point).uniform(0.02, 1.5)
    client = qwex.start(
        "batch", "--on", qwex.place, "sh", "-c", f"echo once >> '{starts}'; sleep 0.3; echo made > made"
    )
    time.sleep(delay)  # the point at which it dies, not a wait for anything
    client.kill()
    client.communicate()
    runs = ended(qwex)
    assert len(runs) <= 1
    ran = starts.read_text().splitlines() if starts.exists() else []
    if runs and runs[0]["state"] == "succeeded":
        assert ran == ["once"]
        assert qwex("pull", runs[0]["id"]).returncode == 0
        assert (qwex.directory / "qwex-runs" / runs[0]["id"] / "made").read_text() == "made\n"
    else:
        assert ran == []
        assert not runs or runs[0]["reason"] == "submission-failed", runs
    left = [path for path in qwex.directory.rglob("*") if ".tmp" in path.name or path.name.startswith(".qwex")]
    assert left == []
    assert not runs or alive(str(runs[0]["id"])) == []


@pytest.mark.slow
@pytest.mark.parametrize("point", range(6))
def test_the_worker_is_killed_at_some_point(qwex: Qwex, home: Path, tmp_path: Path, point: int) -> None:
    """The client starts another, which learns how the job ended, or says that it cannot know."""
    assert qwex.batch("true").returncode == 0
    starts = tmp_path / "starts"
    client = qwex.start(
        "batch", "--on", qwex.place, "sh", "-c", f"echo once >> '{starts}'; sleep 0.5; echo out; exit 7"
    )
    time.sleep(random.Random(SEED + point).uniform(0.05, 1.5))  # the point at which it dies
    pid = worker(home)
    os.kill(pid, signal.SIGKILL)
    out, err = client.communicate(timeout=120)
    (_, run) = qwex.runs()
    assert starts.read_text().splitlines() == ["once"]
    if run["state"] == "failed":
        assert (client.returncode, out) == (7, b"out\n"), err
    else:
        assert (run["state"], run["reason"]) == ("lost", "worker-died")
        assert client.returncode == 1
    assert alive(run["id"]) == []


def test_a_dead_worker_with_nobody_watching_leaves_nothing_running_for_ever(qwex: Qwex, home: Path) -> None:
    assert qwex.batch("--detach", "sh", "-c", "sleep 600").returncode == 0
    runs = eventually(lambda: [run for run in qwex.runs() if run["state"] == "running"])
    os.kill(worker(home), signal.SIGKILL)
    assert qwex("cancel", runs[0]["id"]).returncode == 0
    runs = ended(qwex)
    assert runs[0]["state"] in {"lost", "cancelled"}
    eventually(lambda: alive(runs[0]["id"]) == [])


@pytest.mark.slow
def test_two_hundred_at_once(qwex: Qwex, tmp_path: Path) -> None:
    """Every one of them runs, once, with its own output."""
    starts = tmp_path / "starts"
    starts.mkdir()
    clients = [
        qwex.start("batch", "--on", qwex.place, "sh", "-c", f"echo x >> '{starts}/{number}'; echo {number}")
        for number in range(200)
    ]
    for number, client in enumerate(clients):
        out, err = client.communicate(timeout=300)
        assert (client.returncode, out) == (0, b"%d\n" % number), err
    assert sorted(int(path.name) for path in starts.iterdir()) == list(range(200))
    assert {path.read_text() for path in starts.iterdir()} == {"x\n"}
    runs = qwex.runs()
    assert len({run["id"] for run in runs}) == 200
    assert {run["state"] for run in runs} == {"succeeded"}


def test_a_job_that_will_not_end(qwex: Qwex) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    client = qwex.start("batch", "--on", qwex.place, "--time", "1s", sys.executable, "-c", script)
    out, err = client.communicate(timeout=120)
    assert out == b"deaf\n"
    assert client.returncode == 124, err
    (run,) = qwex.runs()
    assert (run["state"], run["reason"]) == ("failed", "time-limit")
    eventually(lambda: alive(run["id"]) == [])


def test_a_job_that_leaves_daemons(qwex: Qwex) -> None:
    done = qwex.batch("sh", "-c", "sleep 600 & (setsid sleep 601 &) ; echo out")
    assert (done.returncode, done.stdout) == (0, b"out\n")
    (run,) = qwex.runs()
    eventually(lambda: alive(run["id"]) == [])


def test_a_job_that_deletes_its_own_directory(qwex: Qwex) -> None:
    (qwex.directory / "kept").write_text("here")
    done = qwex.batch("sh", "-c", 'd=$(pwd -P); cd /; rm -rf "$d"; echo gone')
    assert (done.returncode, done.stdout) == (0, b"gone\n"), done.stderr
    assert (qwex.directory / "kept").read_text() == "here"


def test_a_damaged_record_is_kept_aside_and_said(qwex: Qwex, home: Path) -> None:
    assert qwex.batch("true").returncode == 0
    state = home / ".local/state/qwex"
    os.kill(worker(home), signal.SIGTERM)
    eventually(lambda: not (state / "worker.pid").exists() or not Path(f"/proc/{worker(home)}").exists())
    for extra in ("runs.db-wal", "runs.db-shm"):
        (state / extra).unlink(missing_ok=True)
    (state / "runs.db").write_bytes(b"\0not a database\0" * 1000)
    done = qwex.batch("echo", "still here")
    assert (done.returncode, done.stdout) == (0, b"still here\n"), done.stderr
    (aside,) = state.glob("runs.db.corrupt-*")
    assert str(aside) in done.stderr.decode()
    with sqlite3.connect(state / "runs.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_an_empty_directory_is_a_workspace(qwex: Qwex) -> None:
    done = qwex.batch("sh", "-c", "ls -A | wc -l; echo made > made")
    assert (done.returncode, done.stdout.strip()) == (0, b"0")


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", b"-rf", b" x ", b"'\"$`", "é✓".encode()])
def test_odd_names_go_out_and_come_home(qwex: Qwex, name: bytes) -> None:
    place = os.path.join(os.fsencode(qwex.directory), name)
    os.mkdir(place)
    with open(os.path.join(place, name), "wb") as file:
        file.write(name)
    script = "import os; n = os.fsencode(os.environ['N']); d = open(os.path.join(n, n), 'rb').read(); open(n + b'2', 'wb').write(d)"
    done = qwex.batch("--env", b"N=" + name, sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    home = os.path.join(os.fsencode(qwex.directory), b"qwex-runs", qwex.runs()[0]["id"].encode())
    with open(os.path.join(home, name + b"2"), "rb") as file:
        assert file.read() == name


def test_a_sparse_file_of_five_gigabytes(qwex: Qwex) -> None:
    with (qwex.directory / "sparse").open("wb") as file:
        file.seek(3 << 30)
        file.write(b"in the middle")
        file.truncate(5 << 30)
    script = "f = open('sparse', 'rb+'); f.seek(3 << 30); print(f.read(13)); f.seek(0, 2); print(f.tell())"
    done = qwex.batch(sys.executable, "-c", script)
    assert done.stdout == b"b'in the middle'\n%d\n" % (5 << 30), done.stderr
    used = sum(path.lstat().st_blocks * 512 for path in Path(os.environ["HOME"]).rglob("*"))
    assert used < 1 << 30


@pytest.mark.slow
def test_a_hundred_thousand_files(qwex: Qwex) -> None:
    for number in range(100):
        folder = qwex.directory / f"folder{number}"
        folder.mkdir()
        for inner in range(1000):
            (folder / f"f{inner}").touch()
    done = qwex.batch("sh", "-c", "find . -type f | wc -l; echo 1 > folder7/f7")
    assert done.stdout.strip() == b"100000", done.stderr
    assert (qwex.directory / "qwex-runs" / qwex.runs()[0]["id"] / "folder7/f7").read_text() == "1\n"


def test_edits_after_submission_do_not_reach_the_job(qwex: Qwex) -> None:
    (qwex.directory / "code").write_text("old")
    blocker = qwex.start("batch", "--on", qwex.place, "--cpus", str(os.cpu_count()), "sh", "-c", "echo go; sleep 2")
    assert blocker.stdout is not None
    assert blocker.stdout.readline() == b"go\n"
    assert qwex.batch("--detach", "--cpus", str(os.cpu_count()), "cat", "code").returncode == 0
    (qwex.directory / "code").write_text("new")
    run = qwex.runs()[-1]["id"]
    assert qwex("wait", run).returncode == 0
    assert qwex("logs", run).stdout == b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_that_cannot_be_read_are_named(qwex: Qwex) -> None:
    (qwex.directory / "closed").touch(mode=0)
    done = qwex.batch("true")
    assert done.returncode == 1
    assert b"closed" in done.stderr
    assert b"hint:" in done.stderr
    assert b"Traceback" not in done.stderr
