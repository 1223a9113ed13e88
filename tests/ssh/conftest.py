"""A real SSH server on loopback, an ordinary account on it, and a directory of its own for every test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.ssh.far import SSHD, Client, FarDirectory, Server, allow, other_shell, start_server

from qwex.backends.ssh import SSHBackend
from qwex.config import Paths
from qwex.model.places import Place


def pytest_report_header() -> str:
    return f"SSH server of the tests: {SSHD or 'none installed here: asyncssh runs /bin/sh instead'}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="qwex-sshd-"))
    shell = os.environ.get("FAR_SHELL", "")  # all of these tests with another shell as the far side's sh
    running = start_server(folder, extra=other_shell(folder, shell) if shell else "")
    yield running
    running.stop()
    shutil.rmtree(folder)


@pytest.fixture
def place(server: Server) -> Iterator[Place]:
    """The account with an empty Qwex directory; nothing of it runs on after the test."""
    with FarDirectory(server) as directory:
        yield Place("far", "ssh", "127.0.0.1", server.user.pw_name, server.port, directory=str(directory), slots=2)


@pytest.fixture
def ssh_home(home: Path, server: Server) -> Path:
    """The user's own ~/.ssh: his key, and the server among the known hosts."""
    allow(home, server)
    return home


@pytest.fixture
def client(ssh_home: Path, place: Place, tmp_path: Path) -> Client:
    return Client(place, Paths.from_environment(dict(os.environ)), tmp_path)


@pytest.fixture
async def backend(client: Client) -> AsyncIterator[SSHBackend]:
    async with client.open() as opened:
        yield opened
