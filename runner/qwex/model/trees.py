"""A workspace's content at one moment: what is where, with which mode and which bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

__all__ = ["EMPTY", "Entry", "Kind", "Tree"]


class Kind(StrEnum):
    FILE = "f"
    LINK = "l"
    DIRECTORY = "d"


class Entry(NamedTuple):
    """One path of a tree. ``path`` is relative, ``/``-separated bytes as the file system has them (no trailing slash).

    ``mode``   permission bits, 0 for links. ``size`` bytes of content, 0 for directories and links.
    ``digest`` SHA-256 of a file's content in hex; for a link its target (hex of the bytes); "" for directories.
    ``mtime_ns`` is carried along, and is no part of the tree's identity.
    """

    path: bytes
    kind: Kind
    mode: int
    size: int
    digest: str
    mtime_ns: int = 0

    @property
    def target(self) -> bytes:
        return bytes.fromhex(self.digest)


@dataclass(frozen=True)
class Tree:
    """Entries in ascending order of path. Two trees with the same paths, modes and bytes have the same digest."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Tree:
        return cls(tuple(sorted(entries, key=lambda entry: entry.path)))

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, over ``kind mode digest path NUL`` of every entry; "" for a tree without entries."""
        if not self.entries:
            return ""
        return hashlib.sha256(
            b"".join(b"%s %o %s %s\0" % (e.kind.encode(), e.mode, e.digest.encode(), e.path) for e in self.entries)
        ).hexdigest()

    @cached_property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    @cached_property
    def files(self) -> int:
        return sum(1 for entry in self.entries if entry.kind is not Kind.DIRECTORY)


EMPTY = Tree(())
