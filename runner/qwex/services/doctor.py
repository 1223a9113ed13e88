"""What is broken on this machine, and how to mend it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qwex.errors import ConfigError, QwexError
from qwex.model.ids import EPOCH
from qwex.model.units import size_text
from qwex.services import hosts as named_hosts
from qwex.services.places import LOCAL

if TYPE_CHECKING:
    from qwex.services.context import Context

__all__ = ["Check", "Health", "examine"]

_TIGHT, _FULL = 2 << 30, 200 << 20
_SKEW = 30.0
_DAY = 86400.0


class Health(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """``remedy`` is what to do, "" when nothing.

    ``fix`` does it where that is safe, and says what it did; it raises QwexError when it cannot.
    """

    name: str
    health: Health
    text: str
    remedy: str = ""
    fix: Callable[[], str] | None = field(default=None, repr=False)


async def examine(ctx: Context, hosts: Sequence[str] = ()) -> AsyncIterator[Check]:
    """One check after the other, each as soon as it is known. ``hosts``: places to connect to as well."""
    yield _git()
    yield Check("configuration", Health.OK, ", ".join(map(str, ctx.settings.files)) or "no file; defaults are used")
    for check in (_state, _space, _clock, _records, _leftovers):
        yield check(ctx)
    yield await _worker(ctx)
    for result in await named_hosts.check(ctx, hosts) if hosts else ():
        if result.problem:
            yield Check(f"host {result.place.name}", Health.FAIL, result.problem, result.remedy)
        else:
            text = "; ".join((f"answered after {result.seconds:.2f} s", *result.concerns))
            yield Check(f"host {result.place.name}", Health.WARN if result.concerns else Health.OK, text)


def _git() -> Check:
    from qwex.adapters import process

    try:
        found = process.run(["git", "--version"])
    except QwexError:
        text = "git was not found: ignore rules are read from .gitignore files only"
        return Check("git", Health.WARN, text, "install git")
    return Check("git", Health.OK, os.fsdecode(found.out).strip())


def _state(ctx: Context) -> Check:
    state = ctx.paths.state
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = state / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
        mode = state.stat().st_mode & 0o777
    except OSError as error:
        remedy = "make it yours and writable, or choose another with XDG_STATE_HOME"
        return Check("state directory", Health.FAIL, f"{state}: {(error.strerror or str(error)).lower()}", remedy)
    if mode & 0o077:
        text = f"{state} can be read by others (mode {mode:o})"
        return Check("state directory", Health.WARN, text, f"chmod 700 {state}", partial(_close, state))
    return Check("state directory", Health.OK, str(state))


def _close(state: Path) -> str:
    try:
        state.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{state} could not be changed: {error.strerror}") from error
    return f"{state} can be read by you alone now"


def _space(ctx: Context) -> Check:
    there = next(path for path in (ctx.paths.state, *ctx.paths.state.parents) if path.exists())
    free = shutil.disk_usage(there).free
    health = Health.FAIL if free < _FULL else Health.WARN if free < _TIGHT else Health.OK
    remedy = (
        ""
        if health is Health.OK
        else f"free some space, or lower local.keep_days ({ctx.settings.get('local.keep_days'):g})"
    )
    return Check("disk space", health, f"{size_text(free)} free for {ctx.paths.state}", remedy)


def _clock(ctx: Context) -> Check:
    """Against the clock of the file system, which is another machine's when the home directory is on a network."""
    now = time.time()
    remedy = "set the clock, or start a time service"
    if now < EPOCH:
        return Check("clock", Health.FAIL, f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}", remedy)
    probe = ctx.paths.state / f".clock-{os.getpid()}"
    try:
        probe.write_bytes(b"")
        skew = probe.stat().st_mtime - now
        probe.unlink()
    except OSError:
        return Check("clock", Health.OK, time.strftime("%Y-%m-%d %H:%M:%S"))
    if abs(skew) > _SKEW:
        return Check(
            "clock", Health.WARN, f"files in {ctx.paths.state} are {skew:+.0f} s off this machine's clock", remedy
        )
    return Check("clock", Health.OK, time.strftime("%Y-%m-%d %H:%M:%S"))


def _records(ctx: Context) -> Check:
    try:
        if ctx.store.notice:
            return Check("run records", Health.WARN, ctx.store.notice)
        with ctx.store.database.reading() as db:
            answer = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            count = db.execute("SELECT count(*) FROM runs").fetchone()[0]
    except QwexError as error:
        return Check("run records", Health.FAIL, error.message, error.hint or "")
    if answer != "ok":
        remedy = f"move {ctx.store.database.path} away: Qwex begins a new one"
        return Check("run records", Health.FAIL, f"{ctx.store.database.path}: {answer}", remedy)
    return Check("run records", Health.OK, f"{count:,} runs")


def _leftovers(ctx: Context) -> Check:
    """Inputs of runs that died while they were submitted, or that are older than what is kept of runs."""
    limit = time.time() - _DAY * min(1.0, ctx.settings.get("local.keep_days"))
    oldest = time.time() - _DAY * ctx.settings.get("local.keep_days")
    directory = ctx.paths.state / "stdin"
    kept = sorted(directory.iterdir()) if directory.is_dir() else []
    stale = [file for file in kept if file.stat().st_mtime < (limit if file.name.startswith(".") else oldest)]
    if not stale:
        return Check("leftovers", Health.OK, "none")
    text = f"{len(stale)} kept inputs are no longer needed ({size_text(sum(file.stat().st_size for file in stale))})"
    return Check("leftovers", Health.WARN, text, f"delete the old files in {directory}", partial(_delete, stale))


def _delete(files: list[Path]) -> str:
    for file in files:
        file.unlink(missing_ok=True)
    return f"deleted {len(files)} old inputs"


async def _worker(ctx: Context) -> Check:
    try:
        can = await (await ctx.backend(LOCAL)).capabilities()
    except QwexError as error:
        return Check("local runs", Health.FAIL, error.message, error.hint or f"see {ctx.paths.state / 'worker.log'}")
    parts = [f"{can.cpus:g} CPUs"] if can.cpus is not None else []
    parts += [size_text(can.mem)] if can.mem else []
    parts += [f"{can.gpus or 'no'} GPUs"] if can.gpus is not None else []
    return Check("local runs", Health.OK, ", ".join(parts))
