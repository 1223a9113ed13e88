"""The workspace of a call: what of the project is sent, under which digest, and where its bytes can be had later."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwex.errors import WorkspaceError
from qwex.model.trees import Kind
from qwex.model.units import size_text
from qwex.services.places import shares_files

if TYPE_CHECKING:
    from qwex.backends.base import Progress, Source
    from qwex.model.jobs import JobSpec
    from qwex.model.places import Place
    from qwex.services.context import Context
    from qwex.workspace.scan import Scan

__all__ = ["Carried", "approve", "left_out", "links", "look", "restore", "shown", "silent", "take"]

_NAMED = 5


def shown(path: bytes) -> str:
    """A path for people: what a terminal cannot show, or would obey, is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class Carried:
    """Progress of a submission: passes it on to be shown if there is much, and knows how many bytes went."""

    def __init__(self, ctx: Context, large: bool) -> None:
        self._show = ctx.reporter.progress if large else silent
        self.bytes = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        self.bytes = max(self.bytes, done)
        self._show(what, done, total)


def silent(what: str, done: int, total: int) -> None:
    """The progress of something too small to show."""


def look(ctx: Context, root: Path, include: Sequence[str]) -> Scan:
    """What would be sent. WorkspaceError for a directory that cannot be read."""
    from qwex.workspace.scan import scan

    results = os.path.join(root, ctx.settings.get("results.directory"))
    inside = os.path.relpath(results, root)
    skip = [] if inside.startswith("..") else [os.fsencode(inside)]
    return scan(root, (*ctx.settings.get("workspace.include"), *include), skip)


def approve(ctx: Context, root: Path, yes: bool) -> None:
    """Ask before a home directory or the like is sent. WorkspaceError when nobody agrees."""
    from qwex.workspace.roots import guard

    reason = None if yes else guard(root)
    if reason and not ctx.reporter.confirm(f"{reason}. Send all of {root}?"):
        raise WorkspaceError(
            f"{reason}: {root} is not sent unasked", hint="go to the project's directory, or agree with --yes"
        )


def take(ctx: Context, place: Place, scan: Scan) -> Source:
    """The snapshot. Locally its content is kept aside; what goes over a network is read from the project, and checked when it is read."""
    from qwex.workspace import snapshot

    large = scan.size > ctx.settings.get("workspace.large")
    if large:
        biggest = ", ".join(f"{shown(path)} ({size_text(size)})" for path, size in biggest_of(scan))
        ctx.reporter.note(
            f"the workspace has {size_text(scan.size)}: {biggest}; .qwexignore leaves out what jobs do not need"
        )
    progress: Progress = ctx.reporter.progress if large else silent
    if shares_files(place):
        return snapshot.capture(scan, ctx.paths, progress)
    tree = snapshot.identify(scan, ctx.paths, progress)
    snapshot.save_tree(tree, ctx.paths)
    return snapshot.WorkingSource(scan.root, tree)


def biggest_of(scan: Scan) -> list[tuple[bytes, int]]:
    return [(one.path, one.size) for one in scan.largest(_NAMED)]


def restore(ctx: Context, place: Place, spec: JobSpec) -> Source | None:
    """The content of a snapshot taken earlier: kept aside, or still unchanged in the project. WorkspaceError when it is gone."""
    if not spec.snapshot:
        return None
    from qwex.workspace import snapshot

    tree = snapshot.load_tree(spec.snapshot, ctx.paths)
    if tree is not None and shares_files(place):
        kept = snapshot.BlobSource(tree, ctx.paths)
        if all(kept.locate(entry.digest).exists() for entry in tree.entries if entry.kind is Kind.FILE):
            return kept
    root = Path(spec.root)
    if spec.root and root.is_dir():
        again = take(ctx, place, look(ctx, root, ()))
        if again.tree.digest == spec.snapshot:
            return again
    raise WorkspaceError(
        f"the snapshot {spec.snapshot[:12]} is gone, and {spec.root} has changed since",
        hint="`qwex rerun --fresh` takes a new one",
    )


def links(scan: Scan) -> Mapping[bytes, bytes]:
    """Ignored path → the original, for places that share this machine's files."""
    root = os.fsencode(os.path.abspath(scan.root))
    return {one.path: os.path.join(root, one.path) for one in scan.ignored}


def left_out(paths: Sequence[bytes]) -> str:
    """``.venv/, data/ and 3 more``."""
    named = ", ".join(shown(path) for path in paths[:_NAMED])
    return named if len(paths) <= _NAMED else f"{named} and {len(paths) - _NAMED} more"
