"""Trees as tar streams for transports: a writer that any POSIX ``tar`` reads; the reader is ``extraction``.

Headers are ustar with GNU long names (``L``, ``K``), which carry raw bytes and which GNU tar, bsdtar and busybox all read;
a pax ``path`` record would have to be UTF-8. Owners are 0, so that root's tar makes root's files. Times are whole seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from qwex.config import Paths
from qwex.model.trees import Entry, Kind, Tree
from qwex.workspace.content import SMALL, ZEROS, feed, is_sparse, open_regular, read_all, same_file, segments
from qwex.workspace.extraction import Unpacker, unpack
from qwex.workspace.faults import Changed, failure, shown, unreadable
from qwex.workspace.scan import Found, Scan, found_at
from qwex.workspace.statcache import StatCache

__all__ = [
    "CHUNK",
    "Member",
    "Packing",
    "Unpacker",
    "data_segments",
    "pack",
    "pack_and_identify",
    "packed_size",
    "unpack",
]

CHUNK = 1 << 18
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_LONG = 100
_OCTAL_SIZE = 1 << 33
_ATTEMPTS = 5

Progress = Callable[[str, int, int], None]
_SENDING = "sending"


class Member(NamedTuple):
    """A file that exists only in the archive. ``name`` is taken as it is, without the prefix."""

    name: bytes
    mode: int
    data: bytes


def _silent(what: str, done: int, total: int) -> None:
    """For callers that show no progress."""


# What every header has: uid, gid 0; checksum blank while it is summed; GNU's magic; no owner names, no prefix.
_IDS = b"0000000\0" * 2
_TAIL = b"ustar  \0" + bytes(_BLOCK - 265)
_FIXED_SUM = sum(_IDS) + 8 * 32 + sum(_TAIL)


def _header(name: bytes, mode: int, size: int, mtime: int, kind: bytes, target: bytes = b"") -> bytes:
    number = b"%011o\0" % size if size < _OCTAL_SIZE else b"\x80" + size.to_bytes(11, "big")
    # Times before 1970 or after 2242 do not fit: the nearest that does.
    fields = b"%07o\0%b%b%011o\0" % (mode, _IDS, number, min(max(mtime, 0), _OCTAL_SIZE - 1))
    total = sum(name) + sum(fields) + sum(target) + kind[0] + _FIXED_SUM - sum(_IDS)
    return b"%b%b%06o\0 %b%b%b" % (name.ljust(_LONG, b"\0"), fields, total, kind, target.ljust(_LONG, b"\0"), _TAIL)


def _padding(size: int) -> bytes:
    return ZEROS[: -size % _BLOCK]


def _long(kind: bytes, text: bytes) -> bytes:
    return _header(b"././@LongLink", 0, len(text) + 1, 0, kind) + text + b"\0" + _padding(len(text) + 1)


def _head(name: bytes, mode: int, size: int, mtime_ns: int, kind: Kind, target: bytes = b"") -> bytes:
    before = b""
    flag = b"0"
    if kind is Kind.DIRECTORY:
        name += b"/"
        flag = b"5"
    elif kind is Kind.LINK:
        mode = 0o777
        flag = b"2"
        if len(target) > _LONG:
            before = _long(b"K", target)
            target = target[:_LONG]
    if len(name) > _LONG:
        before += _long(b"L", name)
        name = name[:_LONG]
    return before + _header(name, mode, size, mtime_ns // 1_000_000_000, flag, target)


def packed_size(entries: Iterable[Entry], *, prefix: bytes = b"", extra: Iterable[Member] = ()) -> int:
    """How many bytes ``pack`` will yield (a file that changes while it is sent by ``pack_and_identify`` adds to that)."""

    def one_size(name: bytes, size: int, target: bytes = b"") -> int:
        longs = sum(_BLOCK + len(text) + 1 + -(len(text) + 1) % _BLOCK for text in (name, target) if len(text) > _LONG)
        return _BLOCK + size + -size % _BLOCK + longs

    total = len(_END) + sum(one_size(one.name, len(one.data)) for one in extra)
    for one in entries:
        name = prefix + one.path + (b"/" if one.kind is Kind.DIRECTORY else b"")
        total += one_size(name, one.size, one.target if one.kind is Kind.LINK else b"")
    return total


def data_segments(path: Path | bytes | str) -> list[tuple[int, int]]:
    """``(offset, length)`` of the stretches of a file that hold data, ascending; the rest are holes. OSError as it comes."""
    file = open_regular(os.fsencode(path))
    try:
        return list(segments(file, os.fstat(file).st_size))
    finally:
        os.close(file)


class _Stream:
    """Gathers pieces into chunks of about ``CHUNK`` bytes."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.parts: list[bytes] = []
        self.held = 0
        self.done = 0
        self.total = total
        self.progress = progress

    def add(self, data: bytes) -> bool:
        """Whether it is time to ``take``."""
        self.parts.append(data)
        self.held += len(data)
        return self.held >= CHUNK

    def take(self) -> bytes:
        chunk = b"".join(self.parts)
        self.done += len(chunk)
        self.parts.clear()
        self.held = 0
        self.progress(_SENDING, min(self.done, self.total), self.total)
        return chunk


