"""Disks that are full or read-only, of the state and of the project: one clear error, nothing lost, and on again once there is room."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Qwex, alive, ended, eventually, needs_root, one_message, small_disk

pytestmark = [pytest.mark.root, needs_root]
MIB = 1 << 20


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state directory on a disk of 8 MiB. Its worker is ended with it."""
    disk = tmp_path / "small"
    monkeypatch.setenv("XDG_STATE_HOME", str(disk))
    with small_disk(disk, "8m", "mode=700"):
        yield disk
        pid = disk / "qwex/worker.pid"
        if pid.exists() and (text := pid.read_text().strip()).isdigit() and Path(f"/proc/{text}").exists():
            os.kill(int(text), signal.SIGTERM)
            eventually(lambda: not Path(f"/proc/{text}").exists())


@pytest.fixture
def filled(qwex: Qwex) -> Path:
    """A project of 12 MiB."""
    (qwex.directory / "big").write_bytes(random.Random(1).randbytes(12 * MIB))
    return qwex.directory


def test_no_room_at_submission(qwex: Qwex, filled: Path, state: Path) -> None:
    said = one_message(qwex.batch("true"), "hint:")
    assert "space" in said.lower()
    assert [run["state"] for run in ended(qwex)] in ([], ["failed"])
    assert list(state.rglob("*.tmp*")) == []
    resize(state, "64m")
    done = qwex.batch("sh", "-c", "cksum <big; echo made >made")
    assert done.returncode == 0, done.stderr
    assert done.stdout == subprocess.run(["cksum"], input=(filled / "big").read_bytes(), capture_output=True).stdout
    assert (filled / "qwex-runs" / qwex.runs()[-1]["id"] / "made").read_text() == "made\n"


def test_no_room_for_output(qwex: Qwex, state: Path, tmp_path: Path) -> None:
    """The job is told by its write; how it ended is known, at once or once there is room."""
    err, starts = tmp_path / "err", tmp_path / "starts"
    assert qwex.batch("true").returncode == 0
    with err.open("wb") as out:
        client = qwex.start(
            "batch",
            "--on",
            "local",
            "sh",
            "-c",
            f"echo once >>'{starts}'; head -c {20 * MIB} /dev/zero; echo $? >'{tmp_path}/code'; exit 7",
            stdout=subprocess.DEVNULL,
            stderr=out,
        )
        eventually(lambda: (tmp_path / "code").exists())
        assert (tmp_path / "code").read_text() == "1\n"
        resize(state, "64m")
        client.wait(timeout=120)
    said = err.read_text()
    assert "Traceback" not in said
    assert client.returncode == 7, said
    run = ended(qwex)[-1]
    assert (run["state"], run["reason"], run["exit_code"]) == ("failed", "exit-code", 7)
    assert starts.read_text() == "once\n"
    assert alive(run["id"]) == []
    assert qwex.batch("echo", "on").stdout == b"on\n"


def test_no_room_for_results(qwex: Qwex, state: Path, tmp_path: Path) -> None:
    """The job is told by its write, like anywhere; what it could make is its result, recorded once there is room."""
    script = f"echo small >small; head -c {20 * MIB} /dev/zero >large; echo $? >'{tmp_path}/code'; exit 3"
    client = qwex.start("batch", "--on", qwex.place, "sh", "-c", script)
    eventually(lambda: (tmp_path / "code").exists())
    assert (tmp_path / "code").read_text() == "1\n"
    resize(state, "64m")
    _, err = client.communicate(timeout=120)
    assert client.returncode == 3, err
    assert b"Traceback" not in err
    (run,) = ended(qwex)
    assert (run["state"], run["exit_code"]) == ("failed", 3)
    assert qwex("pull", run["id"]).returncode == 0
    assert (qwex.directory / "qwex-runs" / run["id"] / "small").read_text() == "small\n"


def test_no_room_for_results_at_home(qwex: Qwex, tmp_path: Path) -> None:
    disk = tmp_path / "narrow"
    with small_disk(disk, "2m", "mode=700"):
        driver = Qwex(disk)
        done = driver.batch("sh", "-c", f"head -c {4 * MIB} /dev/urandom >made; cksum <made")
        assert done.returncode == 1
        assert done.stderr.count(b"error:") == 1
        assert b"did not come home" in done.stderr
        assert b"Traceback" not in done.stderr
        (run,) = ended(driver)
        assert run["state"] == "succeeded"
        assert [path for path in disk.rglob("*") if path.is_file() and path.name != ".gitignore"] == []
        again = driver("pull", run["id"])
        one_message(again, "hint:")
        elsewhere = driver("pull", run["id"], "--to", str(tmp_path / "elsewhere"))
        assert elsewhere.returncode == 0, elsewhere.stderr
        resize(disk, "16m")
        assert driver("pull", run["id"]).returncode == 0
        for home in (disk / "qwex-runs" / run["id"], tmp_path / "elsewhere"):
            data = (home / "made").read_bytes()
            assert subprocess.run(["cksum"], input=data, capture_output=True).stdout == done.stdout


def test_a_state_directory_that_cannot_be_written(qwex: Qwex, state: Path) -> None:
    assert qwex.batch("echo", "before").returncode == 0
    run = qwex.runs()[0]["id"]
    pid = int((state / "qwex/worker.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
    one_message(qwex.batch("true"), str(state / "qwex"), "hint:")
    listed = qwex("list")
    assert b"Traceback" not in listed.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(state)], check=True)
    assert [one["id"] for one in qwex.runs()] == [run]
    assert qwex.batch("echo", "after").stdout == b"after\n"


def test_a_project_that_cannot_be_written(qwex: Qwex, tmp_path: Path) -> None:
    disk = tmp_path / "fixed"
    with small_disk(disk, "2m", "mode=700"):
        (disk / "in").write_text("in\n")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        driver = Qwex(disk)
        assert driver.batch("cat", "in").stdout == b"in\n"
        done = driver.batch("sh", "-c", "echo made >made; echo out")
        assert (done.returncode, done.stdout) == (1, b"out\n")
        assert done.stderr.count(b"error:") == 1
        assert b"did not come home" in done.stderr
        run = ended(driver)[-1]
        assert run["state"] == "succeeded"
        elsewhere = driver("pull", run["id"], "--to", str(tmp_path / "elsewhere"))
        assert elsewhere.returncode == 0, elsewhere.stderr
        assert (tmp_path / "elsewhere/made").read_text() == "made\n"
