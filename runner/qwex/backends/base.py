"""Seam 2: what a place must be able to do with a run.

A backend is opened for one command (``async with registry.open_backend(place) as backend``), keeps at most one connection,
and holds no truth of its own: a run lives in the place, its Handle is plain JSON, and any process can take it up again.
Everything that may be asked of several runs takes several at once. Errors are ``qwex.errors``; a connection that breaks
raises ``Unreachable`` and the caller may open the backend again and continue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

from qwex.model.jobs import JobSpec
from qwex.model.places import Capabilities
from qwex.model.runs import Observation
from qwex.model.trees import Tree

__all__ = [
    "Backend",
    "CanPurge",
    "Cursor",
    "Fetched",
    "Handle",
    "LogChunk",
    "LogRequest",
    "Progress",
    "Source",
    "Stream",
    "Submission",
]

Handle = dict[str, object]
"""How a backend finds a run again: JSON values only. ``{"run": run_id}`` alone is enough to observe and to cancel."""

Progress = Callable[[str, int, int], None]
"""``progress(what, done_bytes, total_bytes)``; total 0 while unknown. Called often and from any thread: cheap and never raising."""

Cursor = dict[str, list[int]]
"""How far logs were read: ``{"<task>.<attempt>": [stdout bytes, stderr bytes]}``. JSON, kept by the reader."""


class Stream(StrEnum):
    OUT = "out"
    ERR = "err"


class Source(Protocol):
    """Where the bytes of a tree can be had on this machine, whatever happened to the working directory since."""

    tree: Tree

    def locate(self, digest: str) -> Path:
        """The file that holds this content. WorkspaceError when it is no longer there."""
        ...


@dataclass(frozen=True, slots=True)
class Submission:
    """One run to start. ``links``: path in the workspace → absolute original, for places that share this machine's files.

    ``stdin`` is a file to read from (StdinMode.FILE). ``secrets`` holds values: written 0600 where the job starts, removed when it ended.
    """

    run_id: str
    spec: JobSpec
    source: Source | None = None
    links: Mapping[bytes, bytes] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    stdin: Path | None = None


class LogChunk(NamedTuple):
    """``data`` as the job wrote it, from byte ``offset`` of that stream of that attempt."""

    task: int
    attempt: int
    stream: Stream
    offset: int
    data: bytes

    @property
    def key(self) -> str:
        return f"{self.task}.{self.attempt}"


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Which output of a run.

    ``task`` None: every element, ``attempt`` None: every attempt in order. ``follow``: go on until the run ended.
    ``since``: Unix seconds of the place, to the place's precision (about 2 s). ``tail``: the last so many lines per stream.
    ``cursor``: continue there; takes precedence over ``since`` and ``tail`` for the streams it names.
    """

    task: int | None = None
    attempt: int | None = None
    follow: bool = False
    since: float | None = None
    tail: int | None = None
    cursor: Cursor = field(default_factory=dict)


class Fetched(NamedTuple):
    """Results brought to ``directory``. ``paths`` are relative to it, ascending; arrays have one directory per index."""

    directory: Path
    paths: tuple[bytes, ...]
    size: int


class Backend(Protocol):
    """A place. Every method may raise PlaceError or BackendError besides what it says."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def capabilities(self) -> Capabilities:
        """What this place can do. May ask the place once."""
        ...

    async def submit(self, submissions: Sequence[Submission], progress: Progress) -> dict[str, Handle]:
        """Take up these runs and return their handles; all or none.

        Idempotent on the run id: a second call with a run the place already has returns its handle and starts nothing.
        Trees are sent before any job is started; content that the place has is not sent again.
        Dependencies may name runs of the same call and earlier runs of this place.
        """
        ...

    async def observe(self, handles: Mapping[str, Handle]) -> dict[str, Observation]:
        """What is known now, in one exchange. A run the place no longer knows is missing from the answer."""
        ...

    def watch(self, handles: Mapping[str, Handle]) -> AsyncIterator[dict[str, Observation]]:
        """Observations as they change (first: all of them), until every run has ended. Only changed runs are repeated."""
        ...

    def logs(self, handle: Handle, request: LogRequest) -> AsyncIterator[LogChunk]:
        """Output, in order within each stream. Ends at the present end, or with ``follow`` when the run ended and all is read.

        Nothing is lost or repeated between two calls when the second passes the first one's cursor.
        A run that has not started yet: without ``follow`` nothing, with it waits.
        """
        ...

    async def cancel(self, handles: Mapping[str, Handle], tasks: Sequence[int] | None = None) -> None:
        """Ask for the end (TERM, then KILL after the spec's grace) of these runs, or of their elements ``tasks``.

        Returns at once; ended runs are left alone.
        """
        ...

    async def suspend(self, handles: Mapping[str, Handle]) -> None:
        """Stop running tasks (SIGSTOP) and hold waiting ones. UnsupportedHere where a place cannot."""
        ...

    async def resume(self, handles: Mapping[str, Handle]) -> None: ...

    async def why(self, handle: Handle) -> list[str]:
        """What a waiting run waits for: one sentence, then evidence line by line. Empty when it does not wait."""
        ...

    async def results(self, handle: Handle, into: Path, progress: Progress, most: int | None = None) -> Fetched | None:
        """Bring what the ended tasks created or changed into ``into`` (which exists and is empty).

        None when it is more than ``most`` bytes: nothing is transferred then. Can be called again after any failure.
        """
        ...

    async def feed(self, handle: Handle, chunks: AsyncIterator[bytes]) -> None:
        """Pass ``chunks`` to the running task's stdin (StdinMode.LIVE) and close it. Returns early when the job closed its end."""
        ...

    async def execute(
        self, handle: Handle, argv: Sequence[str], task: int, stdin: int, stdout: int, stderr: int, terminal: bool
    ) -> int:
        """Run a command beside the running task, in its directory and environment, wired to these file descriptors. Its exit code.

        BackendError when the task is not running. ``terminal``: give it a pseudo-terminal.
        """
        ...

    async def forget(self, handles: Mapping[str, Handle]) -> None:
        """Remove all the place keeps of these ended runs (logs, results)."""
        ...


@runtime_checkable
class CanPurge(Protocol):
    """Beside ``Backend``: a place that keeps a directory of its own there (``host remove --purge``)."""

    async def purge(self) -> None:
        """Delete everything Qwex keeps at the place, ending what still runs there."""
        ...
