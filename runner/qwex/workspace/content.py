"""Reading, hashing and copying the content of files: holes stay holes, and a file that changes meanwhile is noticed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING

from qwex.adapters.cloning import clone, copy_range
from qwex.workspace.faults import Changed, shown

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = [
    "BLOCK",
    "SMALL",
    "ZEROS",
    "copy",
    "digest_of",
    "feed",
    "is_sparse",
    "open_regular",
    "read_all",
    "same_file",
    "segments",
    "steady",
    "write_sparse",
]

SMALL = 1 << 20
"""Files up to this many bytes are read in one piece."""

BLOCK = 1 << 20
ZEROS = bytes(BLOCK)
_HOLE = 1 << 16  # runs of zeros shorter than this are written
_CLONED = 1 << 17  # smaller files are copied faster than cloned

Count = Callable[[int], None]


def _nothing(count: int) -> None:
    """For callers that do not count."""


def is_sparse(info: os.stat_result) -> bool:
    """Whether a file has so many holes that it is worth asking where they are."""
    return info.st_size > _HOLE and info.st_blocks * 512 + _HOLE <= info.st_size


def open_regular(path: bytes | str) -> int:
    """A descriptor for reading; OSError (ELOOP) for a symlink. Never waits, should a pipe have taken the file's place."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def read_all(file: int, size: int) -> bytes:
    """What is in the file from here on, expected to be ``size`` bytes: one read then."""
    data = os.read(file, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while data:
        data = os.read(file, max(size, BLOCK))
        parts.append(data)
    return b"".join(parts)


def segments(file: int, size: int) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of every stretch that holds data, ascending; between them are holes. Whole where that is not known."""
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            end = min(os.lseek(file, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: only a hole follows. Else this file system does not say
                yield at, size - at
            return
        if start >= size:
            return
        yield start, end - start
        at = end


def _pieces(file: int, size: int, sparse: bool) -> Iterator[bytes | int]:
    """Content in order: bytes, or a number of zeros. Shorter when the file is."""
    at = 0
    for start, length in segments(file, size) if sparse else ((0, size),):
        if start > at:
            yield start - at
        at = start
        while at < start + length:
            data = os.pread(file, min(BLOCK, start + length - at), at)
            if not data:
                return
            yield data
            at += len(data)
    if at < size:
        yield size - at


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield ZEROS if count >= BLOCK else ZEROS[:count]
        count -= BLOCK


def feed(file: int, size: int, sparse: bool) -> Iterator[bytes]:
    """Content in pieces of at most ``BLOCK`` bytes, ``size`` together; fewer when the file has become shorter."""
    for piece in _pieces(file, size, sparse):
        if isinstance(piece, int):
            yield from _zeros(piece)
        else:
            yield piece


def digest_of(file: int, size: int, sparse: bool, count: Count = _nothing) -> str:
    """SHA-256 of the content, hex. Holes are hashed without touching the disk."""
    hasher = sha256()
    for piece in feed(file, size, sparse):
        hasher.update(piece)
        count(len(piece))
    return hasher.hexdigest()


def copy(source: int, target: int, info: os.stat_result, hasher: _Hash | None = None, count: Count = _nothing) -> None:
    """Fill the empty file ``target`` with the ``info.st_size`` bytes of ``source``; clones or keeps holes where it can.

    With ``hasher`` the bytes that arrived are hashed. Changed when the source ends early; OSError as it comes.
    """
    size = info.st_size
    sparse = is_sparse(info)
    if size >= _CLONED and clone(source, target):
        if os.fstat(target).st_size != size:
            raise Changed("a file changed while it was copied")
        if hasher is None:
            count(size)
            return
        for data in feed(target, size, sparse):
            hasher.update(data)
            count(len(data))
        return
    if hasher is None and not sparse and size >= _CLONED and copy_range(source, target, 0, size) == size:
        count(size)
        return
    at = 0
    for piece in _pieces(source, size, sparse):
        if isinstance(piece, int):
            at += piece
            if hasher is not None:
                for zeros in _zeros(piece):
                    hasher.update(zeros)
            count(piece)
            continue
        _write_at(target, piece, at)
        if hasher is not None:
            hasher.update(piece)
        at += len(piece)
        count(len(piece))
    if at != size:
        raise Changed("a file became shorter while it was copied")
    if sparse:
        os.ftruncate(target, size)


def _write_at(target: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(target, view, at)
        view = view[done:]
        at += done


def write_sparse(target: int, data: bytes | memoryview, at: int) -> None:
    """Write at ``at``, leaving aligned runs of zeros out; the caller sets the size at the end."""
    view = memoryview(data)
    end = at + len(view)
    start = at  # of what is to be written
    place = at
    while place < end:
        stop = min(end, (place // _HOLE + 1) * _HOLE)
        if stop - place == _HOLE and view[place - at : stop - at] == ZEROS[:_HOLE]:
            _write_at(target, view[start - at : place - at], start)
            start = stop
        place = stop
    _write_at(target, view[start - at :], start)


def same_file(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether nothing happened to a file between two looks at it."""
    return (
        before.st_ino == after.st_ino
        and before.st_size == after.st_size
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
    )


_ATTEMPTS = 5


def steady(path: bytes | str, take: Callable[[int, os.stat_result], str]) -> tuple[os.stat_result, str]:
    """``take(file, stat)`` of a file that stayed the same all the while, tried again a few times. Its stat and what was taken.

    Changed when it never did; OSError when it cannot be opened or read. ``path`` must still name the file that was read.
    """
    for _ in range(_ATTEMPTS):
        file = open_regular(path)
        try:
            before = os.fstat(file)
            try:
                taken = take(file, before)
            except Changed:
                continue
            if same_file(before, os.lstat(path)):
                return before, taken
        finally:
            os.close(file)
    raise Changed(
        f"{shown(path)} kept changing while it was read ({_ATTEMPTS} times)",
        hint="wait until the program that writes it is done, or leave it out with .gitignore or .qwexignore",
    )
