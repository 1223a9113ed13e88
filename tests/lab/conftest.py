"""The lab's fixtures for pytest, and what makes a lab test skip in one line or leave its logs when it fails."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.lab import bundle as bundles
from tests.lab.bundle.workshop import cache_directory
from tests.lab.cluster import Cluster
from tests.lab.cluster import create as create_cluster
from tests.lab.host import HostError, required, unavailable
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.network import Network
from tests.lab.pool import Pool

# Tests get a home of their own and lose QWEX_* (see tests/conftest.py); the lab's cache and settings stay where they are.
SETTINGS = {name: value for name, value in os.environ.items() if name.startswith("QWEX_LAB")}
SETTINGS["QWEX_LAB_CACHE"] = str(cache_directory())
REQUIRED = required()
KEPT = 20  # directories with the logs of failed tests

LABS: list[Lab] = []  # those whose logs are worth keeping when a test fails


@cache
def _reason() -> str | None:
    return unavailable()


def _without(reason: str) -> None:
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test of the lab where there can be none: skipped with one line, or failed with it when the lab is required."""
    if item.get_closest_marker("lab") is not None and (reason := _reason()):
        _without(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failed test of the lab leaves every component's logs in a directory that its report names."""
    report = yield
    if report.failed and item.get_closest_marker("lab") is not None:
        for lab in _labs_of(item):
            place = _log_place(item.nodeid, lab.id, call.when)
            lab.logs(place)
            report.sections.append((f"logs of lab {lab.id}", str(place)))
    return report


def _labs_of(item: pytest.Item) -> list[Lab]:
    values = getattr(item, "funcargs", {}).values()
    own = [value for value in values if isinstance(value, Lab)]
    return [lab for lab in {id(each): each for each in [*LABS, *own]}.values() if lab.all_machines]


def _log_place(test: str, lab: str, when: str) -> Path:
    root = cache_directory() / "failures"
    name = re.sub(r"[^\w.-]+", "_", test.removeprefix("tests/lab/"))[-100:]
    place = root / f"{name}-{when}-{lab}"
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    for old in sorted(root.iterdir(), key=lambda each: each.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old)
    return place


@pytest.fixture(autouse=True)
def home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As for every test, but the lab's own settings stay."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture(scope="session")
def bundle() -> bundles.Bundle:
    """The offline bundle with every artifact; the test is skipped when it is not built, since that takes up to 25 minutes."""
    if reason := _reason():
        _without(reason)
    found = bundles.cached()
    if found is None:
        _without("the lab's artifacts are not built: python -m tests.lab build (once, up to 25 minutes)")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """One lab for all tests. They share its first network, and none keeps a machine of it."""
    if bundles.cached("node") is None:
        _without("the machines' image is not built: python -m tests.lab build node (once, a minute)")
    try:
        made = Lab.create(label="tests")
    except HostError as error:
        _without(str(error))
    with made:
        LABS.append(made)
        try:
            yield made
        finally:
            LABS.remove(made)


@pytest.fixture(scope="session")
def pool(lab: Lab) -> Iterator[Pool]:
    """Booted spare machines of that lab."""
    made = Pool(lab)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def machines(pool: Pool) -> Iterator[Callable[[int], list[Machine]]]:
    """`machines(n)`: so many fresh machines on the lab's first network, thrown away after the test."""
    given: list[Machine] = []

    def take(count: int = 1) -> list[Machine]:
        taken = pool.take(count)
        given.extend(taken)
        return taken

    yield take
    pool.give_back(given)


@pytest.fixture(scope="session")
def network(lab: Lab) -> Network:
    """The network that machines of the pool are on."""
    return lab.network()


@pytest.fixture(scope="session")
def cluster(lab: Lab, bundle: bundles.Bundle) -> Iterator[Cluster]:
    """One server, one agent and Kueue, for tests that leave both as they found them."""
    made = create_cluster(lab, bundle)
    try:
        yield made
    finally:
        made.close()
