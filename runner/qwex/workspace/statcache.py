"""Digests remembered by what ``lstat`` says, one file a workspace root, so that an unchanged file is not read again."""

from __future__ import annotations

import os
import sys
import time
from array import array
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from qwex.workspace.scan import Found

__all__ = ["StatCache"]

_HEAD = b"qwex stat cache 1 %s\n" % sys.byteorder.encode()
_COLUMNS = 4  # size, mtime, ctime, inode
_FINE = 100_000_000
_COARSE = 2_000_000_000
_LARGEST = (1 << 63) - 1


class StatCache:
    """Path, size, mtime, ctime and inode → SHA-256 (or a link's target), for one root. A damaged or foreign file is as good as none.

    Kept in columns (paths, numbers, digests), so that an unchanged tree is recognised by two comparisons of bytes.
    """

    def __init__(self, directory: Path, root: Path) -> None:
        self._file = directory / "stat" / sha256(os.fsencode(root)).hexdigest()[:32]
        self._paths = self._numbers = b""
        self._digests: list[str] = []
        self._learned: dict[bytes, tuple[Found, str]] = {}
        self._looked_up: tuple[Sequence[Found], list[str]] | None = None
        self._started = time.time_ns()
        try:
            data = self._file.read_bytes()
        except OSError:
            return
        head, digest, body = data[: len(_HEAD)], data[len(_HEAD) : len(_HEAD) + 32], data[len(_HEAD) + 32 :]
        if head == _HEAD and sha256(body).digest() == digest:
            count, size = int.from_bytes(body[:8], "big"), int.from_bytes(body[8:16], "big")
            middle = 16 + count * _COLUMNS * 8
            self._numbers, self._paths = body[16:middle], body[middle : middle + size]
            self._digests = body[middle + size :].decode().split(" ") if count else []

    def lookup(self, found: Sequence[Found]) -> list[str]:
        """The digest of each, "" where it is not known. What is not in ``found`` is forgotten by ``save``."""
        paths, numbers = _columns(found)
        if paths == self._paths and numbers == self._numbers:
            digests = list(self._digests)
        else:
            row = _COLUMNS * 8
            known = {
                (path, self._numbers[at * row : (at + 1) * row]): self._digests[at]
                for at, path in enumerate(self._paths.split(b"\0") if self._digests else ())
            }
            digests = [known.get((one.path, numbers[at * row : (at + 1) * row]), "") for at, one in enumerate(found)]
        self._looked_up = found, digests
        return digests

    def learn(self, one: Found, digest: str) -> None:
        """Remember, unless the file changed so shortly before this cache was opened that a later change could look the same.

        The change time decides (nobody can set it); a file system with whole seconds needs a longer distance.
        """
        distance = _FINE if one.ctime_ns % 1_000_000_000 else _COARSE
        if one.ctime_ns + distance < self._started:
            self._learned[one.path] = one, digest

    def save(self) -> None:
        """Write what was looked up and learned, if that differs. A cache that cannot be written is done without."""
        found, digests = self._looked_up or ((), [])
        if self._learned:
            merged = (
                dict(zip((one.path for one in found), zip(found, digests, strict=True), strict=True)) | self._learned
            )
            rows = sorted(merged.values())
            found, digests = [one for one, _ in rows], [digest for _, digest in rows]
        elif digests == self._digests and self._paths == b"\0".join([one.path for one in found]):
            return
        paths, numbers = _columns(found)
        sizes = len(found).to_bytes(8, "big") + len(paths).to_bytes(8, "big")
        body = b"".join((sizes, numbers, paths, " ".join(digests).encode()))
        temporary = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_bytes(_HEAD + sha256(body).digest() + body)
            os.replace(temporary, self._file)
        except OSError:
            _remove(temporary)


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return  # the directory is no directory, or is not ours to write


def _columns(found: Sequence[Found]) -> tuple[bytes, bytes]:
    try:
        numbers = array("q", [number for one in found for number in one[3:7]])
    except OverflowError:  # inode numbers may use all 64 bits
        numbers = array("q", [number & _LARGEST for one in found for number in one[3:7]])
    return b"\0".join([one[0] for one in found]), numbers.tobytes()
