"""From what was typed to a run that waits at its place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from qwex.errors import UnknownName, UsageError
from qwex.model.jobs import StdinMode
from qwex.model.units import size_text
from qwex.services import recovery, snapshots
from qwex.services.launch import Job, check, demanding, launch
from qwex.services.options import Wanted, read_request
from qwex.services.places import resolve, shares_files
from qwex.services.stdin import choose, spool

if TYPE_CHECKING:
    from qwex.model.jobs import JobSpec
    from qwex.model.places import Place
    from qwex.model.runs import Run
    from qwex.services.context import Context
    from qwex.workspace.scan import Scan

__all__ = ["Plan", "Request", "plan", "submit"]

_L = TypeVar("_L")
_R = TypeVar("_R")


class Request(NamedTuple):
    """One run as asked for, every option as it was typed. None: as the settings say.

    ``argv``      the command; with ``shell`` its one element is a script (several are joined by spaces).
    ``mem`` ``time``  as ``4G``, ``1h30m``. ``gpus`` as ``1``, ``a100`` or ``a100:2``. ``array`` as ``0-99%10``.
    ``after``     ``RUN[:ok|fail|any]``, runs of the same place. ``needs`` the same for names of requests of the same call.
    ``env`` ``env_files``  later wins; both win over ``run.env``. ``secrets`` are ``NAME`` (from the environment) or ``NAME=VALUE``.
    ``include``   added to ``workspace.include``.
    ``stdin``     a file descriptor, or None for no input. What it is decides how it is passed (``services.stdin``).
    ``attached``  the caller stays and follows.
    ``yes``       go on where a person would be asked.
    """

    argv: tuple[str, ...]
    on: str | None = None
    shell: bool | None = None
    name: str | None = None
    cpus: str | None = None
    mem: str | None = None
    gpus: str | None = None
    time: str | None = None
    priority: str | None = None
    retries: str | None = None
    array: str | None = None
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    env_files: tuple[Path, ...] = ()
    secrets: tuple[str, ...] = ()
    out: tuple[str, ...] | None = None
    include: tuple[str, ...] = ()
    stdin: int | None = None
    attached: bool = False
    yes: bool = False


class Plan(NamedTuple):
    """What a submission would do; nothing has been done yet.

    ``files`` ``size`` what the workspace has (bytes before compression; a place is sent only what it does not have yet).
    ``largest`` (path, bytes), biggest first, five at most. ``ignored`` paths left out by the rules, directories with a slash.
    ``linked``: they can be reached at the place through links. ``special``: sockets, pipes and devices, which are never sent.
    """

    place: Place
    specs: tuple[JobSpec, ...]
    root: Path
    files: int
    size: int
    largest: tuple[tuple[bytes, int], ...]
    ignored: tuple[bytes, ...]
    linked: bool
    special: tuple[bytes, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``--dry-run --json``. No value of a secret is in it."""
        return {
            "place": self.place.name,
            "root": str(self.root),
            "workspace": {
                "files": self.files,
                "bytes": self.size,
                "largest": [{"path": snapshots.shown(path), "bytes": size} for path, size in self.largest],
                "left_out": [snapshots.shown(path) for path in self.ignored],
                "linked": self.linked,
                "special": [snapshots.shown(path) for path in self.special],
            },
            "jobs": [spec.to_json() for spec in self.specs],
        }


class _Prepared(NamedTuple):
    """Everything read and checked; ``order`` goes through the requests so that needs come first."""

    plan: Plan
    scan: Scan
    wanted: list[Wanted]
    order: list[int]


async def plan(ctx: Context, requests: Sequence[Request]) -> Plan:
    """What ``submit`` would do with these. UsageError names the option that is wrong; nothing is written, nobody is connected to."""
    return _prepare(ctx, requests).plan


