"""Every run this user submitted, wherever it runs: what was asked, where it is, what was last seen of it."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from qwex.errors import UnknownName, UsageError
from qwex.model.ids import fresh_ids, split_ref
from qwex.model.jobs import JobSpec
from qwex.model.runs import Attempt, Observation, Run, Task
from qwex.model.states import FINAL, State
from qwex.store.database import Database
from qwex.store.rows import RUN, counts_text, plain, read_run, read_tasks, write_json, write_spec

__all__ = ["RunStore"]

_Runs = list[Run]  # inside the class `list` is a method
_Cursor = dict[str, list[int]]

_ENDED = ",".join(f"'{state}'" for state in sorted(FINAL))
_INSERT_RUN = """INSERT OR IGNORE INTO runs
(id, place, user, created, spec, state, reason, seen, counts, cpus, mem, gpus, gpu_product, at_a_time)
VALUES (?, ?, ?, ?, ?, 'queued', 'none', ?, ?, ?, ?, ?, ?, ?)"""
_INSERT_TASK = "INSERT INTO tasks (run, idx, state, reason, priority) VALUES (?, ?, 'queued', 'none', ?)"
_RECORD = f"""UPDATE runs SET state = ?, reason = ?, detail = ?, exit_code = ?, started = coalesce(?, started), ended = ?,
result_bytes = coalesce(?, result_bytes), result_files = coalesce(?, result_files), counts = ?, seen = ?
WHERE seq = ? AND state NOT IN ({_ENDED})"""
_RECORD_RESULTS = """UPDATE runs SET result_bytes = ?, result_files = ?
WHERE seq = ? AND result_bytes IS NULL AND ? IS NOT NULL"""
_UPSERT_TASK = """INSERT INTO tasks (run, idx, state, reason, detail, exit_code, attempt, started)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, reason = excluded.reason,
detail = excluded.detail, exit_code = excluded.exit_code, attempt = excluded.attempt, started = excluded.started"""


def _attempt_columns(one: Attempt) -> tuple[object, ...]:
    return one.number, one.state, one.reason, plain(one.detail), one.exit_code, one.started, one.ended


class RunStore:
    """One connection to the records: use it in the thread that opened it. Every method is one short transaction.

    Methods raise StoreError when the file cannot be read or written. ``notice`` is one sentence for the user, or None.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, path: Path) -> RunStore:
        """Open or make ``runs.db``. A damaged one is kept aside and a new one begun: ``notice`` says so."""
        return cls(Database(path))

    @property
    def notice(self) -> str | None:
        return self.database.notice

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, runs: Sequence[tuple[JobSpec, str, str]], now: float) -> _Runs:
        """Record ``(spec, place, user)`` as queued and not yet handed to the place; ids ascend in the order given."""
        ids = fresh_ids(now)
        added = []
        with self.database.writing() as db:
            for spec, place, user in runs:
                need = spec.resources
                counts = write_json({State.QUEUED: len(spec.indexes)}) if spec.array else ""
                row = (
                    *(plain(place), plain(user), now, write_spec(spec), now, counts, need.cpus, need.mem, need.gpus),
                    *(need.gpu_product, spec.array.limit if spec.array else 0),
                )
                for run_id in ids:
                    cursor = db.execute(_INSERT_RUN, (run_id, *row))
                    if cursor.rowcount:
                        break
                db.executemany(_INSERT_TASK, ((cursor.lastrowid, index, spec.priority) for index in spec.indexes))
                tasks = tuple(Task(index, State.QUEUED) for index in spec.indexes)
                added.append(Run(run_id, place, user, now, spec, {}, Observation(State.QUEUED, tasks=tasks), now))
        return added

    def resolve(self, ref: str) -> tuple[str, int | None]:
        """``(run id, task index or None)`` for an id, a unique prefix or ``last``, with or without ``.INDEX``.

        UnknownName when there is none, UsageError when the prefix fits several (they are listed) or is no reference.
        """
        try:
            prefix, task = split_ref(ref)
        except ValueError as error:
            raise UsageError(str(error), hint="`qwex list` shows the ids") from error
        with self.database.reading() as db:
            if prefix == "last":
                found = db.execute("SELECT id, seq FROM runs ORDER BY seq DESC LIMIT 1").fetchall()
            else:
                query = "SELECT id, seq FROM runs WHERE id >= ? AND id < ? ORDER BY id LIMIT 9"
                found = db.execute(query, (prefix, prefix + "{")).fetchall()
            if not found:
                newest = [row[0] for row in db.execute("SELECT id FROM runs ORDER BY seq DESC LIMIT 5")]
                raise UnknownName("run", ref, newest, hint=None if newest else "no run was submitted yet")
            if len(found) > 1:
                listed = ", ".join(row[0] for row in found[:8]) + (", …" if len(found) > 8 else "")
                raise UsageError(f"{ref!r} fits several runs: {listed}", hint="write more of the id")
            run_id, seq = found[0]
            if (
                task is not None
                and not db.execute("SELECT 1 FROM tasks WHERE run = ? AND idx = ?", (seq, task)).fetchone()
            ):
                raise UsageError(f"run {run_id} has no element {task}", hint=f"`qwex status {run_id}` shows them")
        return run_id, task

    def get(self, ref: str) -> Run:
        """The run with its tasks and their attempts. UnknownName or UsageError as ``resolve``."""
        run_id, _ = self.resolve(ref)
        runs = self.read([run_id])
        if run_id not in runs:
            raise UnknownName("run", ref, ())
        return runs[run_id]

    def read(self, ids: Iterable[str], *, tasks: bool = True) -> dict[str, Run]:
        """These runs, with or without tasks; those that are not recorded are missing."""
        runs = {}
        with self.database.reading() as db:
            for run_id in ids:
                row = db.execute(f"SELECT {RUN} FROM runs WHERE id = ?", (run_id,)).fetchone()
                if row:
                    runs[run_id] = read_run(row, read_tasks(db, row[-1]) if tasks else ())
        return runs

    def list(
        self,
        *,
        states: Iterable[State] = (),
        user: str | None = None,
        place: str | None = None,
        limit: int | None = 50,
        before: str | None = None,
    ) -> _Runs:
        """Newest first, without tasks (an array's ``last.detail`` counts them). ``before``: older than this run. ``limit`` None: all."""
        where = "".join(
            f" AND {name} = :{name}" for name, value in (("user", user), ("place", place)) if value is not None
        )
        # Each state's runs are read from the end of one covering index, so that a rare state costs no more than a common one.
        query = f"SELECT seq FROM runs WHERE state = :state AND seq < :below{where} ORDER BY seq DESC LIMIT :most"
        most = -1 if limit is None else limit
        with self.database.reading() as db:
            below = 2**62
            if before is not None:
                below = next(iter(db.execute("SELECT seq FROM runs WHERE id = ?", (before,))), (2**62,))[0]
            bound = {"user": user, "place": place, "below": below, "most": most}
            found = [
                db.execute(query, {**bound, "state": state}).fetchall() for state in dict.fromkeys(states or State)
            ]
            newest = [row[0] for row in heapq.merge(*found, reverse=True)][: limit if limit is not None else None]
            one = f"SELECT {RUN} FROM runs WHERE seq = ?"
            return [read_run(db.execute(one, (seq,)).fetchone()) for seq in newest]

    def active(self, place: str | None = None) -> _Runs:
        """Every run that has not ended, newest first, without tasks."""
        return self.list(states=[state for state in State if not state.final], place=place, limit=None)

    def record(self, observed: Mapping[str, Observation], seen: float) -> None:
        """Write down what places answered. Ended runs keep their end; runs of this machine's own queue are known better."""
        with self.database.writing() as db:
            for run_id, one in observed.items():
                row = db.execute("SELECT seq, here, state FROM runs WHERE id = ?", (run_id,)).fetchone()
                if row is None or row[1]:
                    continue
                seq = row[0]
                if State(row[2]).final:
                    db.execute(_RECORD_RESULTS, (one.result_bytes, one.result_files, seq, one.result_bytes))
                    continue
                counts = Counter(task.state.value for task in one.tasks)
                many = len(one.tasks) > 1
                values = (
                    *(one.state, one.reason, counts_text(counts) if many else plain(one.detail), one.exit_code),
                    *(one.started, one.ended if one.state.final else None, one.result_bytes, one.result_files),
                    *(write_json(counts) if many else "", seen, seq),
                )
                db.execute(_RECORD, values)
                self._record_tasks(db, seq, one.tasks)

    @staticmethod
    def _record_tasks(db: sqlite3.Connection, seq: int, tasks: Sequence[Task]) -> None:
        known = {task.index: task for task in read_tasks(db, seq)}
        for task in tasks:
            old = known.get(task.index)
            if task == old:
                continue
            last = task.attempts[-1] if task.attempts else None
            values = (seq, task.index, task.state, task.reason, plain(task.detail), task.exit_code)
            db.execute(_UPSERT_TASK, (*values, last.number if last else 0, last.started if last else None))
            db.executemany(
                "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((seq, task.index, *_attempt_columns(one)) for one in task.attempts if one.state.final),
            )

    def set_handles(self, handles: Mapping[str, Mapping[str, object]]) -> None:
        """The places took these runs up."""
        with self.database.writing() as db:
            db.executemany(
                "UPDATE runs SET handle = ? WHERE id = ?",
                ((write_json(dict(handle)), run_id) for run_id, handle in handles.items()),
            )

    def set_pulled(self, run_id: str, directory: str) -> None:
        with self.database.writing() as db:
            db.execute("UPDATE runs SET pulled = ? WHERE id = ?", (write_json(directory), run_id))

    def cursor(self, run_id: str) -> _Cursor:
        """How far this user's logs of the run were shown."""
        with self.database.reading() as db:
            row = db.execute("SELECT cursor FROM runs WHERE id = ?", (run_id,)).fetchone()
        cursor: _Cursor = json.loads(row[0]) if row else {}
        return cursor

    def set_cursor(self, run_id: str, cursor: Mapping[str, Sequence[int]]) -> None:
        with self.database.writing() as db:
            db.execute("UPDATE runs SET cursor = ? WHERE id = ?", (write_json(dict(cursor)), run_id))

    def forget(self, ids: Iterable[str]) -> None:
        """Remove the records of these runs. Whoever waits for one of them waits for nothing any more."""
        with self.database.writing() as db:
            for run_id in ids:
                for (seq,) in db.execute("SELECT seq FROM runs WHERE id = ?", (run_id,)).fetchall():
                    for table in ("tasks", "attempts", "dependencies"):
                        db.execute(f"DELETE FROM {table} WHERE run = ?", (seq,))
                    db.execute("DELETE FROM runs WHERE seq = ?", (seq,))
