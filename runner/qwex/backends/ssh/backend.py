"""The SSH backend: what ``Backend`` asks, as requests to the far side's script."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from qwex.adapters.ssh import Connection, Endpoint
from qwex.adapters.ssh import connect as open_connection
from qwex.backends.base import Fetched, Handle, LogChunk, LogRequest, Progress, Source, Submission
from qwex.backends.ssh import logs as output
from qwex.backends.ssh.explain import explain
from qwex.backends.ssh.history import History
from qwex.backends.ssh.remote import Remote
from qwex.backends.ssh.results import fetch
from qwex.backends.ssh.specs import files_of, set_words
from qwex.backends.ssh.terminals import wire
from qwex.backends.ssh.transfers import Inventory, send_tree
from qwex.backends.ssh.uploads import spool
from qwex.config import Paths
from qwex.errors import BackendError, Unreachable, UnsupportedHere, UsageError
from qwex.model.jobs import parse_array
from qwex.model.places import Capabilities, Place
from qwex.model.runs import Observation

__all__ = ["SSHBackend"]

_BIG = 1 << 20  # stdin files above this are sent only once it is known that all trees are there


class SSHBackend:
    """One place over one connection, made on entering."""

    def __init__(
        self, place: Place, paths: Paths, notify: Callable[[str], None], confirm: Callable[[str], bool]
    ) -> None:
        self.place = place
        self._paths = paths
        self._notify = notify
        self._confirm = confirm
        self._connection: Connection | None = None
        self._remote: Remote | None = None
        self._capabilities: Capabilities | None = None

    async def __aenter__(self) -> Self:
        place = self.place
        self._connection = await open_connection(
            Endpoint(place.host, place.user, place.port),
            own_known_hosts=self._paths.state / "known_hosts",
            confirm=self._confirm,
            notify=self._notify,
        )
        try:
            self._remote = Remote(self._connection, place.directory, self._notify)
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = self._remote = None

    @property
    def remote(self) -> Remote:
        """The script over there. BackendError before entering and after leaving."""
        if self._remote is None:
            raise BackendError(f"no connection to {self.place.host} is open")
        return self._remote

    async def capabilities(self) -> Capabilities:
        if self._capabilities is None:
            total, *gpus = (await self.remote.ask("capacity")).splitlines()
            cpus = self.place.slots or int(total)
            self._capabilities = Capabilities(cpus=float(cpus), mem=None, gpus=len(gpus))
        return self._capabilities

    async def submit(self, submissions: Sequence[Submission], progress: Progress) -> dict[str, Handle]:
        if not submissions:
            return {}
        sources: dict[str, Source] = {}
        for one in submissions:
            if one.spec.snapshot and one.source is not None:
                sources[one.spec.snapshot] = one.source
        digests = sorted({one.spec.snapshot for one in submissions if one.spec.snapshot})
        files = [
            (f"{one.run_id}/{file.name}", file.data, file.file)
            for one in submissions
            for file in files_of(one, self.place)
        ]
        if digests and any(file is not None and file.stat().st_size > _BIG for _, _, file in files):
            inventory = Inventory((await self.remote.ask("have")).splitlines())
            await self._send(
                [digest for digest in digests if digest not in inventory.trees], sources, inventory, progress
            )
        # A tree may go between two requests (whoever ends a job there tidies), hence more than one try.
        for _ in range(3):
            lines = await self._take_up(digests, files)
            inventory = Inventory(lines)
            if not inventory.needed:
                return self._accepted(lines, submissions)
            await self._send(inventory.needed, sources, inventory, progress)
        raise BackendError(f"{self.remote.where} loses the workspace as soon as it is there", hint="is its disk full?")

    async def _send(
        self, needed: Sequence[str], sources: Mapping[str, Source], inventory: Inventory, progress: Progress
    ) -> None:
        for digest in needed:
            if digest not in sources:
                raise BackendError(f"the workspace {digest[:12]} is neither here nor on {self.remote.where}")
            await send_tree(self.remote, sources[digest], inventory, self._paths, progress)

    async def _take_up(self, digests: Sequence[str], files: Sequence[tuple[str, bytes, Path | None]]) -> list[bytes]:
        chunks = spool(files)
        first = next(chunks)
        call = await self.remote.open("submit", str(self.place.slots), *digests, data=first)
        for chunk in chunks:
            if not await call.channel.write(chunk):
                break
        call.channel.end_input()
        return (await call.rest()).splitlines()

    def _accepted(self, lines: Sequence[bytes], submissions: Sequence[Submission]) -> dict[str, Handle]:
        taken = set()
        for line in lines:
            word, *rest = line.decode().split()
            if word == "unknown":
                raise UsageError(
                    f"run {rest[0]} shall start after {rest[1]}, which {self.remote.where} does not have",
                    hint="a run can wait for runs of its own place only",
                )
            if word == "large":
                raise UnsupportedHere(
                    f"run {rest[0]} asks for {rest[1]} {rest[2]}, and {self.remote.where} has {rest[3]}",
                    hint="ask for less, or set `slots` of that host",
                )
            if word in ("ok", "had"):
                taken.add(rest[0])
        lost = [one.run_id for one in submissions if one.run_id not in taken]
        if lost:
            raise BackendError(f"{self.remote.where} did not take up {', '.join(lost)}", hint="run the command again")
        return {
            one.run_id: {
                "run": one.run_id,
                "array": str(one.spec.array) if one.spec.array else "",
                "out": list(one.spec.out),
                "tree": one.spec.snapshot,
            }
            for one in submissions
        }

    async def observe(self, handles: Mapping[str, Handle]) -> dict[str, Observation]:
        names = {str(handle["run"]): run_id for run_id, handle in handles.items()}
        answer = await self.remote.ask("observe", data="".join(f"{name}\n" for name in names).encode())
        histories: dict[str, History] = {}
        current: History | None = None
        complete = False
        for line in answer.splitlines(keepends=True):
            if line.startswith(b"r "):
                run_id = names[line[2:].strip().decode()]
                current = histories[run_id] = _history(handles[run_id])
            elif line == b".\n":
                complete = True
            elif current is not None:
                current.feed(line)
        if not complete:
            raise Unreachable(f"{self.remote.where} stopped in the middle of its answer")
        return {run_id: history.observation() for run_id, history in histories.items()}

    async def watch(self, handles: Mapping[str, Handle]) -> AsyncIterator[dict[str, Observation]]:
        names = {str(handle["run"]): run_id for run_id, handle in handles.items()}
        histories = {run_id: _history(handle) for run_id, handle in handles.items()}
        last: dict[str, Observation] = {}
        moved: set[str] = set()
        call = await self.remote.open("watch", data="".join(f"{name} 0\n" for name in names).encode())
        call.channel.end_input()
        try:
            async with aclosing(output.records(call)) as records:
                async for words, _, data in records:
                    if words:
                        histories[names[words[0]]].feed(data)
                        moved.add(names[words[0]])
                        continue
                    seen = {run_id: histories[run_id].observation() for run_id in histories if run_id in moved}
                    changed = {run_id: one for run_id, one in seen.items() if last.get(run_id) != one}
                    moved.clear()
                    last.update(changed)
                    if changed:
                        yield changed
                    if len(last) == len(histories) and all(one.state.final for one in last.values()):
                        return
        finally:
            await call.channel.close()

    async def logs(self, handle: Handle, request: LogRequest) -> AsyncIterator[LogChunk]:
        async with aclosing(output.follow(self.remote, str(handle["run"]), request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def cancel(self, handles: Mapping[str, Handle], tasks: Sequence[int] | None = None) -> None:
        which = "all" if tasks is None else " ".join(str(index) for index in tasks)
        if which:
            await self.remote.ask("cancel", data=_lines(handles, " " + which))

    async def suspend(self, handles: Mapping[str, Handle]) -> None:
        await self.remote.ask("suspend", data=_lines(handles))

    async def resume(self, handles: Mapping[str, Handle]) -> None:
        await self.remote.ask("resume", data=_lines(handles))

    async def why(self, handle: Handle) -> list[str]:
        run = str(handle["run"])
        seen = (await self.observe({run: handle})).get(run)
        if seen is None or seen.state.final:
            return []
        answer = await self.remote.ask("why", run)
        return explain(run, seen, answer.decode("utf-8", "replace").splitlines(), self.remote.where)

    async def results(self, handle: Handle, into: Path, progress: Progress, most: int | None = None) -> Fetched | None:
        run = str(handle["run"])
        patterns = tuple(str(one) for one in cast("list[object]", handle.get("out") or []))
        return await fetch(self.remote, run, bool(handle.get("array")), patterns, into, progress, most)

    async def feed(self, handle: Handle, chunks: AsyncIterator[bytes]) -> None:
        run = str(handle["run"])
        async for seen in self.watch({run: handle}):
            if seen[run].tasks[0].attempts or seen[run].state.final:
                break
        call = await self.remote.open("feed", run, str(_indexes(handle)[0]))
        try:
            async for chunk in chunks:
                if not await call.channel.write(chunk):
                    return
            call.channel.end_input()
            async for _ in call.both():
                continue
        finally:
            await call.channel.close()

    async def execute(
        self, handle: Handle, argv: Sequence[str], task: int, stdin: int, stdout: int, stderr: int, terminal: bool
    ) -> int:
        file = (await self.remote.ask("stash", str(handle["run"]), str(task), data=set_words(argv))).decode().strip()
        return await wire(
            self.remote, ("execute", str(handle["run"]), str(task), file), stdin, stdout, stderr, terminal
        )

    async def forget(self, handles: Mapping[str, Handle]) -> None:
        runs = [str(handle["run"]) for handle in handles.values()]
        if runs:
            await self.remote.ask("forget", *runs)

    async def purge(self) -> None:
        """End every run of the place and remove all that Qwex keeps there. BackendError when something resists."""
        await self.remote.ask("purge")


def _indexes(handle: Handle) -> tuple[int, ...]:
    array = str(handle.get("array") or "")
    return parse_array(array).indexes if array else (0,)


def _history(handle: Handle) -> History:
    array = str(handle.get("array") or "")
    return History(_indexes(handle), parse_array(array).limit if array else 0)


def _lines(handles: Mapping[str, Handle], more: str = "") -> bytes:
    return b"".join(os.fsencode(f"{handle['run']}{more}\n") for handle in handles.values())
