"""Patterns as gitignore(5) has them, for what git itself is not asked: .qwexignore, ``include`` and ``--out``.

A translation of git's own matching (dir.c, wildmatch.c) into regular expressions over bytes; a property test holds the two together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Patterns", "parents"]

_CLASSES = {
    b"alnum": rb"[0-9A-Za-z]", b"alpha": rb"[A-Za-z]", b"blank": rb"[ \t]", b"cntrl": rb"[\x00-\x1f\x7f]", b"digit": rb"[0-9]",
    b"graph": rb"[!-~]", b"lower": rb"[a-z]", b"print": rb"[ -~]", b"punct": rb"[!-/:-@\[-`{-~]", b"space": rb"[ \t-\r]",
    b"upper": rb"[A-Z]", b"xdigit": rb"[0-9A-Fa-f]",
}  # fmt: skip
_NEVER = rb"(?!)"


class _Pattern(NamedTuple):
    negated: bool
    only_directories: bool
    by_name: bool  # no slash: compared with the last component at any depth
    text: bytes
    regex: re.Pattern[bytes]


def parents(path: bytes) -> list[bytes]:
    """``a``, ``a/b`` for ``a/b/c``."""
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


class Patterns:
    """An ordered list of patterns; the last that matches decides. Paths are relative to where the patterns stand."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._patterns = [one for line in lines if (one := _parse(line))]

    @classmethod
    def of(cls, lines: Iterable[str]) -> Patterns:
        """From settings and options; a leading ``./`` means nothing."""
        return cls(os.fsencode(line.removeprefix("./")) for line in lines)

    @classmethod
    def read(cls, text: bytes) -> Patterns:
        """From a file's content: byte order mark and CR LF are allowed."""
        return cls(line.removesuffix(b"\r") for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, path: bytes, directory: bool) -> bool | None:
        """True: a pattern matches this very path. False: a negated one does. None: none does. Parents are not looked at."""
        name = path.rpartition(b"/")[2]
        for one in reversed(self._patterns):
            if (directory or not one.only_directories) and one.regex.fullmatch(name if one.by_name else path):
                return not one.negated
        return None

    def selects(self, path: bytes, directory: bool = False) -> bool:
        """Whether ``path`` or, failing a word about it, its nearest parent that is spoken of matches."""
        found = self.match(path, directory)
        if found is None:
            for parent in reversed(parents(path)):
                if (found := self.match(parent, True)) is not None:
                    break
        return found is True

    def reaches_below(self, directory: bytes) -> bool:
        """Whether something under ``directory`` may match although the directory itself does not."""
        parts = directory.split(b"/")
        return any(not one.negated and (one.by_name or _may_reach(one.text, parts)) for one in self._patterns)


def _may_reach(text: bytes, parts: list[bytes]) -> bool:
    steps = text.split(b"/")
    for step, part in zip(steps, parts, strict=False):
        if b"**" in step or b"[" in step or b"\\" in step:
            return True  # may span or hide a slash: look
        if not _compiled(step).fullmatch(part):
            return False
    return len(steps) > len(parts)


def _parse(line: bytes) -> _Pattern | None:
    text = line.rstrip(b" ")
    cut = line[len(text) :]
    if cut and (len(text) - len(text.rstrip(b"\\"))) % 2:
        text += b" "  # the first trailing space was escaped
    if not text or text.startswith(b"#"):
        return None
    negated = text.startswith(b"!")
    text = text[1:] if negated else text
    only_directories = text.endswith(b"/")
    text = text[:-1] if only_directories else text
    by_name = b"/" not in text
    text = text.removeprefix(b"/")
    return _Pattern(negated, only_directories, by_name, text, _compiled(text))


@lru_cache(maxsize=4096)
def _compiled(text: bytes) -> re.Pattern[bytes]:
    return re.compile(_translate(text), re.DOTALL)


def _translate(text: bytes) -> bytes:
    out: list[bytes] = []
    at = 0
    while at < len(text):
        char = text[at : at + 1]
        if char == b"*":
            end = at
            while text[end : end + 1] == b"*":
                end += 1
            open_before = at == 0 or text[at - 1 : at] == b"/"
            rest = text[end : end + 2]
            if end - at > 1 and open_before and not rest:
                out.append(rb".*")
            elif end - at > 1 and open_before and (rest[:1] == b"/" or rest == b"\\/"):
                out.append(rb"(?:.*/)?")
                end += 1 if rest[:1] == b"/" else 2
            else:
                out.append(rb"[^/]*")
            at = end
        elif char == b"?":
            out.append(rb"[^/]")
            at += 1
        elif char == b"[":
            piece, at = _bracket(text, at)
            out.append(piece)
        elif char == b"\\":
            out.append(re.escape(text[at + 1 : at + 2]) if at + 1 < len(text) else _NEVER)
            at += 2
        else:
            out.append(re.escape(char))
            at += 1
    return b"".join(out)


def _bracket(text: bytes, at: int) -> tuple[bytes, int]:
    """The set that begins at ``text[at]`` as a regular expression, and where it ends. An unfinished one never matches."""
    at += 1
    negated = text[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    before = -1  # the character a range may start from
    first = True
    while first or text[at : at + 1] != b"]":
        first = False
        char = text[at : at + 1]
        if not char:
            return _NEVER, len(text)
        if char == b"-" and before >= 0 and text[at + 1 : at + 2] not in (b"", b"]"):
            at += 1
            if text[at : at + 1] == b"\\":
                at += 1
                if at >= len(text):
                    return _NEVER, len(text)
            members.update(range(before, text[at] + 1))
            before = -1
        elif char == b"[" and text[at + 1 : at + 2] == b":":
            end = text.find(b"]", at + 2)
            if end < 0:
                return _NEVER, len(text)
            if end - at < 3 or text[end - 1 : end] != b":":
                members.add(ord("["))
                before = ord("[")
            elif (name := _CLASSES.get(text[at + 2 : end - 1])) is None:
                return _NEVER, len(text)
            else:
                members.update(one for one in range(256) if re.fullmatch(name, bytes((one,))))
                at, before = end, -1
        else:
            if char == b"\\":
                at += 1
                if at >= len(text):
                    return _NEVER, len(text)
            members.add(text[at])
            before = text[at]
        at += 1
    chosen = (set(range(256)) - members if negated else members) - {ord("/")}
    return (b"[" + b"".join(b"\\x%02x" % one for one in sorted(chosen)) + b"]" if chosen else _NEVER), at + 1
