"""The local place: its queue beside ``xargs -P2 -n1 true``, a trivial attached job, and the list of 100,000 runs.

The jobs are submitted by one call (``Backend.submit``), run by a worker with two CPUs, and each has its record and its log files; time
is counted once from before they are recorded, and once from the start of the first to the end of the last. The attached job is counted
once as a whole command from Enter to exit, less what a bare interpreter takes, and once from its record to the news of its end in a
client that runs already.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.harness import Figure, alternate, command, table

from qwex.backends.base import LogRequest, Submission
from qwex.backends.local.backend import LocalBackend
from qwex.config import Paths, Settings, load
from qwex.model.jobs import JobSpec
from qwex.model.places import Place
from qwex.model.states import State
from qwex.store import RunStore

JOBS = 1000
ROUNDS = 3
LISTED = 100_000


def silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""


def xargs() -> None:
    numbers = "\n".join(map(str, range(JOBS)))
    subprocess.run(["xargs", "-P2", "-n1", "true"], input=numbers.encode(), check=True)


async def queue(backend: LocalBackend, store: RunStore, jobs: int) -> None:
    """Record, submit, wait for the last one, and check that every one succeeded and has its log."""
    specs = [(JobSpec(("true",)), "local", "bench")] * jobs
    runs = store.add(specs, time.time())
    await backend.submit([Submission(run.id, run.spec) for run in runs], silent)
    while left := store.list(states=[State.QUEUED, State.RUNNING], limit=1):
        async for _ in backend.watch({left[0].id: {}}):
            continue


def check(store: RunStore, state: Path, jobs: int) -> float:
    """Seconds from the start of the first of these jobs to the end of the last; each has its record and its log."""
    ended = store.list(states=[State.SUCCEEDED], limit=jobs)
    if len(ended) < jobs or not all((state / "runs" / run.id / "0.1.out").exists() for run in ended):
        raise AssertionError("a run has no record, no log or did not succeed")
    return max(run.last.ended or 0 for run in ended) - min(run.last.started or 0 for run in ended)


async def attached(backend: LocalBackend, store: RunStore) -> float:
    """Seconds from the record of a trivial job until all its output was read and its end known."""
    start = time.perf_counter()
    run = store.add([(JobSpec(("true",)), "local", "bench")], time.time())[0]
    handles = await backend.submit([Submission(run.id, run.spec)], silent)
    async for _ in backend.logs(handles[run.id], LogRequest(follow=True)):
        continue
    await backend.observe(handles)
    return time.perf_counter() - start


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="qwex-bench-") as scratch:
        paths = Paths.from_environment({"HOME": scratch})
        settings = load(Path(scratch), {"HOME": scratch}).overridden({"local.cpus": 2, "local.idle": 60})
        try:
            figures = asyncio.run(_queue_figures(paths, settings))
            return [*figures, _command_figure(Path(scratch)), _list_figure(paths)]
        finally:
            pid = paths.state / "worker.pid"
            if pid.exists():
                os.kill(int(pid.read_text()), signal.SIGTERM)
                while pid.exists():
                    time.sleep(0.01)


async def _queue_figures(paths: Paths, settings: Settings) -> list[Figure]:
    store = RunStore.open(paths.state / "runs.db")
    async with LocalBackend(Place("local"), paths, settings, partial(print, file=sys.stderr)) as backend:
        await queue(backend, store, 1)
        ours, theirs, drained = [], [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            xargs()
            theirs.append(time.perf_counter() - start)
            start = time.perf_counter()
            await queue(backend, store, JOBS)
            ours.append(time.perf_counter() - start)
            drained.append(check(store, paths.state, JOBS))
        single = statistics.median([await attached(backend, store) for _ in range(30)])
    store.close()
    peer = JOBS / statistics.median(theirs)
    rates = {
        "once queued": JOBS / statistics.median(drained),
        "from before they are recorded": JOBS / statistics.median(ours),
    }
    return [
        *(
            Figure(
                f"{JOBS:,} no-op jobs, 2 slots, {how}",
                f"{own:.0f}/s",
                f"{peer:.0f}/s xargs",
                own / peer,
                "≥ 0.30",
                own >= 0.3 * peer,
            )
            for how, own in rates.items()
        ),
        Figure(
            "a trivial attached job, worker up, in a running client",
            f"{1000 * single:.1f} ms",
            "150 ms, the whole command's share",
            single / 0.15,
            "≤ 0.15",
            single <= 0.15 * 0.15,
        ),
    ]


def _command_figure(scratch: Path) -> Figure:
    project = scratch / "project"
    project.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("QWEX_", "XDG_", "PYTHONDONT"))}
    env |= {"HOME": str(scratch), "PYTHONPYCACHEPREFIX": str(scratch / "pyc")}
    ours, bare = alternate(
        [
            command([sys.executable, "-m", "qwex", "batch", "true"], cwd=project, env=env),
            command([sys.executable, "-c", "pass"], cwd=project, env=env),
        ],
        25,
        warm=3,
    )
    return Figure(
        "`qwex batch true`, worker up, from Enter to exit",
        f"{1000 * ours:.0f} ms",
        f"{1000 * bare:.0f} ms (bare interpreter)",
        ours / bare,
        "≤ 150 ms more",
        ours - bare <= 0.15,
        f"{1000 * (ours - bare):.0f} ms more",
    )


def _list_figure(paths: Paths) -> Figure:
    file = paths.state / "many.db"
    with RunStore.open(file) as store:
        for _ in range(LISTED // 10_000):
            store.add([(JobSpec(("python", "main.py")), "gpu1", "bench")] * 10_000, time.time())

    def listing() -> None:
        with RunStore.open(file) as store:
            if len(store.list(limit=50)) != 50 or store.list(states=[State.FAILED], user="nobody"):
                raise AssertionError("the list is wrong")

    def empty() -> None:
        with RunStore.open(paths.state / "none.db") as store:
            store.list(limit=50)

    ours, floor = alternate([listing, empty], 9)
    over = ours - floor
    return Figure(
        f"open the store and list, {LISTED:,} runs in it",
        f"{1000 * ours:.1f} ms",
        f"{1000 * floor:.1f} ms with none",
        ours / floor,
        "< 300 ms more",
        over < 0.3,
    )


if __name__ == "__main__":
    sys.stdout.write(table(measure()))
