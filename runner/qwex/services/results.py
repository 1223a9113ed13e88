"""Bringing results home."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qwex.errors import WorkspaceError
from qwex.model.trees import EMPTY
from qwex.model.units import size_text
from qwex.services import snapshots
from qwex.services.places import resolve
from qwex.services.recovery import handed_over

if TYPE_CHECKING:
    from qwex.model.runs import Run
    from qwex.services.context import Context

__all__ = ["Pulled", "pull"]


class Pulled(NamedTuple):
    """``directory`` is where they are; None: nothing was fetched, for there is none or it is too large (``waiting``, ``size`` bytes).

    ``conflicts``: (the path in the working tree edited meanwhile, where the run's copy lies instead).
    """

    directory: Path | None
    files: int
    size: int
    waiting: bool = False
    conflicts: tuple[tuple[Path, Path], ...] = ()

    def describe(self, directory: Path) -> str:
        """``results: qwex-runs/1p4c8zq0a (3 files, 12 KiB)``, seen from ``directory``."""
        if self.directory is None:
            return f"the results have {size_text(self.size)}" if self.waiting else "there are no results"
        inside = self.directory.is_relative_to(directory)
        where = self.directory.relative_to(directory) if inside else self.directory
        return f"results: {where} ({self.files} file{'s' * (self.files != 1)}, {size_text(self.size)})"


async def pull(
    ctx: Context, run: Run, into: Path | None = None, *, sync_back: bool | None = None, whatever_size: bool = False
) -> Pulled:
    """Results of the ended tasks to ``into``, or ``qwex-runs/<id>`` in the run's project. One directory per index for arrays.

    Above ``results.limit`` nothing is fetched unless ``whatever_size``. Can be repeated; files arrive whole or not at all.
    ``sync_back`` (None: the setting) puts them into the working tree too, never over a file edited meanwhile.
    """
    run = await handed_over(ctx, run)
    if not run.handle:
        return Pulled(None, 0, 0)
    most = None if whatever_size else ctx.settings.get("results.limit")
    known = run.last.result_bytes
    if most is not None and known is not None and known > most:
        return Pulled(None, run.last.result_files or 0, known, waiting=True)
    if run.state.final and run.last.result_files == 0:
        return Pulled(None, 0, 0)
    backend = await ctx.backend(resolve(ctx, run.place))
    target = _target(ctx, run) if into is None else ctx.directory / into
    large = known is None or known > ctx.settings.get("workspace.large")
    with _staging(target, run.id) as staging:
        fetched = await backend.results(run.handle, staging, ctx.reporter.progress if large else snapshots.silent, most)
        if fetched is None:
            return Pulled(None, run.last.result_files or 0, known or 0, waiting=True)
        if not fetched.paths:
            return Pulled(None, 0, 0)
        wanted = ctx.settings.get("results.sync_back") if sync_back is None else sync_back
        conflicts = _sync_back(ctx, run, staging) if wanted else ()
        from qwex.workspace.delivery import deliver

        deliver(staging, target)
    ctx.store.set_pulled(run.id, str(target))
    return Pulled(target, len(fetched.paths), fetched.size, conflicts=conflicts)


def _target(ctx: Context, run: Run) -> Path:
    """The run's own directory, in the project it was submitted from, or here when that is gone."""
    root = Path(run.spec.root)
    if not run.spec.root or not root.is_dir():
        root = ctx.settings.root
    results: Path = root / ctx.settings.get("results.directory")
    try:
        results.mkdir(parents=True, exist_ok=True)
        if not (ignore := results / ".gitignore").exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise WorkspaceError(
            f"{results} cannot be written: {error.strerror}", hint="`qwex pull --to DIR` puts results elsewhere"
        ) from error
    return results / run.id


@contextmanager
def _staging(target: Path, run_id: str) -> Iterator[Path]:
    """An empty directory beside ``target``, gone at the end; those of clients that died are removed first."""
    prefix = f".{run_id}-"
    fd = -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in target.parent.glob(f"{prefix}*"):
            _remove_dead(old)
        staging = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        fd = os.open(staging, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_SH)
        inner = staging / "results"  # one level down: what a transport keeps beside it meanwhile goes with it
        inner.mkdir()
    except OSError as error:
        raise WorkspaceError(
            f"{target.parent} cannot be written: {error.strerror}", hint="`qwex pull --to DIR` puts results elsewhere"
        ) from error
    try:
        yield inner
    finally:
        os.close(fd)
        shutil.rmtree(staging, ignore_errors=True)


def _remove_dead(staging: Path) -> None:
    fd = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(staging, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(fd)


def _sync_back(ctx: Context, run: Run, staging: Path) -> tuple[tuple[Path, Path], ...]:
    from qwex.workspace.delivery import sync_back
    from qwex.workspace.snapshot import load_tree

    root = Path(run.spec.root)
    if run.spec.array is not None:
        ctx.reporter.warn(
            "the results of an array are not put into the working tree: its elements may write the same files"
        )
        return ()
    if not root.is_dir():
        ctx.reporter.warn(f"{root} is gone, so nothing is put back into it")
        return ()
    conflicts = sync_back(staging, root, load_tree(run.spec.snapshot, ctx.paths) or EMPTY, run.id)
    return tuple((root / os.fsdecode(one.path), root / os.fsdecode(one.beside)) for one in conflicts)
