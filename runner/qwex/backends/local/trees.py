"""A task's workspace: a private copy before it starts, its results after it ended.

Small ones are done at once; larger ones in a thread, so that the worker's loop never stands still. Every attempt has a copy of its
own. What is needed to tell later what the job changed lies beside it (``mark``): the worker that collects may be another one.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from qwex.backends.local.layout import AttemptFiles, Layout, read_pairs
from qwex.config import Paths
from qwex.errors import WorkspaceError
from qwex.model.trees import EMPTY, Tree
from qwex.store.entries import Claim

__all__ = ["Copier"]

_TINY_ENTRIES, _TINY_BYTES = 64, 1 << 20
_KEPT_TREES = 8
_THREADS = 2

Prepared = Callable[[Exception | None], None]
Gathered = Callable[[tuple[int, int], Exception | None], None]


class Copier:
    """Callbacks are called in the loop's thread: at once, or by calling what ``finished`` yields after ``waker`` was written to."""

    def __init__(self, paths: Paths, waker: int) -> None:
        self._paths, self._waker = paths, waker
        self._layout = Layout.of(paths)
        self._trees: OrderedDict[str, Tree] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._done: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def close(self) -> None:
        """Threads that are copying are left to end by themselves: what they write is claimed by nobody."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def finished(self) -> list[Callable[[], None]]:
        """What threads have done since the last call."""
        found = []
        while True:
            try:
                found.append(self._done.get_nowait())
            except Empty:
                return found

    def prepare(self, claim: Claim, files: AttemptFiles, done: Prepared) -> None:
        """Make ``work``; ``done(error)``."""
        try:
            if not claim.spec.snapshot:
                os.mkdir(files.work, 0o700)
                links = read_pairs(self._layout.run(claim.run_id) + "/links")
                if not links:
                    done(None)
                    return
                os.rmdir(files.work)
            tree = self._tree(claim.spec.snapshot)
            task = partial(self._materialise, claim, tree, files)
            if _tiny(tree):
                task()
            else:
                self._in_thread(task, lambda _, error: done(error))
                return
        except (OSError, WorkspaceError) as error:
            done(error)
            return
        done(None)

    def gather(self, claim: Claim, files: AttemptFiles, done: Gathered) -> None:
        """Move what the job created or changed to ``results`` and remove ``work``; ``done((bytes, files), error)``."""
        try:
            if not claim.spec.snapshot:
                try:
                    os.rmdir(files.work)
                except FileNotFoundError:
                    pass
                except OSError:
                    self._in_thread(partial(self._collect, claim, EMPTY, files), done)
                    return
                done((0, 0), None)
                return
            tree = self._tree(claim.spec.snapshot)
            if not _tiny(tree) or _many(files.work):
                self._in_thread(partial(self._collect, claim, tree, files), done)
                return
            results = self._collect(claim, tree, files)
        except (OSError, WorkspaceError) as error:
            done((0, 0), error)
            return
        done(results, None)

    def _tree(self, digest: str) -> Tree:
        if not digest:
            return EMPTY
        from qwex.workspace import snapshot

        tree = self._trees.pop(digest, None) or snapshot.load_tree(digest, self._paths)
        if tree is None:
            raise WorkspaceError(f"snapshot {digest[:12]} is no longer kept")
        self._trees[digest] = tree
        if len(self._trees) > _KEPT_TREES:
            self._trees.popitem(last=False)
        return tree

    def _in_thread(self, task: Callable[[], object], done: Callable[..., None]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS)
        self._pool.submit(task).add_done_callback(partial(self._report, done))

    def _report(self, done: Callable[..., None], future: Future[object]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        result = (0, 0) if error else future.result()
        self._done.put(partial(done, result, error))
        os.write(self._waker, b"\0")

    def _materialise(self, claim: Claim, tree: Tree, files: AttemptFiles) -> None:
        from qwex.workspace import snapshot, unpack

        links = read_pairs(self._layout.run(claim.run_id) + "/links")
        mark = unpack.materialise(snapshot.BlobSource(tree, self._paths), Path(files.work), links)
        with open(files.mark, "w") as file:
            json.dump(mark.to_json(), file)

    def _collect(self, claim: Claim, tree: Tree, files: AttemptFiles) -> tuple[int, int]:
        from qwex.workspace import unpack

        work = Path(files.work)
        mark = unpack.Mark(0, 0)
        with suppress(FileNotFoundError), open(files.mark) as file:
            mark = unpack.Mark.from_json(json.load(file))
        links = read_pairs(self._layout.run(claim.run_id) + "/links")
        found = unpack.changes(tree, work, mark, links, claim.spec.out)
        size = count = 0
        if found:
            brought = unpack.collect(found, work, Path(files.results), move=True)
            size, count = brought.size, len(brought.paths)
        unpack.discard(work)
        with suppress(FileNotFoundError):
            os.unlink(files.mark)
        return size, count


def _tiny(tree: Tree) -> bool:
    return len(tree.entries) <= _TINY_ENTRIES and tree.size <= _TINY_BYTES


def _many(work: str) -> bool:
    """Whether the job may have left much there: many entries at the top, or a files."""
    try:
        with os.scandir(work) as entries:
            return any(number >= _TINY_ENTRIES for number, _ in enumerate(entries))
    except FileNotFoundError:
        return False
