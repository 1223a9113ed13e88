"""The file behind the store: opening, migrating, and keeping a damaged one aside.

WAL, short transactions (``writing``), 30 s of patience for other writers, who queue for their turn on a lock of their own: SQLite's
waiting is a draw, and of two hundred writers some would never win it. ``synchronous=NORMAL``: a power cut may cost the last
transactions, never the file. All text is stored so that odd bytes of the command line survive (JSON in ASCII).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qwex.errors import StoreError

__all__ = ["MIGRATIONS", "Database"]

_FIRST = """
CREATE TABLE runs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of submission, whatever the clock says
  id TEXT NOT NULL UNIQUE,
  place TEXT NOT NULL,
  user TEXT NOT NULL,
  created REAL NOT NULL,
  spec TEXT NOT NULL,
  handle TEXT NOT NULL DEFAULT '{}',
  pulled TEXT NOT NULL DEFAULT '""',
  cursor TEXT NOT NULL DEFAULT '{}',
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL DEFAULT '',
  exit_code INTEGER,
  started REAL,
  ended REAL,
  seen REAL NOT NULL,
  result_bytes INTEGER,
  result_files INTEGER,
  counts TEXT NOT NULL DEFAULT '',        -- arrays: {"state": tasks}
  here INTEGER NOT NULL DEFAULT 0,        -- 1: in this machine's queue, so this file holds its truth
  cpus REAL NOT NULL DEFAULT 0,
  mem INTEGER NOT NULL DEFAULT 0,
  gpus INTEGER NOT NULL DEFAULT 0,
  gpu_product TEXT NOT NULL DEFAULT '',
  at_a_time INTEGER NOT NULL DEFAULT 0    -- the %N of an array
);
CREATE INDEX runs_listed ON runs (state, seq, user, place);
CREATE TABLE tasks (
  run INTEGER NOT NULL,
  idx INTEGER NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL DEFAULT '',
  exit_code INTEGER,
  attempt INTEGER NOT NULL DEFAULT 0,     -- the number of the last one that was begun
  started REAL,                           -- of that attempt, while it runs
  priority INTEGER NOT NULL DEFAULT 0,
  eligible INTEGER NOT NULL DEFAULT 0,    -- 1: waits for nothing but resources
  due REAL,                               -- when a retry may start
  want TEXT NOT NULL DEFAULT '',          -- what the worker shall do with a running one: cancel, time-limit, suspend, resume
  lease TEXT,                             -- the worker that has it
  gpu_list TEXT NOT NULL DEFAULT '',
  result_bytes INTEGER NOT NULL DEFAULT 0,
  result_files INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (run, idx)
) WITHOUT ROWID;
CREATE INDEX tasks_queue ON tasks (priority DESC, run, idx) WHERE eligible = 1;
CREATE INDEX tasks_leased ON tasks (lease) WHERE lease IS NOT NULL;
CREATE INDEX tasks_due ON tasks (due) WHERE due IS NOT NULL;
CREATE INDEX tasks_wanted ON tasks (want) WHERE want != '';
CREATE INDEX tasks_state ON tasks (run, state, idx);
CREATE TABLE attempts (
  run INTEGER NOT NULL,
  idx INTEGER NOT NULL,
  number INTEGER NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL DEFAULT '',
  exit_code INTEGER,
  started REAL,
  ended REAL,
  PRIMARY KEY (run, idx, number)
) WITHOUT ROWID;
CREATE TABLE dependencies (
  run INTEGER NOT NULL,
  parent INTEGER NOT NULL,
  condition TEXT NOT NULL,
  PRIMARY KEY (run, parent, condition)
) WITHOUT ROWID;
CREATE INDEX dependants ON dependencies (parent);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST,)
"""Scripts in order; ``user_version`` counts those applied."""

