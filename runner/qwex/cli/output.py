"""Standard output: data only, every byte of it or a reason why not. Imports nothing that costs time."""

from __future__ import annotations

import errno
import os
import sys

__all__ = ["BROKEN_PIPE", "OutputClosed", "failure", "flush", "write", "write_all", "write_text"]

BROKEN_PIPE = 141
"""Exit status when the reader went away: 128 + SIGPIPE, as a shell reports it of other programs."""


class OutputClosed(Exception):
    """Nobody reads standard output any more, as after ``| head``."""


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, waiting where a non-blocking descriptor is full. OutputClosed, or the OSError of a full disk."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            select.select([], [fd], [])
        except BrokenPipeError as error:
            raise OutputClosed from error


def write_text(text: str) -> None:
    """``text`` on standard output, at once. Names that are no UTF-8 come out as the bytes they are."""
    flush()
    write_all(1, text.encode("utf-8", "surrogateescape"))


def flush() -> None:
    """What others gave to ``sys.stdout``, as click its help. OutputClosed as ``write_all``."""
    if sys.stdout is None:  # it came closed
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error


def write(text: str) -> int:
    """For answers given before anything else is loaded: the exit status, with the reason on stderr."""
    try:
        write_text(text)
    except OutputClosed:
        return BROKEN_PIPE
    except OSError as error:
        sys.stderr.write(f"error: {failure(error)}\n")
        return 1
    return 0


def failure(error: OSError) -> str:
    """What to say when standard output cannot be written."""
    reason = "it is closed" if error.errno == errno.EBADF else (error.strerror or str(error)).lower()
    return f"standard output cannot be written: {reason}"
