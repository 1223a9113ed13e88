"""Results to where the user finds them: each file whole or not at all, and never over something edited meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from qwex.errors import WorkspaceError
from qwex.model.trees import Entry, Kind, Tree
from qwex.workspace.faults import failure
from qwex.workspace.patterns import parents
from qwex.workspace.scan import Found, found_at
from qwex.workspace.unpack import Collected, file_digest, transfer

__all__ = ["Conflict", "deliver", "sync_back"]


class Conflict(NamedTuple):
    """``path`` was left as the user has it; the run's copy lies at ``beside``. Both relative to the root."""

    path: bytes
    beside: bytes


def _results(directory: Path) -> list[Found]:
    """What is in a directory of results: files, links, and directories with nothing in them, ascending."""
    found: list[Found] = []
    base = os.fsencode(os.path.abspath(directory))
    pending = [b""]
    while pending:
        path = pending.pop()
        with os.scandir(base + b"/" + path) as entries:
            for entry in entries:
                name = path + b"/" + entry.name if path else entry.name
                one = found_at(name, entry.stat(follow_symlinks=False))
                if one is None:
                    continue
                if one.kind is Kind.DIRECTORY and os.listdir(entry.path):
                    pending.append(name)
                else:
                    found.append(one)
    return sorted(found)


def _beside(name: bytes, tag: str) -> Iterator[bytes]:
    yield b"%s.qwex-%s" % (name, tag.encode())
    number = 2
    while True:
        yield b"%s.qwex-%s.%d" % (name, tag.encode(), number)
        number += 1


class _Target:
    """A directory that files are put into, each by one rename."""

    def __init__(self, origin: Path, root: Path, move: bool) -> None:
        self.origin = os.fsencode(os.path.abspath(origin)) + b"/"
        self.base = os.fsencode(os.path.abspath(root)) + b"/"
        self.move = move
        self.made: set[bytes] = {b""}

    def stat(self, path: bytes) -> Found | None:
        try:
            return found_at(path, os.lstat(self.base + path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def obstacle(self, path: bytes) -> bytes | None:
        """The topmost parent of ``path`` that is there and is no directory (a symlink to one is none)."""
        for one in parents(path):
            if one in self.made:
                continue
            try:
                if not stat.S_ISDIR(os.lstat(self.base + one).st_mode):
                    return one
            except FileNotFoundError:
                return None
            self.made.add(one)
        return None

    def put(self, one: Found, path: bytes) -> bool:
        """Bring the result ``one`` to ``path``, over a file or link or an empty directory. False: a directory holds it."""
        parent = os.path.dirname(self.base + path)
        os.makedirs(parent, exist_ok=True)
        if one.kind is Kind.DIRECTORY:
            try:
                os.mkdir(self.base + path, one.mode | 0o700)
            except FileExistsError:
                return stat.S_ISDIR(os.lstat(self.base + path).st_mode)
            return True
        temporary = parent + b"/.qwex-" + token_hex(6).encode()
        try:
            transfer(self.origin + one.path, temporary, one, self.move)
            try:
                os.rename(temporary, self.base + path)
            except OSError as error:
                if error.errno not in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                try:
                    os.rmdir(self.base + path)
                except OSError:
                    if self.move:
                        os.rename(temporary, self.origin + one.path)
                    return False
                os.rename(temporary, self.base + path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return True

    def same(self, one: Found, there: Found) -> bool:
        """Whether the result and what is there are alike in kind and content."""
        if one.kind is not there.kind:
            return False
        mine, theirs = self.origin + one.path, self.base + there.path
        if one.kind is Kind.LINK:
            return os.readlink(mine) == os.readlink(theirs)
        return one.kind is Kind.DIRECTORY or (one.size == there.size and file_digest(mine) == file_digest(theirs))

    def put_beside(self, one: Found, obstacle: bytes, tag: str) -> bytes:
        """Put the result next to what is in the way, under a name that is free or already holds the same."""
        for name in _beside(obstacle, tag):
            path = name + one.path[len(obstacle) :]
            if self.obstacle(path) is not None:
                continue
            there = self.stat(path)
            if there is not None and self.same(one, there):
                return path
            if there is None and not os.path.lexists(self.base + path) and self.put(one, path):
                return path
        raise AssertionError("names do not run out")


def deliver(fetched_dir: Path, into: Path) -> Collected:
    """Move results into ``into`` (made when absent), each by one rename, over the same file of an earlier delivery.

    What else is there stays. A result that would replace a directory, or stand below a file, lands beside that as ``NAME.qwex-new``.
    WorkspaceError for a full disk, and so on; what arrived until then is whole.
    """
    target = _Target(fetched_dir, into, move=True)
    paths, size = [], 0
    try:
        os.makedirs(into, exist_ok=True)
        for one in _results(fetched_dir):
            path = one.path
            obstacle = target.obstacle(path)
            if obstacle is not None or not target.put(one, path):
                path = target.put_beside(one, obstacle or path, "new")
            paths.append(path)
            size += one.size
    except OSError as error:
        raise failure("bring results to", into, error) from error
    return Collected(into, tuple(sorted(paths)), size)


def _unedited(target: _Target, there: Found | None, entry: Entry | None) -> bool:
    """Whether the working tree still has what the job started from."""
    if there is None or entry is None:
        return there is None and entry is None
    if there.kind is not entry.kind:
        return False
    path = target.base + there.path
    if entry.kind is Kind.LINK:
        return os.readlink(path) == entry.target
    if entry.kind is Kind.DIRECTORY:
        return not os.listdir(path)
    return there.mode == entry.mode and there.size == entry.size and file_digest(path) == entry.digest


def sync_back(fetched_dir: Path, root: Path, base: Tree, run_id: str) -> list[Conflict]:
    """Copy results into the working tree where it is as it was in ``base``, the tree the job started from; ascending conflicts.

    A path that was edited, added, removed or replaced meanwhile is left alone, and the run's copy lands at ``NAME.qwex-<run_id>``
    (for a result below a directory that became a file or link: below ``DIRECTORY.qwex-<run_id>``). Nothing is written through a symlink.
    A second call changes nothing more. WorkspaceError for a full disk, and so on.
    """
    target = _Target(fetched_dir, root, move=False)
    before = {one.path: one for one in base.entries}
    conflicts: list[Conflict] = []
    if not os.path.isdir(root):
        raise WorkspaceError(f"{root} is no longer there", hint="the results are in the run's directory")
    try:
        for one in _results(fetched_dir):
            obstacle = target.obstacle(one.path)
            if obstacle is not None and _unedited(target, target.stat(obstacle), before.get(obstacle)):
                # The job made a directory of what is still the file or link it was given.
                os.unlink(target.base + obstacle)
                obstacle = None
            if obstacle is None and _settle(target, one, before.get(one.path)):
                continue
            obstacle = obstacle or one.path
            conflicts.append(Conflict(one.path, target.put_beside(one, obstacle, run_id)))
    except OSError as error:
        raise failure("put results into", root, error) from error
    return conflicts


def _settle(target: _Target, one: Found, entry: Entry | None) -> bool:
    """Put one result in its place, if nobody touched that. False: someone did."""
    there = target.stat(one.path)
    if there is None and os.path.lexists(target.base + one.path):
        return False  # a pipe or device
    if there is not None and target.same(one, there) and (one.kind is Kind.DIRECTORY or one.mode == there.mode):
        return True
    if not _unedited(target, there, entry):
        return False
    if target.stat(one.path) != there:  # edited while it was compared
        return False
    return target.put(one, one.path)
