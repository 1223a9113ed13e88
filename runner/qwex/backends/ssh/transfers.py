"""Bringing trees there and results back over one connection."""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

from qwex.backends.base import Progress, Source
from qwex.backends.ssh.remote import Call, Remote
from qwex.backends.ssh.uploads import Upload, compressed, plan, shared, stream
from qwex.config import Paths
from qwex.errors import BackendError
from qwex.model.trees import EMPTY, Tree
from qwex.workspace.blobs import load_tree, save_tree

__all__ = ["FAR", "Inventory", "expanded", "send_tree"]

_SMALL = 4 << 20  # below this, compressing costs nothing worth mentioning
FAR = 0.002  # seconds of round trip from which the line, and no longer the processor, is the bottleneck
_CANDIDATES = 4  # trees there that are looked at as a base


class Inventory:
    """What the far side said it has."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.gzip = b"gzip" in lines
        self.trees = [line.split()[1].decode() for line in lines if line.startswith(b"tree ")]
        self.needed = [word.decode() for line in lines if line.startswith(b"need ") for word in line.split()[1:]]


async def send_tree(remote: Remote, source: Source, inventory: Inventory, paths: Paths, progress: Progress) -> None:
    """Bring this tree there, as a difference to the best tree both sides know. WorkspaceError when a file has changed."""
    tree = source.tree
    name, base = _base(tree, inventory, paths)
    # Differences are mostly small; whole trees are compressed only where the line is slower than the compressor.
    squeeze = inventory.gzip and (base is not EMPTY or tree.size < _SMALL or remote.connection.round_trip > FAR)
    end = f"END-{secrets.token_hex(8)}"
    call = await remote.open(
        "receive", tree.digest, name, "yes" if squeeze else "no", end, str(tree.size), str(tree.files)
    )
    try:
        # While this is worked out, the far side clones the base.
        upload = await asyncio.to_thread(plan, tree, base)
        await _send(call, upload, source, end.encode(), squeeze, progress)
        answer = await call.rest()
    except BaseException:
        await call.channel.close()
        raise
    if b"ok" not in answer.split():
        raise BackendError(f"{remote.where} did not confirm the workspace", hint="run the command again")
    inventory.trees.insert(0, tree.digest)
    await asyncio.to_thread(save_tree, tree, paths)


async def _send(call: Call, upload: Upload, source: Source, end: bytes, squeeze: bool, progress: Progress) -> None:
    done = 0
    total = upload.size

    def sent(count: int) -> None:
        nonlocal done
        done += count
        progress("sending the workspace", done, total)

    chunks = stream(upload, source, end, sent)
    if squeeze:
        chunks = compressed(chunks, 6 if total < _SMALL else 1)
    async for chunk in _ahead(chunks, upload):
        if not await call.channel.write(chunk):
            return
    call.channel.end_input()


def _base(tree: Tree, inventory: Inventory, paths: Paths) -> tuple[str, Tree]:
    best, name, most = EMPTY, "-", 0
    for digest in inventory.trees[:_CANDIDATES]:
        known = load_tree(digest, paths)
        if known is None:
            continue
        gain = shared(tree, known)
        if gain > most:
            best, name, most = known, digest, gain
        if gain and gain > 0.9 * (tree.size + 512 * tree.files):
            break
    return name, best


async def _ahead(chunks: Iterator[bytes], upload: Upload) -> AsyncIterator[bytes]:
    """Reads files in a thread, one piece ahead of the network; small uploads are not worth the thread."""
    if upload.size < _SMALL:
        for chunk in chunks:
            yield chunk
        return
    step: asyncio.Task[bytes | None] = asyncio.create_task(asyncio.to_thread(next, chunks, None))
    try:
        while (piece := await step) is not None:
            step = asyncio.create_task(asyncio.to_thread(next, chunks, None))
            yield piece
    finally:
        if not step.done():
            await asyncio.wait([step])


async def expanded(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """A gzip stream's content. BackendError when it is cut short."""
    packer = zlib.decompressobj(31)
    async for chunk in chunks:
        data = packer.decompress(chunk, 1 << 20)
        while data:
            yield data
            data = packer.decompress(packer.unconsumed_tail, 1 << 20)
    rest = packer.flush()
    if rest:
        yield rest
