"""What is in a workspace and would be sent: git's rules, ``.qwexignore`` and ``include`` over one walk of the directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from qwex.errors import WorkspaceError
from qwex.model.trees import Kind
from qwex.workspace.faults import failure, shown, unreadable
from qwex.workspace.git import View
from qwex.workspace.patterns import Patterns, parents

__all__ = ["IGNORE_FILE", "Found", "Ignored", "Scan", "found_at", "scan"]

IGNORE_FILE = b".qwexignore"


class Ignored(NamedTuple):
    """A path the rules leave out, of a directory only the topmost."""

    path: bytes
    directory: bool


class Found(NamedTuple):
    """One path as ``lstat`` saw it. ``size`` counts a file's content in bytes and is 0 for the other kinds, ``mode`` is 0 for links.

    A directory is named only when nothing in it is.
    """

    path: bytes
    kind: Kind
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int


@dataclass(frozen=True, slots=True)
class Scan:
    """``found`` ascending by path. ``special``: sockets, pipes and devices, which are never sent. ``size`` is what the files sum to."""

    root: Path
    found: tuple[Found, ...]
    ignored: tuple[Ignored, ...]
    size: int
    special: tuple[bytes, ...] = ()

    @property
    def files(self) -> int:
        return sum(1 for one in self.found if one.kind is not Kind.DIRECTORY)

    def largest(self, count: int) -> list[Found]:
        """The largest files, biggest first."""
        return sorted(self.found, key=lambda one: -one.size)[:count]


_new = tuple.__new__
_FILE = Kind.FILE
_SLASH = ord("/")
_FORMATS = {stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.LINK, stat.S_IFDIR: Kind.DIRECTORY}


def found_at(path: bytes, info: os.stat_result) -> Found | None:
    """``path`` with what ``lstat`` said; None for what is neither file, link nor directory."""
    mode = info.st_mode
    if mode & 0o170000 == stat.S_IFREG:
        # tuple.__new__: a third of the time that Found(...) takes, and this is the innermost loop
        return _new(Found, (path, _FILE, mode & 0o777, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino))
    kind = _FORMATS.get(mode & 0o170000)
    if kind is None:
        return None
    return Found(
        path, kind, 0 if kind is Kind.LINK else mode & 0o777, 0, info.st_mtime_ns, info.st_ctime_ns, info.st_ino
    )


class _Part(Enum):
    """How a directory is looked at."""

    RULES = "rules"  # git's view decides
    WHOLE = "whole"  # included by name: everything
    SEARCHED = "searched"  # left out by the rules, but something below may be included
    UNSEEN = "unseen"  # git does not look into it (a submodule that is not checked out)


class _Repository(NamedTuple):
    view: View
    prefix: bytes  # of its root within the workspace, "" or ending in "/"
    listed: set[bytes]  # as View.listed, relative to the workspace
    parents: set[bytes]


class _Directory(NamedTuple):
    path: bytes  # "" or ending in "/"
    part: _Part
    repository: _Repository
    extra: tuple[tuple[int, Patterns], ...]  # .qwexignore files that hold here, with the length of their directory


def _repository(root: Path, prefix: bytes) -> _Repository:
    view = View(Path(os.fsdecode(os.path.join(os.fsencode(root), prefix.rstrip(b"/")))))
    listed = {prefix + one for one in view.listed} if prefix else view.listed
    above = {path.rpartition(b"/")[0] for path in listed if path[-1] != _SLASH}
    above.update([path[:-1].rpartition(b"/")[0] for path in listed if path[-1] == _SLASH])
    above.update([higher for path in tuple(above) for higher in parents(path)])
    return _Repository(view, prefix, listed, above)


class _Walk:
    def __init__(self, root: Path, include: Sequence[str], skip: Sequence[bytes]) -> None:
        self.root = root
        self.base = os.fsencode(root) + b"/"
        self.include = Patterns.of(include)
        self.skip = {one.strip(b"/") for one in skip}
        self.found: list[Found] = []
        self.ignored: list[Ignored] = []
        self.special: list[bytes] = []
        self.unreadable: list[bytes] = []
        self.directories: dict[bytes, Found] = {}
        self.busy: set[bytes] = set()
        self.searched: set[bytes] = set()
        self.pending: list[_Directory] = []
        self.doubtful: list[tuple[_Directory, bytes]] = []

    def run(self) -> Scan:
        self.pending.append(_Directory(b"", _Part.RULES, _repository(self.root, b""), ()))
        while self.pending or self.doubtful:
            if self.pending:
                self._list(self.pending.pop())
            else:
                self._decide()
        if self.unreadable:
            raise unreadable(self.unreadable)
        self._finish()
        size = sum(one.size for one in self.found)
        return Scan(
            self.root, tuple(sorted(self.found)), tuple(sorted(self.ignored)), size, tuple(sorted(self.special))
        )

    def _list(self, here: _Directory) -> None:
        try:
            # Names are looked up from the directory itself: the system has a long path to walk otherwise, for every file.
            directory = os.open(self.base + here.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with os.scandir(self.base + here.path) as iterator:
                    entries = list(iterator)
                self._sort_out(here, directory, entries)
            finally:
                os.close(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if not here.path:
                raise failure("read", self.root, error) from error
            self.unreadable.append(here.path[:-1])

    def _sort_out(self, here: _Directory, directory: int, entries: list[os.DirEntry[bytes]]) -> None:
        extra = self._extra(here, entries)
        if extra is not here.extra:
            here = here._replace(extra=extra)
        prefix = here.path
        skip, stat_of, add, count = self.skip, os.stat, self.found.append, len(self.found)
        surely = here.repository.listed if here.part is _Part.RULES and not extra else ()
        for entry in entries:
            name = entry.name
            path = prefix + name
            if path in skip or name == b".git":
                continue
            if path not in surely:
                if entry.is_dir(follow_symlinks=False):
                    self._directory(here, entry, path)
                    continue
                if not self._wanted(here, path):
                    if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                        self.ignored.append(Ignored(path, False))
                    else:
                        self.special.append(path)
                    continue
            try:
                found = found_at(path, stat_of(name, dir_fd=directory, follow_symlinks=False))
            except FileNotFoundError:
                continue
            if found is None:
                self.special.append(path)
            elif found.kind is Kind.DIRECTORY:
                self._directory(here, entry, path)
            else:
                add(found)
        if len(self.found) > count:
            self.busy.add(prefix)

    def _extra(self, here: _Directory, entries: Iterable[os.DirEntry[bytes]]) -> tuple[tuple[int, Patterns], ...]:
        for entry in entries:
            if entry.name == IGNORE_FILE and entry.is_file() and here.part is _Part.RULES:
                try:
                    with open(entry.path, "rb") as file:
                        return (*here.extra, (len(here.path), Patterns.read(file.read())))
                except OSError as error:
                    raise failure("read", entry.path, error) from error
        return here.extra

    def _left_out(self, here: _Directory, path: bytes, directory: bool) -> bool:
        for length, patterns in reversed(here.extra):
            if (said := patterns.match(path[length:], directory)) is not None:
                return said
        return False

    def _wanted(self, here: _Directory, path: bytes) -> bool:
        if here.part is _Part.RULES and path in here.repository.listed and not self._left_out(here, path, False):
            return True
        said = self.include.match(path, False) if self.include else None
        return here.part is _Part.WHOLE if said is None else said

    def _directory(self, here: _Directory, entry: os.DirEntry[bytes], path: bytes) -> None:
        inner = here._replace(path=path + b"/")
        repository = here.repository
        if here.part is _Part.WHOLE:
            if self.include.match(path, True) is False:
                self._leave_out(here, entry, path)
            else:
                self._enter(inner, entry)
        elif here.part is not _Part.RULES or (here.extra and self._left_out(here, path, True)):
            self._leave_out(here, entry, path)
        elif path in repository.parents:
            self._enter(inner, entry)
        elif path + b"/" in repository.listed or path in repository.listed:
            if os.path.lexists(entry.path + b"/.git"):
                self._enter(inner._replace(repository=_repository(self.root, path + b"/")), entry)
            else:
                self._enter(inner._replace(part=_Part.UNSEEN), entry)
        else:
            self.doubtful.append((here, path))

    def _enter(self, directory: _Directory, entry: os.DirEntry[bytes] | None = None) -> None:
        path = directory.path[:-1]
        try:
            info = entry.stat(follow_symlinks=False) if entry else os.lstat(self.base + path)
        except FileNotFoundError:
            return
        found = found_at(path, info)
        if found is not None and found.kind is Kind.DIRECTORY:
            self.directories[directory.path] = found
            self.pending.append(directory)

    def _leave_out(self, here: _Directory, entry: os.DirEntry[bytes] | None, path: bytes) -> None:
        inner = here._replace(path=path + b"/")
        if self.include and self.include.match(path, True):
            self._enter(inner._replace(part=_Part.WHOLE), entry)
        elif self.include and self.include.reaches_below(path):
            self.searched.add(inner.path)
            self._enter(inner._replace(part=_Part.SEARCHED), entry)
        else:
            self.ignored.append(Ignored(path, True))

    def _decide(self) -> None:
        """Directories in which git lists nothing: empty, holding only ignored files, or ignored themselves."""
        by_repository: dict[bytes, list[tuple[_Directory, bytes]]] = {}
        for here, path in self.doubtful:
            by_repository.setdefault(here.repository.prefix, []).append((here, path))
        self.doubtful = []
        for prefix, group in by_repository.items():
            ignored = group[0][0].repository.view.ignores(path[len(prefix) :] for _, path in group)
            for here, path in group:
                if path[len(prefix) :] in ignored:
                    self._leave_out(here, None, path)
                else:
                    self._enter(here._replace(path=path + b"/"))

    def _finish(self) -> None:
        """Name the empty directories, and make one of a searched directory in which nothing was included."""
        for path in sorted(self.busy, key=len):
            self.busy.update(one + b"/" for one in parents(path))
        barren = {path for path in self.searched if path not in self.busy}
        for path in sorted(self.directories, reverse=True):
            under = path in self.busy
            if not under and not any(path.startswith(one) for one in barren):
                self.found.append(self.directories[path])
                self.busy.update(one + b"/" for one in parents(path))
        if barren:
            top = [one for one in barren if not any(other != one and one.startswith(other) for other in barren)]
            self.ignored = [one for one in self.ignored if not one.path.startswith(tuple(top))]
            self.ignored.extend(Ignored(one[:-1], True) for one in top)


def scan(root: Path, include: Sequence[str] = (), skip: Sequence[bytes] = ()) -> Scan:
    """Look at ``root``: git's rules, less what ``.qwexignore`` files leave out, and with what ``include`` patterns bring back.

    ``include`` gitignore-style patterns relative to ``root``; an included directory is sent whole. ``skip``: paths relative to ``root``
    that are neither sent nor named as ignored. ``.git`` never is either. Nested repositories and submodules go by their own rules.
    WorkspaceError when something cannot be read (all of it named at once), and when git is missing.
    """
    absolute = Path(os.path.abspath(root))
    if not absolute.is_dir():
        raise WorkspaceError(f"{shown(absolute)} is not a directory", hint="run from inside the project")
    return _Walk(absolute, include, skip).run()
