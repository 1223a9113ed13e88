"""Run ids: nine characters, in order of submission when sorted, found by any unambiguous prefix.

They count 1/32768 s since 2025-01-01 UTC: six characters of seconds (good until 2059), three of their parts.
The alphabet is Crockford's base 32 in lower case (no i, l, o, u). ``ID.7`` names element 7 of an array.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["ALPHABET", "EPOCH", "fresh_ids", "is_id", "split_ref"]

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
EPOCH = 1735689600
_PARTS = 32**3  # of a second
_REF = re.compile(r"([0-9a-hjkmnp-tv-z]{1,9}|last)(?:\.([0-9]+))?")


def _encode(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def fresh_ids(now: float) -> Iterator[str]:
    """Ids in ascending order from ``now`` (Unix seconds).

    Two processes may draw the same id: the store's primary key decides, and the loser draws the next.
    """
    number = max(0, int((now - EPOCH) * _PARTS))
    while True:
        yield _encode(number, 9)
        number += 1


def is_id(text: str) -> bool:
    return len(text) == 9 and set(text) <= set(ALPHABET)


def split_ref(text: str) -> tuple[str, int | None]:
    """``("1p4c8zq0a", 7)`` for ``1p4c8zq0a.7``; the id may be a prefix or ``last``. ValueError when it is no reference."""
    match = _REF.fullmatch(text.lower())
    if not match:
        raise ValueError(f"{text!r} is not a run id: ids look like 1p4c8zq0a, elements like 1p4c8zq0a.7")
    return match[1], int(match[2]) if match[2] is not None else None
