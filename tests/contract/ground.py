"""What the contract of the backend seam is tested on: a place of some kind, and few words to use it with."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwex.backends.base import Backend, Cursor, Handle, LogChunk, LogRequest, Source, Stream, Submission
from qwex.model.jobs import JobSpec
from qwex.model.runs import Observation
from qwex.store import RunStore

Connect = Callable[[Path], Backend]


def silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""


@dataclass
class Output:
    """What a run wrote: all of its standard output and error, and the chunks as they came."""

    out: bytes = b""
    err: bytes = b""
    chunks: list[LogChunk] = field(default_factory=list)


@dataclass
class Ground:
    """A place under test. ``state`` is the client's state directory, ``place`` the name runs are recorded under."""

    backend: Backend
    store: RunStore
    state: Path
    place: str

    def record(self, *argv: str, **fields: object) -> tuple[str, JobSpec]:
        """A recorded run that the place knows nothing of."""
        spec = JobSpec(argv).replace(**fields)
        return self.store.add([(spec, self.place, "tester")], time.time())[0].id, spec

    async def start(
        self,
        *argv: str,
        secrets: dict[str, str] | None = None,
        stdin_file: Path | None = None,
        source: Source | None = None,
        **fields: object,
    ) -> dict[str, Handle]:
        """Submit one run; its handle by its id."""
        run_id, spec = self.record(*argv, **fields)
        submission = Submission(run_id, spec, source, {}, secrets or {}, stdin_file)
        return await self.backend.submit([submission], silent)

    async def script(self, text: str, **fields: Any) -> dict[str, Handle]:
        """A shell script as a run."""
        return await self.start("sh", "-c", text, **fields)

    async def end(self, handles: dict[str, Handle]) -> Observation:
        """Wait for the end of this one run."""
        last: dict[str, Observation] = {}
        async for changed in self.backend.watch(handles):
            last.update(changed)
        assert last.keys() == handles.keys()
        (observation,) = last.values()
        assert observation.state.final
        return observation

    async def until(self, handles: dict[str, Handle], wanted: Callable[[Observation], bool]) -> Observation:
        """Follow this one run until it is as wanted."""
        seen = []
        async for changed in self.backend.watch(handles):
            for one in changed.values():
                seen.append(one)
                if wanted(one):
                    return one
        raise AssertionError(f"it never came to that: {seen}")

    async def output(self, handles: dict[str, Handle], request: LogRequest | None = None) -> Output:
        (handle,) = handles.values()
        found = Output()
        async for chunk in self.backend.logs(handle, request or LogRequest(follow=True)):
            found.chunks.append(chunk)
            if chunk.stream is Stream.OUT:
                found.out += chunk.data
            else:
                found.err += chunk.data
        return found

    async def first_line(self, handles: dict[str, Handle]) -> bytes:
        """The first line of standard output, while the job goes on."""
        (handle,) = handles.values()
        text = b""
        async for chunk in self.backend.logs(handle, LogRequest(follow=True)):
            text += chunk.data
            if b"\n" in text:
                return text.split(b"\n")[0]
        raise AssertionError(f"it ended after {text!r}")


def advance(cursor: Cursor, chunks: list[LogChunk]) -> Cursor:
    """The cursor after these chunks."""
    for chunk in chunks:
        at = cursor.setdefault(chunk.key, [0, 0])
        at[chunk.stream is Stream.ERR] = chunk.offset + len(chunk.data)
    return cursor


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
