"""The command line against a real SSH server: every way there and back, and every way to break it.

After each: no run lost or doubled, no process left, no half file, one clear message.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import (
    Qwex,
    alive,
    end,
    ended,
    eventually,
    know,
    name_host,
    needs_root,
    one_message,
    processes,
    small_disk,
)
from tests.sshd import Server

pytestmark = pytest.mark.ssh
SEED = 41_000
LINES = 300
TALKER = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; echo err $i >&2; i=$((i + 1)); sleep 0.01; done"
SAID = b"".join(b"line %d\n" % number for number in range(LINES))


@pytest.fixture
def place(far: Path) -> str:
    """All runs go over SSH."""
    return far.name


def quiet(qwex: Qwex, far: Path) -> list[dict[str, Any]]:
    """The runs, all of which have ended and left neither processes nor anything half done, here or there."""
    runs = ended(qwex)
    eventually(lambda: not processes(far / "bin"))
    assert [run["id"] for run in runs if alive(run["id"])] == []
    for folder in ("active", "queue", "retry", "open", "tmp"):
        assert list((far / folder).glob("*")) == []
    assert not (far / "lock").exists()
    assert {path.name for path in (far / "runs").glob("*")} <= {run["id"] for run in runs}
    assert list(qwex.directory.rglob(".*-*")) == []
    return runs


def reached(process: subprocess.Popen[bytes], check: Callable[[], object]) -> None:
    """Return as soon as ``check`` is true; fails when the process ends before that."""
    deadline = time.monotonic() + 60
    while not check():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def fill(directory: Path, count: int = 300, size: int = 20_000) -> None:
    """Files that do not compress, so that sending them takes a moment."""
    chance = random.Random(SEED)
    for number in range(count):
        (directory / f"file{number}").write_bytes(chance.randbytes(size))


def said_so_far(file: Path, lines: int) -> bool:
    return file.read_bytes().count(b"\n") >= lines


# What is to be seen at the far side (or, for results, in the project) when a run has come so far.
POINTS = {
    "connected": "bin/*.sh",
    "uploading": "tmp/tree.*",
    "sent": "trees/*",
    "taken up": "runs/*/key",
    "started": "runs/*/0.1/started",
    "speaking": "runs/*/0.1/exit",
    "ended": "runs/*/final",
    "results": ".*-*",
}


def at(point: str, far: Path, project: Path) -> bool:
    folder = project / "qwex-runs" if point == "results" else far
    return any(folder.glob(POINTS[point]))


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_the_client_is_killed(qwex: Qwex, far: Path, tmp_path: Path, point: str) -> None:
    fill(qwex.directory)
    starts = tmp_path / "starts"
    script = f"echo once >>'{starts}'; echo out; for i in 0 1 2 3 4 5 6 7 8 9; do cp file1$i made$i; done"
    client = qwex.start("batch", "--on", qwex.place, "sh", "-c", script, stdout=subprocess.DEVNULL)
    reached(client, lambda: at(point, far, qwex.directory))
    client.kill()
    client.communicate()
    assert client.returncode == -signal.SIGKILL
    runs = ended(qwex)
    ran = starts.read_text().split() if starts.exists() else []
    if runs and runs[0]["state"] == "succeeded":
        assert ran == ["once"]
        assert qwex("logs", runs[0]["id"]).stdout == b"out\n"
        assert qwex("pull", runs[0]["id"]).returncode == 0
        home = qwex.directory / "qwex-runs" / runs[0]["id"]
        for number in range(10):
            assert (home / f"made{number}").read_bytes() == (qwex.directory / f"file1{number}").read_bytes()
        assert len(list(home.iterdir())) == 10
    else:
        assert ran == []
        assert point in {"connected", "uploading", "sent"}
        assert not runs or runs[0]["reason"] == "submission-failed", runs
    assert len(runs) <= 1
    assert qwex.batch("true").returncode == 0
    quiet(qwex, far)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_the_connection_is_cut(qwex: Qwex, far: Path, server: Server, tmp_path: Path, point: str) -> None:
    """The client comes back by itself, and every byte once."""
    fill(qwex.directory)
    starts = tmp_path / "starts"
    script = f"echo once >>'{starts}'; {TALKER}; cat file1* >made"
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        client = qwex.start("batch", "--on", qwex.place, "sh", "-c", script, stdout=out, stderr=err)
        reached(client, lambda: at(point, far, qwex.directory))
        server.cut()
        client.wait(timeout=120)
    said = (tmp_path / "err").read_text()
    assert client.returncode == 0, said
    assert "Traceback" not in said
    assert (tmp_path / "out").read_bytes() == SAID
    assert [line for line in said.splitlines() if line.startswith("err ")] == [f"err {n}" for n in range(LINES)]
    assert starts.read_text().split() == ["once"]
    (run,) = quiet(qwex, far)
    made = (qwex.directory / "qwex-runs" / run["id"] / "made").read_bytes()
    assert made == b"".join(path.read_bytes() for path in sorted(qwex.directory.glob("file1*")))


@pytest.mark.slow
def test_the_connection_is_cut_again_and_again(qwex: Qwex, far: Path, server: Server, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        client = qwex.start("batch", "--on", qwex.place, "sh", "-c", TALKER, stdout=out, stderr=err)
        for lines in sorted(chance.sample(range(LINES - 50), 4)):
            reached(client, partial(said_so_far, tmp_path / "out", lines))
            assert server.cut() > 0
        client.wait(timeout=120)
    assert client.returncode == 0, (tmp_path / "err").read_text()
    assert (tmp_path / "out").read_bytes() == SAID
    quiet(qwex, far)


def test_the_server_is_stopped_and_started_again(qwex: Qwex, far: Path, server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo before; while [ ! -e '{go}' ]; do sleep 0.05; done; echo after; echo made >made"
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        client = qwex.start("batch", "--on", qwex.place, "sh", "-c", script, stdout=out, stderr=err)
        reached(client, lambda: (tmp_path / "out").read_bytes() == b"before\n")
        sessions = server.sessions()
        server.stop()
        assert end(sessions) > 0
        reached(client, lambda: "tried again" in (tmp_path / "err").read_text())
        go.touch()
        listed = qwex("list", "--json")
        assert listed.returncode == 0
        assert json.loads(listed.stdout)[0]["reason"] == "host-unreachable"
        server.start()
        client.wait(timeout=120)
    said = (tmp_path / "err").read_text()
    assert client.returncode == 0, said
    assert (tmp_path / "out").read_bytes() == b"before\nafter\n"
    assert "connected to far again" in said
    (run,) = quiet(qwex, far)
    assert (qwex.directory / "qwex-runs" / run["id"] / "made").read_text() == "made\n"


def test_a_client_that_follows_is_killed_and_another_goes_on(qwex: Qwex, far: Path) -> None:
    assert qwex.batch("--detach", "sh", "-c", TALKER).returncode == 0
    (run,) = qwex.runs()
    client = qwex.start("logs", "--follow", run["id"])
    assert client.stdout is not None
    assert client.stdout.readline() == b"line 0\n"
    client.kill()
    assert qwex("logs", "--follow", run["id"]).stdout == SAID
    quiet(qwex, far)


def come(folder: Path) -> int:
    """How many of the files r0, r1, … are below a folder in which things come and go."""
    return sum(name.startswith("r") and name[1:].isdigit() for _, _, names in os.walk(folder) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_pull_is_killed(qwex: Qwex, far: Path, seed: int) -> None:
    """What has come home is whole, and the next pull brings the rest and clears up."""
    script = "i=0; while [ $i -lt 400 ]; do head -c 50000 /dev/urandom >r$i; i=$((i + 1)); done; sha256sum r* >/tmp/$1; mv /tmp/$1 sums"
    assert qwex.batch("--detach", "sh", "-c", script, "x", f"sums-{os.getpid()}").returncode == 0
    (run,) = ended(qwex)
    home = qwex.directory / "qwex-runs" / run["id"]
    client = qwex.start("pull", run["id"])
    reached(client, lambda: any((qwex.directory / "qwex-runs").glob(".*-*")))
    files = random.Random(SEED + seed).randrange(400)
    while client.poll() is None and come(qwex.directory / "qwex-runs") < files:
        time.sleep(0.001)
    client.kill()
    client.communicate()
    half = [path for path in home.glob("r*") if path.stat().st_size != 50000]
    assert half == []
    assert qwex("pull", run["id"]).returncode == 0
    subprocess.run(["sha256sum", "--quiet", "-c", "sums"], cwd=home, check=True)
    quiet(qwex, far)


def test_the_supervisor_over_there_is_killed(qwex: Qwex, far: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo ready; while [ ! -e '{go}' ]; do sleep 0.05; done; echo made >made; exit 7"
    client = qwex.start("batch", "--on", qwex.place, "sh", "-c", script)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    assert end([pid for pid in processes(far / "bin") if pid in processes(".sh _task")]) > 0
    go.touch()
    out, err = client.communicate(timeout=120)
    assert (client.returncode, out) == (7, b""), err
    (run,) = quiet(qwex, far)
    assert (qwex.directory / "qwex-runs" / run["id"] / "made").read_text() == "made\n"


def test_everything_of_a_job_is_killed(qwex: Qwex, far: Path) -> None:
    client = qwex.start("batch", "--on", qwex.place, "sh", "-c", "echo ready; exec sleep 600")
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    (run,) = qwex.runs()
    end([pid for pid in processes(far / "bin") if pid in [*processes(".sh _task"), *processes(".sh _job")]])
    end(alive(run["id"]))
    _, err = client.communicate(timeout=120)
    assert client.returncode in {1, 137}, err
    (run,) = quiet(qwex, far)
    assert (run["state"], run["reason"]) == ("lost", "worker-died")


def test_an_unknown_host_key(qwex: Qwex, home: Path, server: Server) -> None:
    (home / ".ssh/known_hosts").write_text("")
    one_message(qwex.batch("true"), "host key of 127.0.0.1", "is unknown", "SHA256:", "hint:")
    assert qwex.runs() == []


def test_a_changed_host_key(qwex: Qwex, home: Path, server: Server) -> None:
    words = server.known.split()
    (home / ".ssh/known_hosts").write_text(f"{words[0]} {server.key.with_suffix('.pub').read_text()}")
    said = one_message(qwex.batch("true"), "host key of 127.0.0.1", "has changed", "line 1", "hint:")
    assert str(home / ".ssh/known_hosts") in said
    assert qwex.runs() == []


def test_a_refused_key(qwex: Qwex, home: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    (home / ".ssh/id_ed25519").write_bytes((tmp_path / "other").read_bytes())
    one_message(qwex.batch("true"), "refuses to let you in", str(home / ".ssh/id_ed25519"), "hint:")
    assert qwex.runs() == []


def test_an_unknown_machine(qwex: Qwex) -> None:
    one_message(qwex("batch", "--on", "me@no-such-machine.invalid", "true"), "no-such-machine.invalid", "hint:")
    assert qwex.runs() == []


def test_nobody_listens(qwex: Qwex, server: Server) -> None:
    server.stop()
    one_message(qwex.batch("true"), f"127.0.0.1:{server.port}", "connection refused", "hint:")
    assert qwex.runs() == []


def test_an_unknown_place_lists_the_known(qwex: Qwex) -> None:
    one_message(qwex("batch", "--on", "fra", "true"), "'fra'", "did you mean 'far'?", "local, far", code=2)
    assert qwex.runs() == []


@pytest.mark.parametrize("command", ["/usr/sbin/nologin", "/bin/false", "internal-sftp"])
def test_an_account_without_a_shell(qwex: Qwex, home: Path, server: Server, tmp_path: Path, command: str) -> None:
    with Server(tmp_path / "other", extra=f"ForceCommand {command}\n") as other:
        know(other, home)
        name_host(home, "shut", other, tmp_path / "never")
        one_message(qwex("batch", "--on", "shut", "true"), f"127.0.0.1:{other.port}", "shell", "hint:")
    assert not (tmp_path / "never").exists()
    assert [run["reason"] for run in qwex.runs()] in ([], ["submission-failed"])


@pytest.mark.root
@needs_root
def test_a_read_only_far_side(qwex: Qwex, far: Path) -> None:
    with small_disk(far, "4m", "ro"):
        one_message(qwex.batch("true"), "does not let Qwex write", "Read-only", "hint:")
    assert [run["reason"] for run in qwex.runs()] in ([], ["submission-failed"])
    assert qwex.batch("echo", "now").stdout == b"now\n"
    ended(qwex)


@pytest.mark.root
@needs_root
def test_a_full_far_side(qwex: Qwex, far: Path, tmp_path: Path) -> None:
    """At submission it is an error; a job that runs is told by its write, and its end waits for room."""
    err = tmp_path / "err"
    fill(qwex.directory, 100, 40_000)
    with small_disk(far, "3m"):
        one_message(qwex.batch("true"), "the disk of 127.0.0.1", "is full", "hint:")
        assert list((far / "trees").glob("*")) == []
        eventually(lambda: list((far / "tmp").glob("*")) == [])
        subprocess.run(["mount", "-o", "remount,size=16m", str(far)], check=True)
        before = len(qwex.runs())
        with err.open("wb") as out:
            client = qwex.start(
                "batch", "--on", "far", "sh", "-c", "yes; exit 7", stdout=subprocess.DEVNULL, stderr=out
            )
            reached(client, lambda: "is full" in err.read_text())
            assert qwex.runs()[before]["state"] == "running"
            subprocess.run(["mount", "-o", "remount,size=64m", str(far)], check=True)
            client.wait(timeout=120)
        assert client.returncode == 7, err.read_text()
        assert "Traceback" not in err.read_text()
        done = qwex.batch("sh", "-c", "echo made >made")
        assert done.returncode == 0, done.stderr
        ended(qwex)
        eventually(lambda: not processes(far / "bin"))


def test_hosts_are_added_checked_and_removed_without_a_trace(qwex: Qwex, home: Path, server: Server) -> None:
    directory = home / "elsewhere/qwex"
    done = qwex("host", "add", "box", server.place, "--directory", str(directory), "--slots", "3")
    assert done.returncode == 0, done.stderr
    hosts = {one["name"]: one for one in qwex.json("host", "list")}
    assert hosts["box"]["slots"] == 3
    assert hosts["box"]["directory"] == str(directory)
    (checked,) = qwex.json("host", "check", "box")
    assert (checked["answers"], checked["cpus"]) == (True, 3)
    (qwex.directory / "in").write_text("in")
    assert qwex("batch", "--on", "box", "sh", "-c", "cat in >out").returncode == 0
    assert qwex("batch", "--on", "box", "--detach", "sleep", "600").returncode == 0
    run = eventually(lambda: [run for run in qwex.runs() if run["state"] == "running"])[0]
    refused = qwex("host", "remove", "box", "--purge")
    one_message(refused, run["id"], code=2)
    done = qwex("host", "remove", "box", "--purge", "--yes")
    assert done.returncode == 0, done.stderr
    assert not directory.exists()
    eventually(lambda: alive(run["id"]) == [] and not processes(directory))
    assert "box" not in {one["name"] for one in qwex.json("host", "list")}


def test_a_directory_with_other_files_is_left_alone(qwex: Qwex, home: Path, server: Server) -> None:
    directory = home / "thesis"
    (directory / "runs").mkdir(parents=True)
    (directory / "runs/data").write_text("years of work")
    (directory / "text").write_text("more of it")
    one_message(qwex("host", "add", "box", server.place, "--directory", str(directory)), "holds other files", "text")
    assert (directory / "runs/data").read_text() == "years of work"


@pytest.mark.slow
def test_fifty_at_once(qwex: Qwex, far: Path, tmp_path: Path) -> None:
    """Every one of them runs, once, with its own output."""
    (qwex.directory / "in").write_text("in")
    starts = tmp_path / "starts"
    starts.mkdir()
    clients = [
        qwex.start("batch", "--on", qwex.place, "sh", "-c", f"echo x >>'{starts}/{number}'; cat in; echo {number}")
        for number in range(50)
    ]
    for number, client in enumerate(clients):
        out, err = client.communicate(timeout=300)
        assert (client.returncode, out) == (0, b"in%d\n" % number), err
    assert sorted(int(path.name) for path in starts.iterdir()) == list(range(50))
    assert {path.read_text() for path in starts.iterdir()} == {"x\n"}
    runs = quiet(qwex, far)
    assert len(runs) == 50
    assert {run["state"] for run in runs} == {"succeeded"}


def test_a_tree_that_changes_its_shape(qwex: Qwex) -> None:
    """Each time only the difference is sent; what arrives is the whole."""
    root, chance = qwex.directory, random.Random(SEED)
    data = chance.randbytes(5000)

    def as_there() -> bytes:
        ours = "! -name . ! -path './.git*' ! -path './qwex-runs*'"
        listing = (
            f"find . {ours} | sort; find . -type f {ours} -exec cksum {{}} + | sort; find . -type f {ours} -perm -100"
        )
        here = subprocess.run(["sh", "-c", listing], cwd=root, capture_output=True, check=True)
        done = qwex.batch("sh", "-c", listing)
        assert done.returncode == 0, done.stderr
        assert done.stdout == here.stdout
        return done.stderr

    (root / "kept").write_bytes(data)
    (root / "a").write_bytes(data[:3000])
    as_there()
    (root / "a").unlink()
    (root / "a").mkdir()
    (root / "a/b").write_text("x")
    (root / "moved").mkdir()
    (root / "kept").rename(root / "moved/kept")
    assert b"1 B new" in as_there()
    (root / "a/b").unlink()
    (root / "a").rmdir()
    (root / "a").symlink_to("moved")
    (root / "copy").mkdir()
    (root / "copy/kept").write_bytes(data)
    (root / "copy/kept").chmod(0o755)
    assert b"nothing new" in as_there()
    (root / "a").unlink()
    (root / "a").mkdir()
    as_there()
    (root / "a" / ("n" * 200)).mkdir()
    (root / "a" / ("n" * 200) / ("m" * 200)).write_bytes(data)
    assert b"nothing new" in as_there()


def test_odd_names_go_out_and_come_home(qwex: Qwex) -> None:
    names = [b"a\nb", b"\xff\xfe", b"-rf", b" x ", b"'\"$`", "é✓".encode(), b"*", b"\\", b"n" * 200, b"\n", b"x\n\n"]
    for name in names:
        folder = os.path.join(os.fsencode(qwex.directory), name)
        os.mkdir(folder)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(name)
        os.symlink(name, os.path.join(folder, b"link"))
    script = """
