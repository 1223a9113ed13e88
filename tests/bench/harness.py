"""What every benchmark here is made of: a figure beside its peer, taken in turn in one run, and their ratio.

These machines are noisy, so nothing is compared with a number of another day: both sides run alternately and the medians
are divided. ``python tests/bench/run.py`` runs all and writes RESULTS.md; each ``bench_*.py`` runs by itself as well and
has ``measure() -> list[Figure]``.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Figure", "alternate", "command", "seconds", "table"]


@dataclass(frozen=True)
class Figure:
    """One comparison. ``ratio`` is ours/peer; ``goal`` is what it is held against, as text, and ``met`` whether it holds."""

    what: str
    ours: str
    peer: str
    ratio: float
    goal: str
    met: bool
    note: str = ""


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def command(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> Callable[[], None]:
    """An action that runs a program with its output thrown away. Its exit code is not judged."""

    def run() -> None:
        subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    return run


def alternate(actions: Sequence[Callable[[], object]], rounds: int, warm: int = 1) -> list[float]:
    """Median seconds of each action, all of them once a round, after ``warm`` rounds that do not count."""
    taken: list[list[float]] = [[] for _ in actions]
    for number in range(warm + rounds):
        for place, action in zip(taken, actions, strict=True):
            spent = seconds(action)
            if number >= warm:
                place.append(spent)
    return [statistics.median(one) for one in taken]


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table, one row a figure."""
    rows = ["| what | Qwex | beside | ratio | goal | |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {one.what} | {one.ours} | {one.peer} | {one.ratio:.2f} | {one.goal} | {'met' if one.met else '**not met**'}"
        f"{f'; {one.note}' if one.note else ''} |"
        for one in figures
    ]
    return "\n".join(rows) + "\n"
