"""A local place of one's own, and its worker to do harm to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.contract.ground import Ground

from qwex.backends.base import Handle
from qwex.backends.registry import open_backend
from qwex.config import Paths, load
from qwex.model.places import Place
from qwex.store import RunStore

PATIENCE = 20.0


def poll(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Local(Ground):
    """The local place, and what the tests do to its worker. ``said`` is what it told the user."""

    said: list[str]

    @property
    def worker(self) -> int | None:
        try:
            text = (self.state / "worker.pid").read_text().strip()
        except FileNotFoundError:
            return None
        return int(text) if text and alive(int(text)) else None

    def kill_worker(self) -> None:
        pid = self.worker
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        poll(lambda: not alive(pid), f"worker {pid} survives")

    def file(self, run_id: str, name: str) -> Path:
        return self.state / "runs" / run_id / name


@asynccontextmanager
async def opened(project: Path, **settings: object) -> AsyncIterator[Local]:
    """A local place with these ``local.*`` settings for the worker it may start."""
    paths = Paths.from_environment()
    chosen = load(project).overridden({f"local.{name}": value for name, value in settings.items()})
    said: list[str] = []
    async with open_backend(Place("local"), paths, chosen, said.append, lambda question: False) as backend:
        store = RunStore.open(paths.state / "runs.db")
        yield Local(backend, store, paths.state, "local", said)
        store.close()


@pytest.fixture
async def local(project: Path) -> AsyncIterator[Local]:
    async with opened(project, cpus=2, idle=20) as place:
        yield place
        if place.store.database.replaced():
            return
        handles: dict[str, Handle] = {run.id: {"run": run.id} for run in place.store.active()}
        await place.backend.cancel(handles)
        async for _ in place.backend.watch(handles):
            continue
    if (pid := place.worker) is not None:
        os.kill(pid, signal.SIGTERM)
