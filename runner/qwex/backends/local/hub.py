"""The worker's end of its socket. Lines of text, several clients.

Client → worker: ``poke`` (the queue changed; answered with ``ok``), ``watch ID...`` (tell me of these), ``feed ID INDEX`` (I have live
input for this task). Worker → client: ``run ID...`` (these changed), ``look`` (anything may have changed), ``go ATTEMPT`` (open the
fifo of that attempt), ``end`` (there is nothing to feed any more). A connection that breaks means that its client has gone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Hub", "Line"]

_MOST_UNSENT = 1 << 20


@dataclass(slots=True, eq=False)
class Line:
    """One client. ``feeds`` names the task it has input for, ``fed`` is set once it was told to go."""

    socket: socket.socket
    received: bytes = b""
    unsent: bytes = b""
    watching: set[str] = field(default_factory=set)
    feeds: tuple[str, int] | None = None
    fed: bool = False


class Hub:
    """Listens and keeps the connections. Callbacks: ``poked()``, ``feeding(line)`` and, for a feeder that left, ``gone(line)``."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        path: Path,
        poked: Callable[[], None],
        feeding: Callable[[Line], None],
        gone: Callable[[Line], None],
    ) -> None:
        self._selector, self._path = selector, path
        self._poked, self._feeding, self._gone = poked, feeding, gone
        self._listener: socket.socket | None = None
        self._lines: set[Line] = set()
        self._watchers: dict[str, set[Line]] = {}

    @property
    def clients(self) -> int:
        return len(self._lines)

    def feeder(self, run_id: str, index: int) -> Line | None:
        """The client that has input for this task."""
        return next((line for line in self._lines if line.feeds == (run_id, index)), None)

    def open(self) -> None:
        """Begin to listen. Only the holder of the worker's lock may: an old socket is removed."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(os.fspath(self._path))
        os.chmod(self._path, 0o600)
        listener.listen(512)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def lost(self) -> bool:
        """Whether somebody removed the socket's file, so that nobody finds this worker any more."""
        return not self._path.exists()

    def close(self) -> None:
        """Stop listening and let all clients go. Whoever was about to be accepted sees an end of file and starts a worker."""
        self._unlisten(remove=True)
        for line in list(self._lines):
            self._drop(line)

    def reopen(self) -> None:
        self._unlisten(remove=False)
        self.open()

    def _unlisten(self, *, remove: bool) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            if remove:
                self._path.unlink(missing_ok=True)
            self._listener.close()
            self._listener = None

    def tell(self, ids: Iterable[str]) -> None:
        """These runs changed."""
        told: dict[Line, list[str]] = {}
        for run_id in ids:
            for line in self._watchers.get(run_id, ()):
                told.setdefault(line, []).append(run_id)
        for line, changed in told.items():
            self.say(line, "run " + " ".join(changed))

    def tell_all(self) -> None:
        for line in list(self._lines):
            if line.watching:
                self.say(line, "look")

    def say(self, line: Line, text: str) -> None:
        line.unsent += text.encode() + b"\n"
        self._send(line)

    def _accept(self, events: int) -> None:
        while self._listener is not None:
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            connection.setblocking(False)
            line = Line(connection)
            self._lines.add(line)
            self._selector.register(
                connection, selectors.EVENT_READ, lambda events, line=line: self._serve(line, events)
            )
            self._serve(line, selectors.EVENT_READ)

    def _serve(self, line: Line, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(line)
        if not events & selectors.EVENT_READ or line not in self._lines:
            return
        try:
            data = line.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(line)
            return
        *commands, line.received = (line.received + data).split(b"\n")
        for command in commands:
            self._obey(line, command.decode(errors="replace").split())

    def _obey(self, line: Line, words: list[str]) -> None:
        match words:
            case ["poke"]:
                self._poked()
                self.say(line, "ok")
            case ["watch", *ids]:
                for run_id in ids:
                    line.watching.add(run_id)
                    self._watchers.setdefault(run_id, set()).add(line)
                self.say(line, "look")
            case ["feed", run_id, index] if index.isdecimal():
                line.feeds = (run_id, int(index))
                self._feeding(line)
            case _:
                self._drop(line)

    def _send(self, line: Line) -> None:
        if line not in self._lines:
            return
        with contextlib.suppress(BlockingIOError):
            try:
                line.unsent = line.unsent[line.socket.send(line.unsent) :]
            except (BrokenPipeError, ConnectionResetError):
                self._drop(line)
                return
        if len(line.unsent) > _MOST_UNSENT:  # it does not read: it may come again and look for itself
            self._drop(line)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.unsent else 0)
        key = self._selector.get_key(line.socket)
        if key.events != wanted:
            self._selector.modify(line.socket, wanted, key.data)

    def _drop(self, line: Line) -> None:
        if line not in self._lines:
            return
        self._lines.discard(line)
        for run_id in line.watching:
            watchers = self._watchers[run_id]
            watchers.discard(line)
            if not watchers:
                del self._watchers[run_id]
        self._selector.unregister(line.socket)
        line.socket.close()
        if line.feeds:
            self._gone(line)
