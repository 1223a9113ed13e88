"""A scan becomes a tree, and its contents are kept: the moment at which a workspace is taken."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from qwex.config import Paths
from qwex.model.trees import Entry, Kind, Tree
from qwex.workspace.blobs import Blobs, load_tree, missing, save_tree
from qwex.workspace.content import SMALL, Count, digest_of, is_sparse, read_all, steady
from qwex.workspace.faults import Changed, failure, shown, unreadable
from qwex.workspace.roots import guard
from qwex.workspace.scan import Found, Scan, found_at
from qwex.workspace.statcache import StatCache

__all__ = ["BlobSource", "Progress", "WorkingSource", "capture", "guard", "identify", "keep", "load_tree", "save_tree"]

Progress = Callable[[str, int, int], None]
_HASHING = "reading"
_KEEPING = "keeping"
_REPORTED = 1 << 22  # a report every so many bytes

Take = Callable[[int, os.stat_result, Count], str]


def _silent(what: str, done: int, total: int) -> None:
    """For callers that show no progress."""


class BlobSource:
    """A tree whose contents are blobs: immutable, whatever becomes of the working directory."""

    def __init__(self, tree: Tree, paths: Paths) -> None:
        self.tree = tree
        self._blobs = Blobs(paths)

    def path(self, digest: str) -> str:
        """Where the content lies, unchecked."""
        return self._blobs.path(digest)

    def locate(self, digest: str) -> Path:
        path = self._blobs.path(digest)
        if not os.path.exists(path):
            raise missing(digest)
        return Path(path)


class WorkingSource:
    """A tree whose contents are read from the working directory: no copy is made, and an edited file is no longer found."""

    def __init__(self, root: Path, tree: Tree) -> None:
        self.root = root
        self.tree = tree
        self._base = os.fsencode(os.path.abspath(root)) + b"/"
        self._by_digest: dict[str, Entry] = {}
        for one in tree.entries:
            if one.kind is Kind.FILE:
                self._by_digest.setdefault(one.digest, one)

    def locate(self, digest: str) -> Path:
        """WorkspaceError (Changed) when every file that had this content was edited or removed."""
        first = self._by_digest.get(digest)
        if first is not None:
            if path := self._intact(first):
                return path
            for one in self.tree.entries:
                if one.digest == digest and one.kind is Kind.FILE and (path := self._intact(one)):
                    return path
        name = shown(first.path) if first else digest[:12]
        raise Changed(f"{name} changed since the workspace was read", hint="submit again")

    def _intact(self, one: Entry) -> Path | None:
        path = self._base + one.path
        try:
            info = os.lstat(path)
        except OSError:
            return None
        if info.st_size != one.size or info.st_mtime_ns != one.mtime_ns:
            return None
        return Path(os.fsdecode(path))


class _Reader:
    """Turns what was found into entries: from the cache where the stat is known, else through ``take``."""

    def __init__(self, scan: Scan, paths: Paths, take: Take, what: str, progress: Progress) -> None:
        self.cache = StatCache(paths.cache, scan.root)
        self.scan = scan
        self.base = os.fsencode(scan.root) + b"/"
        self.take = take
        self.what = what
        self.progress = progress
        self.done = self.reported = self.total = 0
        self.denied: list[bytes] = []

    def count(self, size: int) -> None:
        self.done += size
        if self.done - self.reported >= _REPORTED:
            self.reported = self.done
            self.progress(self.what, min(self.done, self.total), self.total)

    def tree(self, kept: Callable[[Found, str], bool] | None = None) -> Tree:
        """``kept`` says of a file or link whether its digest from the cache is enough."""
        found, new = self.scan.found, tuple.__new__
        digests: Sequence[str | None] = self.cache.lookup(found)
        if kept is not None:
            digests = [
                digest if digest and kept(one, digest) else "" for one, digest in zip(found, digests, strict=True)
            ]
        directory = Kind.DIRECTORY
        self.total = sum([one[3] for one, digest in zip(found, digests, strict=True) if not digest])
        # tuple.__new__: a third of the time that Entry(...) takes. Found and Entry have path, kind, mode, size first, then a time.
        entries = [
            new(Entry, (*one[:4], digest, one[4])) if digest or one[1] is directory else self.read(one)
            for one, digest in zip(found, digests, strict=True)
        ]
        if self.denied:
            raise unreadable(self.denied)
        self.cache.save()
        if self.reported:
            self.progress(self.what, self.total, self.total)
        return Tree(tuple([entry for entry in entries if entry is not None]))

    def read(self, one: Found) -> Entry | None:
        """None for a file that is gone, as if it had been deleted before, and for one that may not be read (noted)."""
        path = self.base + one.path
        try:
            if one.kind is Kind.LINK:
                digest = os.readlink(path).hex()
                self.cache.learn(one, digest)
                return Entry(one.path, one.kind, 0, 0, digest, one.mtime_ns)
            info, digest = steady(path, lambda file, seen: self.take(file, seen, self.count))
        except FileNotFoundError:
            return None
        except OSError as error:
            self.trouble(one, error)
            return None
        now = found_at(one.path, info)
        if now is None or now.kind is not Kind.FILE:
            raise Changed(f"{shown(one.path)} was replaced while the workspace was read", hint="submit again")
        self.cache.learn(now, digest)
        return Entry(one.path, one.kind, now.mode, now.size, digest, now.mtime_ns)

    def trouble(self, one: Found, error: OSError) -> None:
        """Note a file that may not be read; everything else is raised."""
        if error.filename is not None and os.fsencode(error.filename) != self.base + one.path:
            raise failure("keep the workspace in", os.fsencode(error.filename), error) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            self.denied.append(one.path)
        elif error.errno in (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ENXIO):
            raise Changed(
                f"{shown(one.path)} was replaced while the workspace was read", hint="submit again"
            ) from error
        else:
            raise failure("keep" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "read", one.path, error) from error


def _hash(file: int, info: os.stat_result, count: Count) -> str:
    if info.st_size <= SMALL:
        data = read_all(file, info.st_size)
        count(len(data))
        return sha256(data).hexdigest()
    return digest_of(file, info.st_size, is_sparse(info), count)


def identify(scan: Scan, paths: Paths, progress: Progress = _silent) -> Tree:
    """Read what is not known by its stat, and name everything by its content.

    A file that is deleted meanwhile is left out, one that changes is read again. WorkspaceError: files that may not be read (all named),
    Changed: one that never held still.
    """
    return _Reader(scan, paths, _hash, _HASHING, progress).tree()


def capture(scan: Scan, paths: Paths, progress: Progress = _silent) -> BlobSource:
    """``identify`` and ``keep`` in one pass that reads every file at most once; the tree's manifest is saved too."""
    blobs = Blobs(paths)

    def kept(one: Found, digest: str) -> bool:
        return one.kind is Kind.LINK or blobs.has(digest, one.size)

    tree = _Reader(scan, paths, blobs.take, _KEEPING, progress).tree(kept)
    save_tree(tree, paths)
    return BlobSource(tree, paths)


def keep(scan: Scan, tree: Tree, paths: Paths, progress: Progress = _silent) -> BlobSource:
    """Make sure that every content of ``tree`` (identified from ``scan``) is a blob, and save the manifest.

    Changed when a file is not what was identified any more. WorkspaceError when the disk is full; no half blob is left.
    """
    blobs = Blobs(paths)
    base = os.fsencode(scan.root) + b"/"
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress(_KEEPING, min(done, tree.size), tree.size)

    for one in tree.entries:
        if one.kind is not Kind.FILE or blobs.has(one.digest, one.size):
            done += one.size
            continue
        try:
            _, digest = steady(base + one.path, lambda file, info: blobs.take(file, info, count))
        except FileNotFoundError as error:
            raise Changed(f"{shown(one.path)} was removed after the workspace was read", hint="submit again") from error
        except OSError as error:
            raise failure("keep", one.path, error) from error
        if digest != one.digest:
            raise Changed(f"{shown(one.path)} changed after the workspace was read", hint="submit again")
    save_tree(tree, paths)
    return BlobSource(tree, paths)