def pack(
    entries: Iterable[Entry],
    locate: Callable[[str], Path],
    *,
    prefix: bytes = b"",
    extra: Iterable[Member] = (),
    progress: Progress = _silent,
) -> Iterator[bytes]:
    """A tar of ``entries`` in this order, then of ``extra``, in chunks of about 256 KiB; contents come from ``locate(digest)``.

    ``prefix`` is put before every path (end it in ``/``). Contents are verified: Changed when one is not what its digest says,
    and the stream is then worthless. Holes are sent as zeros; see ``data_segments``.
    """
    entries, extra = tuple(entries), tuple(extra)
    stream = _Stream(progress, packed_size(entries, prefix=prefix, extra=extra))
    for one in entries:
        if one.kind is not Kind.FILE:
            target = one.target if one.kind is Kind.LINK else b""
            if stream.add(_head(prefix + one.path, one.mode, 0, one.mtime_ns, one.kind, target)):
                yield stream.take()
            continue
        for piece in _verified(one, locate(one.digest), prefix):
            if stream.add(piece):
                yield stream.take()
    for member in extra:
        stream.add(_head(member.name, member.mode, len(member.data), 0, Kind.FILE))
        if stream.add(member.data + _padding(len(member.data))):
            yield stream.take()
    stream.add(_END)
    yield stream.take()


def _verified(one: Entry, path: Path, prefix: bytes) -> Iterator[bytes]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise failure("read", path, error) from error
    try:
        yield _head(prefix + one.path, one.mode, one.size, one.mtime_ns, Kind.FILE)
        size = 0
        if one.size <= SMALL:
            data = read_all(file, one.size)
            size, digest = len(data), sha256(data).hexdigest()
            yield data
        else:
            hasher = sha256()
            for piece in feed(file, one.size, is_sparse(os.fstat(file))):
                hasher.update(piece)
                size += len(piece)
                yield piece
            digest = hasher.hexdigest()
        if size != one.size or digest != one.digest:
            raise Changed(f"{shown(one.path)} changed while it was sent", hint="submit again")
        yield _padding(size)
    except OSError as error:
        raise failure("read", path, error) from error
    finally:
        os.close(file)


