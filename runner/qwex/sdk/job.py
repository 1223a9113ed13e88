"""One submitted run."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from qwex.backends.base import LogRequest, Stream
from qwex.model.runs import Run, Task
from qwex.model.states import Reason, State
from qwex.sdk.output import Lines
from qwex.services import results, runs

if TYPE_CHECKING:
    from qwex.sdk.client import Client

__all__ = ["Job"]


class Job:
    """A run, wherever it is. Made by ``Client.batch``, ``Client.get`` and the like.

    >>> job = client.batch(["python", "train.py"], on="gpu1", time="2h")
    >>> for line in job.logs(follow=True):
    ...     print(line)
    >>> job.wait().exit_code
    0
    >>> job.results
    PosixPath('/home/ada/thesis/qwex-runs/1p4c8zq0a')

    In asynchronous code ``await job`` waits for its end, and ``async for`` reads its logs.
    """

    def __init__(self, client: Client, run: Run) -> None:
        self._client = client
        self._run = run

    def __repr__(self) -> str:
        return f"<qwex.Job {self._run.id} on {self._run.place}: {self._run.state}>"

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def name(self) -> str:
        """As given, "" for none."""
        return self._run.spec.name

    @property
    def place(self) -> str:
        """Where it runs, as ``on`` names it."""
        return self._run.place

    @property
    def state(self) -> State:
        """What it does now; the place is asked unless it ended. When the place does not answer: as last seen, and
        ``reason`` is ``Reason.HOST_UNREACHABLE``.

        >>> job.state
        <State.RUNNING: 'running'>
        """
        return self._now().state

    @property
    def reason(self) -> Reason:
        """Why it is in that state: ``Reason.EXIT_CODE``, ``Reason.WAITING_FOR_SLOT`` …"""
        return self._now().last.reason

    @property
    def exit_code(self) -> int | None:
        """As a shell reports it (128 + n for signal n); None while it runs, and when it ended without one."""
        return self._now().last.exit_code

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Elements of an array with their attempts; one for a plain run."""
        return self._now().last.tasks

    @property
    def results(self) -> Path | None:
        """The directory its results are in; fetched first unless they are there. None when it left none.

        >>> (job.results / "plot.png").stat().st_size
        48211
        """
        if self._run.pulled and Path(self._run.pulled).is_dir():
            return Path(self._run.pulled)
        return self.pull()

    def wait(self, timeout: float | None = None) -> Self:
        """Until it ended; the job itself. TimeoutError after ``timeout`` seconds: it goes on then.

        >>> job.wait(timeout=3600).state
        <State.SUCCEEDED: 'succeeded'>
        """
        self._client.wait([self], timeout)
        return self

    def __await__(self) -> Generator[None, None, Self]:
        yield from asyncio.wrap_future(self._client._start(self._ended())).__await__()
        return self

    def logs(
        self, *, follow: bool = False, stream: str | None = None, task: int | None = None, tail: int | None = None
    ) -> Lines:
        """Its output, line by line, decoded; for ``for`` and ``async for``.

        ``follow`` goes on until it ended. ``stream`` is ``"out"`` or ``"err"``, both by default; ``task`` one element of an array;
        ``tail`` the last so many lines of each stream. ``.bytes()`` gives the bytes as they came.

        >>> list(job.logs(stream="out"))
        ['3.14159']
        """
        request = LogRequest(task=task, follow=follow, tail=tail)
        return Lines(self._client, self.id, request, None if stream is None else Stream(stream))

    def cancel(self, *tasks: int) -> None:
        """Ask for its end, or that of some elements of an array. Returns at once; ``wait`` waits for it."""
        refs = [f"{self.id}.{task}" for task in tasks] or [self.id]
        self._client._call(runs.cancel(self._client._context, refs))

    def pull(self, into: str | Path | None = None, *, sync_back: bool = False) -> Path | None:
        """Fetch its results, whatever their size, to ``into`` or ``qwex-runs/<id>`` in the project. None when there are none.

        ``sync_back`` puts them into the working tree too, never over a file edited meanwhile.
        """

        async def work() -> Path | None:
            ctx = self._client._context
            self._run = (await runs.status(ctx, self.id)).run
            target = None if into is None else Path(into)
            pulled = await results.pull(ctx, self._run, target, sync_back=sync_back or None, whatever_size=True)
            if pulled.directory is not None:
                self._run = self._run._replace(pulled=str(pulled.directory))
            return pulled.directory

        return self._client._call(work())

    def why(self) -> str:
        """One sentence on what it waits for, does, or how it ended.

        >>> job.why()
        '1p4c8zq0a waits for a slot: 2 of 2 CPUs are in use'
        """
        return self._client._call(runs.why(self._client._context, self.id))[0]

    def _now(self) -> Run:
        if not self._run.state.final:
            self._run = self._client._call(runs.status(self._client._context, self.id)).run
        return self._run

    async def _ended(self) -> None:
        waited = await runs.wait(self._client._context, [self.id])
        self._run = waited.runs[0]
