"""Output of jobs on its way to standard output and standard error, byte for byte."""

from __future__ import annotations

import asyncio
import os
import select
import stat
from collections.abc import Coroutine
from typing import Any, TypeVar

from qwex.backends.base import Stream
from qwex.cli.bridge import Signals
from qwex.cli.output import OutputClosed

__all__ = ["Sink", "passing_on"]

_T = TypeVar("_T")

_PIECE = 1 << 18
_TICK = 200  # milliseconds until a blocked write looks for a signal again


class Sink:
    """Takes output as ``services.following`` gives it.

    A reader that stands still must not keep Ctrl-C from working, and a blocked ``write`` is not ended by a signal here: so nothing is
    written that could block. Raises CancelledError after a signal while the reader stands still, OutputClosed when it is gone (once:
    what comes after that is dropped).
    """

    def __init__(self, signals: Signals, out: int = 1, err: int = 2) -> None:
        self._signals = signals
        self._closed = False
        self._ways = {Stream.OUT: _Way(out), Stream.ERR: _Way(err)}

    def __call__(self, stream: Stream, data: bytes) -> None:
        if self._closed:
            return
        way, view = self._ways[stream], memoryview(data)
        try:
            while view:
                if written := way.write(view):
                    view = view[written:]
                else:
                    self._signals.check()
        except BrokenPipeError as error:
            self._closed = True
            raise OutputClosed from error

    def close(self) -> None:
        """Let go of what it opened; the descriptors it was given stay open."""
        self._closed = True
        for way in self._ways.values():
            way.close()


class _Way:
    """A descriptor to write to without blocking for long, and without changing it for those who share it."""

    def __init__(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        self._own = _again(fd) if stat.S_ISFIFO(mode) else None
        self._ready = self._own is not None or stat.S_ISREG(mode)  # a write takes what fits and returns
        self._fd = fd if self._own is None else self._own

    def write(self, data: memoryview) -> int:
        """How much was written; 0 when there was no room for a while."""
        try:
            if self._ready:
                return os.write(self._fd, data[:_PIECE])
            # What POSIX promises to take at once when there is room.
            return os.write(self._fd, data[: select.PIPE_BUF]) if self._room() else 0
        except BlockingIOError:
            self._room()
            return 0

    def close(self) -> None:
        if self._own is not None:
            os.close(self._own)

    def _room(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(_TICK))


def _again(fd: int) -> int | None:
    """The same pipe, opened once more and not blocking. None where that cannot be had: another user's, or a system where it is a copy."""
    try:
        own = os.open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    was_blocking = os.get_blocking(fd)
    os.set_blocking(own, False)
    if os.get_blocking(fd) == was_blocking:
        return own
    os.set_blocking(fd, was_blocking)
    os.close(own)
    return None


async def passing_on(signals: Signals, work: Coroutine[Any, Any, _T], out: int = 1) -> _T:
    """The result of ``work``, which writes to ``out``.

    Stopped after a signal; OutputClosed once the reader of a pipe has gone, even if there is nothing to write any more.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    gone = False

    def left() -> None:
        nonlocal gone
        gone = True
        loop.remove_reader(out)
        task.cancel()

    piped = stat.S_ISFIFO(os.fstat(out).st_mode)
    if piped:
        loop.add_reader(
            out, left
        )  # the writing end of a pipe becomes "readable" when its reader goes: asyncio's own trick
    try:
        return await signals.cancelling(task)
    except asyncio.CancelledError:
        if gone:
            raise OutputClosed from None
        raise
    finally:
        if piped:
            loop.remove_reader(out)
