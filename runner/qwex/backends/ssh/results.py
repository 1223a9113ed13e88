"""Results: listed, weighed against the limit and the patterns, then brought as one tar."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from qwex.backends.base import Fetched, Progress
from qwex.backends.ssh.remote import Remote
from qwex.backends.ssh.transfers import FAR, expanded
from qwex.errors import BackendError
from qwex.workspace.extraction import Unpacker
from qwex.workspace.patterns import Patterns

__all__ = ["fetch", "listed"]


def listed(answer: bytes) -> dict[bytes, int]:
    """``{path: size}`` from the far side's listing: batches of ``b COUNT``, so many sizes a line, so many names ended by NUL.

    The sizes are in the order of the sorted names: ``ls`` sorts.
    """
    found: dict[bytes, int] = {}
    while answer.startswith(b"b "):
        line, _, answer = answer.partition(b"\n")
        count = int(line[2:])
        *sizes, answer = answer.split(b"\n", count)
        *names, answer = answer.split(b"\0", count)
        if len(sizes) != count or len(names) != count:
            break
        found.update(zip(sorted(names), map(int, sizes), strict=True))
    if answer != b".\n":
        raise BackendError("the far side's list of results cannot be read")
    return {name.removeprefix(b"./"): size for name, size in found.items()}


async def fetch(
    remote: Remote, run: str, array: bool, patterns: Sequence[str], into: Path, progress: Progress, most: int | None
) -> Fetched | None:
    """As ``Backend.results``."""
    sizes = listed(await remote.ask("list", run))
    if not array:
        sizes = {name.partition(b"/")[2]: size for name, size in sizes.items()}
    chosen = sizes
    if patterns:
        # The elements of an array have a directory each, which patterns do not see.
        wanted = Patterns.of(patterns)
        chosen = {
            name: size for name, size in sizes.items() if wanted.selects(name.partition(b"/")[2] if array else name)
        }
    total = sum(chosen.values())
    if most is not None and total > most:
        return None
    if not chosen:
        return Fetched(into, (), 0)
    squeeze = remote.connection.round_trip > FAR or total < 1 << 22
    some = len(chosen) < len(sizes)
    folder = "." if array else "0"
    names = b"".join(b"./" + name + b"\0" for name in chosen) if some else b""
    call = await remote.open("fetch", run, folder, "yes" if squeeze else "no", "names" if some else "all")
    if names:
        await call.channel.write(names)
    call.channel.end_input()
    done = 0
    with Unpacker(into) as unpacker:
        async with aclosing(call.output()) as raw:
            async for chunk in expanded(raw) if squeeze else raw:
                unpacker.feed(chunk)
                done += len(chunk)
                progress("fetching results", min(done, total), total)
        call.check()
        collected = unpacker.close()
    return Fetched(into, collected.paths, collected.size)