async def submit(ctx: Context, requests: Sequence[Request]) -> list[Run]:
    """Submit all of them to their one place over one connection; all or none. Their records, in the order of ``requests``.

    Notes one line about what was sent. A run that could not be submitted is recorded as failed (submission-failed) and the error
    goes on; one cut short by the death of this process is taken up by the next command (``services.recovery``).
    """
    # Before anything is looked at: a whole disk would take its time.
    snapshots.approve(ctx, ctx.settings.root, any(request.yes for request in requests))
    ready = _prepare(ctx, requests)
    place = ready.plan.place
    _ = ctx.store  # before the first content is kept: it makes the state directory, readable by its owner alone
    if shares_files(place):
        source = snapshots.take(ctx, place, ready.scan)
        backend = await ctx.backend(place)
    else:
        # The connection is made while the workspace is read: both take their time, and neither needs the other.
        source, backend = await _both(asyncio.to_thread(snapshots.take, ctx, place, ready.scan), ctx.backend(place))
    jobs = [Job(one.spec.replace(snapshot=source.tree.digest), one.needs, one.secrets) for one in ready.wanted]
    if any(map(demanding, jobs)):
        capabilities = await backend.capabilities()
        for job in jobs:
            check(job, place, capabilities)
    read = [request.stdin for request, job in zip(requests, jobs, strict=True) if job.spec.stdin is StdinMode.FILE]
    spooled = await _spool(ctx, read[0]) if read and read[0] is not None else None
    linked = snapshots.links(ready.scan) if ready.plan.linked else {}
    carried = snapshots.Carried(ctx, ready.plan.size > ctx.settings.get("workspace.large"))
    runs = await launch(ctx, place, jobs, ready.order, source, linked, spooled, carried)
    _tell(ctx, ready.plan, carried.bytes)
    return runs


async def _both(left: Awaitable[_L], right: Awaitable[_R]) -> tuple[_L, _R]:
    """Both results. When one fails the other is waited for, so that nothing goes on behind the error."""
    results = await asyncio.gather(left, right, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("tuple[_L, _R]", tuple(results))


def _prepare(ctx: Context, requests: Sequence[Request]) -> _Prepared:
    if not requests:
        raise UsageError("there is nothing to submit")
    names = {request.on or ctx.settings.get("run.on") for request in requests}
    if len(names) > 1:
        raise UsageError(
            f"jobs of one call go to one place, and these name {', '.join(sorted(names))}", hint="submit them in turn"
        )
    place = resolve(ctx, names.pop())
    if sum(request.stdin is not None for request in requests) > 1:
        raise UsageError("standard input can go to one job only")
    wanted = [read_request(ctx, request, place) for request in requests]
    for at, request in enumerate(requests):
        mode = choose(request.stdin, request.attached, wanted[at].spec)
        wanted[at] = wanted[at]._replace(spec=wanted[at].spec.replace(stdin=mode))
    order = _order(wanted)
    root = ctx.settings.root
    scan = snapshots.look(
        ctx, root, tuple(dict.fromkeys(pattern for request in requests for pattern in request.include))
    )
    described = Plan(
        place=place,
        specs=tuple(one.spec for one in wanted),
        root=root,
        files=scan.files,
        size=scan.size,
        largest=tuple(snapshots.biggest_of(scan)),
        ignored=tuple(one.path + b"/" if one.directory else one.path for one in scan.ignored),
        linked=shares_files(place),
        special=scan.special,
    )
    return _Prepared(described, scan, wanted, order)


def _order(wanted: Sequence[Wanted]) -> list[int]:
    """Indexes so that what is needed comes first; otherwise as they stand. UsageError for a cycle or a name that is not there."""
    if not any(one.needs for one in wanted):
        return list(range(len(wanted)))
    from graphlib import CycleError, TopologicalSorter

    by_name: dict[str, int] = {}
    for at, one in enumerate(wanted):
        if one.spec.name and by_name.setdefault(one.spec.name, at) != at:
            raise UsageError(f"two jobs are called {one.spec.name!r}: needs could mean either")
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for at, one in enumerate(wanted):
        for name, _ in one.needs:
            if name not in by_name:
                error = UnknownName("job", name, by_name)
                raise UsageError(f"{one.spec.name or 'a job'} needs {name!r}: {error.message}", hint=error.hint)
        sorter.add(at, *(by_name[name] for name, _ in one.needs))
    try:
        return list(sorter.static_order())
    except CycleError as error:
        circle = " → ".join(wanted[at].spec.name for at in reversed(error.args[1]))
        raise UsageError(f"these jobs wait for each other: {circle}") from error


def _tell(ctx: Context, sent: Plan, carried: int) -> None:
    text = f"sent {sent.files} file{'s' * (sent.files != 1)}, {size_text(sent.size)} to {sent.place.name}"
    if not shares_files(sent.place) and carried < sent.size:
        text += f" ({size_text(carried) if carried else 'nothing'} new)"
    if sent.ignored:
        text += f"; left out {snapshots.left_out(sent.ignored)}" + (" (linked)" if sent.linked else "")
    ctx.reporter.note(text)


async def _spool(ctx: Context, fd: int) -> Path:
    file = recovery.spool_file(ctx.paths, f".{os.getpid()}-{os.urandom(4).hex()}")
    await spool(fd, file, ctx.reporter.note)
    return file
