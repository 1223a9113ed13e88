"""The person in front of it: notes, warnings, questions and progress, all on standard error."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from qwex.cli.output import OutputClosed, write_all

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Terminal", "coloured", "printable"]

_PATIENCE = 1.0  # seconds before anything is shown: what is quicker needs no bar
_INTERVAL = 5.0  # seconds between plain lines where there is no terminal


def printable(text: str) -> str:
    """``text`` in one line: what a terminal cannot show, or would obey, is escaped."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return ascii(sign)[1:-1]


def coloured(fd: int) -> bool:
    """Whether to use colour there: a terminal that has some, and nobody asked for none (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb" and os.isatty(fd)


class Terminal:
    """What services report to. ``quiet`` silences notes and progress, never warnings and errors; ``agree`` answers yes for the user."""

    def __init__(self) -> None:
        self.quiet = False
        self.debug = False
        self.agree = False
        self._lock = threading.RLock()
        self._what = ""
        self._since = self._said = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def note(self, text: str) -> None:
        if not self.quiet:
            self._say("qwex: ", "", text)

    def warn(self, text: str) -> None:
        self._say("warning: ", "33", text)

    def error(self, text: str, hint: str | None = None) -> None:
        """Why it ends, and what to do about it."""
        self._say("error: ", "1;31", text)
        if hint:
            self._say("hint: ", "1;36", hint)

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        with self._lock:
            if what != self._what:
                self.close()
                self._what, self._since, self._said = what, now, now
            if total and done >= total:
                self.close()
            elif not self.quiet and now - self._since >= _PATIENCE:
                self._show(what, done, total, now)

    def confirm(self, question: str) -> bool:
        """Ask on the terminal itself: standard input may belong to the job."""
        if self.agree:
            return True
        if not os.isatty(2):
            return False
        try:
            fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        with self._lock, open(fd, "rb", buffering=0) as tty:
            self.close()
            try:
                write_all(fd, f"{printable(question)} [y/N] ".encode())
                answer = tty.read(1024) or b""
            except OSError:  # the terminal went away
                return False
        return answer.strip().lower() in {b"y", b"yes"}

    def close(self) -> None:
        """End what is shown."""
        with self._lock:
            bar, self._bar, self._what = self._bar, None, ""
            if bar is not None:
                bar.stop()

    def _say(self, label: str, colour: str, text: str) -> None:
        if colour and coloured(2):
            label = f"\x1b[{colour}m{label}\x1b[0m"
        data = f"{label}{printable(text)}\n".encode("utf-8", "backslashreplace")
        with self._lock:
            bar = self._bar
            if bar is not None:
                bar.stop()
            with suppress(OSError, OutputClosed):  # nobody is left to be told
                write_all(2, data)
            if bar is not None:
                bar.start()

    def _show(self, what: str, done: int, total: int, now: float) -> None:
        if not os.isatty(2) or os.environ.get("TERM", "dumb") == "dumb":
            if now - self._said >= _INTERVAL:
                from qwex.model.units import size_text

                self._said = now
                share = f"{done * 100 // total}%, " if total else ""
                of = f" of {size_text(total)}" if total else ""
                self._say("qwex: ", "", f"{what}: {share}{size_text(done)}{of}")
            return
        if self._bar is None or self._task is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(printable(what).replace("[", r"\["), total=total or None)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total or None)
