"""Sizes and durations as people write them."""

from __future__ import annotations

import re

__all__ = ["duration_text", "parse_duration", "parse_size", "size_text"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE | re.ASCII)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.IGNORECASE | re.ASCII)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d)(?::([0-5]?\d))?", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes. ``512M``, ``4G``, ``4Gi``, ``1.5GiB``, ``1024``; K, M, G, T, P count in 1024s, as memory does.

    Raises ValueError with the forms it takes.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size: write 512M, 4G, 1.5GiB or a number of bytes")
    return int(float(match[1]) * 1024 ** _POWER[match[2].lower()])


def size_text(count: float) -> str:
    """``1.5 GiB``; three significant figures at most."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1000 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def parse_duration(text: str) -> float:
    """Seconds. ``90`` (seconds), ``90s``, ``1h30m``, ``2d``, ``1:30:00`` (h:m:s), ``1-00:00:00`` (days-h:m:s), ``30:00`` (m:s).

    Raises ValueError with the forms it takes.
    """
    stripped = text.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", stripped):
        return float(stripped)
    if clock := _CLOCK.fullmatch(stripped):
        days, first, second, third = (int(part or 0) for part in clock.groups())
        if clock[4] is None and clock[1] is None:
            return first * 60 + second
        return days * 86400 + first * 3600 + second * 60 + third
    match = _DURATION.fullmatch(stripped)
    if not stripped or not match:
        raise ValueError(f"{text!r} is not a duration: write 90s, 30m, 1h30m, 2d or 1:30:00")
    days_, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days_ * 86400 + hours * 3600 + minutes * 60 + seconds


def duration_text(seconds: float) -> str:
    """``0.4s``, ``12s``, ``3m05s``, ``2h07m``, ``4d03h``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
