"""A private, writable copy of a tree, what a job changed in it, and taking that out again."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from qwex.errors import WorkspaceError
from qwex.model.trees import Entry, Kind, Tree
from qwex.workspace.blobs import missing, prune_blobs
from qwex.workspace.content import SMALL, copy, digest_of, is_sparse, open_regular, read_all
from qwex.workspace.faults import Changed, failure, shown
from qwex.workspace.patterns import Patterns, parents
from qwex.workspace.scan import Found, found_at

if TYPE_CHECKING:
    from typing import Protocol

    class Source(Protocol):
        """As ``backends.base.Source``, which stands above this layer."""

        tree: Tree

        def locate(self, digest: str) -> Path: ...


__all__ = ["Collected", "Mark", "changes", "collect", "discard", "materialise", "prune_blobs"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Mark:
    """Between which moments (ns, by the file system's own clock) a copy was made: a change time outside them is the job's doing."""

    started_ns: int
    ended_ns: int

    def to_json(self) -> list[int]:
        return [self.started_ns, self.ended_ns]

    @classmethod
    def from_json(cls, data: Sequence[int]) -> Mark:
        return cls(int(data[0]), int(data[1]))


@dataclass(frozen=True, slots=True)
class Collected:
    """Results brought to ``directory``: relative paths ascending, bytes in all. ``missing``: gone before they could be taken."""

    directory: Path
    paths: tuple[bytes, ...]
    size: int
    missing: tuple[bytes, ...] = ()


def _moment(directory: bytes) -> int:
    """Now, by the clock of the file system that ``directory`` is on."""
    probe = directory + b"/.qwex-" + token_hex(6).encode()
    os.close(os.open(probe, _CREATE, 0o600))
    try:
        return os.lstat(probe).st_ctime_ns
    finally:
        os.unlink(probe)


def _finder(source: Source) -> Callable[[str], str]:
    direct = getattr(source, "path", None)
    return direct if callable(direct) else lambda digest: os.fspath(source.locate(digest))


def _umask(base: bytes) -> int:
    """The process's umask, found without setting it for other threads."""
    probe = base + b"/.qwex-" + token_hex(6).encode()
    file = os.open(probe, _CREATE, 0o777)
    try:
        return 0o777 & ~os.fstat(file).st_mode
    finally:
        os.close(file)
        os.unlink(probe)


def materialise(source: Source, into: Path, links: Mapping[bytes, bytes] | None = None) -> Mark:
    """Copy the tree to the new or empty directory ``into``: contents, modes, modification times, symlinks, empty directories, holes.

    ``links`` (path → absolute target) become symlinks where the tree has nothing in the way. Nothing is left of a copy that failed.
    WorkspaceError when a content is gone or damaged, when the disk is full, and so on.
    """
    base = os.fsencode(os.path.abspath(into))
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        if os.listdir(base):
            raise WorkspaceError(f"{shown(base)} is not empty", hint="a copy is made in a new directory")
        try:
            started = _moment(base)
            _copy_tree(source, base, links or {})
            return Mark(started, _moment(base))
        except BaseException:
            discard(into)
            raise
    except OSError as error:
        raise failure("make the job's copy of the workspace in", into, error) from error


def _copy_tree(source: Source, base: bytes, links: Mapping[bytes, bytes]) -> None:
    find = _finder(source)
    umask = _umask(base)
    made = {b""}
    empty: list[Entry] = []
    base += b"/"
    for one in source.tree.entries:
        path, kind, mode, size, digest, mtime = one
        parent = path.rpartition(b"/")[0]
        if parent not in made:
            _make(base, parent, made)
        if kind is Kind.FILE:
            _copy_file(find(digest), base + path, mode, size, mtime, bool(mode & umask), digest)
        elif kind is Kind.LINK:
            os.symlink(one.target, base + path)
            os.utime(base + path, ns=(mtime, mtime), follow_symlinks=False)
        else:
            if path not in made:
                _make(base, path, made)
            empty.append(one)
    for path, target in links.items():
        parent = path.rpartition(b"/")[0]
        # FileExistsError, NotADirectoryError: the tree has something in the way
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            _make(base, parent, made)
            os.symlink(target, base + path)
    for one in reversed(empty):
        os.chmod(base + one.path, one.mode)
        os.utime(base + one.path, ns=(one.mtime_ns, one.mtime_ns))


def _make(base: bytes, path: bytes, made: set[bytes]) -> None:
    """Make the directory and those above it. Only directories made here are gone into, so no symlink is followed."""
    for one in (*parents(path), path):
        if one not in made:
            os.mkdir(base + one, 0o755)
            made.add(one)


def _copy_file(origin: str, path: bytes, mode: int, size: int, mtime: int, masked: bool, digest: str) -> None:
    try:
        source = os.open(origin, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise missing(digest) from error
    try:
        target = os.open(path, _CREATE, mode)
        try:
            data = read_all(source, size) if size <= SMALL // 8 else None
            if data is not None and len(data) == size:
                if data and os.write(target, data) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                info = os.fstat(source)
                if info.st_size != size or data is not None:
                    raise WorkspaceError(
                        f"the content {digest[:12]}… of a snapshot is damaged", hint="submit the run again"
                    )
                copy(source, target, info)
            if masked:
                os.fchmod(target, mode)
            os.utime(target, ns=(mtime, mtime))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _walk(base: bytes) -> Iterator[tuple[bytes, Found | None, int]]:
    """Every path under ``base`` with its stat (None: neither file, link nor directory) and, for a directory, how many names it has.

    A directory comes after what is in it. One that its owner may not read is made readable first; what vanishes is passed over.
    """
    try:
        top = found_at(b"", os.lstat(base))
    except (FileNotFoundError, NotADirectoryError):
        return
    if top is None or top.kind is not Kind.DIRECTORY:
        return
    pending: list[tuple[bytes, Found, bool]] = [(b"", top, False)]
    sizes: dict[bytes, int] = {}
    while pending:
        path, here, seen = pending.pop()
        if seen:
            yield path, here, sizes.pop(path)
            continue
        try:
            with os.scandir(base + b"/" + path if path else base) as iterator:
                entries = list(iterator)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            if here.mode & 0o700 == 0o700 or not _open_up(base + b"/" + path):
                raise
            pending.append((path, here._replace(mode=here.mode | 0o700), False))
            continue
        if path:
            sizes[path] = len(entries)
            pending.append((path, here, True))
        for entry in entries:
            name = path + b"/" + entry.name if path else entry.name
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except PermissionError:  # names but no stat: a directory without x
                if not _open_up(base + b"/" + path):
                    raise
                info = os.lstat(base + b"/" + name)
            found = found_at(name, info)
            if found is not None and found.kind is Kind.DIRECTORY:
                pending.append((name, found, False))
            else:
                yield name, found, 0


def _open_up(path: bytes) -> bool:
    try:
        os.chmod(path, 0o700, follow_symlinks=False) if os.chmod in os.supports_follow_symlinks else os.chmod(
            path, 0o700
        )
    except OSError:
        return False
    return True


def changes(
    tree: Tree, root: Path, mark: Mark, links: Mapping[bytes, bytes] | None = None, out: Sequence[str] = ()
) -> list[Found]:
    """What a job created or changed in the copy at ``root`` (content, mode or kind), ascending by path; of directories the new empty ones.

    ``links`` as given to ``materialise``; ``out``: only what these gitignore-style patterns select. A copy that was removed: [].
    What the job deleted is not told. Content is compared where size, times and mode do not prove that nothing happened.
    """
    base = os.fsencode(os.path.abspath(root))
    before = {one.path: one for one in tree.entries}
    linked = links or {}
    known = {path for path, one in before.items() if one.kind is Kind.DIRECTORY}
    for path in (*before, *linked):
        parent = path.rpartition(b"/")[0]
        if parent and parent not in known:
            known.update(parents(path))
    chosen = Patterns.of(out) if out else None
    result = []
    try:
        for path, found, held in _walk(base):
            if found is None or (found.kind is Kind.DIRECTORY and (held or path in known)):
                continue
            if chosen is not None and not chosen.selects(path, found.kind is Kind.DIRECTORY):
                continue
            if (
                found.kind is Kind.LINK
                and path in linked
                and path not in before
                and _readlink(base, path) == linked[path]
            ):
                continue
            entry = before.get(path)
            if entry is None or _differs(entry, found, base, mark):
                result.append(found)
    except OSError as error:
        raise failure("look for results in", error.filename or root, error) from error
    return sorted(result)


def _readlink(base: bytes, path: bytes) -> bytes | None:
    try:
        return os.readlink(base + b"/" + path)
    except OSError:
        return None


def _differs(entry: Entry, found: Found, base: bytes, mark: Mark) -> bool:
    if entry.kind is not found.kind:
        return True
    if entry.kind is Kind.LINK:
        return _readlink(base, found.path) != entry.target
    if entry.mode != found.mode or entry.size != found.size:
        return True
    if found.mtime_ns == entry.mtime_ns and mark.started_ns <= found.ctime_ns < mark.ended_ns:
        return False
    try:
        return file_digest(base + b"/" + found.path) != entry.digest
    except OSError:
        return True  # collecting it will say what is wrong


def file_digest(path: bytes) -> str:
    """SHA-256 of a regular file, hex. OSError as it comes; a symlink is not followed."""
    file = open_regular(path)
    try:
        info = os.fstat(file)
        if info.st_size <= SMALL:
            return sha256(read_all(file, info.st_size)).hexdigest()
        return digest_of(file, info.st_size, is_sparse(info))
    finally:
        os.close(file)


def transfer(origin: bytes, target: bytes, found: Found, move: bool) -> bool:
    """Bring one file, link or empty directory to the new path ``target``, whose parents exist. False: it is gone. OSError as it comes."""
    try:
        if found.kind is Kind.LINK:
            os.symlink(os.readlink(origin), target)
        elif found.kind is Kind.DIRECTORY:
            with contextlib.suppress(FileExistsError):
                os.mkdir(target, found.mode | 0o700)
        elif not (move and _renamed(origin, target, found)):
            _copy_out(origin, target, found)
    except FileNotFoundError:
        if os.path.lexists(origin):
            raise
        return False
    return True


def _renamed(origin: bytes, target: bytes, found: Found) -> bool:
    try:
        os.rename(origin, target)
        if not found.mode & 0o400:
            os.chmod(target, found.mode | 0o600)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _copy_out(origin: bytes, target: bytes, found: Found) -> None:
    try:
        source = open_regular(origin)
    except PermissionError:
        os.chmod(origin, found.mode | 0o400)
        source = open_regular(origin)
    try:
        file = os.open(target, _CREATE, found.mode | 0o600)
        try:
            for _ in range(3):
                info = os.fstat(source)
                with contextlib.suppress(Changed):
                    copy(source, file, info)
                    break
                os.ftruncate(file, 0)
            else:
                raise Changed(
                    f"{shown(origin)} kept changing while it was copied", hint="a process of the job still writes to it"
                )
            os.fchmod(file, found.mode | 0o400)
            os.utime(file, ns=(found.mtime_ns, found.mtime_ns))
        except BaseException:
            os.unlink(target)
            raise
        finally:
            os.close(file)
    finally:
        os.close(source)


def collect(found: Iterable[Found], root: Path, into: Path, *, move: bool = False) -> Collected:
    """Bring ``found`` (from ``changes``) out of ``root`` into the directory ``into``, by renaming with ``move`` where that is possible.

    Owners can always read what they are given. What was removed meanwhile is named, not an error.
    WorkspaceError for a full disk, and so on.
    """
    base, place = os.fsencode(os.path.abspath(root)) + b"/", os.fsencode(os.path.abspath(into)) + b"/"
    paths, missing, size = [], [], 0
    try:
        os.makedirs(place, exist_ok=True)
        for one in sorted(found):
            parent = os.path.dirname(place + one.path)
            os.makedirs(parent, exist_ok=True)
            if transfer(base + one.path, place + one.path, one, move):
                paths.append(one.path)
                size += one.size
            else:
                missing.append(one.path)
    except OSError as error:
        raise failure("collect results into", into, error) from error
    return Collected(into, tuple(paths), size, tuple(missing))


def discard(directory: Path) -> None:
    """Remove a directory with all that is in it, also what a job made unreadable. Symlinks are not followed; absent is fine."""

    def retry(function: Callable[..., object], path: str, info: object) -> None:
        error = info[1] if isinstance(info, tuple) else info
        if isinstance(error, FileNotFoundError):
            return
        if isinstance(error, PermissionError):
            for one in (path, os.path.dirname(path)):
                with contextlib.suppress(OSError):
                    if stat.S_ISDIR(os.lstat(one).st_mode):
                        os.chmod(one, 0o700)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
            return
        if isinstance(error, BaseException):
            raise error

    try:
        shutil.rmtree(directory, onerror=retry)
    except OSError as error:
        raise failure("remove", directory, error) from error
