"""The lab's own figures, each against its goal (the ratio is what was measured divided by it). Needs root and Docker."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.harness import Figure, table
from tests.lab import bundle
from tests.lab.figures import measure as measured
from tests.lab.host import unavailable


def lacking() -> str | None:
    """Why it cannot be measured here."""
    return unavailable() or (None if bundle.cached() else "the lab's artifacts are not built: just lab-build")


def measure() -> list[Figure]:
    built = bundle.ready()
    return [
        Figure(
            one.what,
            f"{one.value:.1f} {one.unit}",
            "the goal",
            one.value / one.goal,
            f"≤ {one.goal:.4g} {one.unit}",
            one.value <= one.goal,
        )
        for one in measured(built, lambda line: print(line, file=sys.stderr))
    ]


if __name__ == "__main__":
    print(table(measure()))
