"""What jobs, disks, clocks and users do to the local place."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.ground import silent
from tests.unit.local.conftest import Local, alive, opened, poll

from qwex.backends.base import Handle, Submission
from qwex.backends.local.layout import socket_path
from qwex.config import Paths
from qwex.errors import BackendError, StoreError, UsageError
from qwex.model.jobs import Dependency, Resources, parse_array
from qwex.model.runs import Observation
from qwex.model.states import Reason, State
from qwex.store import RunStore
from qwex.workspace.scan import scan
from qwex.workspace.snapshot import identify, keep


async def test_daemons_that_left_the_session_are_ended(local: Local, tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux hands orphans to the worker")
    file = tmp_path / "daemon"
    code = f"""
import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
with open({str(file)!r}, "w") as out: out.write(f"{{os.getpid()}}\\n")
time.sleep(60)
"""
    other = await local.script("echo ready; sleep 60")
    await local.first_line(other)
    run = await local.start(
        "sh", "-c", 'python3 -c "$1"; while ! test -s "$2"; do sleep 0.02; done', "sh", code, str(file)
    )
    await local.end(run)
    poll(lambda: not alive(int(file.read_text())), "the daemon survives")
    assert (await local.backend.observe(other))[next(iter(other))].state is State.RUNNING, "others are left alone"


async def test_a_job_that_deletes_its_directory(local: Local) -> None:
    run = await local.script('rm -rf "$PWD"; echo gone; exit 3')
    assert (await local.end(run)).exit_code == 3
    assert (await local.output(run)).out == b"gone\n"


async def test_a_job_that_locks_its_directory(local: Local) -> None:
    run = await local.script("mkdir -p a/b; echo x >a/b/c; chmod 0 a/b a .; exit 0")
    end = await local.end(run)
    assert end.exit_code == 0
    assert not local.file(next(iter(run)), "0.1.work").exists()


async def test_variables_that_are_no_names_for_a_shell(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASH_FUNC_greet%%", "() { echo hello; }")
    monkeypatch.setenv("my.token", "a b")
    run = await local.start(
        sys.executable, "-c", "import os; print(os.environ['my.token'], 'BASH_FUNC_greet%%' in os.environ)"
    )
    assert (await local.output(run)).out == b"a b True\n"


async def test_secrets_leave_no_trace(local: Local) -> None:
    run = await local.script("echo ready; sleep 60", secrets={"TOKEN": "s3cr3t-value"})
    await local.first_line(run)
    run_id = next(iter(run))
    assert local.file(run_id, "env").stat().st_mode & 0o777 == 0o600
    assert b"s3cr3t-value" in local.file(run_id, "env").read_bytes()
    await local.backend.cancel(run)
    await local.end(run)
    poll(lambda: not local.file(run_id, "env").exists(), "the environment stays")
    kept = [path for path in local.state.rglob("*") if path.is_file() and b"s3cr3t-value" in path.read_bytes()]
    assert kept == []


async def test_what_never_fits(local: Local) -> None:
    run = await local.start("true", resources=Resources(cpus=3))
    end = await local.end(run)
    assert (end.state, end.reason) == (State.FAILED, Reason.NEVER_FITS)
    assert "3 CPUs" in end.detail
    able = await local.backend.capabilities()
    assert able.cpus == 2


async def test_no_more_at_a_time_than_there_are_cpus(local: Local, tmp_path: Path) -> None:
    (tmp_path / "running").mkdir()
    script = f"cd {tmp_path}/running; : >$QWEX_TASK_INDEX; ls | wc -l; sleep 0.02; rm $QWEX_TASK_INDEX"
    run = await local.script(script, array=parse_array("0-9"))
    await local.end(run)
    assert max(map(int, (await local.output(run)).out.split())) <= 2


async def test_priority_then_age(local: Local, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    blocker = await local.script("echo ready; sleep 60", resources=Resources(cpus=2))
    await local.first_line(blocker)
    runs: dict[str, Handle] = {}
    for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        runs |= await local.script(f"echo {name} >>{lines}", priority=priority, resources=Resources(cpus=2))
    last = await local.backend.why(runs[list(runs)[2]])
    assert "2 more CPUs; 3 tasks stand before it" in last[0]
    assert next(iter(blocker)) in last[1]
    await local.backend.cancel(blocker)
    async for _ in local.backend.watch(runs):
        continue
    assert lines.read_text().split() == ["b", "d", "a", "c"]


async def test_waiting_for_a_run_that_is_not_here(local: Local) -> None:
    elsewhere = local.store.add([(local.record("true")[1], "gpu1", "me")], time.time())[0]
    entry = local.record("true", after=(Dependency(elsewhere.id),))
    with pytest.raises(UsageError, match=elsewhere.id):
        await local.backend.submit([Submission(*entry)], silent)
    assert not local.file(entry[0], "env").exists()


async def test_damaged_records_are_kept_aside_and_jobs_ended(local: Local, project: Path) -> None:
    run = await local.script("echo ready; sleep 60")
    await local.first_line(run)
    shell = int(local.file(next(iter(run)), "0.1.shell").read_text())
    worker = local.worker
    for name in ("runs.db-wal", "runs.db-shm"):
        (local.state / name).unlink()
    (local.state / "runs.db").write_bytes(b"this is no database" * 1000)
    async with opened(project) as again:
        assert "kept as" in again.said[0]
        (kept,) = local.state.glob("runs.db.corrupt-*")
        assert str(kept) in again.said[0]
        fresh = await again.start("echo", "works")
        assert (await again.output(fresh)).out == b"works\n"
        poll(lambda: not alive(shell), "a job that no record knows goes on")
        assert again.worker != worker


def test_newer_records_are_left_alone(tmp_path: Path) -> None:
    import sqlite3

    RunStore.open(tmp_path / "runs.db").close()
    with sqlite3.connect(tmp_path / "runs.db") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(StoreError, match="newer Qwex"):
        RunStore.open(tmp_path / "runs.db")


async def test_leaving_when_idle_loses_nobody(project: Path, tmp_path: Path) -> None:
    """Submissions fall on a worker that leaves the moment it has nothing to do."""
    async with opened(project, cpus=2, idle="0.001s") as local:
        workers = set()
        for number in range(25):
            if number % 5 == 4:
                poll(lambda: local.worker is None, "the worker stays")
            run = await local.start("true")
            end = await asyncio.wait_for(local.end(run), 20)
            assert end.state is State.SUCCEEDED
            workers.add((local.state / "worker.log").read_text().count("starts"))
        assert len(workers) > 1, "no worker has left"
        poll(lambda: local.worker is None, "the worker stays")
        assert not socket_path(local.state).exists()


async def test_an_idle_worker_leaves_nothing(project: Path) -> None:
    async with opened(project, idle="0.05s") as local:
        run = await local.start("true")
        await local.end(run)
        poll(lambda: local.worker is None, "the worker stays")
        names = {path.name for path in local.state.iterdir()}
        assert not names & {"worker.pid", "worker.sock"}
        assert sorted(path.name for path in local.file(next(iter(run)), "").iterdir()) == [
            "0.1.err",
            "0.1.out",
            "0.1.shell",
        ]
        assert (local.state / "worker.log").stat().st_size < 1000


async def test_a_state_directory_with_a_long_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("long" * 40)))
    async with opened(project, idle="0.05s") as local:
        assert len(str(socket_path(local.state))) < 100
        run = await local.start("echo", "hi")
        assert (await local.output(run)).out == b"hi\n"
        poll(lambda: local.worker is None, "the worker stays")


_SUBMIT = """
import asyncio, os, sys, time
from pathlib import Path
from qwex.backends.base import Submission
from qwex.backends.registry import open_backend
from qwex.config import Paths, load
from qwex.model.jobs import JobSpec
from qwex.model.places import Place
from qwex.store import RunStore
from qwex.workspace.scan import scan
from qwex.workspace.snapshot import identify, keep

