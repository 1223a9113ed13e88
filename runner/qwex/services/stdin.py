"""What comes in on standard input: whether it is meant for the job, and how it gets there."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from qwex.errors import WorkspaceError
from qwex.model.jobs import JobSpec, StdinMode

__all__ = ["choose", "read_chunks", "spool"]

_CHUNK = 64 * 1024
_PATIENCE = 1.0


def choose(fd: int | None, attached: bool, spec: JobSpec) -> StdinMode:
    """Live while the client stays and the input is needed once; else read whole beforehand. A terminal or /dev/null is no input."""
    if fd is None or not _piped(fd):
        return StdinMode.NONE
    return StdinMode.LIVE if attached and not spec.retries and spec.array is None else StdinMode.FILE


def _piped(fd: int) -> bool:
    try:
        status = os.fstat(fd)
    except OSError:  # closed
        return False
    if stat.S_ISCHR(status.st_mode):
        return not os.isatty(fd) and status.st_rdev != os.stat(os.devnull).st_rdev
    return not stat.S_ISDIR(status.st_mode)


async def read_chunks(fd: int) -> AsyncIterator[bytes]:
    """What can be read from ``fd`` until its end, without blocking the loop and without changing the descriptor's flags."""
    loop = asyncio.get_running_loop()
    while True:
        ready = loop.create_future()
        try:
            loop.add_reader(fd, ready.set_result, None)
        except PermissionError:  # a regular file: never blocks, and epoll refuses it
            await asyncio.sleep(0)
        else:
            # Watched only while somebody waits: a reader left in place would spin the loop while the job is slow to take its input.
            try:
                await ready
            finally:
                loop.remove_reader(fd)
        if not (chunk := os.read(fd, _CHUNK)):
            return
        yield chunk


async def spool(fd: int, into: Path, note: Callable[[str], None]) -> None:
    """Copy ``fd`` whole into the file ``into`` (0600). Says that it waits when the input has not ended after a second."""
    loop = asyncio.get_running_loop()
    patience = loop.call_later(_PATIENCE, note, "reading standard input to its end before the run is submitted")
    try:
        into.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            async for chunk in read_chunks(fd):
                file.write(chunk)
    except OSError as error:
        raise WorkspaceError(f"standard input could not be kept in {into}: {error.strerror}") from error
    finally:
        patience.cancel()
