"""Output as records on one channel: ``d INDEX ATTEMPT STREAM OFFSET LENGTH`` and so many bytes; ``.`` at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from qwex.backends.base import LogChunk, LogRequest, Stream
from qwex.backends.ssh.remote import Call, Remote
from qwex.errors import BackendError, Unreachable

__all__ = ["follow", "records"]


async def records(call: Call) -> AsyncGenerator[tuple[list[str], int, bytes], None]:
    """``(words of the header, offset, bytes)``, a long record in several pieces; no words: all of this look has been said.

    Ends with the dot.

    Unreachable when the stream stops before it.
    """
    held = b""
    words: list[str] = []
    at = left = 0
    async with aclosing(call.output()) as output:
        async for data in output:
            if held:
                data = held + data
                held = b""
            start = 0
            while start < len(data):
                if left:
                    piece = data[start : start + left] if start or len(data) > left else data
                    yield words, at, piece
                    at += len(piece)
                    left -= len(piece)
                    start += len(piece)
                    continue
                stop = data.find(b"\n", start)
                if stop < 0:
                    held = data[start:]
                    break
                line = data[start:stop].decode("ascii", "replace")
                start = stop + 1
                if line == ".":
                    return
                if line in ("", "p"):
                    if line:
                        yield [], 0, b""
                    continue
                if line == "full":
                    call.full()
                    continue
                kind, *words = line.split(" ")
                if kind != "d" or len(words) < 3 or not (words[-1].isdigit() and words[-2].isdigit()):
                    raise BackendError(f"the far side sent something else than output: {line[:80]!r}")
                at, left = int(words[-2]), int(words[-1])
    call.check()
    raise Unreachable("the far side stopped in the middle of its answer")


async def follow(remote: Remote, run: str, request: LogRequest) -> AsyncGenerator[LogChunk, None]:
    """The chunks ``Backend.logs`` promises."""
    cursor = "".join(f"{key} {out} {err}\n" for key, (out, err) in request.cursor.items())
    call = await remote.open(
        "logs",
        run,
        "follow" if request.follow else "once",
        "-" if request.task is None else str(request.task),
        "-" if request.attempt is None else str(request.attempt),
        "-" if request.tail is None else str(request.tail),
        "-" if request.since is None else f"{request.since:.3f}",
        data=cursor.encode(),
    )
    call.channel.end_input()
    try:
        async for (index, attempt, stream, *_), offset, data in records(call):
            yield LogChunk(int(index), int(attempt), Stream(stream), offset, data)
    finally:
        await call.channel.close()
