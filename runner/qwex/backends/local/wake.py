"""The client's end of the worker's socket, and how a worker is started."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from qwex.backends.local.configuration import Configuration
from qwex.backends.local.layout import Layout, socket_path
from qwex.errors import BackendError

__all__ = ["Wire", "call", "listening", "start_worker"]

_PATIENCE = 30.0  # seconds for a worker to start and answer
_AGAIN = 5.0  # seconds until another one is started, should the first have failed
_PAUSE = 0.004


class Wire:
    """A connection to the worker: lines of text, as ``hub`` says."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = b""

    async def send(self, text: str) -> None:
        """Errors of a broken connection show at the next ``line``."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, text.encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return

    async def line(self) -> list[str] | None:
        """The words of the next line; None when the worker has gone."""
        while b"\n" not in self._received:
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode().split()

    def close(self) -> None:
        self._socket.close()


def _connect(configuration: Configuration) -> socket.socket | None:
    """A connection, None when no worker listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.fspath(socket_path(configuration.paths.state)))
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    connection.setblocking(False)
    return connection


def listening(configuration: Configuration) -> bool:
    """Whether a worker is there."""
    connection = _connect(configuration)
    if connection is not None:
        connection.close()
    return connection is not None


async def call(configuration: Configuration) -> Wire:
    """A wire on which the worker has answered a ``poke``; a worker is started when there is none.

    The worker has heard it then, and sees whatever was committed before.

    BackendError when none answers within half a minute.
    """
    loop = asyncio.get_running_loop()
    deadline, start_at = loop.time() + _PATIENCE, 0.0
    while True:
        try:
            connection = _connect(configuration)
        except BlockingIOError:  # its backlog is full: it is there and busy
            connection, start_at = None, loop.time() + _AGAIN
        except OSError as error:
            raise BackendError(f"the local worker cannot be reached: {error.strerror}") from error
        if connection is not None:
            wire = Wire(connection)
            try:
                await wire.send("poke")
                if await wire.line() is not None:
                    return wire
            except BaseException:
                wire.close()
                raise
            wire.close()  # it was about to leave
        elif loop.time() >= start_at:
            start_worker(configuration)
            start_at = loop.time() + _AGAIN
        if loop.time() > deadline:
            log = Layout.of(configuration.paths).log
            raise BackendError("the local worker does not start", hint=f"its last words are in {log}")
        await asyncio.sleep(_PAUSE)


def start_worker(configuration: Configuration) -> None:
    """Start a worker that has nothing to do with this process: own session, no terminal, no descriptors, working directory ``/``.

    Returns before it is ready. It leaves again when another one has the lock.
    """
    layout = Layout.of(configuration.paths)
    try:
        log = os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BackendError(f"{layout.log} cannot be written: {error.strerror}", hint="check the disk") from error
    command = [sys.executable, "-P", "-m", "qwex.backends.local.worker", configuration.to_text()]
    try:
        # The shell in between ends at once, so that the worker is nobody's child and leaves no zombie behind.
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", 'cd / && "$@" &', "sh", *command],
            os.environb,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=[one for one in signal.valid_signals() if one not in (signal.SIGKILL, signal.SIGSTOP)],
        )
        os.waitpid(pid, 0)
    except OSError as error:
        raise BackendError(f"the local worker cannot be started: {error.strerror}") from error
    finally:
        os.close(log)