async def main(number):
    paths = Paths.from_environment()
    store = RunStore.open(paths.state / "runs.db")
    async with open_backend(Place("local"), paths, load(Path("/")), print, lambda question: False) as backend:
        spec = JobSpec(("sh", "-c", f"echo {number} >>{sys.argv[2]}"))
        run = store.add([(spec, "local", "me")], time.time())[0]
        handles = await backend.submit([Submission(run.id, spec)], lambda *_: None)
        async for _ in backend.watch(handles):
            continue

children = []
for number in range(int(sys.argv[1])):
    if not (child := os.fork()):
        asyncio.run(main(number))
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.mark.slow
async def test_two_hundred_at_once(local: Local, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    assert subprocess.run([sys.executable, "-c", _SUBMIT, "200", str(lines)]).returncode == 0
    assert sorted(map(int, lines.read_text().split())) == list(range(200))
    assert len(local.store.list(states=[State.SUCCEEDED], limit=None)) == 200
    assert (local.state / "worker.log").read_text().count(" starts") == 1


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two megabytes for the state."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("needs root and Linux: a small tmpfs is mounted")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def fill_up(local: Local) -> None:
    while True:
        await local.start("true", "x" * 20000)


@pytest.mark.root
async def test_a_full_disk(small_disk: Path, project: Path) -> None:
    async with opened(project, idle="0.05s") as local:
        run = await local.script("head -c 8000000 /dev/zero; echo never seen >&2; exit 0")
        end = await asyncio.wait_for(local.until(run, lambda one: one.state is not State.QUEUED), 20)
        hog = local.file(next(iter(run)), "0.1.out")
        if not end.state.final:
            poll(lambda: hog.stat().st_size > 100_000, "the job does not write")
        # As long as the disk is full nothing can be recorded, and the worker tries again.
        poll(lambda: os.statvfs(small_disk).f_bavail < 4, "the disk is not full")
        with pytest.raises((StoreError, BackendError)) as caught:
            await asyncio.wait_for(fill_up(local), 20)
        assert "space" in caught.value.message
        assert "free some disk space" in str(caught.value.hint)
        os.truncate(hog, 0)
        end = await asyncio.wait_for(local.end(run), 20)
        assert end.state.final
        poll(lambda: local.worker is None, "the worker stays")


async def test_the_clock_moved(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitted by a client whose clock is a day ahead, then by one whose clock is a day behind."""
    ends: list[Observation] = []
    real = time.time
    for shift in (86400.0, -86400.0):
        monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
        run = await local.script("test $QWEX_ATTEMPT = 2", retries=1)
        ends.append(await local.end(run))
    monkeypatch.undo()
    assert [end.state for end in ends] == [State.SUCCEEDED] * 2
    assert len({run.id for run in local.store.list()}) == 2
    newest = local.store.get("last")
    assert newest.last == ends[1], "what was submitted last is the newest, whatever the clock said"


async def test_ignored_paths_are_reached_through_links(local: Local, project: Path) -> None:
    (project / ".gitignore").write_text("data/\n")
    (project / "data").mkdir()
    (project / "data/big").write_text("big\n")
    (project / "main").write_text("main\n")
    looked = scan(project)
    source = keep(looked, identify(looked, Paths.from_environment()), Paths.from_environment())
    links = {b"data": bytes(project / "data")}
    entry = local.record("sh", "-c", "cat main data/big; test -L data", snapshot=source.tree.digest)
    run = await local.backend.submit([Submission(entry[0], entry[1], source, links)], silent)
    end = await local.end(run)
    assert (await local.output(run)).out == b"main\nbig\n"
    assert (end.exit_code, end.result_files) == (0, 0)


async def test_a_large_workspace_is_copied_beside_the_loop(local: Local, project: Path) -> None:
    for number in range(300):
        (project / f"file{number}").write_text(f"{number}\n")
    looked = scan(project)
    source = keep(looked, identify(looked, Paths.from_environment()), Paths.from_environment())
    entry = local.record("sh", "-c", "cat file* | wc -l; rm file1?; echo new >file7", snapshot=source.tree.digest)
    run = await local.backend.submit([Submission(entry[0], entry[1], source)], silent)
    end = await local.end(run)
    assert int((await local.output(run)).out) == 300
    assert (end.state, end.result_files, end.result_bytes) == (State.SUCCEEDED, 1, 4)
    assert not local.file(entry[0], "0.1.work").exists()


async def test_a_snapshot_that_is_gone(local: Local) -> None:
    run = await local.start("true", snapshot="0" * 64)
    end = await local.end(run)
    assert (end.state, end.reason) == (State.FAILED, Reason.WORKSPACE_FAILED)
    assert "no longer kept" in end.detail


async def test_suspended_and_cancelled_while_the_workspace_is_copied(local: Local, project: Path) -> None:
    for number in range(400):
        (project / f"file{number}").write_text(f"{number}\n")
    looked = scan(project)
    source = keep(looked, identify(looked, Paths.from_environment()), Paths.from_environment())
    entries = [local.record("sleep", "60", snapshot=source.tree.digest, grace=0.2) for _ in range(2)]
    runs = await local.backend.submit([Submission(entry[0], entry[1], source) for entry in entries], silent)
    await local.backend.suspend(runs)
    for run_id, handle in runs.items():
        await local.until({run_id: handle}, lambda one: one.state in (State.HELD, State.SUSPENDED))
    await local.backend.cancel(runs)
    for run_id, handle in runs.items():
        assert (await local.end({run_id: handle})).state is State.CANCELLED
