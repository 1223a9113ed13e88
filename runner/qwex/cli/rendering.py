"""Runs in words and columns. Plain text: colour only where a terminal shows it."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwex.cli.terminal import printable
from qwex.model.states import Reason, State
from qwex.model.units import duration_text

if TYPE_CHECKING:
    from qwex.model.jobs import JobSpec
    from qwex.model.runs import Attempt, Observation, Run, Task

__all__ = ["clock", "command_text", "cut", "paint", "reason_text", "state_text", "table", "took", "width"]

_COLOURS = {
    State.RUNNING: "36",
    State.SUCCEEDED: "32",
    State.FAILED: "31",
    State.LOST: "31",
    State.CANCELLED: "33",
    State.SUSPENDED: "33",
}
_REASONS = {
    Reason.WAITING_FOR_SLOT: "waits for room",
    Reason.WAITING_FOR_RUN: "waits for a run",
    Reason.WAITING_TO_RETRY: "tries again soon",
    Reason.ARRAY_LIMIT: "limit of the array",
    Reason.HELD_BY_USER: "held by you",
    Reason.TIME_LIMIT: "time limit",
    Reason.OUT_OF_MEMORY: "out of memory",
    Reason.COMMAND_NOT_FOUND: "command not found",
    Reason.COMMAND_NOT_EXECUTABLE: "command not executable",
    Reason.DEPENDENCY_FAILED: "a dependency failed",
    Reason.CANCELLED_BY_USER: "by you",
    Reason.WORKSPACE_FAILED: "workspace not unpacked",
    Reason.NEVER_FITS: "asks for more than there is",
    Reason.WORKER_DIED: "the worker died",
    Reason.HOST_RESTARTED: "the machine restarted",
    Reason.SUBMISSION_FAILED: "not submitted",
    Reason.HOST_UNREACHABLE: "host unreachable",
    Reason.UNKNOWN: "its end is not known",
}


def command_text(spec: JobSpec) -> str:
    """The command as one would type it, in one line."""
    return printable(spec.argv[0] if spec.shell else shlex.join(spec.argv))


def reason_text(reason: Reason, exit_code: int | None) -> str:
    """Why, in a few words; "" where the state says it all."""
    if reason is Reason.EXIT_CODE:
        return f"exit code {exit_code}"
    if reason is Reason.SIGNAL:
        return "signal" if exit_code is None else _signal_name(exit_code - 128)
    return _REASONS.get(reason, "")


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def state_text(seen: Observation | Task | Attempt, counts: str = "") -> str:
    """``failed (exit code 3)``; ``running?`` when the place did not answer. ``counts`` of an array stand for the reason."""
    mark = "?" if seen.reason is Reason.HOST_UNREACHABLE else ""
    why = counts if counts and not mark else reason_text(seen.reason, seen.exit_code)
    return f"{seen.state}{mark}" + (f" ({why})" if why else "")


def paint(text: str, state: State, colour: bool) -> str:
    """``text`` in the colour of a state."""
    return f"\x1b[{_COLOURS[state]}m{text}\x1b[0m" if colour and state in _COLOURS else text


def took(run: Run, now: float) -> str:
    """How long it ran, so far if it runs; "" before it started."""
    last = run.last
    if last.started is None:
        return ""
    return duration_text(max(0.0, (last.ended if last.ended is not None else now) - last.started))


def clock(moment: float) -> str:
    """Local time with its offset: ``2025-11-23 21:43:29 +0100``."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))


def width(text: str) -> int:
    """Columns on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )


def cut(text: str, most: int) -> str:
    """At most ``most`` columns of it."""
    if width(text) <= most:
        return text
    while width(text) > most - 1:
        text = text[:-1]
    return text + "…"


def table(rows: Sequence[Sequence[str]], *, columns: int | None = None, shrink: int = 0) -> list[list[str]]:
    """``rows`` padded to columns that stand under each other, the last one ragged.

    ``columns``: the terminal's width, None for as wide as it gets. Column ``shrink`` gives way first.
    """
    if not rows:
        return []
    widths = [max(width(row[at]) for row in rows) for at in range(len(rows[0]))]
    if columns is not None:
        over = sum(widths) + 2 * (len(widths) - 1) - columns
        widths[shrink] = max(8, widths[shrink] - max(0, over))
    padded = []
    for row in rows:
        cells = [cut(cell, widths[at]) for at, cell in enumerate(row)]
        last = len(cells) - 1
        padded.append(
            [cell if at == last else cell + " " * (widths[at] - width(cell)) for at, cell in enumerate(cells)]
        )
    return padded
