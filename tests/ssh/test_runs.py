"""Runs over a real SSH server: exact words, streams, codes, states."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.ssh.far import Client, ended, job, output, quiet, runs, source_of, start

from qwex.backends.base import LogRequest, Submission
from qwex.backends.ssh import SSHBackend
from qwex.backends.ssh.history import History
from qwex.errors import BackendError, UnsupportedHere, UsageError
from qwex.model.jobs import ArrayRange, Condition, Dependency, Resources, StdinMode
from qwex.model.states import Reason, State

pytestmark = pytest.mark.ssh


async def test_streams_and_code(backend: SSHBackend) -> None:
    one = job("sh", "-c", "echo out; echo err >&2; printf end; exit 7")
    handles = await start(backend, one)
    assert await output(backend, handles[one.run_id]) == (b"out\nend", b"err\n")
    seen = (await backend.observe(handles))[one.run_id]
    assert (seen.state, seen.reason, seen.exit_code) == (State.FAILED, Reason.EXIT_CODE, 7)
    assert seen.started is not None
    assert seen.ended is not None
    assert seen.started <= seen.ended


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 0", 0, Reason.NONE),
        ("exit 255", 255, Reason.EXIT_CODE),
        ("kill -KILL $$", 137, Reason.SIGNAL),
        ("kill -SEGV $$", 139, Reason.SIGNAL),
        ("kill -INT $$", 130, Reason.SIGNAL),
        ("kill -TERM $$", 143, Reason.SIGNAL),
    ],
)
async def test_codes(backend: SSHBackend, script: str, code: int, reason: Reason) -> None:
    one = job("sh", "-c", script)
    seen = (await ended(backend, await start(backend, one)))[one.run_id]
    assert (seen.exit_code, seen.reason) == (code, reason)


async def test_missing_and_not_executable(backend: SSHBackend, tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws/plain").write_text("echo no\n")
    source = source_of(tmp_path / "ws")
    missing, plain = job("no-such-command-here"), job("./plain", source=source)
    seen = await ended(backend, await start(backend, missing, plain))
    assert (seen[missing.run_id].exit_code, seen[missing.run_id].reason) == (127, Reason.COMMAND_NOT_FOUND)
    assert (seen[plain.run_id].exit_code, seen[plain.run_id].reason) == (126, Reason.COMMAND_NOT_EXECUTABLE)


async def test_submit_twice_starts_once(backend: SSHBackend) -> None:
    one = job("sh", "-c", "echo x")
    first = await start(backend, one)
    assert await start(backend, one) == first
    assert (await output(backend, first[one.run_id]))[0] == b"x\n"
    assert await start(backend, one) == first
    seen = (await ended(backend, first))[one.run_id]
    assert [attempt.number for attempt in seen.tasks[0].attempts] == [1]


async def test_environment_and_secrets(backend: SSHBackend, client: Client) -> None:
    script = 'printf "%s|" "$A" "$TOKEN" "$QWEX_RUN_ID" "$QWEX_TASK_INDEX" "$QWEX_ATTEMPT" "${LC_ALL-none}"'
    one = job("sh", "-c", script, env=(("A", "it's\n'q' \udcff"),), secrets=("TOKEN",))
    one = Submission(one.run_id, one.spec, secrets={"TOKEN": "s3cret"})
    handles = await start(backend, one)
    out, _ = await output(backend, handles[one.run_id])
    assert out == b"it's\n'q' \xff|s3cret|" + one.run_id.encode() + b"|0|1|none|"
    await ended(backend, handles)
    kept = [
        path for path in Path(client.place.directory).rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()
    ]
    assert {path.name for path in kept} == {"out"}


async def test_shell_and_directory(backend: SSHBackend, tmp_path: Path) -> None:
    (tmp_path / "ws/sub dir").mkdir(parents=True)
    one = job("pwd; echo $((1 + 1))", source=source_of(tmp_path / "ws"), shell=True, cwd="sub dir")
    handles = await start(backend, one)
    place, two = (await output(backend, handles[one.run_id]))[0].splitlines()
    assert place.endswith(b"/sub dir")
    assert two == b"2"


async def test_stdin_from_a_file(backend: SSHBackend, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\0b\n" * 500_000)
    one = job("cat", stdin=StdinMode.FILE)
    handles = await start(backend, Submission(one.run_id, one.spec, stdin=tmp_path / "in"))
    assert (await output(backend, handles[one.run_id]))[0] == b"a\0b\n" * 500_000


async def test_live_stdin(backend: SSHBackend) -> None:
    one = job("sh", "-c", "cat; echo done", stdin=StdinMode.LIVE)
    handles = await start(backend, one)

    async def words() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number
            await asyncio.sleep(0)

    await backend.feed(handles[one.run_id], words())
    assert (await output(backend, handles[one.run_id]))[0] == b"0\n1\n2\ndone\n"


async def test_feeding_a_job_that_stops_reading_returns(backend: SSHBackend) -> None:
    one = job("head", "-c", "1", stdin=StdinMode.LIVE)
    handles = await start(backend, one)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with asyncio.timeout(20):
        await backend.feed(handles[one.run_id], endless())
    assert (await ended(backend, handles))[one.run_id].exit_code == 0


async def test_array_with_a_limit(backend: SSHBackend) -> None:
    script = 'echo "$QWEX_TASK_INDEX"; [ "$QWEX_TASK_INDEX" != 3 ]'
    one = job("sh", "-c", script, array=ArrayRange((0, 1, 2, 3, 7), 2))
    handles = await start(backend, one)
    seen = (await ended(backend, handles))[one.run_id]
    assert {task.index: task.state for task in seen.tasks} == {
        0: State.SUCCEEDED, 1: State.SUCCEEDED, 2: State.SUCCEEDED, 3: State.FAILED, 7: State.SUCCEEDED,
    }  # fmt: skip
    assert seen.state is State.FAILED
    assert (await output(backend, handles[one.run_id]))[0] == b"0\n1\n2\n3\n7\n"
    assert (await output(backend, handles[one.run_id], task=7))[0] == b"7\n"


async def test_dependencies(backend: SSHBackend) -> None:
    first = job("sh", "-c", "sleep 0.3; exit 1")
    fine = job("echo", "any", after=(Dependency(first.run_id, Condition.ANY),))
    failed = job("echo", "fail", after=(Dependency(first.run_id, Condition.FAIL),))
    never = job("echo", "ok", after=(Dependency(first.run_id),))
    chain = job("echo", "chain", after=(Dependency(never.run_id),))
    handles = await start(backend, first, fine, failed, never, chain)
    waiting = await backend.observe(handles)
    assert waiting[fine.run_id].reason is Reason.WAITING_FOR_RUN
    assert first.run_id in (await backend.why(handles[fine.run_id]))[0]
    seen = await ended(backend, handles)
    assert seen[fine.run_id].state is seen[failed.run_id].state is State.SUCCEEDED
    for one in (never, chain):
        assert (seen[one.run_id].state, seen[one.run_id].reason) == (State.CANCELLED, Reason.DEPENDENCY_FAILED)


async def test_dependency_on_an_unknown_run_takes_up_nothing(backend: SSHBackend) -> None:
    fine, wrong = job("true"), job("true", after=(Dependency("000000000"),))
    with pytest.raises(UsageError, match="000000000"):
        await start(backend, fine, wrong)
    assert await backend.observe({fine.run_id: {"run": fine.run_id}}) == {}


async def test_retries(backend: SSHBackend) -> None:
    one = job("sh", "-c", 'echo "$QWEX_ATTEMPT"; [ "$QWEX_ATTEMPT" = 2 ]', retries=3)
    handles = await start(backend, one)
    assert (await output(backend, handles[one.run_id]))[0] == b"1\n2\n"
    seen = (await ended(backend, handles))[one.run_id]
    assert [attempt.state for attempt in seen.tasks[0].attempts] == [State.FAILED, State.SUCCEEDED]
    assert seen.state is State.SUCCEEDED


async def test_an_end_that_is_followed_by_a_retry_is_never_seen_as_the_last(
    backend: SSHBackend, client: Client
) -> None:
    """Whoever reads the events while they are written sees them up to some line."""
    one = job("sh", "-c", '[ "$QWEX_ATTEMPT" = 2 ]', retries=3)
    await ended(backend, await start(backend, one))
    history = History([0])
    states = []
    for line in (Path(client.place.directory) / f"runs/{one.run_id}/events").read_bytes().splitlines(keepends=True):
        history.feed(line)
        states.append(history.observation().state)
    assert State.FAILED not in states
    assert states[-1] is State.SUCCEEDED


async def test_time_limit(backend: SSHBackend) -> None:
    one = job("sh", "-c", "trap '' TERM; while :; do sleep 1; done", time_limit=0.3, grace=1)
    seen = (await ended(backend, await start(backend, one)))[one.run_id]
    assert (seen.state, seen.reason) == (State.FAILED, Reason.TIME_LIMIT)


async def test_too_large(backend: SSHBackend) -> None:
    with pytest.raises(UnsupportedHere, match="64 CPUs"):
        await start(backend, job("true", resources=Resources(cpus=64)))
    with pytest.raises(UnsupportedHere, match="GPUs"):
        await start(backend, job("true", resources=Resources(gpus=99)))


async def test_queue_by_priority_then_order(backend: SSHBackend) -> None:
    blocker = job("sh", "-c", "sleep 0.7", resources=Resources(cpus=2))
    late = [job("sh", "-c", "date +%s%N", resources=Resources(cpus=2), priority=p) for p in (0, 5, 0)]
    handles = await start(backend, blocker, *late)
    assert "slot" in (await backend.why(handles[late[0].run_id]))[0]
    await ended(backend, handles)
    times = [int((await output(backend, handles[one.run_id]))[0]) for one in late]
    assert times[1] < times[0] < times[2]


async def test_cancel_waiting_and_running(backend: SSHBackend) -> None:
    running = job("sh", "-c", "sleep 100", array=ArrayRange((0, 1, 2, 3)))
    handles = await start(backend, running)
    async for seen in backend.watch(handles):
        if sum(task.state is State.RUNNING for task in seen[running.run_id].tasks) == 2:
            break
    await backend.cancel(handles, [3])
    seen_now = (await backend.observe(handles))[running.run_id]
    assert [task.state for task in seen_now.tasks][2:] == [State.QUEUED, State.CANCELLED]
    await backend.cancel(handles)
    final = (await ended(backend, handles))[running.run_id]
    assert {task.state for task in final.tasks} == {State.CANCELLED}
    assert final.state is State.CANCELLED
    assert final.reason is Reason.CANCELLED_BY_USER


async def test_cancel_kills_what_ignores_term_and_what_fled(backend: SSHBackend) -> None:
    script = "trap '' TERM\n(setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' </dev/null &)\nsleep 0.1; echo $$; sleep 1000"
    one = job("sh", "-c", script, grace=1)
    handles = await start(backend, one)
    pids: list[int] = []
    async for chunk in backend.logs(handles[one.run_id], LogRequest(follow=True)):
        pids += [int(word) for word in chunk.data.split()]
        if len(pids) == 2:
            break
    await backend.cancel(handles)
    seen = (await ended(backend, handles))[one.run_id]
    assert seen.state is State.CANCELLED
    assert not [pid for pid in pids if runs(pid)]


async def test_daemons_end_with_their_job(backend: SSHBackend) -> None:
    one = job("sh", "-c", "(setsid sleep 1000 >/dev/null 2>&1 & echo $!); sleep 1000 & echo $!")
    handles = await start(backend, one)
    pids = [int(word) for word in (await output(backend, handles[one.run_id]))[0].split()]
    await ended(backend, handles)
    assert not [pid for pid in pids if runs(pid)]


async def test_suspend_and_resume(backend: SSHBackend) -> None:
    one = job("sh", "-c", "while :; do date >>ticks; sleep 0.05; [ ! -e stop ] || exit 0; done")
    waiting = job("true", resources=Resources(cpus=2))
    handles = await start(backend, one, waiting)
    async for seen in backend.watch(handles):
        if one.run_id in seen and seen[one.run_id].state is State.RUNNING:
            break
    await backend.suspend({one.run_id: handles[one.run_id]})
    assert (await backend.observe(handles))[one.run_id].state is State.SUSPENDED
    # A suspended run's slots are free for others.
    assert (await ended(backend, {waiting.run_id: handles[waiting.run_id]}))[waiting.run_id].exit_code == 0
    await backend.resume({one.run_id: handles[one.run_id]})
    assert (await backend.observe(handles))[one.run_id].state is State.RUNNING
    await backend.cancel(handles)
    assert (await ended(backend, handles))[one.run_id].state is State.CANCELLED


async def test_suspended_before_it_started(backend: SSHBackend) -> None:
    blocker, one = job("sleep", "100", resources=Resources(cpus=2)), job("true")
    handles = await start(backend, blocker, one)
    await backend.suspend({one.run_id: handles[one.run_id]})
    await backend.cancel({blocker.run_id: handles[blocker.run_id]})
    await ended(backend, {blocker.run_id: handles[blocker.run_id]})
    seen = (await backend.observe(handles))[one.run_id]
    assert (seen.state, seen.reason) == (State.HELD, Reason.HELD_BY_USER)
    await backend.resume({one.run_id: handles[one.run_id]})
    assert (await ended(backend, handles))[one.run_id].state is State.SUCCEEDED


async def test_execute_beside_the_job(backend: SSHBackend, tmp_path: Path) -> None:
    one = job("sh", "-c", "echo here >file; exec sleep 100", env=(("A", "b c"),))
    handles = await start(backend, one)
    async for seen in backend.watch(handles):
        if seen[one.run_id].state is State.RUNNING:
            break
    out, null = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT), os.open(os.devnull, os.O_RDWR)
    argv = (
        "sh",
        "-c",
        'while [ ! -s file ]; do sleep 0.05; done; cat file; echo "$A" "$1"; exit 5',
        "x",
        "it's\n\udcff",
    )
    assert await backend.execute(handles[one.run_id], argv, 0, null, out, null, False) == 5
    assert (tmp_path / "out").read_bytes() == b"here\nb c it's\n\xff\n"
    await backend.cancel(handles)
    await ended(backend, handles)
    with pytest.raises(BackendError, match="not running"):
        await backend.execute(handles[one.run_id], argv, 0, null, out, null, False)
    os.close(out)
    os.close(null)


async def test_many_jobs_in_one_request(backend: SSHBackend) -> None:
    many = [job("true") for _ in range(200)]
    handles = await backend.submit(many, quiet)
    assert len(handles) == 200
    await backend.cancel(handles)
    seen = await ended(backend, handles)
    assert {one.state for one in seen.values()} <= {State.SUCCEEDED, State.CANCELLED}


async def test_forget(backend: SSHBackend) -> None:
    one = job("true")
    handles = await start(backend, one)
    await ended(backend, handles)
    await backend.forget(handles)
    assert await backend.observe(handles) == {}
