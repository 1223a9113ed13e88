from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwex.errors import StoreError, UnknownName, UsageError
from qwex.model.jobs import Condition, Dependency, JobSpec, Resources, StdinMode, parse_array
from qwex.model.runs import Attempt, Observation, Task
from qwex.model.states import Reason, State
from qwex.store import RunStore

NOW = 1_800_000_000.0
FULL = JobSpec(
    ("echo", "\udcff", "é\n"),
    shell=True,
    cwd="sub",
    name="n",
    resources=Resources(2.5, 1 << 30, 2, "a100"),
    time_limit=60,
    grace=3,
    priority=-5,
    retries=2,
    array=parse_array("0-4,9%2"),
    after=(Dependency("000000000", Condition.FAIL),),
    env=(("A", "b\udcfe"),),
    secrets=("TOKEN",),
    stdin=StdinMode.LIVE,
    snapshot="ab",
    root="/r\udcfd",
    out=("*.csv",),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.open(tmp_path / "state/runs.db") as opened:
        yield opened


def add(store: RunStore, *specs: JobSpec, place: str = "local", user: str = "me", now: float = NOW) -> list[str]:
    return [run.id for run in store.add([(spec, place, user) for spec in specs], now)]


def plain(count: int = 1) -> list[JobSpec]:
    return [JobSpec(("true",))] * count


def test_what_was_added_is_read_again(store: RunStore, tmp_path: Path) -> None:
    (added,) = store.add([(FULL, "gpu1", "me")], NOW)
    store.set_handles({added.id: {"where": "there", "n": [1]}})
    store.set_pulled(added.id, "/home/\udcff")
    store.set_cursor(added.id, {"0.1": [5, 6]})
    with RunStore.open(tmp_path / "state/runs.db") as again:
        run = again.get(added.id)
        assert run.spec == FULL == added.spec
        assert (run.place, run.user, run.created, run.state) == ("gpu1", "me", NOW, State.QUEUED)
        assert (run.handle, run.pulled) == ({"where": "there", "n": [1]}, "/home/\udcff")
        assert [task.index for task in run.last.tasks] == [0, 1, 2, 3, 4, 9]
        assert again.cursor(added.id) == {"0.1": [5, 6]}
        assert again.notice is None


def test_ids_ascend_and_never_collide_whatever_the_clock(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.randbelow", lambda most: 7)
    first = add(store, *plain(20))
    second = add(store, *plain(20))
    back = add(store, *plain(5), now=NOW - 86400)
    assert first == sorted(first)
    assert len({*first, *second, *back}) == 45
    assert [run.id for run in store.list(limit=None)] == [*reversed(back), *reversed(second), *reversed(first)]


def test_references(store: RunStore) -> None:
    first, second = add(store, *plain(2))
    assert store.resolve(first) == (first, None)
    assert store.resolve(second.upper()) == (second, None)
    assert store.resolve("last") == (second, None)
    assert store.resolve(f"{second}.0") == (second, 0)
    with pytest.raises(UsageError, match=rf"several runs: {first}, {second}"):
        store.resolve(first[:4])
    with pytest.raises(UnknownName) as caught:
        store.resolve("zzz")
    assert second in str(caught.value.hint)
    with pytest.raises(UsageError, match="no element 3"):
        store.resolve(f"{first}.3")
    with pytest.raises(UsageError, match="not a run id"):
        store.resolve("Ö!")


def test_nothing_yet(store: RunStore) -> None:
    assert store.list() == store.active() == []
    with pytest.raises(UnknownName) as caught:
        store.get("last")
    assert "no run was submitted yet" in str(caught.value.hint)


def test_listing(store: RunStore) -> None:
    here = add(store, *plain(3))
    there = add(store, *plain(2), place="gpu1", user="you")
    store.record({there[0]: Observation(State.FAILED, Reason.EXIT_CODE, exit_code=3)}, NOW)

    def listed(**query: Any) -> list[str]:
        return [run.id for run in store.list(**query)]

    assert listed() == [there[1], there[0], *reversed(here)]
    assert listed(limit=2) == [there[1], there[0]]
    assert listed(limit=2, before=there[0]) == [here[2], here[1]]
    assert listed(states=[State.FAILED, State.LOST]) == [there[0]]
    assert listed(user="you", states=[State.QUEUED]) == [there[1]]
    assert listed(place="local") == list(reversed(here))
    assert listed(user="nobody") == []
    assert [run.id for run in store.active("gpu1")] == [there[1]]
    assert all(run.last.tasks == () for run in store.list())


def test_observations_are_recorded_and_an_end_stays(store: RunStore) -> None:
    (run_id,) = add(store, JobSpec(("x",), array=parse_array("0-1")))
    tasks = (
        Task(
            0,
            State.FAILED,
            Reason.SIGNAL,
            "SIGKILL \udcff",
            137,
            (Attempt(1, State.FAILED, Reason.SIGNAL, "", 137, 1, 2),),
        ),
        Task(1, State.RUNNING, attempts=(Attempt(1, State.RUNNING, started=1.5),)),
    )
    store.record(
        {run_id: Observation(State.RUNNING, started=1.0, tasks=tasks), "000000000": Observation(State.LOST)}, 3
    )
    seen = store.get(run_id)
    assert (seen.state, seen.last.started, seen.seen) == (State.RUNNING, 1.0, 3)
    assert seen.last.tasks[1] == tasks[1]
    assert seen.last.tasks[0].attempts == tasks[0].attempts
    assert store.list()[0].last.detail == "1 running, 1 failed"
    store.record({run_id: Observation(State.CANCELLED, Reason.CANCELLED_BY_USER, ended=4, tasks=tasks)}, 5)
    store.record({run_id: Observation(State.RUNNING, Reason.UNKNOWN, result_bytes=7, result_files=1)}, 6)
    end = store.get(run_id).last
    assert (end.state, end.reason, end.ended, end.result_bytes) == (State.CANCELLED, Reason.CANCELLED_BY_USER, 4, 7)


def test_forgetting(store: RunStore) -> None:
    first, second = add(store, *plain(2))
    store.forget([first])
    assert [run.id for run in store.list()] == [second]
    assert store.read([first, second]).keys() == {second}


def test_several_open_it_for_the_first_time_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(8)

    def work() -> None:
        try:
            together.wait()
            with RunStore.open(tmp_path / "runs.db") as opened:
                for _ in range(10):
                    add(opened, *plain(2))
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with RunStore.open(tmp_path / "runs.db") as opened:
        assert len(opened.list(limit=None)) == 160


@pytest.mark.parametrize("damage", [b"", b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_kept_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "runs.db"
    with RunStore.open(path) as opened:
        add(opened, *plain())
    path.write_bytes(damage)
    with RunStore.open(path) as again:
        assert again.list() == []
        kept = list(tmp_path.glob("runs.db.corrupt-*"))
        if damage:
            assert [one.read_bytes() for one in kept] == [damage]
            assert str(kept[0]) in str(again.notice)
        else:
            assert (kept, again.notice) == ([], None), "an empty file is a new one"
        add(again, *plain())


def test_damage_found_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with RunStore.open(path) as opened:
        add(opened, *plain(2000))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with RunStore.open(path) as opened:
        data = bytearray(path.read_bytes())
        for page in range(10, len(data) // 4096 - 4):
            data[page * 4096 : page * 4096 + 64] = b"\xee" * 64
        path.write_bytes(data)
        with pytest.raises(StoreError, match="were damaged") as caught:
            opened.list(limit=None)
        assert "run the command again" in str(caught.value.hint)
    with RunStore.open(path) as again:
        assert again.list() == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        RunStore.open(tmp_path / "file/qwex/runs.db")
