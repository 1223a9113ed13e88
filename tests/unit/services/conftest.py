"""A context over a place in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.services.fake import Cluster, Recorder, open_context

from qwex.services import connection
from qwex.services.context import Context


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def said() -> Recorder:
    return Recorder()


@pytest.fixture
async def ctx(project: Path, home: Path, cluster: Cluster, said: Recorder) -> AsyncIterator[Context]:
    """In an empty project, with a named host ``gpu1``."""
    file = home / ".config/qwex/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[hosts.gpu1]\nhost = "10.0.0.7"\n')
    async with open_context(project, home, cluster, said) as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken connections are tried again at once."""
    monkeypatch.setattr(connection, "_FIRST_PAUSE", 0.0)
