"""The kinds of place the contract is run on: one fixture for each, named in KINDS."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.contract.ground import Ground
from tests.ssh.far import FarDirectory, Server, allow, start_server

from qwex.backends.base import Handle
from qwex.backends.registry import open_backend
from qwex.config import Paths, load
from qwex.model.places import Place
from qwex.store import RunStore

# Another kind: write a fixture that yields a Place, and name it here.
KINDS = {"local": "local_place", "ssh": "ssh_place"}


@pytest.fixture
def local_place(home: Path) -> Iterator[Place]:
    """This machine. Its worker is ended; what a failed test left running was cancelled before."""
    yield Place("local")
    file = Paths.from_environment().state / "worker.pid"
    if file.exists():
        os.kill(int(file.read_text()), signal.SIGTERM)


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An SSH server on loopback for the account that runs the tests, so that jobs may write where tests look."""
    server = start_server(tmp_path_factory.mktemp("sshd"), own=True)
    yield server
    server.stop()


@pytest.fixture
def ssh_place(home: Path, own_server: Server) -> Iterator[Place]:
    """This account over SSH, with an empty directory there."""
    allow(home, own_server)
    with FarDirectory(own_server) as directory:
        yield Place("far", "ssh", "127.0.0.1", own_server.user.pw_name, own_server.port, 4, str(directory))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(KINDS[request.param])
    return found


@pytest.fixture
async def ground(place: Place, project: Path) -> AsyncIterator[Ground]:
    paths = Paths.from_environment()
    settings = load(project).overridden({"local.cpus": 4, "local.idle": 20})
    said: list[str] = []
    store = RunStore.open(paths.state / "runs.db")
    async with open_backend(place, paths, settings, said.append, lambda question: False) as backend:
        yield Ground(backend, store, paths.state, place.name)
        left = await backend.observe({run.id: {"run": run.id} | run.handle for run in store.list(limit=None)})
        going: dict[str, Handle] = {run_id: {"run": run_id} for run_id, one in left.items() if not one.state.final}
        await backend.cancel(going)
        async for _ in backend.watch(going):
            continue
    store.close()
