"""A place in memory that keeps the promises of ``backends.base.Backend``, and a reporter that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qwex.backends.base import Fetched, Handle, LogChunk, LogRequest, Progress, Stream, Submission
from qwex.errors import BackendError, Unreachable
from qwex.model.jobs import JobSpec
from qwex.model.places import Capabilities, Place
from qwex.model.runs import Observation, Run, Task
from qwex.model.states import Reason, State
from qwex.services.context import Context

__all__ = ["Cluster", "FakeBackend", "Recorder", "begin", "gone", "open_context"]


@dataclass
class Recorder:
    """What a person would have seen. ``answers`` are given in turn; no answer left is a no."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def progress(self, what: str, done: int, total: int) -> None: ...

    def confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.answers.pop(0) if self.answers else False


@dataclass
class Job:
    """One run at the place. ``output`` is appended to by ``Cluster.write``."""

    submission: Submission
    last: Observation
    output: list[tuple[int, Stream, bytes]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    fed: bytes = b""


@dataclass
class Cluster:
    """What is true at every fake place, whoever is connected. ``faults``: errors for the next calls, by method name."""

    jobs: dict[str, Job] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    can: Capabilities = field(default_factory=Capabilities)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    purged: list[str] = field(default_factory=list)
    hang: set[str] = field(default_factory=set)
    carries: int = 0  # bytes a submission is said to take; 0: the whole workspace
    place = Place("gpu1", "ssh", "10.0.0.7")

    def opener(self, place: Place, ctx: Context) -> FakeBackend:
        return FakeBackend(self, place)

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def write(self, run_id: str, data: bytes, stream: Stream = Stream.OUT, task: int = 0) -> None:
        self.jobs[run_id].output.append((task, stream, data))
        self.tell()

    def finish(
        self,
        run_id: str,
        state: State = State.SUCCEEDED,
        reason: Reason = Reason.NONE,
        code: int | None = 0,
        **files: bytes,
    ) -> None:
        job = self.jobs[run_id]
        job.files = {name.replace("__", "/").replace("_", "."): data for name, data in files.items()}
        tasks = tuple(Task(index, state, reason, "", code) for index in job.submission.spec.indexes)
        size = sum(map(len, job.files.values()))
        job.last = Observation(state, reason, "", code, 1.0, 3.0, tasks, result_bytes=size, result_files=len(files))
        self.tell()


class FakeBackend:
    def __init__(self, cluster: Cluster, place: Place) -> None:
        self.cluster, self.place = cluster, place

    async def _called(self, name: str) -> None:
        self.cluster.calls.append(name)
        if name in self.cluster.hang:
            await asyncio.Event().wait()
        if faults := self.cluster.faults.get(name):
            raise faults.pop(0)

    async def __aenter__(self) -> Self:
        await self._called("open")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.calls.append("close")

    async def capabilities(self) -> Capabilities:
        await self._called("capabilities")
        return self.cluster.can

    async def submit(self, submissions: Sequence[Submission], progress: Progress) -> dict[str, Handle]:
        await self._called("submit")
        size = sum(one.source.tree.size for one in submissions[:1] if one.source)
        progress("sending", size // 2, size)
        progress("sending", self.cluster.carries or size, size)
        for one in submissions:
            tasks = tuple(Task(index, State.RUNNING) for index in one.spec.indexes)
            self.cluster.jobs.setdefault(one.run_id, Job(one, Observation(State.RUNNING, started=1.0, tasks=tasks)))
        await self._called("submitted")
        return {one.run_id: {"run": one.run_id} for one in submissions}

    async def observe(self, handles: Mapping[str, Handle]) -> dict[str, Observation]:
        await self._called("observe")
        return {one: self.cluster.jobs[one].last for one in handles if str(handles[one]["run"]) in self.cluster.jobs}

    async def watch(self, handles: Mapping[str, Handle]) -> AsyncIterator[dict[str, Observation]]:
        await self._called("watch")
        seen: dict[str, Observation] = {}
        while True:
            changed = self.cluster.changed
            news = {
                one: self.cluster.jobs[one].last for one in handles if seen.get(one) is not self.cluster.jobs[one].last
            }
            seen.update(news)
            if news:
                yield news
            if all(last.state.final for last in seen.values()):
                return
            await changed.wait()

    async def logs(self, handle: Handle, request: LogRequest) -> AsyncIterator[LogChunk]:
        await self._called("logs")
        job = self.cluster.jobs[str(handle["run"])]
        at: dict[tuple[int, Stream], int] = {}
        read = 0
        while True:
            changed = self.cluster.changed
            for task, stream, data in job.output[read:]:
                read += 1
                offset = at.get((task, stream), 0)
                at[task, stream] = offset + len(data)
                skip = max(0, request.cursor.get(f"{task}.1", [0, 0])[stream is Stream.ERR] - offset)
                if request.task in (None, task) and skip < len(data):
                    yield LogChunk(task, 1, stream, offset + skip, data[skip:])
                    await self._called("chunk")
            if not request.follow or job.last.state.final:
                return
            await changed.wait()
            await self._called("more")

    async def cancel(self, handles: Mapping[str, Handle], tasks: Sequence[int] | None = None) -> None:
        await self._called("cancel" if tasks is None else f"cancel {list(tasks)}")
        for run_id in (str(handle["run"]) for handle in handles.values()):
            if tasks is None and run_id in self.cluster.jobs:
                self.cluster.finish(run_id, State.CANCELLED, Reason.CANCELLED_BY_USER, None)

    async def suspend(self, handles: Mapping[str, Handle]) -> None:
        await self._called("suspend")
        for run_id in handles:
            job = self.cluster.jobs[run_id]
            job.last = job.last._replace(state=State.SUSPENDED)

    async def resume(self, handles: Mapping[str, Handle]) -> None:
        await self._called("resume")
        for run_id in handles:
            job = self.cluster.jobs[run_id]
            job.last = job.last._replace(state=State.RUNNING)

    async def why(self, handle: Handle) -> list[str]:
        await self._called("why")
        return ["it waits for a slot", "2 of 2 are taken"]

    async def results(self, handle: Handle, into: Path, progress: Progress, most: int | None = None) -> Fetched | None:
        await self._called("results")
        files = self.cluster.jobs[str(handle["run"])].files
        size = sum(map(len, files.values()))
        if most is not None and size > most:
            return None
        for name, data in files.items():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(data)
        await self._called("fetched")
        return Fetched(into, tuple(sorted(name.encode() for name in files)), size)

    async def feed(self, handle: Handle, chunks: AsyncIterator[bytes]) -> None:
        await self._called("feed")
        async for chunk in chunks:
            self.cluster.jobs[str(handle["run"])].fed += chunk
        self.cluster.tell()

    async def execute(
        self, handle: Handle, argv: Sequence[str], task: int, stdin: int, stdout: int, stderr: int, terminal: bool
    ) -> int:
        await self._called("execute")
        if self.cluster.jobs[str(handle["run"])].last.state is not State.RUNNING:
            raise BackendError("the task is not running")
        return 7

    async def forget(self, handles: Mapping[str, Handle]) -> None:
        for run_id in handles:
            self.cluster.jobs.pop(run_id, None)

    async def purge(self) -> None:
        await self._called("purge")
        self.cluster.purged.append(self.place.name)


def begin(ctx: Context, cluster: Cluster, **spec: Any) -> Run:
    """A run that is running at ``gpu1`` in this project, without a workspace."""
    root = str(ctx.settings.root)
    (run,) = ctx.store.add([(JobSpec(**{"argv": ("true",), "root": root, **spec}), cluster.place.name, "u")], 1.0)
    tasks = tuple(Task(index, State.RUNNING) for index in run.spec.indexes)
    cluster.jobs[run.id] = Job(Submission(run.id, run.spec), Observation(State.RUNNING, started=1.0, tasks=tasks))
    ctx.store.set_handles({run.id: {"run": run.id}})
    ctx.store.record({run.id: cluster.jobs[run.id].last}, 1.0)
    return ctx.store.get(run.id)


def gone(text: str = "the connection to gpu1 broke") -> Unreachable:
    return Unreachable(text)


def open_context(
    directory: Path, home: Path, cluster: Cluster, reporter: Recorder | None = None, **env: str
) -> Context:
    """A context whose every place is ``cluster``."""
    return Context.open(directory, reporter or Recorder(), {"HOME": str(home), **env}, cluster.opener)
