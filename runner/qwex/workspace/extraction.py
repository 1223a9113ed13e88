"""A tar stream, as GNU tar, bsdtar or busybox write them, into a new directory: safely, sparsely, wholly or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterable
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import NamedTuple, Self

from qwex.errors import WorkspaceError
from qwex.workspace.content import copy, write_sparse
from qwex.workspace.faults import failure, shown
from qwex.workspace.unpack import Collected, discard

__all__ = ["Unpacker", "unpack"]

_BLOCK = 512
_LARGEST_RECORD = 1 << 20  # of a long name or pax header
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_PAX = re.compile(rb"(\d+) ([^=]+)=")


class _Header(NamedTuple):
    name: bytes
    mode: int
    size: int
    mtime_ns: int
    kind: bytes
    target: bytes
    sparse: tuple[tuple[int, int], ...] | None  # what of the file is in the archive
    real_size: int


# How the parser asks for input: it yields the most bytes it can use and is sent between one and that many.
_Parser = Generator[int, memoryview, None]


def _broken(why: str) -> WorkspaceError:
    return WorkspaceError(f"the archive is damaged: {why}", hint="fetch it again")


def _refused(name: bytes, why: str) -> WorkspaceError:
    return WorkspaceError(f"the archive has {shown(name)}, {why}: nothing of it was kept")


def _number(field: bytes) -> int:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    if field[:1] == b"\xff":
        return int.from_bytes(field, "big", signed=True)
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise _broken("a number is not one") from error


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


class Unpacker:
    """Feed it the stream; ``close`` makes the directory ``into`` (absent or empty before) appear with all of it.

    As a context manager it closes on success, and on any error removes what there was. Member names may start with ``./``.
    Refused, with nothing kept: absolute names, ``..``, members below a symlink of the archive, devices and pipes.
    Runs of zeros become holes. Modes are kept (the owner may always read), owners are not.
    WorkspaceError for all of that and for a truncated stream.
    """

    def __init__(self, into: Path) -> None:
        self.into = Path(os.path.abspath(into))
        self._base = self.into.with_name(f".{self.into.name}.{token_hex(6)}.part")
        self._root = os.fsencode(self._base) + b"/"
        self._made: set[bytes] = {b""}
        self._files: dict[bytes, int] = {}
        self._paths: set[bytes] = set()
        self._modes: dict[bytes, tuple[int, int]] = {}
        self._ended = False
        self._failed = False
        self._closed = False
        try:
            os.makedirs(self.into.parent, exist_ok=True)
            os.mkdir(self._base)
        except OSError as error:
            raise failure("write", self.into, error) from error
        self._parser = self._parse()
        self._wanted = next(self._parser)

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes of the stream. What follows the archive's end is passed over."""
        view = memoryview(data)
        try:
            while view and not self._ended:
                take = view[: self._wanted]
                view = view[len(take) :]
                self._wanted = self._parser.send(take)
        except StopIteration:
            self._ended = not self._failed
        except OSError as error:
            self._failed = True
            raise failure("write", error.filename or self.into, error) from error
        except BaseException:
            self._failed = True
            raise

    def close(self) -> Collected:
        """Put everything in place. WorkspaceError when the stream ended early."""
        if not self._ended:
            raise WorkspaceError("the archive ended early", hint="fetch it again")
        try:
            for path in sorted(self._modes, reverse=True):
                mode, mtime = self._modes[path]
                os.chmod(self._root + path, mode | 0o700)
                os.utime(self._root + path, ns=(mtime, mtime))
            os.rename(self._base, self.into)
            self._closed = True
        except OSError as error:
            raise failure("write", self.into, error) from error
        parents_of = {path.rpartition(b"/")[0] for path in self._paths}
        kept = sorted(path for path in self._paths if path not in parents_of)
        return Collected(self.into, tuple(kept), sum(self._files.values()))

    def discard(self) -> None:
        """Give up: remove what was unpacked so far."""
        self._parser.close()
        if not self._closed:
            discard(self._base)
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._closed:
                self.close()
        finally:
            self.discard()

    # The format

    def _read(self, size: int) -> Generator[int, memoryview, bytes]:
        parts: list[bytes] = []
        while size:
            part = bytes((yield size))
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _record(self, size: int) -> Generator[int, memoryview, bytes]:
        if size > _LARGEST_RECORD:
            raise _broken("a name of more than a megabyte")
        data = yield from self._read(size + -size % _BLOCK)
        return data[:size]

    def _parse(self) -> _Parser:
        pax: dict[bytes, bytes] = {}
        long_name = long_target = None
        while True:
            block = yield from self._read(_BLOCK)
            if not any(block):
                return
            if sum(block) - sum(block[148:156]) + 256 != _number(block[148:156]):
                raise _broken("a header's checksum is wrong")
            kind, size = block[156:157], _number(block[124:136])
            if kind == b"L":
                long_name = _text((yield from self._record(size)))
            elif kind == b"K":
                long_target = _text((yield from self._record(size)))
            elif kind == b"x":
                pax = _pax((yield from self._record(size)))
            elif kind == b"g":
                yield from self._record(size)  # comments and the like: nothing here depends on it
            else:
                yield from self._member(_member_header(block, pax, long_name, long_target), pax, block)
                pax, long_name, long_target = {}, None, None

    def _member(self, header: _Header, pax: dict[bytes, bytes], block: bytes) -> _Parser:
        path = self._checked(header.name)
        if header.kind == b"5":
            if path:
                self._directory(path)
                self._modes[path] = (header.mode, header.mtime_ns)
            yield from self._skip(header.size)
        elif header.kind == b"2":
            self._clear(path)
            os.symlink(header.target, self._root + path)
            self._note(path)
            with contextlib.suppress(OSError):  # not every system can set a link's times
                os.utime(self._root + path, ns=(header.mtime_ns, header.mtime_ns), follow_symlinks=False)
        elif header.kind == b"1":
            self._same(path, self._checked(header.target), header)
        elif header.kind in (b"0", b"\0", b"7", b"S"):
            yield from self._file(path, header, pax, block)
        else:
            raise _refused(header.name, "which is neither a file, a directory nor a link")

    def _file(self, path: bytes, header: _Header, pax: dict[bytes, bytes], block: bytes) -> _Parser:
        stored, where, real = header.size, header.sparse, header.real_size
        if header.kind == b"S":
            where = yield from self._old_sparse(block)
            real = _number(block[483:495])
        elif pax.get(b"GNU.sparse.major") == b"1":
            where, used = yield from self._new_sparse()
            stored -= used
        self._clear(path)
        file = os.open(self._root + path, _CREATE, 0o600)
        try:
            if where is None:
                yield from self._content(file, 0, stored)
            else:
                if sum(length for _, length in where) != stored or any(
                    a < 0 or n < 0 or a + n > real for a, n in where
                ):
                    raise _broken("a sparse file's map does not fit")
                for start, length in where:
                    yield from self._content(file, start, length)
            os.ftruncate(file, real)
            os.fchmod(file, header.mode | 0o400)
            os.utime(file, ns=(header.mtime_ns, header.mtime_ns))
        finally:
            os.close(file)
        yield from self._skip(-stored % _BLOCK)
        self._note(path)
        self._files[path] = real

    def _content(self, file: int, at: int, size: int) -> _Parser:
        end = at + size
        while at < end:
            part = yield min(end - at, _CHUNK)
            write_sparse(file, part, at)
            at += len(part)

    def _skip(self, size: int) -> _Parser:
        while size > 0:
            size -= len((yield min(size, _CHUNK)))

    def _old_sparse(self, block: bytes) -> Generator[int, memoryview, tuple[tuple[int, int], ...]]:
        table, more = block[386:482], block[482]
        found: list[tuple[int, int]] = []
        while True:
            rows = [table[start : start + 24] for start in range(0, len(table), 24)]
            found.extend((_number(row[:12]), _number(row[12:])) for row in rows if row.strip(b"\0"))
            if not more:
                return tuple(found)
            block = yield from self._read(_BLOCK)
            table, more = block[:504], block[504]

    def _new_sparse(self) -> Generator[int, memoryview, tuple[tuple[tuple[int, int], ...], int]]:
        """GNU's sparse format 1.0: decimal lines before the content, filled up to a block."""
        data = bytearray()
        while True:
            data += yield from self._read(_BLOCK)
            lines = bytes(data).split(b"\n")
            try:
                if len(lines) > 1 and len(lines) > 2 * int(lines[0]) + 1:
                    numbers = [int(one) for one in lines[1 : 2 * int(lines[0]) + 1]]
                    return tuple(zip(numbers[::2], numbers[1::2], strict=True)), len(data)
            except ValueError as error:
                raise _broken("a sparse file's map is none") from error

    # The files

    def _checked(self, name: bytes) -> bytes:
        parts = [one for one in name.split(b"/") if one not in (b"", b".")]
        if name.startswith(b"/"):
            raise _refused(name, "an absolute name")
        if b".." in parts:
            raise _refused(name, "which leads out of its directory")
        return b"/".join(parts)

    def _directory(self, path: bytes) -> None:
        """Only directories made here are gone into, so nothing is written through a symlink."""
        missing = []
        while path not in self._made:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for one in reversed(missing):
            try:
                os.mkdir(self._root + one, 0o700)
            except FileExistsError as error:
                raise _refused(one, "a directory in place of a file or link") from error
            self._made.add(one)
            self._paths.add(one)
            self._modes.setdefault(one, (0o755, os.lstat(self._root + one).st_mtime_ns))

    def _clear(self, path: bytes) -> None:
        """Make way: the later member of a name is the one that counts."""
        if not path or path in self._made:
            raise _refused(path, "a file or link in place of a directory")
        self._directory(path.rpartition(b"/")[0])
        if path in self._paths:
            os.unlink(self._root + path)
            self._files.pop(path, None)

    def _note(self, path: bytes) -> None:
        self._paths.add(path)

    def _same(self, path: bytes, origin: bytes, header: _Header) -> None:
        """A hard link: the same content again."""
        if origin not in self._files:
            raise _refused(header.name, "a hard link to what is not in it")
        if path == origin:
            return
        self._clear(path)
        source = os.open(self._root + origin, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            info = os.fstat(source)
            file = os.open(self._root + path, _CREATE, 0o600)
            try:
                copy(source, file, info)
                os.fchmod(file, info.st_mode & 0o777)
                os.utime(file, ns=(info.st_mtime_ns, info.st_mtime_ns))
            finally:
                os.close(file)
        finally:
            os.close(source)
        self._note(path)
        self._files[path] = info.st_size


def _pax(data: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        match = _PAX.match(data, at)
        if not match or int(match[1]) <= match.end() - at or at + int(match[1]) > len(data):
            raise _broken("an extended header is none")
        end = at + int(match[1])
        found[match[2]] = data[match.end() : end - 1]
        at = end
    return found


def _pax_number(pax: dict[bytes, bytes], key: bytes, otherwise: int) -> int:
    try:
        return int(pax[key]) if key in pax else otherwise
    except ValueError as error:
        raise _broken("a number is not one") from error


def _member_header(
    block: bytes, pax: dict[bytes, bytes], long_name: bytes | None, long_target: bytes | None
) -> _Header:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = _text(block[345:500]) + b"/" + name
    name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long_name or name
    target = pax.get(b"linkpath") or long_target or _text(block[157:257])
    size = _pax_number(pax, b"size", _number(block[124:136]))
    kind = block[156:157]
    if kind in (b"0", b"\0") and name.endswith(b"/"):
        kind = b"5"
    if kind in (b"1", b"2", b"5"):
        size = 0 if kind != b"5" else size
    mtime = _number(block[136:148]) * 1_000_000_000
    if stamp := re.fullmatch(rb"(-?\d+)(?:\.(\d{1,9})\d*)?", pax.get(b"mtime", b"")):
        mtime = int(stamp[1]) * 1_000_000_000 + int((stamp[2] or b"0").ljust(9, b"0"))
    if b"GNU.sparse.numblocks" in pax and b"GNU.sparse.map" not in pax:
        raise _broken("a sparse file of a format of before 2006")
    where = None
    real = _pax_number(pax, b"GNU.sparse.realsize", _pax_number(pax, b"GNU.sparse.size", size))
    if b"GNU.sparse.map" in pax:
        try:
            numbers = [int(one) for one in pax[b"GNU.sparse.map"].split(b",") if one]
            where = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        except ValueError as error:
            raise _broken("a sparse file's map is none") from error
    return _Header(name, _number(block[100:108]) & 0o777, size, mtime, kind, target, where, real)


def unpack(chunks: Iterable[bytes], into: Path) -> Collected:
    """All of a stream at once; see ``Unpacker``."""
    with Unpacker(into) as unpacker:
        for chunk in chunks:
            unpacker.feed(chunk)
        return unpacker.close()
