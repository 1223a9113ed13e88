"""What a job writes, reads and returns passes through as it is."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.e2e.conftest import Qwex, alive, eventually

PYTHON = sys.executable


@pytest.fixture(params=["local", pytest.param("far", marks=pytest.mark.ssh)])
def place(request: pytest.FixtureRequest) -> str:
    """Both kinds of place."""
    if request.param == "far":
        request.getfixturevalue("far")
    return str(request.param)


@pytest.mark.parametrize("code", [0, 1, 3, 77, 255])
def test_the_exit_code_is_the_jobs(qwex: Qwex, code: int) -> None:
    assert qwex.batch("sh", "-c", f"exit {code}").returncode == code


def test_a_signal_is_128_and_its_number(qwex: Qwex) -> None:
    assert qwex.batch("sh", "-c", "kill -9 $$").returncode == 137


def test_a_missing_command_is_127_and_one_without_permission_126(qwex: Qwex) -> None:
    (qwex.directory / "plain").write_text("x")
    missing = qwex.batch("no-such-command-anywhere")
    assert missing.returncode == 127
    assert b"no-such-command-anywhere" in missing.stderr
    assert qwex.batch("./plain").returncode == 126


def test_both_streams_come_apart_and_byte_for_byte(qwex: Qwex) -> None:
    script = "import os; os.write(1, bytes(range(256)) * 9); os.write(2, b'\\0\\xff no newline'); os.write(1, b'end')"
    done = qwex("-q", "batch", "--on", qwex.place, PYTHON, "-c", script)
    assert done.stdout == bytes(range(256)) * 9 + b"end"
    assert done.stderr == b"\0\xff no newline"


def test_a_line_of_ten_megabytes(qwex: Qwex) -> None:
    done = qwex.batch(PYTHON, "-c", "import sys; sys.stdout.write('x' * 10_000_000)")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(b"x" * 10_000_000).digest()


def test_piped_input_reaches_the_job(qwex: Qwex) -> None:
    data = os.urandom(3_000_000)
    done = qwex.batch("sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_input_that_the_job_does_not_read_ends_nothing(qwex: Qwex) -> None:
    assert qwex.batch("true", stdin=b"x" * 5_000_000).returncode == 0


def test_arguments_arrive_as_they_are(qwex: Qwex) -> None:
    arguments = ["", " ", "a b", "'", '"', "\\", "$HOME", "`id`", "*", "a\nb\n", "é✓", "-n", "--help", "--", "!x", "~"]
    words = [*map(os.fsencode, arguments), b"\xff\xfe", b"\n", b"x" * 100_000]
    script = "import os, sys; os.write(1, b'|'.join(os.fsencode(a) for a in sys.argv[1:]))"
    done = qwex("-q", "batch", "--on", qwex.place, PYTHON, "-c", script, *words)
    assert done.stdout == b"|".join(words)


def test_no_shell_unless_asked(qwex: Qwex) -> None:
    assert qwex.batch("echo", "$HOME;", "id").stdout == b"$HOME; id\n"
    assert qwex.batch("--shell", "echo a | tr a b").stdout == b"b\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_going_away_leaves_the_job_and_says_how_to_come_back(qwex: Qwex, number: signal.Signals, code: int) -> None:
    client = qwex.start("batch", "--on", qwex.place, "sh", "-c", "echo ready; cat; sleep 1; echo done > made")
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(number)
    out, err = client.communicate(timeout=120)
    assert client.returncode == code, err
    (run,) = qwex.runs()
    assert run["id"].encode() in err
    assert b"qwex logs --follow" in err
    assert qwex("wait", run["id"]).returncode == 0
    assert out + qwex("logs", "--resume", run["id"]).stdout == b""
    assert qwex("pull", run["id"]).returncode == 0
    assert (qwex.directory / "qwex-runs" / run["id"] / "made").read_text() == "done\n"


def test_an_interrupt_can_cancel(qwex: Qwex) -> None:
    client = qwex.start(
        "batch", "--on", qwex.place, "--on-interrupt", "cancel", "sh", "-c", "echo ready; exec sleep 600"
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=120)
    assert client.returncode == 130
    (run,) = qwex.runs()
    eventually(lambda: qwex.runs()[0]["state"] == "cancelled")
    assert alive(run["id"]) == []


def test_a_reader_that_leaves_early_is_no_error(qwex: Qwex) -> None:
    client = qwex.start("batch", "--on", qwex.place, "sh", "-c", "while :; do echo line; done")
    assert client.stdout is not None
    assert client.stdout.readline() == b"line\n"
    client.stdout.close()
    assert client.stderr is not None
    err = client.stderr.read()
    client.wait(timeout=120)
    assert b"Traceback" not in err
    (run,) = qwex.runs()
    qwex("cancel", run["id"])
    eventually(lambda: qwex.runs()[0]["state"] == "cancelled")


def test_a_file_made_by_the_job_comes_home_whatever_its_end(qwex: Qwex) -> None:
    (qwex.directory / "in.txt").write_text("1")
    for code in (0, 5):
        done = qwex.batch("sh", "-c", f"echo {code} > 'odd\nname'; echo more >> in.txt; mkdir -p a/b; exit {code}")
        assert done.returncode == code
        home = Path(qwex.directory, "qwex-runs", qwex.runs()[-1]["id"])
        assert (home / "odd\nname").read_text() == f"{code}\n"
        assert (home / "in.txt").read_text() == "1more\n"
        assert (home / "a/b").is_dir()
    assert (qwex.directory / "in.txt").read_text() == "1"
