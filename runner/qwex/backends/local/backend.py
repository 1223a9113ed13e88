"""The client's half of the local place: what it asks stands in the database, what it reads lies in files."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from qwex.backends.base import Fetched, Handle, LogChunk, LogRequest, Progress, Submission
from qwex.backends.local import carrying, output, pruning, wake
from qwex.backends.local.capacity import Capacity
from qwex.backends.local.configuration import Configuration
from qwex.backends.local.explain import explain
from qwex.backends.local.layout import Layout
from qwex.config import Paths, Settings
from qwex.errors import BackendError, StoreError
from qwex.model.places import Capabilities, Place
from qwex.model.runs import Observation, Run
from qwex.model.states import State
from qwex.store.queue import Queue
from qwex.store.runs import RunStore

__all__ = ["LocalBackend"]


class LocalBackend:
    """Implements ``backends.base.Backend``. A handle is ``{"run": id}``; the id alone is enough to find a run again."""

    def __init__(self, place: Place, paths: Paths, settings: Settings, notify: Callable[[str], None]) -> None:
        self._place, self._paths, self._settings, self._notify = place, paths, settings, notify
        self._layout = Layout.of(paths)
        self._configuration = Configuration.of(paths, settings)
        self._opened: RunStore | None = None

    async def __aenter__(self) -> Self:
        self._opened = RunStore.open(self._layout.database)
        if self._opened.notice:
            self._notify(self._opened.notice)
        self._queue = Queue(self._opened.database, self._on_change)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _store(self) -> RunStore:
        if self._opened is None:
            raise BackendError("the local place is used before it was entered")
        return self._opened

    def _on_change(self, changed: Mapping[str, State]) -> None:
        for run_id, state in changed.items():
            if state.final:
                pruning.remove_private(self._layout.run(run_id))

    async def capabilities(self) -> Capabilities:
        found = Capacity.of(self._configuration)
        return Capabilities(cpus=found.cpus, mem=found.mem, gpus=len(found.gpus))

    async def submit(self, submissions: Sequence[Submission], progress: Progress) -> dict[str, Handle]:
        known = self._queue.known(one.run_id for one in submissions)
        fresh = [one for one in submissions if one.run_id not in known]
        try:
            env = dict(os.environb)
            for number, one in enumerate(fresh):
                carrying.deposit(self._paths, one, env, fresh[0] if number else None)
            self._queue.submit([(one.run_id, one.spec) for one in fresh], time.time())
        except BaseException as error:
            taken = self._queue.known(one.run_id for one in fresh)
            for one in fresh:
                if one.run_id not in taken:
                    shutil.rmtree(self._layout.run(one.run_id), ignore_errors=True)
            if isinstance(error, OSError):
                raise BackendError(
                    f"{self._layout.runs} cannot be written: {error.strerror}",
                    hint="free some disk space, check its owner",
                ) from error
            raise
        await self._poke()
        return {one.run_id: {"run": one.run_id} for one in submissions}

    async def _poke(self) -> None:
        (await wake.call(self._configuration)).close()

    async def observe(self, handles: Mapping[str, Handle]) -> dict[str, Observation]:
        found = self._read(handles)
        if not all(one.state.final for one in found.values()) and not wake.listening(self._configuration):
            # Nobody looks after them: what is recorded may be what a dead worker believed. A new one finds out.
            await self._poke()
            found = self._read(handles)
        return found

    def _read(self, ids: Mapping[str, object] | Sequence[str]) -> dict[str, Observation]:
        if self._store.database.replaced():
            raise StoreError(
                f"{self._layout.database} was replaced: nothing is known of these runs any more",
                hint="the old records lie beside it, if they were damaged; look at what is there with `qwex list`",
            )
        known = self._queue.known(ids)
        return {run_id: run.last for run_id, run in self._store.read(known).items()}

    async def watch(self, handles: Mapping[str, Handle]) -> AsyncGenerator[dict[str, Observation], None]:
        last = await self.observe(handles)
        yield dict(last)
        waiting = {run_id for run_id, one in last.items() if not one.state.final}
        while waiting:
            wire = await wake.call(self._configuration)
            try:
                await wire.send(" ".join(("watch", *waiting)))
                while waiting and (words := await wire.line()) is not None:
                    asked = sorted(waiting) if words[0] == "look" else [one for one in words[1:] if one in waiting]
                    found = self._read(asked)
                    fresh = {run_id: one for run_id, one in found.items() if one != last.get(run_id)}
                    last.update(fresh)
                    waiting -= {one for one in asked if one not in found or found[one].state.final}
                    if fresh:
                        yield fresh
            finally:
                wire.close()

    async def logs(self, handle: Handle, request: LogRequest) -> AsyncIterator[LogChunk]:
        run_id = _id(handle)
        run = self._store.read([run_id]).get(run_id)
        if run is None:
            return
        if not request.follow:
            for chunk in output.present(self._layout, run, request):
                yield chunk
            return
        changed = asyncio.Event()

        async def listen() -> None:
            try:
                async with aclosing(self.watch({run_id: handle})) as changes:
                    async for _ in changes:
                        changed.set()
            finally:
                changed.set()

        def read() -> Run | None:
            if listener.done() and (error := listener.exception()) is not None:
                raise error
            return self._store.read([run_id]).get(run_id)

        listener = asyncio.create_task(listen())
        try:
            async with aclosing(output.follow(self._layout, request, read, changed)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([listener])

    async def cancel(self, handles: Mapping[str, Handle], tasks: Sequence[int] | None = None) -> None:
        self._queue.cancel(handles, tasks, time.time())
        await self._poke()

    async def suspend(self, handles: Mapping[str, Handle]) -> None:
        self._queue.suspend(handles, time.time())
        await self._poke()

    async def resume(self, handles: Mapping[str, Handle]) -> None:
        self._queue.resume(handles, time.time())
        await self._poke()

    async def why(self, handle: Handle) -> list[str]:
        run_id = _id(handle)
        await self.observe({run_id: handle})
        run = self._store.read([run_id]).get(run_id)
        return explain(run, self._queue, Capacity.of(self._configuration), time.time()) if run else []

    async def results(self, handle: Handle, into: Path, progress: Progress, most: int | None = None) -> Fetched | None:
        run = self._store.get(_id(handle))
        return await asyncio.to_thread(carrying.fetch, self._layout, run, into, progress, most)

    async def feed(self, handle: Handle, chunks: AsyncIterator[bytes]) -> None:
        run_id = _id(handle)
        index = self._store.get(run_id).spec.indexes[0]
        while True:
            wire = await wake.call(self._configuration)
            try:
                await wire.send(f"watch {run_id}")
                await wire.send(f"feed {run_id} {index}")
                while (words := await wire.line()) is not None:
                    if words[0] == "end":
                        return
                    if words[0] == "go":
                        await carrying.feed(self._layout.attempt(run_id, index, int(words[1])).fifo, chunks, wire)
                        return
                    found = self._read([run_id])
                    if run_id not in found or found[run_id].state.final:
                        return
            finally:
                wire.close()

    async def execute(
        self, handle: Handle, argv: Sequence[str], task: int, stdin: int, stdout: int, stderr: int, terminal: bool
    ) -> int:
        run_id = _id(handle)
        await self.observe({run_id: handle})
        claim = next((one for one in self._queue.claims() if (one.run_id, one.index) == (run_id, task)), None)
        if claim is None:
            raise BackendError(f"task {task} of run {run_id} is not running", hint="`qwex status` shows what is")
        return await carrying.execute(self._layout, claim, argv, (stdin, stdout, stderr), terminal)

    async def forget(self, handles: Mapping[str, Handle]) -> None:
        for run_id, one in self._read(handles).items():
            if one.state.final:
                shutil.rmtree(self._layout.run(run_id), ignore_errors=True)


def _id(handle: Handle) -> str:
    return str(handle["run"])
