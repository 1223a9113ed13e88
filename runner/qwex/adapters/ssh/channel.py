"""One command on the far side: bytes in, two streams of bytes out, an exit status."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import asyncssh

from qwex.adapters.ssh.failures import translated

__all__ = ["Channel", "Session"]

_ROOM = 8 << 20  # bytes kept for a reader that is slower than the network, before the far side is stopped
_STDERR = asyncssh.EXTENDED_DATA_STDERR


class Session(asyncssh.SSHClientSession[bytes]):
    """Keeps what arrives in a queue of bounded size; everything else waits in the SSH window."""

    def __init__(self) -> None:
        self.chunks: deque[tuple[bool, bytes]] = deque()
        self.kept = 0
        self.paused = False
        self.ended = False
        self.lost: Exception | None = None
        self.arrival = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self.channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.chunks.append((datatype == _STDERR, data))
        self.kept += len(data)
        if self.kept > _ROOM and not self.paused and self.channel:
            self.paused = True
            self.channel.pause_reading()
        self.arrival.set()

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.lost = exc
        self.arrival.set()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


class Channel:
    """A running command. Made by ``Connection.run``; ends with ``close`` or by itself.

    Every method raises Unreachable when the connection breaks.
    """

    def __init__(self, where: str, chan: asyncssh.SSHClientChannel[bytes], session: Session) -> None:
        self._where = where
        self._chan = chan
        self._session = session

    async def chunks(self) -> AsyncIterator[tuple[bool, bytes]]:
        """``(is stderr, bytes)`` as they arrive, until the command has ended and all is read."""
        session = self._session
        while True:
            while session.chunks:
                error, data = session.chunks.popleft()
                parts = [data]
                size = len(data)
                while session.chunks and session.chunks[0][0] == error and size < 1 << 18:
                    parts.append(session.chunks.popleft()[1])
                    size += len(parts[-1])
                session.kept -= size
                if session.paused and session.kept < _ROOM // 2:
                    session.paused = False
                    self._chan.resume_reading()
                yield error, b"".join(parts) if len(parts) > 1 else data
            if session.ended:
                if session.lost is not None:
                    raise translated(session.lost, self._where)
                return
            session.arrival.clear()
            await session.arrival.wait()

    async def write(self, data: bytes) -> bool:
        """Send to the command's stdin, waiting while the network is full. False when the command has ended."""
        session = self._session
        if session.ended:
            if session.lost is not None:
                raise translated(session.lost, self._where)
            return False
        try:
            self._chan.write(data)
        except (BrokenPipeError, OSError):
            return False
        await session.writable.wait()
        return not session.ended

    def end_input(self) -> None:
        """No more stdin."""
        if not self._session.ended:
            try:
                self._chan.write_eof()
            except (BrokenPipeError, OSError):
                return

    @property
    def status(self) -> int | None:
        """Exit code; 128 + n for a signal; None while it runs, or when the far side did not say."""
        code = self._chan.get_returncode()
        if code is None:
            return None
        return 128 - code if code < 0 else code

    def resize(self, columns: int, rows: int) -> None:
        """Tell the far terminal its size."""
        if not self._session.ended:
            self._chan.change_terminal_size(columns, rows)

    async def close(self) -> None:
        """Give the command up: its streams are closed at once."""
        if not self._session.ended:
            self._chan.abort()
        if self._session.paused:
            self._session.chunks.clear()
            self._session.paused = False
            self._chan.resume_reading()

    async def collect(self, data: bytes = b"") -> tuple[bytes, bytes, int | None]:
        """Send ``data`` as the whole stdin; all of stdout, all of stderr, the exit code."""
        if data:
            await self.write(data)
        self.end_input()
        out: list[bytes] = []
        err: list[bytes] = []
        async for error, chunk in self.chunks():
            (err if error else out).append(chunk)
        return b"".join(out), b"".join(err), self.status
