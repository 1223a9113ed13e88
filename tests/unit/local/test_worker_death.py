"""The worker dies at any moment: no run is lost, none is run twice, none stays "running"."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from pathlib import Path

import pytest
from tests.contract.ground import silent
from tests.unit.local.conftest import Local, alive, poll

from qwex.backends.base import Submission
from qwex.backends.local.attempts import trace
from qwex.backends.local.layout import AttemptFiles
from qwex.model.runs import Observation
from qwex.model.states import Reason, State


def until_file(go: Path) -> str:
    return f"echo ready; while ! test -e {go}; do sleep 0.02; done; "


async def test_a_running_job_is_taken_up_by_the_next_worker(local: Local, tmp_path: Path) -> None:
    run = await local.script(until_file(tmp_path / "go") + "echo done; exit 3")
    await local.first_line(run)
    local.kill_worker()
    seen = (await local.backend.observe(run))[next(iter(run))]
    assert seen.state is State.RUNNING
    assert local.worker is not None, "observing started another worker"
    (tmp_path / "go").touch()
    end = await local.end(run)
    assert (end.state, end.exit_code, len(end.tasks[0].attempts)) == (State.FAILED, 3, 1)
    assert (await local.output(run)).out == b"ready\ndone\n"


async def test_whoever_waits_notices_and_goes_on_waiting(local: Local, tmp_path: Path) -> None:
    run = await local.script(until_file(tmp_path / "go"))
    async for changed in local.backend.watch(run):
        one = changed[next(iter(run))]
        if one.state is State.RUNNING and not (tmp_path / "go").exists():
            local.kill_worker()
            (tmp_path / "go").touch()
    assert one.state is State.SUCCEEDED


async def test_a_job_that_ended_while_there_was_no_worker(local: Local, tmp_path: Path) -> None:
    run = await local.script(until_file(tmp_path / "go") + "exit 4")
    await local.first_line(run)
    local.kill_worker()
    (tmp_path / "go").touch()
    shell = local.file(next(iter(run)), "0.1.shell")
    poll(lambda: len(shell.read_text().split()) == 2, "the shell wrote down no exit code")
    assert (await local.backend.observe(run))[next(iter(run))].exit_code == 4


@pytest.mark.parametrize(("retries", "state"), [(0, State.LOST), (1, State.SUCCEEDED)])
async def test_worker_and_job_die_together(local: Local, retries: int, state: State) -> None:
    run = await local.script("echo ready; test $QWEX_ATTEMPT = 2 || sleep 60", retries=retries)
    await local.first_line(run)
    local.kill_worker()
    shell = int(local.file(next(iter(run)), "0.1.shell").read_text())
    os.killpg(shell, signal.SIGKILL)
    poll(lambda: not alive(shell), "the shell survives")
    end = await local.end(run)
    assert end.state is state
    first = end.tasks[0].attempts[0]
    assert (first.state, first.reason, first.exit_code) == (State.LOST, Reason.WORKER_DIED, None)


async def test_the_machine_was_restarted(local: Local) -> None:
    run = await local.script("echo ready; sleep 60")
    await local.first_line(run)
    local.kill_worker()
    shell = int(local.file(next(iter(run)), "0.1.shell").read_text())
    os.killpg(shell, signal.SIGKILL)
    poll(lambda: not alive(shell), "the shell survives")
    with sqlite3.connect(local.state / "runs.db") as db:
        db.execute("UPDATE facts SET value = 'another' WHERE name = 'boot'")
    db.close()
    assert (await local.end(run)).reason is Reason.HOST_RESTARTED


async def test_a_cancellation_outlives_the_worker(local: Local) -> None:
    run = await local.script("trap '' TERM; echo ready; while :; do sleep 0.05; done", grace=0.5)
    await local.first_line(run)
    await local.backend.cancel(run)
    local.kill_worker()
    end = await local.end(run)
    assert (end.state, end.reason) == (State.CANCELLED, Reason.CANCELLED_BY_USER)


async def test_a_time_limit_outlives_the_worker(local: Local) -> None:
    run = await local.script("echo ready; sleep 60", time_limit=0.5)
    await local.first_line(run)
    local.kill_worker()
    assert (await local.end(run)).reason is Reason.TIME_LIMIT


async def test_daemons_of_a_taken_up_job_are_ended(local: Local, tmp_path: Path) -> None:
    go, file = tmp_path / "go", tmp_path / "daemon"
    daemon = f"import os; os.fork() and os._exit(0); os.setsid(); open({str(file)!r}, 'w').write(f'{{os.getpid()}}\\n')"
    run = await local.script(
        f'python3 -c "{daemon}; import time; time.sleep(60)"; '
        f"while ! test -s {file}; do sleep 0.02; done; echo ready; while ! test -e {go}; do sleep 0.02; done"
    )
    await local.first_line(run)
    pid = int(file.read_text())
    local.kill_worker()
    await local.backend.observe(run)
    assert alive(pid)
    go.touch()
    await local.end(run)
    poll(lambda: not alive(pid), f"daemon {pid} survives")


@pytest.mark.parametrize("seed", range(3))
async def test_killed_again_and_again(local: Local, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lines = tmp_path / "lines"
    entries = [local.record("sh", "-c", f"sleep 0.0{number % 3}; echo {number} >>{lines}") for number in range(40)]
    runs = await local.backend.submit([Submission(*one) for one in entries], silent)
    last: dict[str, Observation] = {}
    kills = 0
    async for changed in local.backend.watch(runs):
        last.update(changed)
        if kills < 8 and chance.random() < 0.2 and local.worker is not None:
            local.kill_worker()
            kills += 1
    assert kills, "the test has killed nothing"
    assert {one.state for one in last.values()} == {State.SUCCEEDED}
    assert sorted(map(int, lines.read_text().split())) == list(range(40)), "every job ran exactly once"


def test_an_attempt_that_nobody_began_is_claimed(tmp_path: Path) -> None:
    files = AttemptFiles(str(tmp_path / "run/0.1"))
    assert not trace(files).begun
    (tmp_path / "run").mkdir()
    assert not trace(files).begun
    assert Path(files.shell).exists(), "its shell, should it come late, finds that it may not begin"


def test_pids_that_are_used_again_are_not_taken_for_jobs(tmp_path: Path) -> None:
    files = AttemptFiles(str(tmp_path / "0.1"))
    Path(files.shell).write_text(f"{os.getpid()}\n")
    found = trace(files)
    assert (found.begun, found.pid, found.code) == (True, None, None)
