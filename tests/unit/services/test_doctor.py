"""`qwex doctor`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.unit.services.fake import Cluster, gone

from qwex.errors import BackendError
from qwex.services.context import Context
from qwex.services.doctor import Check, Health, examine


async def checks(ctx: Context, *hosts: str) -> dict[str, Check]:
    return {check.name: check async for check in examine(ctx, hosts)}


async def test_everything_is_well(ctx: Context, home: Path) -> None:
    found = await checks(ctx, "gpu1")
    assert {name: check.text for name, check in found.items() if check.health is not Health.OK} == {}
    assert {
        "git",
        "configuration",
        "state directory",
        "disk space",
        "clock",
        "run records",
        "local runs",
    } <= found.keys()
    assert "config.toml" in found["configuration"].text
    assert found["host gpu1"].text.startswith("answered after")


async def test_open_state_directory_is_closed(ctx: Context) -> None:
    ctx.paths.state.mkdir(parents=True)
    ctx.paths.state.chmod(0o755)
    check = (await checks(ctx))["state directory"]
    assert check.health is Health.WARN
    assert check.fix is not None
    assert "you alone" in check.fix()
    assert ctx.paths.state.stat().st_mode & 0o777 == 0o700
    assert (await checks(ctx))["state directory"].health is Health.OK


async def test_state_directory_that_cannot_be_made(ctx: Context) -> None:
    ctx.paths.state.parent.mkdir(parents=True)
    ctx.paths.state.write_text("a file")
    found = await checks(ctx)
    assert found["state directory"].health is Health.FAIL
    assert found["run records"].health is Health.FAIL


async def test_damaged_records_are_said(ctx: Context) -> None:
    ctx.paths.state.mkdir(parents=True, mode=0o700)
    (ctx.paths.state / "runs.db").write_bytes(b"no database" * 1000)
    check = (await checks(ctx))["run records"]
    assert (check.health, "damaged" in check.text) == (Health.WARN, True)


async def test_places_that_fail_say_what_to_do(ctx: Context, cluster: Cluster) -> None:
    cluster.faults = {"capabilities": [BackendError("the worker does not start", hint="see worker.log")], "open": []}
    check = (await checks(ctx))["local runs"]
    assert (check.health, check.text, check.remedy) == (Health.FAIL, "the worker does not start", "see worker.log")
    cluster.faults = {"open": [gone("no answer")]}
    assert (await checks(ctx, "gpu1"))["host gpu1"].health is Health.FAIL


async def test_old_inputs_are_deleted_and_young_ones_kept(ctx: Context) -> None:
    kept = ctx.paths.state / "stdin"
    kept.mkdir(parents=True, mode=0o700)
    old, half, young = kept / "000000000", kept / ".1-ab", kept / "000000001"
    for file, days in ((old, 31), (half, 2), (young, 2)):
        file.write_text("x")
        os.utime(file, (time.time() - days * 86400,) * 2)
    check = (await checks(ctx))["leftovers"]
    assert check.fix is not None
    assert check.fix() == "deleted 2 old inputs"
    assert list(kept.iterdir()) == [young]
    assert (await checks(ctx))["leftovers"].health is Health.OK


async def test_git_that_is_missing(ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = (await checks(ctx))["git"]
    assert (check.health, check.remedy) == (Health.WARN, "install git")
