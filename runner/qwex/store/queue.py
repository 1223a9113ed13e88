"""This machine's queue: what its worker leases and finishes, and what clients ask of it.

The same file as the records, and the truth for runs of this machine (``runs.here``). A task goes
``queued → running (leased) → ended``, or back to ``queued`` for a retry; ``eligible`` marks queued tasks that wait for nothing but
resources. Only the holder of a lease changes a leased task; clients leave it a word in ``want``. Every method is one transaction,
and what happens to a run (its own row, those that wait for it) is settled in the same one.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from qwex.errors import UsageError
from qwex.model.jobs import Condition, JobSpec
from qwex.model.runs import Task, overall
from qwex.model.states import Reason, State
from qwex.store.database import Database
from qwex.store.entries import Candidate, Claim, Outcome, Parent
from qwex.store.rows import counts_text, plain, read_spec, write_json, write_spec

__all__ = ["LONGEST_BACKOFF", "Queue"]

LONGEST_BACKOFF = 60.0

_GOING_ON = ",".join(f"'{state}'" for state in State if not state.final)
_LEASE = """UPDATE tasks SET state = 'running', reason = 'none', detail = '', eligible = 0, want = '', lease = ?, started = ?,
attempt = attempt + 1, gpu_list = ?, due = NULL WHERE run = ? AND idx = ? AND eligible = 1"""
_END = """UPDATE tasks SET state = ?, reason = ?, detail = ?, exit_code = ?, eligible = 0, want = '', lease = NULL, started = NULL,
gpu_list = '', due = ?, result_bytes = ?, result_files = ? WHERE run = ? AND idx = ? AND lease IS ?"""
_RUN = """UPDATE runs SET state = ?, reason = ?, detail = ?, exit_code = ?, started = coalesce(started, ?), ended = coalesce(ended, ?),
result_bytes = coalesce(?, result_bytes), result_files = coalesce(?, result_files), counts = ?, seen = ? WHERE seq = ?"""
_PLAIN_RUN = """UPDATE runs SET (state, reason, detail, exit_code) =
(SELECT state, reason, detail, exit_code FROM tasks WHERE run = ?1), started = coalesce(started, ?2), seen = ?3
WHERE seq = ?1 AND counts = '' RETURNING id, state"""
_PLAIN_END = """UPDATE runs SET ended = coalesce(ended, ?2), (result_bytes, result_files) =
(SELECT result_bytes, result_files FROM tasks WHERE run = ?1) WHERE seq = ?1"""
_NEXT_ELIGIBLE = """UPDATE tasks SET eligible = 1, reason = 'waiting-for-slot' WHERE run = ?1 AND idx IN
(SELECT idx FROM tasks WHERE run = ?1 AND state = 'queued' AND eligible = 0 AND due IS NULL ORDER BY idx LIMIT ?2)"""
_CANDIDATES = """SELECT t.run, t.idx, r.id, r.cpus, r.mem, r.gpus, r.gpu_product FROM tasks t JOIN runs r ON r.seq = t.run
WHERE t.eligible = 1 ORDER BY t.priority DESC, t.run, t.idx"""
_CLAIMS = """SELECT t.run, t.idx, r.id, t.attempt, t.started, t.gpu_list, t.state, t.want, r.spec,
(SELECT count(*) FROM attempts a WHERE a.run = t.run AND a.idx = t.idx) FROM tasks t
JOIN runs r ON r.seq = t.run WHERE t.lease IS NOT NULL"""


class _Changes:
    """What one transaction did: per run, by how much its counts of tasks moved, and when a task was first started."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.moved: dict[int, Counter[str]] = {}
        self.settled: dict[str, State] = {}
        self.started: dict[int, float] = {}

    def touch(self, seq: int) -> None:
        self.moved.setdefault(seq, Counter())

    def move(self, seq: int, old: str, new: str, count: int = 1) -> None:
        if not count:
            return
        delta = self.moved.setdefault(seq, Counter())
        delta[old] -= count
        delta[new] += count


