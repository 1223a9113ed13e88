"""The way in: a directory, and where its jobs run."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from qwex.errors import UsageError
from qwex.model.states import State
from qwex.sdk.job import Job
from qwex.sdk.loop import Loop
from qwex.services import runs
from qwex.services.context import Context
from qwex.services.submission import Request, submit

__all__ = ["Client", "Command", "Options"]

_T = TypeVar("_T")

Command = str | Sequence[str]
"""A text is a script for ``/bin/sh``; a sequence is a program and its arguments, passed on exactly."""


class Options(TypedDict, total=False):
    """What ``qwex batch`` takes as options; those not given are as the settings say.

    ``mem`` as ``"4G"`` or bytes, ``time`` as ``"1h30m"`` or seconds, ``gpus`` as ``1`` or ``"a100:2"``, ``array`` as ``"0-99%10"``.
    ``after``: jobs (that must succeed) or texts ``"RUN:any"``. ``secrets``: names of variables, or values by name.
    ``stdin``: what the job reads. ``confirmed``: send a home directory too.
    """

    on: str
    name: str
    cpus: float
    mem: str | int
    gpus: str | int
    time: str | float
    priority: int
    retries: int
    array: str
    after: Job | str | Sequence[Job | str]
    env: Mapping[str, str]
    env_files: Sequence[str | Path]
    secrets: Sequence[str] | Mapping[str, str]
    out: Sequence[str]
    include: Sequence[str]
    stdin: bytes
    confirmed: bool


class _Logged:
    """Notes go to the logger ``qwex``; nobody can be asked."""

    _log = logging.getLogger("qwex")

    def note(self, text: str) -> None:
        self._log.info(text)

    def warn(self, text: str) -> None:
        self._log.warning(text)

    def progress(self, what: str, done: int, total: int) -> None: ...

    def confirm(self, question: str) -> bool:
        self._log.warning("%s (nobody can be asked: no)", question)
        return False


class Client:
    """Submits jobs of one directory, and finds those that were.

    >>> with qwex.Client("~/thesis", on="gpu1") as client:
    ...     job = client.batch(["python", "train.py", "--seed", "7"], cpus=4, time="2h")
    ...     job.wait()
    <qwex.Job 1p4c8zq0a on gpu1: succeeded>

    Can be used from several threads, and inside a running event loop (a notebook). Jobs go on when it is closed.
    Raises ``qwex.sdk.QwexError`` for everything that can go wrong, with a ``message`` and a ``hint``.
    """

    def __init__(self, directory: str | Path = ".", *, on: str | None = None) -> None:
        self._on = on
        self._context = Context.open(Path(directory).expanduser(), _Logged(), dict(os.environ))
        self._loop = Loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Again is harmless; everything else raises RuntimeError then."""
        if self._loop.open:
            self._call(self._context.aclose())
            self._loop.close()

    def batch(self, command: Command, **options: Unpack[Options]) -> Job:
        """Submit one command with a snapshot of the directory as it is now; the job, at once.

        >>> client.batch("make && ./simulate > out.txt", name="simulate", mem="4G")
        <qwex.Job 1p4c8zq0a on local: queued>
        """
        return self.batch_many([command], **options)[0]

    def batch_many(self, commands: Iterable[Command], **options: Unpack[Options]) -> list[Job]:
        """Submit many commands at once, with the same options: one snapshot, one connection, all or none. Jobs in their order.

        >>> jobs = client.batch_many([["python", "train.py", str(seed)] for seed in range(20)], retries=1)
        >>> client.wait(jobs)
        >>> [job.exit_code for job in jobs].count(0)
        20
        """
        with ExitStack() as held:
            requests = [_request(command, self._on, options, held) for command in commands]
            submitted = self._call(submit(self._context, requests))
        return [Job(self, run) for run in submitted]

    def list(self, *, states: Iterable[State | str] = (), limit: int = 50) -> list[Job]:
        """Recorded jobs, newest first, wherever they run and whoever submitted them from here.

        >>> [job.id for job in client.list(states=["running"])]
        ['1p4c8zq0a']
        """
        query = runs.ListQuery(tuple(State(one) for one in states), limit=limit)
        return [Job(self, run) for run in self._call(runs.list_runs(self._context, query))]

    def get(self, ref: str) -> Job:
        """The job of this id, an unambiguous beginning of one, or ``"last"``. UnknownName otherwise.

        >>> client.get("last")
        <qwex.Job 1p4c8zq0a on local: running>
        """

        async def find() -> Job:
            return Job(self, runs.find(self._context, ref)[0])

        return self._call(find())

    def wait(self, jobs: Iterable[Job], timeout: float | None = None) -> None:
        """Until all of them ended. TimeoutError after ``timeout`` seconds."""
        waiting = [*jobs]
        waited = self._call(runs.wait(self._context, [job.id for job in waiting], timeout)) if waiting else None
        for job, run in zip(waiting, waited.runs if waited else (), strict=True):
            job._run = run
        if waited and waited.timed_out:
            open_ = sum(not run.state.final for run in waited.runs)
            raise TimeoutError(f"{open_} of {len(waiting)} jobs have not ended after {timeout:g} s")

    def _start(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return self._loop.start(work)

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._loop.call(work)


def _request(command: Command, on: str | None, options: Options, held: ExitStack) -> Request:
    unknown = set(options) - Options.__annotations__.keys()
    if unknown:
        known = ", ".join(Options.__annotations__)
        raise UsageError(f"{min(unknown)!r} is no option of a job", hint=f"known: {known}")
    argv, shell = ((command,), True) if isinstance(command, str) else (tuple(map(str, command)), False)
    after = options.get("after", ())
    secrets = options.get("secrets", ())
    request = Request(
        argv=argv,
        shell=shell,
        on=options.get("on", on),
        name=options.get("name"),
        cpus=_word(options.get("cpus")),
        mem=_word(options.get("mem")),
        gpus=_word(options.get("gpus")),
        time=_word(options.get("time")),
        priority=_word(options.get("priority")),
        retries=_word(options.get("retries")),
        array=options.get("array"),
        after=tuple(
            one.id if isinstance(one, Job) else one for one in ([after] if isinstance(after, Job | str) else after)
        ),
        env=tuple(options.get("env", {}).items()),
        env_files=tuple(Path(one).absolute() for one in options.get("env_files", ())),
        secrets=tuple(f"{name}={value}" for name, value in secrets.items())
        if isinstance(secrets, Mapping)
        else tuple(secrets),
        out=tuple(options["out"]) if "out" in options else None,
        include=tuple(options.get("include", ())),
        yes=options.get("confirmed", False),
    )
    return request._replace(stdin=held.enter_context(_descriptor(options["stdin"]))) if "stdin" in options else request


@contextmanager
def _descriptor(content: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


def _word(value: object) -> str | None:
    return None if value is None else str(value)
