"""Contents by their digest, and the manifests of trees: what makes a snapshot immutable on this machine.

``state/blobs/ab/<sha256>`` is 0400 and appears whole or not at all; ``state/trees/<digest>`` is a tree's manifest.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection
from hashlib import sha256
from secrets import token_hex

from qwex.config import Paths
from qwex.errors import WorkspaceError
from qwex.model.trees import Entry, Kind, Tree
from qwex.workspace.content import SMALL, Count, copy, is_sparse, read_all
from qwex.workspace.faults import failure

__all__ = ["Blobs", "load_tree", "prune_blobs", "prune_trees", "save_tree"]

_FRESH = 3600
_TREE = b"qwex tree 1\n"
_KINDS = {kind.encode(): kind for kind in Kind}


class Blobs:
    """The store of contents under ``paths.state``."""

    def __init__(self, paths: Paths) -> None:
        self._base = os.fspath(paths.state / "blobs")
        self._now = time.time()
        self._made: set[str] = set()

    def path(self, digest: str) -> str:
        return f"{self._base}/{digest[:2]}/{digest}"

    def has(self, digest: str, size: int) -> bool:
        """Whether it is there, whole. It is marked as used, so that pruning spares it for some hours."""
        path = self.path(digest)
        try:
            info = os.stat(path)
        except OSError:
            return False
        if info.st_size != size:
            return False
        if info.st_mtime < self._now - _FRESH:
            with contextlib.suppress(OSError):  # pruned this very moment: then the next line says so
                os.utime(path)
            return os.path.exists(path)
        return True

    def take(self, file: int, info: os.stat_result, count: Count) -> str:
        """Store what ``file`` holds and return its digest; reads it once. OSError and Changed as they come."""
        if info.st_size <= SMALL and not is_sparse(info):
            data = read_all(file, info.st_size)
            digest = sha256(data).hexdigest()
            if not self.has(digest, len(data)):
                self._write(lambda target: _write_all(target, data), lambda: digest)
            count(len(data))
            return digest
        hasher = sha256()
        return self._write(lambda target: copy(file, target, info, hasher, count), hasher.hexdigest)

    def _write(self, fill: Callable[[int], None], name: Callable[[], str]) -> str:
        temporary = f"{self._base}/new-{token_hex(8)}"
        try:
            target = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        except FileNotFoundError:
            os.makedirs(self._base, mode=0o700, exist_ok=True)
            target = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        try:
            try:
                fill(target)
            finally:
                os.close(target)
            digest = name()
            if digest[:2] not in self._made:
                os.makedirs(f"{self._base}/{digest[:2]}", mode=0o700, exist_ok=True)
                self._made.add(digest[:2])
            os.rename(temporary, self.path(digest))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return digest


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def save_tree(tree: Tree, paths: Paths) -> None:
    """Keep the manifest under its digest. WorkspaceError when it cannot be written; the tree without entries needs none."""
    if not tree.digest:
        return
    file = paths.state / "trees" / tree.digest
    if file.exists():
        with contextlib.suppress(FileNotFoundError):
            os.utime(file)
            return
    body = b"\0".join(
        b"%s %o %d %s %d %s" % (one.kind.encode(), one.mode, one.size, one.digest.encode(), one.mtime_ns, one.path)
        for one in tree.entries
    )
    temporary = file.with_name(f"new-{token_hex(8)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            temporary.write_bytes(_TREE + body)
            os.replace(temporary, file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise failure("keep the manifest of the workspace in", file.parent, error) from error


def load_tree(digest: str, paths: Paths) -> Tree | None:
    """The tree with this digest; None when its manifest is not here or is damaged."""
    if not digest:
        return Tree(())
    try:
        data = (paths.state / "trees" / digest).read_bytes()
    except OSError:
        return None
    if not data.startswith(_TREE):
        return None
    entries = []
    try:
        for line in data[len(_TREE) :].split(b"\0"):
            kind, mode, size, content, mtime, path = line.split(b" ", 5)
            entries.append(Entry(path, _KINDS[kind], int(mode, 8), int(size), content.decode(), int(mtime)))
    except (ValueError, KeyError):
        return None
    tree = Tree(tuple(entries))
    return tree if tree.digest == digest else None


def _older(file: os.DirEntry[str], limit: float) -> os.stat_result | None:
    try:
        info = file.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return info if info.st_mtime <= limit else None


def prune_blobs(paths: Paths, keep_digests: Collection[str], older_than: float) -> int:
    """Remove contents that are not in ``keep_digests`` and were not used for ``older_than`` seconds. Bytes freed.

    While others may submit, ``older_than`` must be two hours at least: use is noted hourly.
    """
    limit = time.time() - older_than
    freed = 0
    base = paths.state / "blobs"
    try:
        with os.scandir(base) as places:
            for place in sorted(places, key=lambda one: one.name):
                if place.is_dir(follow_symlinks=False):
                    with os.scandir(place.path) as files:
                        freed += sum(_remove(file, limit) for file in files if file.name not in keep_digests)
                else:  # left by a process that died while it wrote
                    freed += _remove(place, min(limit, time.time() - _FRESH))
    except FileNotFoundError:
        return freed
    except OSError as error:
        raise failure("clean", base, error) from error
    return freed


def prune_trees(paths: Paths, keep_digests: Collection[str], older_than: float) -> None:
    """The same for manifests."""
    limit = time.time() - older_than
    try:
        with os.scandir(paths.state / "trees") as files:
            for file in files:
                if file.name not in keep_digests:
                    _remove(file, limit)
    except FileNotFoundError:
        return
    except OSError as error:
        raise failure("clean", paths.state / "trees", error) from error


def _remove(file: os.DirEntry[str], limit: float) -> int:
    info = _older(file, limit)
    if info is None:
        return 0
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file.path)
    return info.st_size


def missing(digest: str) -> WorkspaceError:
    """For a content that is gone."""
    return WorkspaceError(
        f"the content {digest[:12]}… of a snapshot is no longer kept", hint="submit the run again (qwex rerun --fresh)"
    )