class Queue:
    """Over the connection of one thread. ``changed`` is told the states of runs whose row changed, after the commit."""

    def __init__(self, database: Database, changed: Callable[[Mapping[str, State]], None] | None = None) -> None:
        self.database = database
        self._changed = changed

    @contextmanager
    def _transaction(self, now: float) -> Iterator[tuple[sqlite3.Connection, _Changes]]:
        changes = _Changes(now)
        with self.database.writing() as db:
            yield db, changes
            self._settle(db, changes)
        if changes.settled and self._changed:
            self._changed(changes.settled)

    # What clients ask

    def known(self, ids: Iterable[str]) -> set[str]:
        """Those of these runs that this machine has taken up."""
        with self.database.reading() as db:
            query = "SELECT 1 FROM runs WHERE id = ? AND here = 1"
            return {one for one in ids if db.execute(query, (one,)).fetchone()}

    def submit(self, runs: Sequence[tuple[str, JobSpec]], now: float) -> None:
        """Take up recorded runs; all or none. Those already here, and those that ended meanwhile, stay as they are.

        UsageError when one waits for a run that this machine does not have.
        """
        with self._transaction(now) as (db, changes):
            taken = []
            for run_id, spec in runs:
                row = db.execute("SELECT seq, here, state FROM runs WHERE id = ?", (run_id,)).fetchone()
                if row is None:
                    raise UsageError(f"run {run_id} is not recorded here")
                if row[1] or State(row[2]).final:
                    continue
                db.execute("UPDATE runs SET here = 1, spec = ? WHERE seq = ?", (write_spec(spec), row[0]))
                taken.append((row[0], run_id, spec))
            for seq, run_id, spec in taken:
                changes.touch(seq)
                self._wait_for(db, changes, seq, run_id, spec)

    def _wait_for(self, db: sqlite3.Connection, changes: _Changes, seq: int, run_id: str, spec: JobSpec) -> None:
        waiting = False
        for one in spec.after:
            row = db.execute("SELECT seq, state, here FROM runs WHERE id = ?", (one.run_id,)).fetchone()
            if row is None or not row[2]:
                raise UsageError(
                    f"run {run_id} shall start after {one.run_id}, which this machine does not have",
                    hint="a run can wait for runs of its own place only",
                )
            if not State(row[1]).final:
                db.execute("INSERT OR IGNORE INTO dependencies VALUES (?, ?, ?)", (seq, row[0], one.condition))
                waiting = True
            elif not _satisfied(one.condition, State(row[1])):
                self._give_up(db, changes, seq, one.run_id, row[1])
                return
        if waiting:
            db.execute("UPDATE tasks SET reason = 'waiting-for-run' WHERE run = ?", (seq,))
        else:
            self._open(db, seq, first=True)

    def cancel(self, ids: Iterable[str], indexes: Sequence[int] | None, now: float) -> None:
        """End what waits; ask the worker to end what runs. Ended tasks are left alone."""
        chosen = "" if indexes is None else f" AND idx IN ({','.join(str(int(one)) for one in indexes)})"
        with self._transaction(now) as (db, changes):
            for seq in _seqs(db, ids):
                db.execute(f"UPDATE tasks SET want = 'cancel' WHERE run = ? AND lease IS NOT NULL{chosen}", (seq,))
                self._end_waiting(db, changes, seq, Reason.CANCELLED_BY_USER, "", chosen)
                if indexes is None:
                    db.execute("DELETE FROM dependencies WHERE run = ?", (seq,))

    def suspend(self, ids: Iterable[str], now: float) -> None:
        """Hold what waits; ask the worker to stop what runs."""
        with self._transaction(now) as (db, changes):
            for seq in _seqs(db, ids):
                db.execute(
                    "UPDATE tasks SET want = 'suspend' WHERE run = ? AND state = 'running' AND want = ''", (seq,)
                )
                held = db.execute(
                    "UPDATE tasks SET state = 'held', reason = 'held-by-user', eligible = 0, due = NULL "
                    "WHERE run = ? AND state = 'queued'",
                    (seq,),
                )
                changes.move(seq, State.QUEUED, State.HELD, held.rowcount)

    def resume(self, ids: Iterable[str], now: float) -> None:
        """Undo ``suspend``."""
        with self._transaction(now) as (db, changes):
            for seq in _seqs(db, ids):
                db.execute(
                    "UPDATE tasks SET want = iif(want = 'suspend', '', 'resume') "
                    "WHERE run = ? AND lease IS NOT NULL AND (state = 'suspended' OR want = 'suspend') "
                    "AND want IN ('', 'suspend')",
                    (seq,),
                )
                freed = db.execute(
                    "UPDATE tasks SET state = 'queued', reason = 'waiting-for-run' WHERE run = ? AND state = 'held'",
                    (seq,),
                )
                changes.move(seq, State.HELD, State.QUEUED, freed.rowcount)
                if not db.execute("SELECT 1 FROM dependencies WHERE run = ?", (seq,)).fetchone():
                    self._open(db, seq, first=True)

    def waits_for(self, run_id: str) -> list[Parent]:
        """The runs that must end before this one may start."""
        query = """SELECT p.id, p.spec, p.state, d.condition FROM dependencies d JOIN runs c ON c.seq = d.run
        JOIN runs p ON p.seq = d.parent WHERE c.id = ? ORDER BY p.seq"""
        with self.database.reading() as db:
            return [
                Parent(parent, json.loads(spec)["name"], State(state), Condition(condition))
                for parent, spec, state, condition in db.execute(query, (run_id,))
            ]

    def due(self, run_id: str, index: int) -> float | None:
        """When the task may be tried again, Unix seconds."""
        query = "SELECT t.due FROM tasks t JOIN runs r ON r.seq = t.run WHERE r.id = ? AND t.idx = ?"
        with self.database.reading() as db:
            row = db.execute(query, (run_id, index)).fetchone()
            return row[0] if row else None

    def ahead(self, run_id: str, index: int) -> int:
        """How many eligible tasks come before this one, by priority then age."""
        query = """SELECT count(*) FROM tasks t, (SELECT o.priority AS priority, o.run AS run, o.idx AS idx FROM tasks o
        JOIN runs r ON r.seq = o.run WHERE r.id = ? AND o.idx = ?) me WHERE t.eligible = 1 AND
        (t.priority > me.priority OR t.priority = me.priority AND (t.run, t.idx) < (me.run, me.idx))"""
        with self.database.reading() as db:
            return int(db.execute(query, (run_id, index)).fetchone()[0])

    # What the worker does

    def busy(self) -> bool:
        """Whether there is anything for a worker to do now or by itself later."""
        with self.database.reading() as db:
            return any(
                db.execute(f"SELECT 1 FROM tasks WHERE {which} LIMIT 1").fetchone()
                for which in ("eligible = 1", "lease IS NOT NULL", "due IS NOT NULL")
            )

    def claims(self) -> list[Claim]:
        """Every leased task, whoever holds it."""
        with self.database.reading() as db:
            return [_claim(row) for row in db.execute(_CLAIMS)]

    def take_over(self, lease: str) -> list[Claim]:
        """Make the leases of former workers this one's. Only the holder of the worker's lock may call this."""
        with self.database.writing() as db:
            db.execute("UPDATE tasks SET lease = ? WHERE lease IS NOT NULL", (lease,))
            return self.claims()

    def wanted(self) -> list[tuple[int, int, str]]:
        """``(run, index, want)`` of leased tasks somebody wants something of."""
        with self.database.reading() as db:
            return db.execute("SELECT run, idx, want FROM tasks WHERE want != '' AND lease IS NOT NULL").fetchall()

    def candidates(self) -> Iterator[Candidate]:
        """Tasks that could start, by priority then age. Read no further than needed; write nothing before it is closed."""
        for row in self.database.db.execute(_CANDIDATES):
            yield Candidate(*row)

    def tick(
        self,
        lease: str,
        now: float,
        outcomes: Sequence[Outcome] = (),
        choose: Callable[[], Sequence[tuple[Candidate, tuple[int, ...]]]] = lambda: (),
        states: Sequence[tuple[Claim, State]] = (),
    ) -> list[Claim]:
        """One transaction: attempts that ended, tasks that were stopped or continued, and new leases.

        ``choose`` is called after the outcomes are written and names what to lease with which GPUs. What ended is recorded only
        where this worker still holds the lease.
        """
        with self._transaction(now) as (db, changes):
            self._wake_due(db, changes, now)
            for outcome in outcomes:
                self._finish(db, changes, lease, outcome)
            for claim, state in states:
                old = State.SUSPENDED if state is State.RUNNING else State.RUNNING
                cursor = db.execute(
                    "UPDATE tasks SET state = ?, want = iif(want IN ('suspend', 'resume'), '', want) "
                    "WHERE run = ? AND idx = ? AND lease = ? AND state = ?",
                    (state, claim.seq, claim.index, lease, old),
                )
                changes.move(claim.seq, old, state, cursor.rowcount)
            self._settle(db, changes)  # now, so that whoever waited for these can be chosen
            claims = []
            for one, gpus in choose():
                listed = ",".join(map(str, gpus))
                if db.execute(_LEASE, (lease, now, listed, one.seq, one.index)).rowcount:
                    changes.move(one.seq, State.QUEUED, State.RUNNING)
                    changes.started[one.seq] = now
                    row = db.execute(f"{_CLAIMS} AND t.run = ? AND t.idx = ?", (one.seq, one.index)).fetchone()
                    claims.append(_claim(row))
        return claims

    def intend(self, claim: Claim, lease: str, want: str) -> None:
        """Write down that this attempt is being ended and why, so that a successor knows."""
        with self.database.writing() as db:
            db.execute(
                "UPDATE tasks SET want = ? WHERE run = ? AND idx = ? AND lease = ? AND want != 'cancel'",
                (want, claim.seq, claim.index, lease),
            )

    def give_back(self, claim: Claim, lease: str, now: float) -> None:
        """An attempt that never began: queued again, and it does not count. Its number is not used again."""
        with self._transaction(now) as (db, changes):
            cursor = db.execute(
                "UPDATE tasks SET state = 'queued', reason = 'none', lease = NULL, started = NULL, "
                "gpu_list = '', want = '' WHERE run = ? AND idx = ? AND lease = ?",
                (claim.seq, claim.index, lease),
            )
            if cursor.rowcount:
                changes.move(claim.seq, claim.state, State.QUEUED)
                self._open(db, claim.seq)

    def refuse(self, refused: Sequence[tuple[Candidate, str]], now: float) -> None:
        """End tasks that this machine can never run."""
        with self._transaction(now) as (db, changes):
            for one, detail in refused:
                values = (State.FAILED, Reason.NEVER_FITS, plain(detail), None, None, 0, 0, one.seq, one.index, None)
                if db.execute(_END, values).rowcount:
                    changes.move(one.seq, State.QUEUED, State.FAILED)

    def next_due(self, now: float) -> float | None:
        """Seconds until the next retry may start, None when none waits. Never more than the longest back-off, whatever the clock did."""
        with self.database.reading() as db:
            due = db.execute("SELECT min(due) FROM tasks WHERE due IS NOT NULL").fetchone()[0]
        return None if due is None else min(max(due - now, 0.0), LONGEST_BACKOFF)

    def kept_and_old(self, before: float) -> tuple[set[str], set[str]]:
        """Ids of this machine's runs: those that go on or ended since ``before``, and those that ended earlier."""
        with self.database.reading() as db:
            rows = db.execute("SELECT id, coalesce(ended, ?1) < ?1 FROM runs", (before,)).fetchall()
        return {one for one, old in rows if not old}, {one for one, old in rows if old}

    def digests(self) -> set[str]:
        """The snapshots that runs which have not ended still need."""
        query = f"SELECT spec FROM runs WHERE state IN ({_GOING_ON})"
        with self.database.reading() as db:
            return {json.loads(row[0])["snapshot"] for row in db.execute(query)} - {""}

    def fact(self, name: str) -> str | None:
        with self.database.reading() as db:
            row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return row[0] if row else None

    def set_fact(self, name: str, value: str) -> None:
        with self.database.writing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # Inside a transaction

    def _finish(self, db: sqlite3.Connection, changes: _Changes, lease: str, one: Outcome) -> None:
        claim, again = one.claim, one.retry_in is not None
        row = db.execute(
            "SELECT state FROM tasks WHERE run = ? AND idx = ? AND lease = ?", (claim.seq, claim.index, lease)
        ).fetchone()
        if row is None:
            return
        state = State.QUEUED if again else one.state
        due = one.ended + one.retry_in if one.retry_in is not None else None
        detail = plain(one.detail)
        values = (
            *(state, Reason.WAITING_TO_RETRY if again else one.reason, detail, None if again else one.exit_code, due),
            *(one.result_bytes, one.result_files, claim.seq, claim.index, lease),
        )
        db.execute(_END, values)
        ended = (claim.attempt, one.state, one.reason, detail, one.exit_code, claim.started, one.ended)
        db.execute(
            "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (claim.seq, claim.index, *ended)
        )
        changes.move(claim.seq, row[0], state)

    def _wake_due(self, db: sqlite3.Connection, changes: _Changes, now: float) -> None:
        """Retries whose time has come; a time further away than any back-off means that the clock was set back."""
        query = "SELECT run, idx FROM tasks WHERE due IS NOT NULL AND (due <= ? OR due > ?)"
        for seq, index in db.execute(query, (now, now + LONGEST_BACKOFF + 1)).fetchall():
            db.execute("UPDATE tasks SET due = NULL, reason = 'array-limit' WHERE run = ? AND idx = ?", (seq, index))
            self._open(db, seq)
            changes.touch(seq)

    def _open(self, db: sqlite3.Connection, seq: int, *, first: bool = False) -> None:
        """Make tasks of a run eligible whose dependencies are met: all that are queued, or as many as ``%N`` lets go.

        ``first``: nothing of the run was eligible before.
        """
        most = db.execute("SELECT at_a_time FROM runs WHERE seq = ?", (seq,)).fetchone()[0]
        if not most:
            db.execute(_NEXT_ELIGIBLE, (seq, -1))
            return
        priority = db.execute("SELECT priority FROM tasks WHERE run = ? LIMIT 1", (seq,)).fetchone()[0]
        query = "SELECT count(*) FROM tasks WHERE eligible = 1 AND priority = ? AND run = ?"
        taken = db.execute(query, (priority, seq)).fetchone()[0]
        query = "SELECT count(*) FROM tasks WHERE run = ? AND state IN ('running', 'suspended')"
        taken += db.execute(query, (seq,)).fetchone()[0]
        if taken < most:
            db.execute(_NEXT_ELIGIBLE, (seq, most - taken))
        if first:
            db.execute(
                "UPDATE tasks SET reason = 'array-limit' WHERE run = ? AND state = 'queued' AND eligible = 0 AND due IS NULL",
                (seq,),
            )

    def _end_waiting(
        self, db: sqlite3.Connection, changes: _Changes, seq: int, reason: Reason, detail: str, chosen: str = ""
    ) -> None:
        for state in (State.QUEUED, State.HELD):
            ended = db.execute(
                "UPDATE tasks SET state = 'cancelled', reason = ?, detail = ?, eligible = 0, due = NULL "
                f"WHERE run = ? AND state = ?{chosen}",
                (reason, detail, seq, state),
            )
            changes.move(seq, state, State.CANCELLED, ended.rowcount)

    def _give_up(self, db: sqlite3.Connection, changes: _Changes, seq: int, parent: str, state: str) -> None:
        db.execute("DELETE FROM dependencies WHERE run = ?", (seq,))
        self._end_waiting(db, changes, seq, Reason.DEPENDENCY_FAILED, f"run {parent} is {state}")

    def _settle(self, db: sqlite3.Connection, changes: _Changes) -> None:
        """Bring the rows of runs in line with their tasks; settling one that ended may change those that waited for it."""
        while changes.moved:
            self._settle_one(db, changes, min(changes.moved))

    def _settle_one(self, db: sqlite3.Connection, changes: _Changes, seq: int) -> None:
        row = db.execute(_PLAIN_RUN, (seq, changes.started.get(seq), changes.now)).fetchone()
        if row is None:
            self._settle_array(db, changes, seq)
            return
        del changes.moved[seq]
        run_id, state = row[0], State(row[1])
        changes.settled[run_id] = state
        if state.final:
            db.execute(_PLAIN_END, (seq, changes.now))
            self._release(db, changes, seq, run_id, state)

    def _settle_array(self, db: sqlite3.Connection, changes: _Changes, seq: int) -> None:
        delta = changes.moved.pop(seq)
        run_id, text, most = db.execute("SELECT id, counts, at_a_time FROM runs WHERE seq = ?", (seq,)).fetchone()
        counts = Counter[str](json.loads(text))
        counts.update(delta)
        counts = +counts
        if most and (delta[State.RUNNING] < 0 or delta[State.QUEUED]):
            self._open(db, seq)
        state, reason, detail, code = overall(_representatives(db, seq, counts))
        if sum(counts.values()) > 1:
            detail = counts_text(counts)
        size = files = None
        if state.final:
            query = "SELECT sum(result_bytes), sum(result_files) FROM tasks WHERE run = ?"
            size, files = db.execute(query, (seq,)).fetchone()
        values = (
            *(state, reason, detail, code, changes.started.get(seq), changes.now if state.final else None),
            *(size, files, write_json(counts), changes.now, seq),
        )
        db.execute(_RUN, values)
        if state.final:
            self._release(db, changes, seq, run_id, state)
        changes.settled[run_id] = state

    def _release(self, db: sqlite3.Connection, changes: _Changes, seq: int, run_id: str, state: State) -> None:
        for child, condition in db.execute(
            "SELECT run, condition FROM dependencies WHERE parent = ?", (seq,)
        ).fetchall():
            if not _satisfied(Condition(condition), state):
                self._give_up(db, changes, child, run_id, state)
                continue
            db.execute("DELETE FROM dependencies WHERE run = ? AND parent = ?", (child, seq))
            changes.touch(child)
            if not db.execute("SELECT 1 FROM dependencies WHERE run = ?", (child,)).fetchone():
                self._open(db, child, first=True)