class Packing:
    """A tar of all of a scan, made and identified in one reading: iterate it once, to its end; then ``tree`` is what was sent.

    A file that changes while it is read is sent again, and the later member of that name is the one that counts.
    """

    def __init__(
        self,
        found: Iterable[Found],
        root: Path,
        cache: StatCache,
        prefix: bytes,
        extra: Iterable[Member],
        progress: Progress,
    ) -> None:
        self._found = tuple(found)
        self._base = os.fsencode(os.path.abspath(root)) + b"/"
        self._cache = cache
        self._prefix = prefix
        self._extra = tuple(extra)
        self._stream = _Stream(progress, sum(one.size + _BLOCK for one in self._found))
        self._denied: list[bytes] = []
        self._entries: list[Entry] = []
        self._tree: Tree | None = None

    @property
    def tree(self) -> Tree:
        """What was sent. RuntimeError before the end of the stream."""
        if self._tree is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._tree

    def __iter__(self) -> Iterator[bytes]:
        stream = self._stream
        for one in self._found:
            if one.kind is Kind.FILE and one.size <= SMALL and (whole := self._whole(one)):
                if stream.add(whole):
                    yield stream.take()
                continue
            for piece in self._member(one):
                if stream.add(piece):
                    yield stream.take()
        if self._denied:
            raise unreadable(self._denied)
        for member in self._extra:
            stream.add(_head(member.name, member.mode, len(member.data), 0, Kind.FILE))
            stream.add(member.data + _padding(len(member.data)))
        stream.add(_END)
        self._cache.save()
        self._tree = Tree(tuple(self._entries))
        yield stream.take()

    def _whole(self, one: Found) -> bytes:
        """Header and content of a small file that is as it was found, with the fewest calls; b"" for any other."""
        path = self._base + one.path
        try:
            file = open_regular(path)
            try:
                data = read_all(file, one.size)
            finally:
                os.close(file)
            info = os.lstat(path)
        except OSError:
            return b""  # looked into by the way that all others go
        if len(data) != one.size or found_at(one.path, info) != one:
            return b""
        self._sent(one, sha256(data).hexdigest())
        head = _head(self._prefix + one.path, one.mode, one.size, one.mtime_ns, Kind.FILE)
        return b"".join((head, data, ZEROS[: -one.size % _BLOCK]))

    def _sent(self, one: Found, digest: str) -> None:
        self._cache.learn(one, digest)
        self._entries.append(Entry(one.path, one.kind, one.mode, one.size, digest, one.mtime_ns))

    def _member(self, one: Found) -> Iterator[bytes]:
        head = partial(_head, self._prefix + one.path)
        try:
            if one.kind is Kind.FILE:
                yield from self._file(one)
            elif one.kind is Kind.LINK:
                target = os.readlink(self._base + one.path)
                self._entries.append(Entry(one.path, one.kind, 0, 0, target.hex(), one.mtime_ns))
                yield head(0, 0, one.mtime_ns, one.kind, target)
            else:
                self._entries.append(Entry(one.path, one.kind, one.mode, 0, "", one.mtime_ns))
                yield head(one.mode, 0, one.mtime_ns, one.kind)
        except FileNotFoundError:
            return  # deleted meanwhile
        except PermissionError:
            self._denied.append(one.path)
        except OSError as error:
            raise failure("read", one.path, error) from error

    def _file(self, one: Found) -> Iterator[bytes]:
        path = self._base + one.path
        for _ in range(_ATTEMPTS):
            file = open_regular(path)
            try:
                info = os.fstat(file)
                now = found_at(one.path, info)
                if now is None or now.kind is not Kind.FILE:
                    raise Changed(f"{shown(one.path)} was replaced while the workspace was read", hint="submit again")
                size = info.st_size
                head = _head(self._prefix + one.path, now.mode, size, now.mtime_ns, Kind.FILE)
                if size <= SMALL:
                    data = read_all(file, size)
                    if len(data) != size or not same_file(info, os.lstat(path)):
                        continue  # nothing of it was sent yet
                    digest = sha256(data).hexdigest()
                    yield head + data + ZEROS[: -size % _BLOCK]
                else:
                    yield head
                    hasher = sha256()
                    left = size
                    for piece in feed(file, size, now.sparse):
                        hasher.update(piece)
                        left -= len(piece)
                        yield piece
                    while left > 0:  # it became shorter: fill up what was announced, then send it anew
                        yield ZEROS[: min(left, len(ZEROS))]
                        left -= len(ZEROS)
                    yield _padding(size)
                    if not same_file(info, os.lstat(path)):
                        continue
                    digest = hasher.hexdigest()
            finally:
                os.close(file)
            self._sent(now, digest)
            return
        raise Changed(
            f"{shown(one.path)} kept changing while it was read ({_ATTEMPTS} times)",
            hint="wait until the program that writes it is done, or leave it out with .gitignore or .qwexignore",
        )


def pack_and_identify(
    scan: Scan,
    paths: Paths,
    *,
    prefix: bytes = b"",
    extra: Iterable[Member] = (),
    progress: Progress = _silent,
    skip_sparse: bool = False,
) -> Packing:
    """Everything of a scan as a tar that is identified on the way, each file read once: for a first upload.

    ``skip_sparse`` leaves out files with large holes (``Found.sparse``), to be sent by themselves; they are missing from the tree as well.
    """
    cache = StatCache(paths.cache, scan.root)
    cache.lookup(scan.found)  # what is left out here stays remembered
    found = (one for one in scan.found if not (skip_sparse and one.sparse))
    return Packing(found, scan.root, cache, prefix, extra, progress)
