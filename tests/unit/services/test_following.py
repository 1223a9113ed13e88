"""Staying with a run: nothing lost or repeated, over broken connections and between clients."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.unit.services.fake import Cluster, Recorder, begin, gone

from qwex.backends.base import LogChunk, LogRequest, Stream
from qwex.errors import Unreachable, WorkspaceError
from qwex.model.jobs import ArrayRange, JobSpec, StdinMode
from qwex.model.runs import Run
from qwex.model.states import Reason, State
from qwex.services.context import Context
from qwex.services.following import Labels, attach, logs


@dataclass
class Screen:
    """What a job wrote, by stream."""

    out: dict[Stream, bytes] = field(default_factory=lambda: {Stream.OUT: b"", Stream.ERR: b""})

    def __call__(self, stream: Stream, data: bytes) -> None:
        self.out[stream] += data


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if true():
                return
            await asyncio.sleep(0)


@pytest.fixture
def screen() -> Screen:
    return Screen()


async def test_output_passes_byte_for_byte_and_results_come_home(
    ctx: Context, cluster: Cluster, said: Recorder, screen: Screen, project: Path
) -> None:
    run = begin(ctx, cluster)
    following = asyncio.create_task(attach(ctx, run, screen))
    cluster.write(run.id, b"no newline \0\xff")
    cluster.write(run.id, b"error", Stream.ERR)
    await until(lambda: screen.out[Stream.ERR] == b"error")
    cluster.write(run.id, b"end")
    cluster.finish(run.id, State.FAILED, Reason.EXIT_CODE, 3, sub__plot_txt=b"12")
    observation = await following
    assert screen.out == {Stream.OUT: b"no newline \0\xffend", Stream.ERR: b"error"}
    assert (observation.state, observation.exit_code) == (State.FAILED, 3)
    assert (project / "qwex-runs" / run.id / "sub/plot.txt").read_bytes() == b"12"
    assert said.notes == [f"results: qwex-runs/{run.id} (1 file, 2 B)"]
    assert ctx.store.get(run.id).pulled == str(project / "qwex-runs" / run.id)


@pytest.mark.parametrize("where", ["logs", "chunk", "more", "observe"])
async def test_broken_connection_is_mended_without_loss_or_repetition(
    ctx: Context, cluster: Cluster, said: Recorder, screen: Screen, where: str
) -> None:
    run = begin(ctx, cluster)
    await ctx.backend(cluster.place)
    cluster.write(run.id, b"one\n")
    cluster.faults = {where: [gone()], "open": [gone(), gone()]}
    following = asyncio.create_task(attach(ctx, run, screen, home=False))
    await until(lambda: screen.out[Stream.OUT] == b"one\n")
    cluster.write(run.id, b"two\n")
    await until(lambda: screen.out[Stream.OUT] == b"one\ntwo\n")
    cluster.finish(run.id)
    assert (await following).state is State.SUCCEEDED
    assert screen.out[Stream.OUT] == b"one\ntwo\n"
    assert [note.split(";")[0] for note in said.notes] == ["the connection to gpu1 broke", "connected to gpu1 again"]
    assert all(not faults for faults in cluster.faults.values())


async def test_host_that_never_answered_is_an_error(ctx: Context, cluster: Cluster, screen: Screen) -> None:
    run = begin(ctx, cluster)
    cluster.faults = {"open": [gone("no SSH server answers")]}
    with pytest.raises(Unreachable, match="no SSH server answers"):
        await attach(ctx, run, screen)


async def test_next_client_continues_where_the_last_one_stopped(ctx: Context, cluster: Cluster, screen: Screen) -> None:
    run = begin(ctx, cluster)
    following = asyncio.create_task(attach(ctx, run, screen))
    cluster.write(run.id, b"first ")
    cluster.write(run.id, b"err", Stream.ERR)
    await until(lambda: screen.out[Stream.ERR] == b"err")
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    cluster.write(run.id, b"second")
    cluster.finish(run.id)
    rest = [chunk.data async for chunk in logs(ctx, run.id, LogRequest(follow=True), resume=True)]
    assert rest == [b"second"]
    assert [chunk.data async for chunk in logs(ctx, run.id, resume=True)] == []
    assert b"".join([chunk.data async for chunk in logs(ctx, run.id)]) == b"first errsecond"


async def test_what_the_reader_did_not_take_is_not_remembered(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    cluster.write(run.id, b"one")
    following = asyncio.create_task(attach(ctx, run, _full))
    with pytest.raises(OSError, match="full"):
        await following
    assert ctx.store.cursor(run.id) == {}


def _full(stream: Stream, data: bytes) -> None:
    raise OSError("full")


async def test_elements_are_told_apart(ctx: Context, cluster: Cluster, screen: Screen) -> None:
    run = begin(ctx, cluster, array=ArrayRange((3, 7)))
    for task, data in ((3, b"a\nb"), (7, b"x\n"), (3, b"c\n"), (7, b"end")):
        cluster.write(run.id, data, task=task)
    cluster.finish(run.id)
    await attach(ctx, run, screen, home=False)
    assert screen.out[Stream.OUT] == b"[3] a\n[7] x\n[3] bc\n[7] end\n"
    one = Screen()
    ctx.store.set_cursor(run.id, {})
    await attach(ctx, run, one, task=7, home=False)
    assert one.out[Stream.OUT] == b"x\nend"
    assert [chunk.data async for chunk in logs(ctx, f"{run.id}.3")] == [b"a\nb", b"c\n"]


def test_labels_keep_streams_and_attempts_apart() -> None:
    labels = Labels()
    pieces = [
        (0, 1, Stream.OUT, b"o"),
        (0, 1, Stream.ERR, b"e"),
        (0, 2, Stream.OUT, b"2\n"),
        (0, 1, Stream.OUT, b"k\n\nx"),
    ]
    written = [labels(LogChunk(task, attempt, stream, 0, data)) for task, attempt, stream, data in pieces]
    assert written == [b"", b"", b"[0] 2\n", b"[0] ok\n[0] \n"]
    assert labels.rest() == [(Stream.ERR, b"[0] e\n"), (Stream.OUT, b"[0] x\n")]
    assert labels.rest() == []


def test_labels_do_not_collect_without_end() -> None:
    labels = Labels()
    assert labels(LogChunk(0, 1, Stream.OUT, 0, b"x" * (1 << 21))) == b"[0] " + b"x" * (1 << 21) + b"\n"
    assert labels.rest() == []


async def test_live_input_reaches_the_job(ctx: Context, cluster: Cluster, screen: Screen) -> None:
    run = begin(ctx, cluster, stdin=StdinMode.LIVE)
    reading, writing = os.pipe()
    following = asyncio.create_task(attach(ctx, run, screen, stdin=reading, home=False))
    try:
        os.write(writing, b"typed ")
        await until(lambda: cluster.jobs[run.id].fed == b"typed ")
        os.write(writing, b"later")
        os.close(writing)
        await until(lambda: cluster.jobs[run.id].fed == b"typed later")
        cluster.finish(run.id)
        await following
    finally:
        os.close(reading)


async def test_run_ends_though_its_input_does_not(ctx: Context, cluster: Cluster, screen: Screen) -> None:
    run = begin(ctx, cluster, stdin=StdinMode.LIVE)
    reading, writing = os.pipe()
    try:
        following = asyncio.create_task(attach(ctx, run, screen, stdin=reading, home=False))
        await until(lambda: "feed" in cluster.calls)
        cluster.finish(run.id)
        assert (await following).state is State.SUCCEEDED
    finally:
        os.close(reading)
        os.close(writing)


async def test_broken_input_is_said(ctx: Context, cluster: Cluster, said: Recorder, screen: Screen) -> None:
    run = begin(ctx, cluster, stdin=StdinMode.LIVE)
    cluster.faults = {"feed": [gone()]}
    reading, writing = os.pipe()
    try:
        following = asyncio.create_task(attach(ctx, run, screen, stdin=reading, home=False))
        await until(lambda: bool(said.warnings))
        cluster.finish(run.id)
        await following
    finally:
        os.close(reading)
        os.close(writing)
    assert said.warnings == [f"the rest of standard input did not reach run {run.id}: the connection to gpu1 broke"]


async def test_large_results_wait(
    project: Path, ctx: Context, cluster: Cluster, said: Recorder, screen: Screen
) -> None:
    ctx.settings = ctx.settings.overridden({"results.limit": "3"})
    run = begin(ctx, cluster)
    cluster.finish(run.id, a_txt=b"1234")
    await attach(ctx, run, screen)
    assert said.notes == [f"the results have 4 B: `qwex pull {run.id}` fetches them"]
    assert "results" not in cluster.calls


async def test_connection_that_breaks_while_results_come_is_mended(
    ctx: Context, cluster: Cluster, screen: Screen, project: Path
) -> None:
    run = begin(ctx, cluster)
    cluster.finish(run.id, a_txt=b"1234")
    cluster.faults = {"fetched": [gone()]}
    await attach(ctx, run, screen)
    assert (project / "qwex-runs" / run.id / "a.txt").read_bytes() == b"1234"
    assert sorted(path.name for path in (project / "qwex-runs").iterdir()) == [".gitignore", run.id]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED])
async def test_results_that_cannot_come_home_are_no_plain_success(
    ctx: Context, cluster: Cluster, said: Recorder, screen: Screen, state: State
) -> None:
    run = begin(ctx, cluster)
    cluster.finish(run.id, state, a_txt=b"1234")
    cluster.faults = {"results": [WorkspaceError("the disk is full")]}
    if state is State.SUCCEEDED:
        with pytest.raises(WorkspaceError, match="succeeded, and its results did not come home: the disk is full"):
            await attach(ctx, run, screen)
    else:
        assert (await attach(ctx, run, screen)).state is State.FAILED
        assert said.warnings == [f"the results did not come home: the disk is full; `qwex pull {run.id}` fetches them"]


async def test_run_that_never_reached_its_place_ends_at_once(ctx: Context, cluster: Cluster, screen: Screen) -> None:
    run: Run = ctx.store.add([(JobSpec(("true",), secrets=("A",)), "gpu1", "u")], 0)[0]
    observation = await attach(ctx, run, screen)
    assert (observation.state, observation.reason) == (State.FAILED, Reason.SUBMISSION_FAILED)
