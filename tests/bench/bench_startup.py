"""Start-up, from Enter to the end of a command that does nothing much.

Beside `--help` and a failing `qwex batch`: a typer app of two commands, once as typer comes (with rich) and once as plain as Qwex
runs it. Beside `--version` and completion: `python3 -c 'import argparse'`. Beside `list`: the same without runs, after 100,000 were
recorded.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.harness import Figure, alternate, command, table

PYTHON = sys.executable
QWEX = [PYTHON, "-m", "qwex"]
TWO_COMMANDS = """import typer

app = typer.Typer({})


@app.command()
def add(count: int, name: str = "x") -> None: ...


@app.command()
def remove(name: str) -> None: ...


app()
"""
PLAIN = "pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False"
ROUNDS = 15
RUNS = 100_000


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="qwex-bench-") as name:
        place = Path(name)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("QWEX_", "XDG_"))}
        env["HOME"] = str(place)
        # As installed: compiled once, by the rounds that do not count. Else every start would compile Qwex anew, and only Qwex.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env["PYTHONPYCACHEPREFIX"] = str(place / "compiled")
        rich, plain = place / "rich.py", place / "plain.py"
        rich.write_text(TWO_COMMANDS.format(""))
        plain.write_text(TWO_COMMANDS.format(PLAIN))
        full = place / "full"
        _fill(full / "qwex" / "runs.db")
        return [
            *_against_typer(place, env, rich, plain),
            *_against_argparse(place, {**env, "XDG_STATE_HOME": str(full)}),
            _listing(place, env, full),
        ]


def _against_typer(place: Path, env: dict[str, str], rich: Path, plain: Path) -> list[Figure]:
    ours = {
        "`qwex --help`": command([*QWEX, "--help"], cwd=place, env=env),
        "`qwex batch` that fails in parsing": command([*QWEX, "batch", "--no-such"], cwd=place, env=env),
    }
    peers = [command([PYTHON, app, "--help"], cwd=place, env=env) for app in (rich, plain)]
    *mine, as_it_comes, bare = alternate([*ours.values(), *peers], ROUNDS)
    return [
        _figure(what, spent, peer, f"typer app of two commands, {how}", 1.25)
        for what, spent in zip(ours, mine, strict=True)
        for peer, how in ((as_it_comes, "as typer comes"), (bare, "without rich"))
    ]


def _against_argparse(place: Path, env: dict[str, str]) -> list[Figure]:
    completing = {**env, "QWEX_COMPLETE": "bash"}
    ours = {
        "`qwex --version`": command([*QWEX, "--version"], cwd=place, env=env),
        "completion of a command": command([*QWEX, "qwex bat", ":="], cwd=place, env=completing),
        "completion of a place": command([*QWEX, "qwex batch --on lo", ":="], cwd=place, env=completing),
        f"completion of a run among {RUNS:,}": command([*QWEX, "qwex logs 1", ":="], cwd=place, env=completing),
    }
    peer = command([PYTHON, "-c", "import argparse"], cwd=place, env=env)
    *mine, argparse = alternate([*ours.values(), peer], ROUNDS)
    return [_figure(what, spent, argparse, "`import argparse`", 2.5) for what, spent in zip(ours, mine, strict=True)]


def _listing(place: Path, env: dict[str, str], full: Path) -> Figure:
    """``list`` with a full store; the peer is the same command with an empty one, so that the difference is the store's."""
    empty = place / "empty"
    ours = command([*QWEX, "list"], cwd=place, env={**env, "XDG_STATE_HOME": str(full)})
    peer = command([*QWEX, "list"], cwd=place, env={**env, "XDG_STATE_HOME": str(empty)})
    starting = command([*QWEX, "--help"], cwd=place, env=env)
    mine, theirs, start = alternate([ours, peer, starting], ROUNDS)
    over = mine - start
    return Figure(
        what=f"`qwex list` with {RUNS:,} runs",
        ours=f"{mine * 1000:.0f} ms",
        peer=f"{theirs * 1000:.0f} ms (no runs)",
        ratio=mine / theirs,
        goal="< 300 ms over start-up",
        met=over < 0.3,
        note=f"{over * 1000:.0f} ms over start-up",
    )


def _fill(database: Path) -> None:
    import time

    from qwex.model.jobs import JobSpec
    from qwex.model.runs import Observation, Task
    from qwex.model.states import State
    from qwex.store import RunStore

    done = Observation(
        State.SUCCEEDED, exit_code=0, started=1.0, ended=2.0, tasks=(Task(0, State.SUCCEEDED, exit_code=0),)
    )
    database.parent.mkdir(parents=True)
    with RunStore.open(database) as store:
        for first in range(0, RUNS, 10_000):
            spec = JobSpec(("python", "train.py", "--seed", str(first)), name=f"sweep-{first}")
            added = store.add([(spec, "gpu1", "ada")] * 10_000, time.time())
            store.record(dict.fromkeys((run.id for run in added), done), time.time())


def _figure(what: str, ours: float, peer: float, name: str, goal: float) -> Figure:
    ratio = ours / peer
    return Figure(what, f"{ours * 1000:.0f} ms", f"{peer * 1000:.0f} ms ({name})", ratio, f"≤ {goal:g}", ratio <= goal)


if __name__ == "__main__":
    sys.stdout.write(table(measure()))
