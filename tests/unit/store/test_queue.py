"""The queue as a table of facts, without any process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwex.model.jobs import Dependency, JobSpec, Resources, parse_array
from qwex.model.runs import Observation
from qwex.model.states import Reason, State
from qwex.store import RunStore
from qwex.store.entries import Claim, Outcome
from qwex.store.queue import LONGEST_BACKOFF, Queue

NOW = 1_800_000_000.0
LEASE = "worker"


class Bench:
    def __init__(self, path: Path) -> None:
        self.store = RunStore.open(path)
        self.changed: dict[str, State] = {}
        self.queue = Queue(self.store.database, self.changed.update)

    def submit(self, **fields: object) -> str:
        spec = JobSpec(("true",)).replace(**fields)
        run_id = self.store.add([(spec, "local", "me")], NOW)[0].id
        self.queue.submit([(run_id, spec)], NOW)
        return run_id

    def lease(self, most: int = 99, lease: str = LEASE, now: float = NOW) -> list[Claim]:
        return self.queue.tick(lease, now, (), lambda: [(one, ()) for one in list(self.queue.candidates())[:most]])

    def end(
        self, claim: Claim, state: State = State.SUCCEEDED, lease: str = LEASE, retry_in: float | None = None
    ) -> None:
        code = 0 if state is State.SUCCEEDED else 1
        self.queue.tick(lease, NOW, [Outcome(claim, state, Reason.NONE, "", code, NOW, retry_in)])

    def state(self, run_id: str) -> tuple[State, Reason]:
        last = self.store.get(run_id).last
        return last.state, last.reason


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    one = Bench(tmp_path / "runs.db")
    yield one
    one.store.close()


def test_from_submission_to_the_end(bench: Bench) -> None:
    run_id = bench.submit()
    assert bench.queue.busy()
    (claim,) = bench.lease()
    assert (claim.run_id, claim.attempt, claim.failures) == (run_id, 1, 0)
    assert bench.state(run_id) == (State.RUNNING, Reason.NONE)
    bench.end(claim)
    last = bench.store.get(run_id).last
    assert (last.state, last.exit_code, last.started, last.ended) == (State.SUCCEEDED, 0, NOW, NOW)
    assert bench.changed == {run_id: State.SUCCEEDED}
    assert not bench.queue.busy()


def test_submitted_twice_is_submitted_once(bench: Bench) -> None:
    run_id = bench.submit()
    bench.queue.submit([(run_id, JobSpec(("other",)))], NOW)
    assert len(bench.lease()) == 1
    assert bench.store.get(run_id).spec.argv == ("true",)


def test_only_the_holder_of_a_lease_records_an_outcome(bench: Bench) -> None:
    run_id = bench.submit()
    (claim,) = bench.lease()
    bench.queue.take_over("successor")
    bench.end(claim, State.FAILED)
    assert bench.state(run_id)[0] is State.RUNNING
    bench.end(claim, State.SUCCEEDED, "successor")
    bench.end(claim, State.FAILED, "successor")
    assert bench.state(run_id)[0] is State.SUCCEEDED


def test_priority_then_age_then_index(bench: Bench) -> None:
    low, high = bench.submit(), bench.submit(priority=9)
    array = bench.submit(array=parse_array("3,1"))
    assert [(one.run_id, one.index) for one in bench.queue.candidates()] == [
        (high, 0),
        (low, 0),
        (array, 1),
        (array, 3),
    ]
    assert [bench.queue.ahead(high, 0), bench.queue.ahead(array, 3)] == [0, 3]


def test_an_array_and_its_limit(bench: Bench) -> None:
    run_id = bench.submit(array=parse_array("0-4%2"))
    tasks = bench.store.get(run_id).last.tasks
    assert [task.reason for task in tasks] == [Reason.WAITING_FOR_SLOT] * 2 + [Reason.ARRAY_LIMIT] * 3
    first, second = bench.lease()
    assert bench.lease() == []
    bench.end(first, State.FAILED)
    (third,) = bench.lease()
    assert third.index == 2
    assert bench.store.list()[0].last.detail == "2 queued, 2 running, 1 failed"
    bench.end(second, State.FAILED, retry_in=5)
    (fourth,) = bench.lease()
    assert fourth.index == 3
    for claim in (third, fourth):
        bench.end(claim)
    assert [claim.index for claim in bench.lease()] == [4]
    assert [claim.index for claim in bench.lease(now=NOW + 6)] == [1]


def test_chains_of_dependencies(bench: Bench) -> None:
    first = bench.submit()
    second = bench.submit(after=(Dependency(first),))
    third = bench.submit(after=(Dependency(second), Dependency(first)))
    assert bench.state(third) == (State.QUEUED, Reason.WAITING_FOR_RUN)
    (claim,) = bench.lease()
    bench.end(claim)
    (claim,) = bench.lease()
    assert claim.run_id == second
    bench.end(claim, State.FAILED)
    assert bench.state(third) == (State.CANCELLED, Reason.DEPENDENCY_FAILED)
    assert second in bench.store.get(third).last.detail


def test_a_cancelled_run_takes_those_behind_it_along(bench: Bench) -> None:
    first = bench.submit()
    runs = [first]
    for _ in range(30):
        runs.append(bench.submit(after=(Dependency(runs[-1]),)))
    bench.queue.cancel([first], None, NOW)
    assert {bench.state(run_id) for run_id in runs[1:]} == {(State.CANCELLED, Reason.DEPENDENCY_FAILED)}
    assert not bench.queue.busy()


def test_retries_wait_and_a_clock_set_back_does_not_hold_them_for_ever(bench: Bench) -> None:
    run_id = bench.submit(retries=2)
    (claim,) = bench.lease()
    bench.end(claim, State.FAILED, retry_in=8)
    assert bench.state(run_id) == (State.QUEUED, Reason.WAITING_TO_RETRY)
    assert bench.lease() == []
    assert bench.queue.next_due(NOW) == pytest.approx(8)
    assert bench.queue.next_due(NOW - 86400) == LONGEST_BACKOFF
    assert bench.queue.next_due(NOW + 86400) == 0
    (claim,) = bench.lease(now=NOW - 86400)
    assert (claim.attempt, claim.failures) == (2, 1)


def test_held_and_let_go(bench: Bench) -> None:
    first = bench.submit()
    second = bench.submit(after=(Dependency(first),))
    bench.queue.suspend([first, second], NOW)
    assert bench.state(first) == bench.state(second) == (State.HELD, Reason.HELD_BY_USER)
    assert bench.lease() == []
    bench.queue.resume([first, second], NOW)
    assert bench.state(second) == (State.QUEUED, Reason.WAITING_FOR_RUN)
    (claim,) = bench.lease()
    bench.end(claim)
    assert [claim.run_id for claim in bench.lease()] == [second]


def test_words_for_the_worker(bench: Bench) -> None:
    run_id = bench.submit()
    (claim,) = bench.lease()
    bench.queue.suspend([run_id], NOW)
    assert bench.queue.wanted() == [(claim.seq, 0, "suspend")]
    bench.queue.resume([run_id], NOW)
    assert bench.queue.wanted() == []
    bench.queue.suspend([run_id], NOW)
    bench.queue.tick(LEASE, NOW, states=[(claim, State.SUSPENDED)])
    assert (bench.state(run_id)[0], bench.queue.wanted()) == (State.SUSPENDED, [])
    bench.queue.resume([run_id], NOW)
    bench.queue.cancel([run_id], None, NOW)
    assert bench.queue.wanted() == [(claim.seq, 0, "cancel")]
    bench.queue.intend(claim, LEASE, "time-limit")
    assert bench.queue.wanted() == [(claim.seq, 0, "cancel")], "what the user wants stands"


def test_an_ended_run_is_left_alone(bench: Bench) -> None:
    run_id = bench.submit()
    (claim,) = bench.lease()
    bench.end(claim)
    before = bench.store.get(run_id)
    for action in (bench.queue.suspend, bench.queue.resume):
        action([run_id], NOW + 50)
    bench.queue.cancel([run_id], None, NOW + 50)
    assert bench.store.get(run_id) == before


def test_what_never_began_does_not_count(bench: Bench) -> None:
    run_id = bench.submit(retries=1)
    (claim,) = bench.lease()
    bench.queue.give_back(claim, LEASE, NOW)
    assert bench.state(run_id)[0] is State.QUEUED
    (again,) = bench.lease()
    assert (again.attempt, again.failures) == (2, 0)


def test_the_places_own_truth_is_not_overwritten(bench: Bench) -> None:
    run_id = bench.submit(resources=Resources(cpus=0.5))
    bench.store.record({run_id: Observation(State.LOST)}, NOW)
    assert bench.state(run_id)[0] is State.QUEUED