def _satisfied(condition: Condition, state: State) -> bool:
    """``fail`` is met by any end without success: a run that was cancelled or lost did not do its work either."""
    return condition is Condition.ANY or (state is State.SUCCEEDED) == (condition is Condition.OK)


def _seqs(db: sqlite3.Connection, ids: Iterable[str]) -> list[int]:
    rows = (db.execute("SELECT seq FROM runs WHERE id = ? AND here = 1", (one,)).fetchone() for one in ids)
    return [row[0] for row in rows if row]


def _claim(row: tuple[int, int, str, int, float, str, str, str, str, int]) -> Claim:
    seq, index, run_id, attempt, started, gpus, state, want, spec, failures = row
    listed = tuple(int(one) for one in gpus.split(",")) if gpus else ()
    return Claim(seq, index, run_id, attempt, started, read_spec(spec), listed, State(state), want, failures)


def _representatives(db: sqlite3.Connection, seq: int, counts: Counter[str]) -> list[Task]:
    """The first task in each state of an array."""
    query = "SELECT idx, state, reason, detail, exit_code FROM tasks WHERE run = ? AND state = ? ORDER BY idx LIMIT 1"
    rows = [db.execute(query, (seq, state)).fetchone() for state in counts]
    return [Task(index, State(state), Reason(reason), detail, code) for index, state, reason, detail, code in rows]
