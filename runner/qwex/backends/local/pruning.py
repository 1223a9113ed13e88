"""Removing what is no longer needed: private files when a run ends, old logs and results at idle times."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Collection
from pathlib import Path

from qwex.adapters import machine
from qwex.backends.local.attempts import trace
from qwex.backends.local.layout import AttemptFiles, Layout
from qwex.config import Paths
from qwex.store.queue import Queue

__all__ = ["prune", "remove_private"]

_DAY = 86400.0
_PRIVATE = ("env", "stdin", "links")


def remove_private(run_directory: str) -> None:
    """The submitter's environment with its secrets, and the input: a run that ended needs them no more."""
    for name in _PRIVATE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{run_directory}/{name}")


def prune(paths: Paths, queue: Queue, keep_days: float, now: float, log: Callable[[str], None]) -> None:
    """At most once a day: logs and results of runs that ended more than ``keep_days`` ago, content no run needs.

    Directories of runs that no record knows (the records were damaged) go as well, and whatever still runs in them is killed.
    """
    last = float(queue.fact("pruned") or 0)
    if last <= now < last + _DAY:
        return
    queue.set_fact("pruned", repr(now))
    layout = Layout.of(paths)
    gone = 0
    known, old = queue.kept_and_old(now - keep_days * _DAY)
    for directory in layout.runs.iterdir() if layout.runs.is_dir() else ():
        if directory.name in known or directory.stat().st_mtime > now - _DAY:
            continue
        if directory.name not in old:
            _end_unknown(directory)
        shutil.rmtree(directory, ignore_errors=True)
        gone += 1
    _prune_snapshots(paths, queue.digests(), keep_days * _DAY)
    if gone:
        log(f"removed logs and results of {gone} runs")


def _prune_snapshots(paths: Paths, needed: Collection[str], age: float) -> None:
    """Manifests and contents that were not used for that long, and at least a day, and that no run needs which has not ended."""
    from qwex.workspace.blobs import load_tree, prune_blobs, prune_trees

    age = max(age, _DAY)
    prune_trees(paths, needed, age)
    trees = (load_tree(digest, paths) for digest in needed)
    prune_blobs(paths, {entry.digest for tree in trees if tree for entry in tree.entries}, age)


def _end_unknown(directory: Path) -> None:
    for shell in directory.glob("*.shell"):
        if pid := trace(AttemptFiles(os.fspath(shell.with_suffix("")))).pid:
            machine.signal_tree(pid, signal.SIGKILL)
