"""Submitting a run a second time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from qwex.errors import UsageError, WorkspaceError
from qwex.model.jobs import StdinMode
from qwex.services import recovery, snapshots
from qwex.services.launch import Job, check, demanding, launch
from qwex.services.places import resolve, shares_files

if TYPE_CHECKING:
    from qwex.backends.base import Source
    from qwex.model.runs import Run
    from qwex.services.context import Context

__all__ = ["repeat"]


async def repeat(ctx: Context, run: Run, *, fresh: bool, yes: bool) -> Run:
    """The new run. It waits only for those dependencies that still go on; secrets come from the environment again.

    UsageError when something it had is no more: a secret, its standard input. WorkspaceError when its snapshot is gone.
    """
    place = resolve(ctx, run.place)
    spec = run.spec
    links: dict[bytes, bytes] = {}
    source: Source | None
    if fresh:
        root = Path(spec.root)
        if not root.is_dir():
            raise WorkspaceError(f"{root} is gone, so there is nothing to take a new snapshot of")
        snapshots.approve(ctx, root, yes)
        scan = snapshots.look(ctx, root, ())
        taken = source = snapshots.take(ctx, place, scan)
        spec = spec.replace(snapshot=taken.tree.digest)
        links = dict(snapshots.links(scan)) if shares_files(place) else {}
    else:
        source = snapshots.restore(ctx, place, spec)
        root = Path(spec.root)
        if shares_files(place) and spec.root and root.is_dir():
            links = dict(snapshots.links(snapshots.look(ctx, root, ())))
    after = tuple(one for one in spec.after if _goes_on(ctx, one.run_id))
    job = Job(spec.replace(after=after), secrets=_secrets(ctx, run))
    if demanding(job):
        check(job, place, await (await ctx.backend(place)).capabilities())
    large = source is not None and source.tree.size > ctx.settings.get("workspace.large")
    (again,) = await launch(ctx, place, [job], [0], source, links, _input(ctx, run), snapshots.Carried(ctx, large))
    return again


def _goes_on(ctx: Context, run_id: str) -> bool:
    return any(run.id == run_id for run in ctx.store.active())


def _secrets(ctx: Context, run: Run) -> dict[str, str]:
    missing = [name for name in run.spec.secrets if name not in ctx.env]
    if missing:
        raise UsageError(
            f"run {run.id} had secrets that are not in the environment: {', '.join(missing)}",
            hint=f"they are never stored; export {missing[0]}=…",
        )
    return {name: ctx.env[name] for name in run.spec.secrets}


def _input(ctx: Context, run: Run) -> Path | None:
    if run.spec.stdin is StdinMode.NONE:
        return None
    kept = recovery.spool_file(ctx.paths, run.id)
    if run.spec.stdin is StdinMode.LIVE or not kept.exists():
        raise UsageError(
            f"run {run.id} read standard input, which is not kept",
            hint="submit it again with `qwex batch`, and its input",
        )
    copy = kept.with_name(f".again-{run.id}")
    shutil.copyfile(kept, copy)
    return copy
