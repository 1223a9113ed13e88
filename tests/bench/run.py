"""Run every benchmark and write RESULTS.md: ``python tests/bench/run.py [NAME ...]`` (a NAME is that of a bench_NAME.py).

With names only those parts of RESULTS.md are made anew.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.harness import table

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
HEAD = """# Results

Made by `just bench` (`python tests/bench/run.py`); one part by `python tests/bench/run.py NAME`. Each row compares with a peer or a floor
in the same run, in turn, medians; a ratio is Qwex divided by what stands beside it. Machines differ and are noisy: read the ratios.

**Where it falls short.**

- *`qwex batch true` from Enter to exit*: nine tenths of it are imports. On the machine of this run `import typer, asyncio, sqlite3`
  alone took 134 ms, against 80 ms when the goal of 150 ms was set; in proportion it is at the goal, and no further.
- *1 % of 10,000 files changed*: some 100 ms are the scan and the digest of an unchanged tree, the rest is the new tree over there, which
  is a clone by hard links of the old one before the difference goes in; rsync changes its one copy in place. It sends a third of the bytes.
- *1 GB of output*: the same read takes 2 s or 4 s, from one run to the next, and so does a bare asyncssh client that reads `cat`
  (250 to 850 MB/s here): the median of three falls on either side of the goal.
"""


def main() -> None:
    """Measure, print as it goes, write."""
    names = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    chosen = sys.argv[1:] or names
    if unknown := set(chosen) - set(names):
        sys.exit(f"error: no benchmark is called {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    old = RESULTS.read_text() if RESULTS.exists() else ""
    parts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", old, re.DOTALL | re.MULTILINE))
    for name in chosen:
        module = importlib.import_module(f"tests.bench.bench_{name}")
        if reason := getattr(module, "lacking", lambda: None)():
            if name in sys.argv:
                sys.exit(f"error: {name} cannot be measured: {reason}")
            sys.stderr.write(f"{name} is left as it was: {reason}\n")
            continue
        text = f"\n{(module.__doc__ or '').strip()}\n\n{table(module.measure())}"
        text += f"\n*{time.strftime('%Y-%m-%d')}, {platform.system()}, {os.cpu_count()} CPUs, Python {platform.python_version()}*\n\n"
        parts[name] = text
        sys.stdout.write(f"## {name}\n{text}")
        sys.stdout.flush()
    RESULTS.write_text(HEAD + "".join(f"\n## {name}\n{parts[name].rstrip()}\n" for name in names if name in parts))


if __name__ == "__main__":
    main()
