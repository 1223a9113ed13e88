"""A command over there wired to file descriptors of ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from qwex.backends.ssh.remote import Call, Remote
from qwex.errors import Unreachable

__all__ = ["reading", "wire"]

_PIECE = 1 << 16


async def wire(remote: Remote, words: tuple[str, ...], stdin: int, stdout: int, stderr: int, terminal: bool) -> int:
    """Run the request with these descriptors as its streams; its exit code. ``terminal``: in a pseudo-terminal over there."""
    size = shutil.get_terminal_size()
    kind = (os.environ.get("TERM", "dumb"), size.columns, size.lines) if terminal else None
    call = await remote.open(*words, terminal=kind)
    with _raw(stdin if terminal and os.isatty(stdin) else -1, call):
        feeding = asyncio.create_task(_feed(call, stdin))
        try:
            async for error, data in call.both():
                await asyncio.to_thread(_write, stderr if error else stdout, data)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
    if call.channel.status is None:
        raise Unreachable(f"{remote.where} ended the command without an exit code")
    return call.channel.status


async def _feed(call: Call, stdin: int) -> None:
    async for data in reading(stdin):
        if not await call.channel.write(data):
            return
    call.channel.end_input()


async def reading(descriptor: int) -> AsyncIterator[bytes]:
    """What comes from a descriptor until its end, without a thread that could hang in ``read``."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        while data := os.read(descriptor, _PIECE):
            yield data
        return
    loop = asyncio.get_running_loop()
    while True:
        ready = asyncio.Event()
        try:
            loop.add_reader(descriptor, ready.set)
        except PermissionError:  # /dev/null cannot be waited for, and never blocks
            ready.set()
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)
        try:
            data = os.read(descriptor, _PIECE)
        except BlockingIOError:
            continue
        except OSError:  # the terminal has gone
            return
        if not data:
            return
        yield data


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _raw(descriptor: int, call: Call) -> Iterator[None]:
    """Keys go through as they are, and the far terminal follows the size of ours; both until the end. -1: nothing to do."""
    if descriptor < 0:
        yield
        return
    loop = asyncio.get_running_loop()

    def resize() -> None:
        size = shutil.get_terminal_size()
        call.channel.resize(size.columns, size.lines)

    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    loop.add_signal_handler(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
