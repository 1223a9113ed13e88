"""The workspace layer in-process, 10,000 small files: recognising an unchanged tree beside what git itself takes to look at it
(`git status`), and packing it beside `tar cf -`; a copy for a job beside `cp -a`. Everything warm.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.harness import Figure, alternate, command, table

from qwex.config import Paths
from qwex.workspace.scan import Scan, scan
from qwex.workspace.snapshot import capture, identify
from qwex.workspace.unpack import discard, materialise

FILES = 10_000
ROUNDS = 9
COPIES = 3


def tree(root: Path) -> None:
    """As many small files in 200 directories, committed."""
    chance = random.Random(1)
    for number in range(FILES):
        place = root / f"package{number // 500}" / f"module{number // 50 % 10}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file_{number}.py").write_bytes(chance.randbytes(chance.randrange(200, 3200)))
    who = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org")
    for step in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "files")):
        subprocess.run(["git", *step], cwd=root, check=True, capture_output=True)


def milliseconds(value: float) -> str:
    return f"{value * 1000:.0f} ms"


def figure(
    what: str,
    actions: tuple[Callable[[], object], Callable[[], object]],
    peer: str,
    limit: float | None,
    rounds: int = ROUNDS,
) -> Figure:
    ours, theirs = alternate(actions, rounds)
    ratio = ours / theirs
    goal = "for information" if limit is None else f"≤ {limit:g}"
    return Figure(
        what, milliseconds(ours), f"{milliseconds(theirs)} {peer}", ratio, goal, limit is None or ratio <= limit
    )


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        root = base / "work"
        tree(root)
        paths = Paths(base / "state", base / "config", base / "cache")
        os.sync()
        capture(scan(root), paths)
        seen: Scan = scan(root)

        def copied() -> None:
            materialise(capture(seen, paths), base / "copy")
            discard(base / "copy")

        def copied_by_cp() -> None:
            subprocess.run(["cp", "-a", root, base / "copy"], check=True)
            shutil.rmtree(base / "copy")

        status = command(["git", "status", "--porcelain"], cwd=root)
        return [
            figure("scan and identify, unchanged", (lambda: identify(scan(root), paths), status), "`git status`", 4),
            figure("scan alone", (lambda: scan(root), status), "`git status`", None),
            figure("capture, copy for a job, remove it", (copied, copied_by_cp), "`cp -a`, `rm -r`", 2, COPIES),
        ]


if __name__ == "__main__":
    print(table(measure()))