_PATIENCE = 30  # seconds
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _is_damage(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED


class Database:
    """One connection. ``notice`` is a sentence for the user when a damaged file was kept aside at opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notice: str | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{path.parent} cannot be made: {error.strerror}", hint="Qwex keeps its runs there; see XDG_STATE_HOME"
            ) from error
        try:
            self.db = self._connect()
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise self._mapped(error) from error
            self.notice = self._put_aside(self._still_damaged) or None
            try:
                self.db = self._connect()
            except sqlite3.Error as again:
                raise self._mapped(again) from again
        self.inode = os.stat(path).st_ino
        self._queue = os.open(f"{path}.queue", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _connect(self) -> sqlite3.Connection:
        known = os.path.exists(self.path)
        db = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, cached_statements=256)
        try:
            if not known:
                os.chmod(self.path, 0o600)
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA journal_size_limit=16777216")
            db.execute("PRAGMA wal_autocheckpoint=2000")
            if (version := self._version(db)) != len(MIGRATIONS):
                self._migrate(db, version)
            # Damage shows here rather than in the middle of a submission: the ends of every tree are touched.
            db.execute("SELECT count(*) FROM (SELECT * FROM runs ORDER BY seq DESC LIMIT 1)")
            db.execute("SELECT count(*) FROM (SELECT * FROM tasks ORDER BY run DESC LIMIT 1)")
        except BaseException:
            db.close()
            raise
        return db

    @staticmethod
    def _version(db: sqlite3.Connection) -> int:
        return int(db.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self, db: sqlite3.Connection, version: int) -> None:
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self.path} was written by a newer Qwex (schema {version}, this one knows {len(MIGRATIONS)})",
                hint="upgrade Qwex, or choose another state directory with XDG_STATE_HOME",
            )
        while db.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            time.sleep(0.01)  # another one opens it for the first time: SQLite does not wait for this change by itself
        db.execute("BEGIN IMMEDIATE")
        try:
            for number in range(self._version(db), len(MIGRATIONS)):
                for statement in MIGRATIONS[number].split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={number + 1}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _still_damaged(self) -> bool:
        try:
            self._connect().close()
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise self._mapped(error) from error
            return True
        return False

    def _put_aside(self, damaged: Callable[[], bool]) -> str:
        """Rename the damaged file and its companions; what was kept where, "" when another process has done it meanwhile."""
        with open(self.path.with_name(self.path.name + ".lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not damaged():
                return ""
            aside = self.path.with_name(f"{self.path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}")
            while aside.exists():
                aside = aside.with_name(aside.name + "x")
            for ending in ("-wal", "-shm", ""):
                old = Path(f"{self.path}{ending}")
                if old.exists():
                    old.rename(f"{aside}{ending}")
            self._connect().close()
        return f"the run records were damaged: they are kept as {aside}, and new ones were begun"

    def _mapped(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return StoreError(f"no space left for the run records in {self.path.parent}", hint="free some disk space")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return self._busy()
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return StoreError(f"{self.path} cannot be written: {error}", hint="check its owner and the disk")
        return StoreError(f"{self.path}: {error}", hint="check the disk; `qwex doctor` tells more")

    def _busy(self) -> StoreError:
        return StoreError(f"{self.path} is in use by others for more than {_PATIENCE} s", hint="try again")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise self._mapped(error) from error
            self.db.close()
            kept = self._put_aside(lambda: not self.replaced()) or "the run records were damaged and have been replaced"
            raise StoreError(kept, hint="run the command again") from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view for several queries. StoreError for whatever SQLite says."""
        with self._errors():
            if self.db.in_transaction:
                yield self.db
                return
            self.db.execute("BEGIN")
            try:
                yield self.db
            finally:
                if self.db.in_transaction:
                    self.db.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that has the write lock from its start: all of it, or nothing. Inner ones join the outer one."""
        with self._errors():
            if self.db.in_transaction:
                yield self.db
                return
            with self._turn():
                self.db.execute("BEGIN IMMEDIATE")
                try:
                    yield self.db
                    self.db.execute("COMMIT")
                except BaseException:
                    if self.db.in_transaction:
                        self.db.execute("ROLLBACK")
                    raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        try:
            fcntl.flock(self._queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # flock has no time limit of its own, and the one whose turn it is may have been stopped.
            waiting = threading.Thread(target=fcntl.flock, args=(self._queue, fcntl.LOCK_EX), daemon=True)
            waiting.start()
            waiting.join(_PATIENCE)
            if waiting.is_alive():
                raise self._busy() from None
        try:
            yield
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def replaced(self) -> bool:
        """Whether the file behind the path is no longer the one that is open here."""
        try:
            return os.stat(self.path).st_ino != self.inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        self.db.close()
        if self._queue >= 0:
            os.close(self._queue)
            self._queue = -1
