"""Killed at every point: no run lost or doubled, none running for ever, no byte of output lost or repeated."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from tests.ssh.far import (
    SSHD,
    Client,
    FarDirectory,
    Server,
    ended,
    job,
    output,
    processes,
    quiet,
    source_of,
    start,
    until,
)

from qwex.backends.base import Cursor, LogRequest, Stream
from qwex.backends.ssh import SSHBackend, check
from qwex.errors import BackendError, QwexError, Unreachable
from qwex.model.jobs import Resources, StdinMode
from qwex.model.places import Place
from qwex.model.states import Reason, State

pytestmark = [pytest.mark.ssh, pytest.mark.skipif(SSHD is None, reason="kills processes of a real sshd")]


def cut(server: Server) -> None:
    """End every connection, as a network that breaks does."""
    for pid in server.connections():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def supervisors(place: Place, verb: str) -> list[int]:
    """Processes of the far side's script at ``verb``."""
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [
        int(line.split()[0])
        for line in listing.splitlines()
        if f"{place.directory}/bin" in line and f".sh {verb}" in line
    ]


async def running(backend: SSHBackend, handles: dict[str, dict[str, object]]) -> None:
    async for seen in backend.watch(handles):
        if all(one.state is State.RUNNING for one in seen.values()):
            return


async def test_logs_go_on_after_every_break(client: Client, server: Server) -> None:
    one = job(
        "sh", "-c", "i=0; while [ $i -lt 300 ]; do echo line $i; echo err $i >&2; i=$((i + 1)); sleep 0.005; done"
    )
    async with client.open() as backend:
        handles = await start(backend, one)
    cursor: Cursor = {}
    found = {Stream.OUT: b"", Stream.ERR: b""}
    breaks = 0
    while True:
        try:
            async with client.open() as backend:
                async for chunk in backend.logs(handles[one.run_id], LogRequest(follow=True, cursor=cursor)):
                    found[chunk.stream] += chunk.data
                    at = cursor.setdefault(chunk.key, [0, 0])
                    at[chunk.stream is Stream.ERR] = chunk.offset + len(chunk.data)
                    if breaks < 4 and len(found[Stream.OUT]) > (breaks + 1) * 300:
                        breaks += 1
                        cut(server)
                break
        except Unreachable:
            continue
    assert breaks == 4
    assert found[Stream.OUT] == b"".join(b"line %d\n" % number for number in range(300))
    assert found[Stream.ERR] == b"".join(b"err %d\n" % number for number in range(300))


