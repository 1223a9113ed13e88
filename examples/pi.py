"""Estimate pi by throwing darts at a square: some seconds of work, a table and a plot.

    qwex batch python examples/pi.py
    qwex batch --array 1-4 python examples/pi.py --darts 500000

Writes pi.csv (darts thrown, estimate, error) and pi.svg (the error as it shrinks). As an element of an array it
takes the element's number as the seed, so that each throws other darts.
"""

import argparse
import csv
import math
import os
import random
import sys
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 320, 40


def throw(darts: int, seed: int, points: int) -> list[tuple[int, float]]:
    """The estimate after each of ``points`` equal shares of the darts."""
    chance = random.Random(seed)
    estimates, inside, thrown = [], 0, 0
    for share in range(1, points + 1):
        goal = darts * share // points
        inside += sum(1 for _ in range(goal - thrown) if math.hypot(chance.random(), chance.random()) <= 1)
        thrown = goal
        estimates.append((thrown, 4 * inside / thrown))
        print(f"{share * 100 // points:3}%  {thrown:>10,} darts  pi is about {estimates[-1][1]:.6f}", flush=True)
    return estimates


def plot(estimates: list[tuple[int, float]]) -> str:
    """The error against the darts thrown, as SVG; the grey curve is 1/sqrt(n), the error to expect."""
    most = estimates[-1][0]
    highest = max(abs(estimate - math.pi) for _, estimate in estimates) or 1

    def line(points: list[tuple[float, float]], colour: str) -> str:
        placed = " ".join(
            f"{MARGIN + x / most * (WIDTH - 2 * MARGIN):.1f},{HEIGHT - MARGIN - y / highest * (HEIGHT - 2 * MARGIN):.1f}"
            for x, y in points
        )
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{placed}"/>'

    expected = [(float(n), min(highest, 1.6 / math.sqrt(n))) for n, _ in estimates]
    measured = [(float(n), abs(estimate - math.pi)) for n, estimate in estimates]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        f'<text x="{MARGIN}" y="24">error of pi after {most:,} darts (grey: 1.6/√n)</text>'
        f"{line(expected, 'lightgrey')}{line(measured, 'steelblue')}</svg>\n"
    )


def main() -> None:
    """Throw, then write the table and the plot into the current directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--darts", type=int, default=20_000_000)
    parser.add_argument("--points", type=int, default=20)
    chosen = parser.parse_args()
    if not 1 <= chosen.points <= chosen.darts:
        sys.exit("pi.py: --darts must be at least --points, and --points at least 1")
    estimates = throw(chosen.darts, int(os.environ.get("QWEX_TASK_INDEX", "0")), chosen.points)
    with Path("pi.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["darts", "estimate", "error"])
        rows.writerows((n, estimate, abs(estimate - math.pi)) for n, estimate in estimates)
    Path("pi.svg").write_text(plot(estimates))
    print(f"pi = {estimates[-1][1]:.6f}, off by {abs(estimates[-1][1] - math.pi):.6f}; see pi.csv and pi.svg")


if __name__ == "__main__":
    main()
