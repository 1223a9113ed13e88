"""The use cases over a real SSH server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.ssh.far import Server
from tests.unit.services.fake import Recorder

from qwex.backends.base import CanPurge, LogRequest, Stream
from qwex.model.jobs import JobSpec
from qwex.model.places import Place
from qwex.model.states import Reason, State
from qwex.services import hosts, runs
from qwex.services.context import Context
from qwex.services.following import attach, logs
from qwex.services.submission import Request, submit

pytestmark = pytest.mark.ssh


@pytest.fixture
def said() -> Recorder:
    return Recorder()


@pytest.fixture
async def ctx(ssh_home: Path, place: Place, project: Path, said: Recorder) -> AsyncIterator[Context]:
    """In a project with one file; the place is the named host ``far`` and the default."""
    (project / "in.txt").write_text("input\n")
    (project / ".gitignore").write_text("big/\n")
    async with Context.open(project, said) as opened:
        opened.settings = replace(opened.settings, hosts={"far": place}).overridden({"run.on": "far"})
        yield opened


async def test_submit_follow_and_bring_home(ctx: Context, said: Recorder, project: Path) -> None:
    (run,) = await submit(ctx, [Request(("cat in.txt; echo err >&2; echo new > out.txt; exit 3",), shell=True)])
    seen = {Stream.OUT: b"", Stream.ERR: b""}

    def sink(stream: Stream, data: bytes) -> None:
        seen[stream] += data

    last = await attach(ctx, run, sink)
    assert (last.state, last.reason, last.exit_code) == (State.FAILED, Reason.EXIT_CODE, 3)
    assert seen == {Stream.OUT: b"input\n", Stream.ERR: b"err\n"}
    assert (project / "qwex-runs" / run.id / "out.txt").read_text() == "new\n"
    assert said.notes[0] == "sent 2 files, 11 B to far"
    await submit(ctx, [Request(("true",))])
    assert said.notes[-1] == "sent 2 files, 11 B to far (nothing new)"


async def test_graph_array_and_wait(ctx: Context, project: Path) -> None:
    requests = [
        Request(("echo $QWEX_TASK_INDEX > index",), shell=True, name="many", array="0-2"),
        Request(("true",), name="last", needs=("many",)),
    ]
    listed = await submit(ctx, requests)
    waited = await runs.wait(ctx, [run.id for run in listed], 60)
    assert (waited.exit_status, waited.timed_out) == (0, False)
    assert [run.state for run in await runs.list_runs(ctx)] == [State.SUCCEEDED, State.SUCCEEDED]
    await attach(ctx, listed[0], lambda stream, data: None)
    home = project / "qwex-runs" / listed[0].id
    assert [(home / str(index) / "index").read_text() for index in range(3)] == ["0\n", "1\n", "2\n"]


async def test_connection_that_is_cut_is_mended(ctx: Context, server: Server, place: Place, said: Recorder) -> None:
    go = Path(place.directory) / "go"
    script = f"echo one; while [ ! -e {go} ]; do sleep 0.05; done; echo two"
    (run,) = await submit(ctx, [Request((script,), shell=True)])
    seen: list[bytes] = []
    following = asyncio.create_task(attach(ctx, run, lambda stream, data: seen.append(data), home=False))
    async with asyncio.timeout(30):
        while not seen:
            await asyncio.wait({following}, timeout=0.02)
        for pid in server.connections():
            os.kill(pid, signal.SIGKILL)
        go.touch()
        last = await following
    assert (last.state, b"".join(seen)) == (State.SUCCEEDED, b"one\ntwo\n")
    assert said.notes[-1] == "connected to far again"
    assert b"".join([chunk.data async for chunk in logs(ctx, run.id, LogRequest(follow=True), resume=True)]) == b""


async def test_run_left_by_a_dead_client_is_taken_up_or_ended(ctx: Context) -> None:
    (first,) = await submit(ctx, [Request(("true",))])
    root = str(ctx.settings.root)
    there, gone = (
        ctx.store.add([(JobSpec(("true",), snapshot=digest, root=root), "far", "u")], 0)[0]
        for digest in (first.spec.snapshot, "0" * 64)
    )
    ctx.store.set_handles({first.id: {}})
    by_id = {run.id: run for run in await runs.list_runs(ctx)}
    assert by_id[gone.id].last.reason is Reason.SUBMISSION_FAILED
    assert by_id[first.id].handle
    assert (await runs.wait(ctx, [first.id, there.id], 60)).exit_status == 0


async def test_cancel_and_rerun(ctx: Context) -> None:
    (run,) = await submit(ctx, [Request(("sleep", "600"))])
    await runs.cancel(ctx, [run.id])
    waited = await runs.wait(ctx, [run.id], 60)
    assert (waited.runs[0].state, waited.exit_status) != (State.SUCCEEDED, 0)
    assert "cancelled" in (await runs.why(ctx, run.id))[0]
    again = await runs.rerun(ctx, run.id)
    await runs.cancel(ctx, [again.id])
    assert (await runs.wait(ctx, [again.id], 60)).runs[0].state is State.CANCELLED


async def test_check_and_purge(ctx: Context, place: Place) -> None:
    (run,) = await submit(ctx, [Request(("true",))])
    await runs.wait(ctx, [run.id], 60)
    (found,) = await hosts.check(ctx, ["far"])
    assert (found.problem, found.capabilities and found.capabilities.cpus) == ("", 2.0)
    backend = await ctx.backend(place)
    assert isinstance(backend, CanPurge)
    await backend.purge()