@pytest.mark.parametrize("seed", range(6))
async def test_submission_broken_anywhere(client: Client, server: Server, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    root = tmp_path / "ws"
    root.mkdir()
    for number in range(300):
        (root / str(number)).write_bytes(chance.randbytes(3000))
    source = source_of(root)
    many = [job("sh", "-c", "ls | wc -l", source=source) for _ in range(3)]
    handles: dict[str, dict[str, object]] = {}
    for attempt in range(20):
        loop = asyncio.get_running_loop()
        breaking = loop.call_later(chance.uniform(0.02, 0.25), cut, server) if attempt < 3 else None
        try:
            async with client.open() as backend:
                handles = await start(backend, *many)
        except (Unreachable, BackendError):
            continue
        finally:
            if breaking:
                breaking.cancel()
        break
    async with client.open() as backend:
        seen = await ended(backend, handles)
        for one in many:
            assert [attempt.number for attempt in seen[one.run_id].tasks[0].attempts] == [1]
            assert (await output(backend, handles[one.run_id]))[0] == b"300\n"
    until(lambda: not list((Path(client.place.directory) / "active").iterdir()))


async def test_exit_code_survives_the_supervisor(backend: SSHBackend, client: Client) -> None:
    one = job("sh", "-c", "while [ ! -e stop ]; do sleep 0.05; done; exit 9")
    handles = await start(backend, one)
    await running(backend, handles)
    directory = Path(client.place.directory) / "runs" / one.run_id / "0.1"
    until(lambda: (directory / "job").exists() and (directory / "job").read_text())
    kill(supervisors(client.place, "_task"))
    null = os.open(os.devnull, os.O_RDWR)
    assert (await backend.observe(handles))[one.run_id].state is State.RUNNING
    assert await backend.execute(handles[one.run_id], ("touch", "stop"), 0, null, null, null, False) == 0
    os.close(null)
    seen = (await ended(backend, handles))[one.run_id]
    assert (seen.state, seen.exit_code) == (State.FAILED, 9)
    assert seen.result_files == 1


async def test_everything_of_a_job_is_killed(backend: SSHBackend, client: Client) -> None:
    one = job("sh", "-c", "exec sleep 1000")
    again = job("sh", "-c", '[ "$QWEX_ATTEMPT" = 2 ] || exec sleep 1000', retries=1)
    handles = await start(backend, one, again)
    await running(backend, {one.run_id: handles[one.run_id]})
    await running(backend, {again.run_id: handles[again.run_id]})
    runs = Path(client.place.directory) / "runs"
    jobs = [runs / name / "0.1/job" for name in handles]
    until(lambda: all(job.exists() and job.read_text() for job in jobs))
    kill(processes(str(client.place.directory)))
    seen = await ended(backend, handles)
    assert (seen[one.run_id].state, seen[one.run_id].reason) == (State.LOST, Reason.WORKER_DIED)
    assert seen[again.run_id].state is State.SUCCEEDED


@pytest.mark.parametrize("seed", range(3))
async def test_far_side_killed_at_random(client: Client, seed: int) -> None:
    chance = random.Random(seed)
    many = [job("sh", "-c", "echo $QWEX_ATTEMPT; sleep 0.05", retries=chance.choice([0, 0, 2])) for _ in range(12)]
    handles: dict[str, dict[str, object]] = {}
    while not handles:
        with suppress(QwexError):
            async with client.open() as backend:
                handles = await start(backend, *many)
    for _ in range(15):
        await asyncio.sleep(chance.uniform(0.01, 0.15))
        candidates = processes(f"{client.place.directory}/bin")
        kill(chance.sample(candidates, min(len(candidates), chance.choice([1, 1, 2, 5]))))
    seen: dict[str, object] = {}
    async with client.open() as backend:
        last = await ended(backend, handles, 60)
        seen.update(last)
    assert seen.keys() == handles.keys()
    for one in last.values():
        numbers = [attempt.number for attempt in one.tasks[0].attempts]
        assert numbers == sorted(set(numbers))
    until(lambda: not list((Path(client.place.directory) / "active").iterdir()))
    until(lambda: not processes(f"{client.place.directory}/bin"))


DEAD = f"999999:1:00000000:{os.uname().nodename}\n"


@pytest.mark.parametrize(
    "owners", [{"lock": DEAD}, {"lock": ""}, {"lock": DEAD, "lock.break": DEAD}], ids=["named", "unnamed", "breaker"]
)
async def test_a_lock_of_the_dead_is_broken(
    backend: SSHBackend, client: Client, server: Server, owners: dict[str, str]
) -> None:
    """Also when the one who was about to break it died over it."""
    await check(backend)
    for name, owner in owners.items():
        lock = Path(client.place.directory) / name
        lock.mkdir()
        if owner:
            (lock / "owner").write_text(owner)
        if os.getuid() == 0:
            for path in (lock, *lock.iterdir()):
                os.chown(path, server.user.pw_uid, server.user.pw_gid)
    one = job("true")
    assert (await ended(backend, await start(backend, one)))[one.run_id].state is State.SUCCEEDED


async def test_input_for_a_job_that_ends_this_moment(backend: SSHBackend, client: Client) -> None:
    """Whoever opens a fifo that nobody will read any more would wait for ever."""
    one = job("true", stdin=StdinMode.LIVE)
    handles = await start(backend, one)
    await ended(backend, handles)
    attempt = Path(client.place.directory) / f"runs/{one.run_id}/0.1"
    (attempt / "end").rename(attempt / "not yet")
    async with asyncio.timeout(30):
        call = await backend.remote.open("feed", one.run_id, "0")
        for _ in range(50):
            if not await call.channel.write(b"x" * 65536):
                break
        await call.channel.close()
    (attempt / "not yet").rename(attempt / "end")


async def test_input_that_comes_before_the_job_is_ready(backend: SSHBackend, client: Client) -> None:
    """The attempt is on record before its copy of the tree is there, and its fifo comes last."""
    one = job("cat", stdin=StdinMode.LIVE)
    handles = await start(backend, one)
    fifo = Path(client.place.directory) / f"runs/{one.run_id}/0.1/feed"
    until(fifo.exists)
    fifo.rename(fifo.with_name("later"))
    call = await backend.remote.open("feed", one.run_id, "0")
    await call.channel.write(b"early")
    call.channel.end_input()
    fifo.with_name("later").rename(fifo)
    await ended(backend, handles)
    await call.channel.close()
    assert await output(backend, handles[one.run_id]) == (b"early", b"")


async def test_two_clients_at_once(client: Client) -> None:
    async def one_client(number: int) -> bytes:
        one = job("echo", str(number))
        async with client.open() as backend:
            handles = await start(backend, one)
            return (await output(backend, handles[one.run_id]))[0]

    found = await asyncio.gather(*(one_client(number) for number in range(12)))
    assert found == [b"%d\n" % number for number in range(12)]


async def test_a_readonly_directory(client: Client, server: Server) -> None:
    with FarDirectory(server) as directory:
        directory.chmod(0o500)
        if server.user.pw_uid == 0:
            pytest.skip("root writes anywhere")
        place = Place("far", "ssh", "127.0.0.1", server.user.pw_name, server.port, directory=f"{directory}/inside")
        async with client.open(place) as backend:
            with pytest.raises(BackendError, match="does not let Qwex write"):
                await start(backend, job("true"))
        directory.chmod(0o700)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk")
async def test_a_full_disk(client: Client, server: Server, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    (root / "big").write_bytes(os.urandom(3 << 20))
    small = Path(tempfile.mkdtemp(prefix="qwex-small-"))
    options = f"size=2m,uid={server.user.pw_uid},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(small)], check=True)
    try:
        place = Place("far", "ssh", "127.0.0.1", server.user.pw_name, server.port, directory=f"{small}/q")
        async with client.open(place) as backend:
            one = job("true", source=source_of(root))
            with pytest.raises(BackendError, match="full"):
                await start(backend, one)
            assert not list((small / "q/trees").iterdir())
            assert await backend.observe({one.run_id: {"run": one.run_id}}) == {}
            # There is room again: the same submission goes through.
            subprocess.run(["mount", "-o", "remount,size=40m", str(small)], check=True)
            assert (await ended(backend, await start(backend, one)))[one.run_id].state is State.SUCCEEDED
            until(lambda: not processes(f"{small}/q/bin"))
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
        small.rmdir()


async def test_purge_ends_all_and_leaves_nothing(backend: SSHBackend, client: Client) -> None:
    long = [job("sleep", "1000", resources=Resources(cpus=1)) for _ in range(3)]
    handles = await start(backend, *long)
    await running(backend, {long[0].run_id: handles[long[0].run_id]})
    await backend.purge()
    assert not Path(client.place.directory).exists()
    until(lambda: not processes(str(client.place.directory)))


async def test_a_newer_format_is_refused(backend: SSHBackend, client: Client) -> None:
    await check(backend)
    (Path(client.place.directory) / "format").write_text("2\n")
    with pytest.raises(BackendError, match="newer Qwex"):
        await backend.submit([job("true")], quiet)


async def test_old_runs_and_trees_go_by_themselves(backend: SSHBackend, client: Client, tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    sources = []
    for number in range(7):
        (tmp_path / "ws/file").write_text(str(number))
        sources.append(source_of(tmp_path / "ws"))
        await ended(backend, await start(backend, job("true", source=sources[-1])))
    there = Path(client.place.directory)
    old = next((there / "runs").iterdir())
    until(lambda: (there / "tidied").exists() and not processes(f"{there}/bin"))
    long_ago = 1_000_000_000
    for path in (old, there / "tidied", *(there / "trees" / one.tree.digest for one in sources[:2])):
        os.utime(path, (long_ago, long_ago))
    await ended(backend, await start(backend, job("true")))
    until(lambda: not old.exists())
    until(lambda: len(list((there / "trees").iterdir())) == 5)
    assert not (there / "trees" / sources[0].tree.digest).exists()
