"""What is asked of runs, and done to them."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.services.fake import Cluster, Recorder, begin, gone

from qwex.errors import BackendError, UnknownName, Unreachable, UsageError
from qwex.model.jobs import ArrayRange, Dependency, JobSpec
from qwex.model.places import Place
from qwex.model.runs import Observation, Task
from qwex.model.states import Reason, State
from qwex.services import runs
from qwex.services.context import Context


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (Observation(State.RUNNING), 0),
        (Observation(State.SUCCEEDED, exit_code=0), 0),
        (Observation(State.FAILED, Reason.EXIT_CODE, exit_code=3), 3),
        (Observation(State.FAILED, Reason.SIGNAL, exit_code=137), 137),
        (Observation(State.FAILED, Reason.TIME_LIMIT), 124),
        (Observation(State.FAILED, Reason.TIME_LIMIT, exit_code=137), 124),
        (Observation(State.FAILED, Reason.DEPENDENCY_FAILED), 1),
        (Observation(State.FAILED, Reason.WORKSPACE_FAILED, exit_code=0), 1),
        (Observation(State.CANCELLED, Reason.CANCELLED_BY_USER), 130),
        (Observation(State.LOST, Reason.WORKER_DIED), 1),
    ],
)
async def test_exit_status(ctx: Context, cluster: Cluster, last: Observation, expected: int) -> None:
    run = begin(ctx, cluster)._replace(last=last)
    assert runs.exit_status(run) == expected


async def test_exit_status_of_an_element(ctx: Context, cluster: Cluster) -> None:
    tasks = (Task(1, State.SUCCEEDED, exit_code=0), Task(2, State.FAILED, Reason.EXIT_CODE, exit_code=9))
    run = begin(ctx, cluster)._replace(last=Observation(State.FAILED, Reason.EXIT_CODE, exit_code=9, tasks=tasks))
    assert [runs.exit_status(run, 1), runs.exit_status(run, 2), runs.exit_status(run)] == [0, 9, 9]


async def test_list_asks_the_places(ctx: Context, cluster: Cluster) -> None:
    first, second = begin(ctx, cluster), begin(ctx, cluster)
    cluster.finish(first.id)
    listed = await runs.list_runs(ctx)
    assert [(run.id, run.state) for run in listed] == [(second.id, State.RUNNING), (first.id, State.SUCCEEDED)]
    assert cluster.calls == ["open", "observe"]
    assert ctx.store.get(first.id).state is State.SUCCEEDED


async def test_list_by_state_knows_todays_states(ctx: Context, cluster: Cluster) -> None:
    first, second = begin(ctx, cluster), begin(ctx, cluster)
    cluster.finish(first.id)
    assert [run.id for run in await runs.list_runs(ctx, runs.ListQuery(states=(State.RUNNING,)))] == [second.id]
    assert [run.id for run in await runs.list_runs(ctx, runs.ListQuery(states=(State.SUCCEEDED,)))] == [first.id]


async def test_list_does_not_ask_when_told_not_to(ctx: Context, cluster: Cluster) -> None:
    begin(ctx, cluster)
    await runs.list_runs(ctx, runs.ListQuery(refresh=False))
    assert cluster.calls == []


async def test_silent_host_leaves_its_runs_as_last_seen(
    ctx: Context, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_PATIENCE", 0.05)
    run = begin(ctx, cluster)
    cluster.hang = {"observe"}
    (seen,) = await runs.list_runs(ctx)
    assert (seen.state, seen.last.reason) == (State.RUNNING, Reason.HOST_UNREACHABLE)
    assert "gpu1 did not answer" in seen.last.detail
    assert seen.seen == run.seen
    assert ctx.store.get(run.id).last.reason is Reason.NONE
    assert not ctx.connected(cluster.place)


async def test_unreachable_host_and_removed_host_say_why(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    cluster.faults = {"open": [gone("no SSH server answers at gpu1:22")]}
    status = await runs.status(ctx, run.id)
    assert (status.run.last.reason, status.run.last.detail) == (
        Reason.HOST_UNREACHABLE,
        "no SSH server answers at gpu1:22",
    )
    cluster.place = Place("gone-host", "ssh", "x")
    removed = begin(ctx, cluster)
    assert (await runs.status(ctx, removed.id)).run.last.detail == "no place is called 'gone-host'"


async def test_run_its_place_does_not_know_is_lost(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    del cluster.jobs[run.id]
    assert (await runs.status(ctx, run.id)).run.last == ctx.store.get(run.id).last._replace(
        state=State.LOST, reason=Reason.UNKNOWN
    )


async def test_status_shows_the_graph(ctx: Context, cluster: Cluster) -> None:
    first = begin(ctx, cluster)
    middle = begin(ctx, cluster, after=(Dependency(first.id), Dependency("00000000z")))
    last = begin(ctx, cluster, after=(Dependency(middle.id),))
    status = await runs.status(ctx, middle.id)
    assert [(one.run_id, run and run.id) for one, run in status.after] == [(first.id, first.id), ("00000000z", None)]
    assert [run.id for run in status.dependants] == [last.id]


async def test_cancel_runs_and_elements_of_several_places_at_once(ctx: Context, cluster: Cluster) -> None:
    plain, array = begin(ctx, cluster), begin(ctx, cluster, array=ArrayRange((1, 2, 3)))
    ended = begin(ctx, cluster)
    cluster.finish(ended.id)
    await runs.list_runs(ctx)
    cluster.calls.clear()
    listed = await runs.cancel(ctx, [plain.id, f"{array.id}.1", f"{array.id}.3", ended.id])
    assert cluster.calls == ["cancel", "cancel [1, 3]"]
    assert [run.id for run in listed] == [plain.id, array.id, ended.id]
    assert cluster.jobs[plain.id].last.state is State.CANCELLED


async def test_suspend_and_resume(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    assert [one.state for one in await runs.suspend(ctx, [run.id])] == [State.SUSPENDED]
    assert [one.state for one in await runs.resume(ctx, [run.id])] == [State.RUNNING]
    with pytest.raises(UsageError, match="only whole runs can be suspended"):
        await runs.suspend(ctx, [f"{run.id}.0"])


async def test_wait_for_several_and_give_the_first_code_that_is_not_zero(ctx: Context, cluster: Cluster) -> None:
    listed = [begin(ctx, cluster) for _ in range(3)]
    waiting = asyncio.create_task(runs.wait(ctx, [run.id for run in listed]))
    await asyncio.sleep(0)
    for run, code in zip(listed, (0, 4, 5), strict=True):
        cluster.finish(
            run.id, State.FAILED if code else State.SUCCEEDED, Reason.EXIT_CODE if code else Reason.NONE, code
        )
        await asyncio.sleep(0)
    waited = await waiting
    assert (waited.exit_status, waited.timed_out) == (4, False)
    assert [run.last.exit_code for run in waited.runs] == [0, 4, 5]


async def test_wait_for_an_element_does_not_wait_for_the_others(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster, array=ArrayRange((1, 2)))
    tasks = (Task(1, State.FAILED, Reason.EXIT_CODE, "", 6), Task(2, State.RUNNING))
    cluster.jobs[run.id].last = Observation(State.RUNNING, tasks=tasks)
    assert (await runs.wait(ctx, [f"{run.id}.1"])).exit_status == 6


async def test_wait_gives_up_in_time(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    waited = await runs.wait(ctx, [run.id], 0.01)
    assert (waited.exit_status, waited.timed_out) == (124, True)
    assert ctx.store.get(run.id).state is State.RUNNING


async def test_wait_goes_on_over_a_broken_connection(ctx: Context, cluster: Cluster, said: Recorder) -> None:
    run = begin(ctx, cluster)
    await ctx.backend(cluster.place)
    cluster.faults = {"watch": [gone()], "observe": [gone()]}
    waiting = asyncio.create_task(runs.wait(ctx, [run.id]))
    async with asyncio.timeout(10):
        while len(said.notes) < 2 or cluster.faults["watch"]:
            await asyncio.wait({waiting}, timeout=0)
    cluster.finish(run.id)
    assert (await waiting).exit_status == 0
    assert said.notes[1] == "connected to gpu1 again"


async def test_wait_at_a_host_that_never_answered_is_an_error(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    cluster.faults = {"open": [gone("no answer")]}
    with pytest.raises(Unreachable, match="no answer"):
        await runs.wait(ctx, [run.id])


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (Observation(State.RUNNING, started=1.0), "runs on gpu1 for"),
        (Observation(State.SUCCEEDED, started=1.0, ended=13.0, exit_code=0), "succeeded after 12s"),
        (Observation(State.FAILED, Reason.EXIT_CODE, exit_code=3), "has failed: its command ended with code 3"),
        (Observation(State.FAILED, Reason.SIGNAL, exit_code=139), "has failed: signal 11 ended it"),
        (Observation(State.FAILED, Reason.TIME_LIMIT), "time limit of 1m30s"),
        (Observation(State.FAILED, Reason.COMMAND_NOT_FOUND, exit_code=127), "the command 'true' was not found"),
        (Observation(State.CANCELLED, Reason.CANCELLED_BY_USER), "has been cancelled"),
        (Observation(State.LOST, Reason.HOST_RESTARTED), "is lost: the machine was restarted"),
    ],
)
async def test_why_of_runs_that_do_not_wait(ctx: Context, cluster: Cluster, last: Observation, said: str) -> None:
    run = begin(ctx, cluster, time_limit=90.0)
    cluster.jobs[run.id].last = last
    lines = await runs.why(ctx, run.id)
    assert lines[0].startswith(run.id)
    assert said in lines[0]


async def test_why_of_a_waiting_run_is_the_places_answer(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    cluster.jobs[run.id].last = Observation(State.QUEUED, Reason.WAITING_FOR_SLOT)
    assert await runs.why(ctx, run.id) == ["it waits for a slot", "2 of 2 are taken"]


async def test_why_of_an_unreachable_place(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    cluster.faults = {"open": [gone("no answer from gpu1")]}
    first, second = await runs.why(ctx, run.id)
    assert "is not known: no answer from gpu1" in first
    assert "ago it was running" in second


async def test_execute(ctx: Context, cluster: Cluster) -> None:
    run = begin(ctx, cluster)
    assert await runs.execute(ctx, run.id, ["ls"]) == 7
    with pytest.raises(UsageError, match="which element"):
        await runs.execute(ctx, begin(ctx, cluster, array=ArrayRange((1, 2))).id, ["ls"])
    with pytest.raises(UsageError, match="no command"):
        await runs.execute(ctx, run.id, [])
    cluster.finish(run.id)
    await runs.list_runs(ctx)
    with pytest.raises(BackendError, match="does not run: it is succeeded"):
        await runs.execute(ctx, run.id, ["ls"])


async def test_unknown_run(ctx: Context) -> None:
    with pytest.raises(UnknownName, match="'last'"):
        await runs.status(ctx, "last")
    ctx.store.add([(JobSpec(("a",)), "local", "u")], 0)
    with pytest.raises(UsageError, match="not a run id"):
        await runs.status(ctx, "!")
