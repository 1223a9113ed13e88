"""The output of attempts, read from their files by the client itself."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from qwex.backends.base import LogChunk, LogRequest, Stream
from qwex.backends.local.layout import AttemptFiles, Layout
from qwex.errors import BackendError
from qwex.model.runs import Run

__all__ = ["follow", "present"]

_CHUNK = 1 << 20
_SHORTEST, _LONGEST = 0.005, 0.1


@dataclass(slots=True)
class _Stream:
    """One stream of one attempt, read up to ``offset``. ``over``: nothing will be added."""

    task: int
    attempt: int
    stream: Stream
    path: str
    offset: int
    over: bool = False
    fd: int | None = None

    def chunks(self) -> Iterator[LogChunk]:
        """What is there beyond ``offset``."""
        if self.fd is None:
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            except OSError as error:
                raise BackendError(f"{self.path} cannot be read: {error.strerror}") from error
        while data := os.pread(self.fd, _CHUNK, self.offset):
            start = self.offset
            self.offset += len(data)
            yield LogChunk(self.task, self.attempt, self.stream, start, data)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


@dataclass(slots=True)
class _Reading:
    """All streams of a run that a request names, in order of task and attempt."""

    layout: Layout
    request: LogRequest
    streams: dict[tuple[int, int], tuple[_Stream, _Stream]] = field(default_factory=dict)
    finished: set[tuple[int, int]] = field(default_factory=set)

    def update(self, run: Run) -> None:
        """Take in attempts that are new, and which are over."""
        for task in run.last.tasks:
            if self.request.task not in (None, task.index):
                continue
            for attempt in task.attempts:
                key = (task.index, attempt.number)
                if self.request.attempt not in (None, attempt.number) or key in self.finished:
                    continue
                if key not in self.streams:
                    self.streams[key] = self._begin(run.id, *key, attempt.ended)
                if attempt.state.final:
                    for one in self.streams[key]:
                        one.over = True

    def _begin(self, run_id: str, task: int, attempt: int, ended: float | None) -> tuple[_Stream, _Stream]:
        files = self.layout.attempt(run_id, task, attempt)
        start = _start(files, self.request, f"{task}.{attempt}", ended)
        return (
            _Stream(task, attempt, Stream.OUT, files.out, start[0]),
            _Stream(task, attempt, Stream.ERR, files.err, start[1]),
        )

    def chunks(self) -> Iterator[LogChunk]:
        """What has been added; attempts that are over are done with afterwards."""
        for key, pair in list(self.streams.items()):
            over = pair[0].over
            for one in pair:
                yield from one.chunks()
            if over:
                self._finish(key)

    def _finish(self, key: tuple[int, int]) -> None:
        for one in self.streams.pop(key):
            one.close()
        self.finished.add(key)

    def close(self) -> None:
        for key in list(self.streams):
            self._finish(key)


def _start(files: AttemptFiles, request: LogRequest, key: str, ended: float | None) -> tuple[int, int]:
    """From which byte to read the two streams."""
    if key in request.cursor:
        out, err = request.cursor[key]
        return out, err
    sizes = _size(files.out), _size(files.err)
    start = (0, 0)
    if request.since is not None:
        start = sizes if ended is not None and ended < request.since else _since(files, request.since)
    if request.tail is not None:
        tails = _tail(files.out, request.tail), _tail(files.err, request.tail)
        start = max(start[0], tails[0]), max(start[1], tails[1])
    return start


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _since(files: AttemptFiles, since: float) -> tuple[int, int]:
    """How much had been written at that moment, by the newest line of ``times`` that is no younger."""
    start = (0, 0)
    with suppress(FileNotFoundError), open(files.times, "rb") as file:
        for line in file:
            words = line.split()
            if not line.endswith(b"\n") or len(words) != 3 or float(words[0]) > since:
                break
            start = int(words[1]), int(words[2])
    return start


def _tail(path: str, lines: int) -> int:
    """Where the last ``lines`` lines begin; an unfinished last line counts as one."""
    try:
        with open(path, "rb") as file:
            end = position = file.seek(0, os.SEEK_END)
            if lines <= 0:
                return end
            wanted = lines
            while position > 0:
                step = min(65536, position)
                position -= step
                block = os.pread(file.fileno(), step, position)
                search = len(block)
                if position + step == end and block.endswith(b"\n"):
                    search -= 1
                while (search := block.rfind(b"\n", 0, search)) >= 0:
                    wanted -= 1
                    if not wanted:
                        return position + search + 1
            return 0
    except FileNotFoundError:
        return 0


def present(layout: Layout, run: Run, request: LogRequest) -> Iterator[LogChunk]:
    """What there is now, attempt by attempt."""
    reading = _Reading(layout, request)
    try:
        reading.update(run)
        yield from reading.chunks()
    finally:
        reading.close()


async def follow(
    layout: Layout, request: LogRequest, read: Callable[[], Run | None], changed: asyncio.Event
) -> AsyncGenerator[LogChunk, None]:
    """As it grows, until the run ended and all is read. ``changed`` is set whenever ``read`` may answer something new.

    Between such moments the files are looked at every 5 ms while they grow, and ever less often, down to 10 times a second, while
    they do not. Reading the record of a very large array takes its time, and is done for a tenth of the time at most.
    """
    reading = _Reading(layout, request)
    pause, next_read, ended = _SHORTEST, 0.0, False
    changed.set()
    try:
        while True:
            now = time.monotonic()
            if changed.is_set() and now >= next_read:
                changed.clear()
                run = read()
                if run is None:
                    return
                ended = run.state.final
                reading.update(run)
                next_read = time.monotonic() + 9 * (time.monotonic() - now)
            grown = False
            for chunk in reading.chunks():
                grown = True
                yield chunk
            if ended:
                return
            pause = _SHORTEST if grown else min(pause * 2, _LONGEST)
            if changed.is_set():
                await asyncio.sleep(min(pause, max(0.0, next_read - time.monotonic())))
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await changed.wait()
    finally:
        reading.close()