import os, sys
for n in map(os.fsencode, sys.argv[1:]):
    d = open(os.path.join(n, b"link"), "rb").read()
    open(os.path.join(n, b"2" + n), "wb").write(d)
"""
    done = qwex.batch(sys.executable, "-c", script, *names)
    assert done.returncode == 0, done.stderr
    home = os.path.join(os.fsencode(qwex.directory), b"qwex-runs", qwex.runs()[0]["id"].encode())
    for name in names:
        with open(os.path.join(home, name, b"2" + name), "rb") as file:
            assert file.read() == name
        assert os.listdir(os.path.join(home, name)) == [b"2" + name]


@pytest.mark.slow
def test_ten_thousand_files_are_sent_once(qwex: Qwex, far: Path) -> None:
    for number in range(100):
        folder = qwex.directory / f"folder{number}"
        folder.mkdir()
        for inner in range(100):
            (folder / f"f{inner}").write_text(f"{number} {inner}")
    for expected in (b"10000 files", b"nothing new"):
        done = qwex.batch("sh", "-c", "find . -type f | wc -l; echo 1 >folder7/f7")
        assert done.stdout.strip() == b"10000", done.stderr
        assert expected in done.stderr.replace(b",", b"")
        run = qwex.runs()[-1]["id"]
        home = qwex.directory / "qwex-runs" / run
        assert [path.relative_to(home) for path in home.rglob("*") if path.is_file()] == [Path("folder7/f7")]
    assert len(list((far / "trees").iterdir())) == 1
    quiet(qwex, far)


@pytest.mark.slow
def test_a_job_that_will_not_end(qwex: Qwex, far: Path) -> None:
    client = qwex.start(
        "batch", "--on", qwex.place, "--time", "1s", "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"
    )
    out, err = client.communicate(timeout=120)
    assert (client.returncode, out) == (124, b"deaf\n"), err
    (run,) = quiet(qwex, far)
    assert (run["state"], run["reason"]) == ("failed", "time-limit")


def test_a_job_that_leaves_daemons(qwex: Qwex, far: Path) -> None:
    done = qwex.batch("sh", "-c", "sleep 600 & (setsid sleep 601 >/dev/null 2>&1 &) ; echo out")
    assert (done.returncode, done.stdout) == (0, b"out\n"), done.stderr
    quiet(qwex, far)


def test_a_job_that_deletes_its_own_directory(qwex: Qwex, far: Path) -> None:
    (qwex.directory / "kept").write_text("here")
    done = qwex.batch("sh", "-c", 'd=$(pwd -P); cd /; rm -rf "$d"; echo gone')
    assert (done.returncode, done.stdout) == (0, b"gone\n"), done.stderr
    assert (qwex.directory / "kept").read_text() == "here"
    assert qwex.batch("cat", "kept").stdout == b"here"
    quiet(qwex, far)


def test_a_conversation_through_stdin(qwex: Qwex, far: Path) -> None:
    client = qwex.start(
        "batch",
        "--on",
        qwex.place,
        "sh",
        "-c",
        'while read -r l; do echo "<$l>"; done; echo end',
        stdin=subprocess.PIPE,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    for line in (b"one", b"two"):
        client.stdin.write(line + b"\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"<" + line + b">\n"
    out, err = client.communicate(timeout=120)
    assert (client.returncode, out) == (0, b"end\n"), err
    quiet(qwex, far)


def test_arrays_dependencies_and_retries(qwex: Qwex, far: Path) -> None:
    (qwex.directory / "in").write_text("in")
    script = 'echo $QWEX_TASK_INDEX >index; [ "$QWEX_TASK_INDEX.$QWEX_ATTEMPT" != 2.1 ]'
    first = qwex.batch("--detach", "--array", "0-3%2", "--retries", "1", "sh", "-c", script).stdout.decode().strip()
    after = qwex.batch("--detach", "--after", first, "echo", "after").stdout.decode().strip()
    never = qwex.batch("--detach", "--after", f"{first}:fail", "echo", "never").stdout.decode().strip()
    assert qwex("wait", first, after).returncode == 0
    assert qwex("wait", never).returncode == 1
    by_id = {run["id"]: run for run in quiet(qwex, far)}
    assert (by_id[never]["state"], by_id[never]["reason"]) == ("cancelled", "dependency-failed")
    assert qwex("logs", after).stdout == b"after\n"
    assert qwex("pull", first).returncode == 0
    for index in range(4):
        assert (qwex.directory / "qwex-runs" / first / str(index) / "index").read_text() == f"{index}\n"
    tasks = {task["index"]: task["attempts"] for task in qwex.json("status", first)["tasks"]}
    assert [len(tasks[index]) for index in range(4)] == [1, 1, 2, 1]


def test_suspend_resume_exec_and_cancel(qwex: Qwex, far: Path) -> None:
    script = "echo $$ >pid; while [ ! -e stop ]; do sleep 0.05; done; echo stopped"
    run = qwex.batch("--detach", "sh", "-c", script).stdout.decode().strip()
    eventually(lambda: qwex.runs()[0]["state"] == "running")
    eventually(lambda: qwex("exec", run, "cat", "pid").stdout.strip().isdigit())
    assert qwex("suspend", run).returncode == 0
    assert qwex.runs()[0]["state"] == "suspended"
    assert qwex("resume", run).returncode == 0
    assert qwex.runs()[0]["state"] == "running"
    done = qwex("exec", run, "sh", "-c", 'echo "$1"; echo e >&2; touch stop; exit 5', "x", "a b\n'c'")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"a b\n'c'\n", b"e\n")
    assert qwex("wait", run).returncode == 0
    assert qwex("logs", run).stdout == b"stopped\n"
    one_message(qwex("exec", run, "true"), "does not run")
    other = qwex.batch("--detach", "sleep", "600").stdout.decode().strip()
    eventually(lambda: qwex.runs()[-1]["state"] == "running")
    assert qwex("cancel", other).returncode == 0
    assert qwex("wait", other).returncode != 0
    assert quiet(qwex, far)[-1]["state"] == "cancelled"


def test_detached_followed_left_and_followed_again(qwex: Qwex, far: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo one; echo half >half; while [ ! -e '{go}' ]; do sleep 0.05; done; echo two; echo made >made"
    run = qwex.batch("--detach", "sh", "-c", script).stdout.decode().strip()
    client = qwex.start("logs", "--follow", "--resume", run)
    assert client.stdout is not None
    assert client.stdout.readline() == b"one\n"
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=120)
    assert client.returncode == 130
    go.touch()
    done = qwex("logs", "--follow", "--resume", run)
    assert (done.returncode, done.stdout) == (0, b"two\n"), done.stderr
    assert (qwex.directory / "qwex-runs" / run / "made").read_text() == "made\n"
    assert qwex("logs", run).stdout == b"one\ntwo\n"
    quiet(qwex, far)
