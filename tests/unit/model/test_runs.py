from __future__ import annotations

import pytest

from qwex.model.runs import Task, overall
from qwex.model.states import Reason, State
from qwex.model.trees import EMPTY, Entry, Kind, Tree

S = State


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([S.SUCCEEDED, S.RUNNING, S.FAILED], S.RUNNING),
        ([S.SUCCEEDED, S.QUEUED], S.QUEUED),
        ([S.HELD, S.HELD], S.HELD),
        ([S.SUCCEEDED, S.SUCCEEDED], S.SUCCEEDED),
        ([S.SUCCEEDED, S.FAILED, S.CANCELLED], S.FAILED),
        ([S.SUCCEEDED, S.LOST, S.FAILED], S.LOST),
        ([S.SUCCEEDED, S.CANCELLED], S.CANCELLED),
    ],
)
def test_a_run_is_as_its_tasks_are(states: list[State], expected: State) -> None:
    assert overall(Task(index, state) for index, state in enumerate(states))[0] is expected


def test_an_ended_run_reports_the_worst_tasks_reason_and_code() -> None:
    tasks = [Task(0, S.SUCCEEDED, exit_code=0), Task(1, S.FAILED, Reason.EXIT_CODE, exit_code=3)]
    assert overall(tasks) == (S.FAILED, Reason.EXIT_CODE, "1 succeeded, 1 failed", 3)


def test_trees_are_the_same_whatever_the_order_and_the_times() -> None:
    one = Entry(b"a", Kind.FILE, 0o644, 1, "aa", 5)
    two = Entry(b"b", Kind.LINK, 0, 0, b"a".hex(), 6)
    assert Tree.of([two, one]).digest == Tree.of([one, two._replace(mtime_ns=9)]).digest
    assert Tree.of([one, two]).digest != Tree.of([one._replace(mode=0o755), two]).digest
    assert two.target == b"a"
    assert EMPTY.digest == ""
