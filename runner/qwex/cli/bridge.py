"""The one way from the command line, which is synchronous, to the services, which are not; and what signals do meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from qwex.cli.terminal import Terminal
from qwex.errors import WorkspaceError
from qwex.services.context import Context

__all__ = ["Signals", "Stopped", "context", "run"]

_T = TypeVar("_T")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_status = 128 + number


class Signals:
    """INT, TERM and HUP while something runs: each raises Stopped at once, but the first one may only cancel a task.

    A signal that this process was started to ignore (``nohup``, a shell's ``&``) stays ignored.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._cancel: Callable[[], object] | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """While inside, signals come here."""
        before = {number: signal.getsignal(number) for number in _ENDING}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def cancelling(self, task: asyncio.Task[_T]) -> _T:
        """The result of ``task``; the first signal cancels it, so that it can end in order, and Stopped is raised then."""
        loop = asyncio.get_running_loop()
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            if self.caught is None:
                raise
            raise Stopped(self.caught) from None
        finally:
            self._cancel = None

    def check(self) -> None:
        """End blocking work, as the task around it is being cancelled: CancelledError once a signal came."""
        if self.caught is not None:
            raise asyncio.CancelledError

    def _take(self, number: int, _: FrameType | None) -> None:
        first, self.caught = self.caught is None, number
        if first and self._cancel is not None:
            self._cancel()
        else:
            raise Stopped(number)


def context(terminal: Terminal) -> Context:
    """The surroundings of a command started here."""
    try:
        here = Path(os.getcwd())
    except FileNotFoundError as error:
        raise WorkspaceError("the current directory is gone", hint="go to one that exists") from error
    return Context.open(here, terminal)


def run(terminal: Terminal, work: Callable[[Context, Signals], Awaitable[_T]]) -> _T:
    """What ``work`` gives, done in a context that is closed afterwards."""
    signals = Signals()

    def odd(loop: asyncio.AbstractEventLoop, event: dict[str, Any]) -> None:
        """What asyncio would log with a traceback."""
        error = event.get("exception")
        if terminal.debug:
            loop.default_exception_handler(event)
        elif not isinstance(error, Stopped):
            terminal.warn(f"{event['message']}: {error!r}" if error else event["message"])

    async def inside() -> _T:
        asyncio.get_running_loop().set_exception_handler(odd)
        async with context(terminal) as ctx:
            return await work(ctx, signals)

    with signals.handled():
        return asyncio.run(inside())
