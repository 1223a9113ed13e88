"""What a builder says while it works: plain lines, and on a terminal one line that counts the seconds."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

__all__ = ["Progress"]


class Progress:
    """`[3/14] kueue v0.15.0 …` at the start of each, the same line with its seconds at its end; on standard error."""

    def __init__(self, total: int, to: TextIO | None = None) -> None:
        self._total, self._begun, self._to = total, 0, sys.stderr if to is None else to
        self._running: dict[str, tuple[int, float]] = {}
        self._terminal = self._to.isatty()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._keep_ticking, daemon=True)

    def __enter__(self) -> Self:
        if self._terminal:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._terminal:
            self._ticker.join()
            self._clear()

    def begin(self, title: str) -> None:
        with self._lock:
            self._begun += 1
            self._running[title] = (self._begun, time.monotonic())
            if not self._terminal:
                self._line(f"[{self._begun}/{self._total}] {title} …")

    def end(self, title: str, note: str = "") -> None:
        """`note` stands in the place of the seconds."""
        with self._lock:
            number, since = self._running.pop(title)
            self._line(f"[{number}/{self._total}] {title}  {note or f'{time.monotonic() - since:.0f} s'}")

    def say(self, text: str) -> None:
        with self._lock:
            self._line(text)

    def _line(self, text: str) -> None:
        self._clear()
        self._to.write(f"{text}\n")
        self._to.flush()

    def _clear(self) -> None:
        if self._terminal:
            self._to.write("\r\x1b[K")

    def tick(self) -> None:
        """Draw the line that counts."""
        with self._lock:
            now = time.monotonic()
            parts = [
                f"[{number}/{self._total}] {title} … {now - since:.0f} s"
                for title, (number, since) in self._running.items()
            ]
            self._clear()
            self._to.write(" · ".join(parts)[: shutil.get_terminal_size().columns - 1])
            self._to.flush()

    def _keep_ticking(self) -> None:
        while not self._over.wait(0.5):
            self.tick()
