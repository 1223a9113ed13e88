"""What the client brings to a local run and takes from it: its environment and input, live input, commands beside it, results."""

from __future__ import annotations

import asyncio
import errno
import os
import pty
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from qwex.adapters import process
from qwex.backends.base import Fetched, Progress, Submission
from qwex.backends.local.attempts import task_environment
from qwex.backends.local.layout import Layout, read_environment, write_environment, write_pairs
from qwex.backends.local.wake import Wire
from qwex.config import Paths
from qwex.errors import BackendError
from qwex.model.runs import Run
from qwex.model.trees import EMPTY
from qwex.store.entries import Claim

__all__ = ["deposit", "execute", "feed", "fetch"]


def deposit(paths: Paths, one: Submission, env: Mapping[bytes, bytes], like: Submission | None = None) -> None:
    """Put what the worker needs into the run's directory. OSError when it cannot be written.

    ``like``: another run that was given the same ``env``; where all is the same the file is shared, which costs a tenth.

    The job gets the environment of whoever submits it, as any command typed there would: PATH, virtual environments, credentials.
    That file is readable by the user only and goes when the run ends; no record holds it.
    """
    layout = Layout.of(paths)
    directory = layout.run(one.run_id)
    os.makedirs(directory, 0o700, exist_ok=True)
    if like is not None and (one.spec.env, one.secrets) == (like.spec.env, like.secrets):
        with suppress(FileExistsError):
            os.link(layout.run(like.run_id) + "/env", directory + "/env")
    else:
        full = dict(env)
        for name, value in (*one.spec.env, *one.secrets.items()):
            full[os.fsencode(name)] = os.fsencode(value)
        write_environment(directory + "/env", full)
    if one.links:
        write_pairs(directory + "/links", one.links.items())
    if one.stdin is not None:
        with suppress(FileNotFoundError):
            os.unlink(directory + "/stdin")
        try:
            os.link(one.stdin, directory + "/stdin")
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copyfile(one.stdin, directory + "/stdin")
    if one.source is not None and one.spec.snapshot:
        from qwex.workspace.blobs import load_tree, save_tree

        if load_tree(one.spec.snapshot, paths) is None:
            save_tree(one.source.tree, paths)


async def feed(fifo: str, chunks: AsyncIterator[bytes], wire: Wire) -> None:
    """Write to a job's standard input until there is no more, or nobody reads it any longer."""
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return  # the job closed it, or has ended
        raise BackendError(f"{fifo} cannot be written: {error.strerror}") from error
    writing = asyncio.ensure_future(_write_all(fd, chunks))
    ending = asyncio.ensure_future(_ended(wire))
    try:
        await asyncio.wait({writing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            writing.result()
    finally:
        for one in (writing, ending):
            one.cancel()
        await asyncio.wait({writing, ending})
        os.close(fd)


async def _ended(wire: Wire) -> None:
    """Returns when the worker says that the run changed and this input is no longer wanted, or goes away."""
    while (words := await wire.line()) is not None and words[0] != "end":
        continue


async def _write_all(fd: int, chunks: AsyncIterator[bytes]) -> None:
    loop = asyncio.get_running_loop()
    async for chunk in chunks:
        left = memoryview(chunk)
        while left:
            try:
                left = left[os.write(fd, left[:65536]) :]
            except BlockingIOError:
                room = asyncio.Event()
                loop.add_writer(fd, room.set)
                try:
                    await room.wait()
                finally:
                    loop.remove_writer(fd)
            except BrokenPipeError:
                return


async def execute(
    layout: Layout, claim: Claim, argv: Sequence[str], files: tuple[int, int, int], terminal: bool
) -> int:
    """Run a command in the directory and environment of a running attempt; its exit code.

    With ``terminal``: a terminal that ``stdin`` already is, is simply shared; else the command gets a new one.
    """
    work = os.path.normpath(os.path.join(layout.attempt(claim.run_id, claim.index, claim.attempt).work, claim.spec.cwd))
    if not os.path.isdir(work):
        raise BackendError(f"the directory of run {claim.run_id} is gone", hint="the job may have removed it")
    base = task_environment(read_environment(layout.run(claim.run_id) + "/env"), claim, work)
    env = {os.fsdecode(name): os.fsdecode(value) for name, value in base.items()}
    if not terminal or os.isatty(files[0]):
        child = process.spawn(argv, cwd=work, env=env, stdin=files[0], stdout=files[1], stderr=files[2])
        return await _wait(child)
    master, slave = pty.openpty()
    # Who opens a terminal first in a new session has it as its controlling one.
    wrapped = ["/bin/sh", "-c", 'exec <>"$0" >&0 2>&0; exec "$@"', os.ttyname(slave), *argv]
    try:
        try:
            child = process.spawn(wrapped, cwd=work, env=env, session=True)
        finally:
            output = asyncio.ensure_future(asyncio.to_thread(_relay, master, files[1]))
        feeding = asyncio.ensure_future(_relay_input(files[0], master))
        code = await _wait(child)
        feeding.cancel()
        os.close(slave)
        await output
        return code
    finally:
        os.close(master)


async def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        code = await asyncio.to_thread(child.wait)
    except asyncio.CancelledError:
        child.kill()
        raise
    return code if code >= 0 else 128 - code


def _relay(source: int, target: int) -> None:
    """Copy until the other side of the terminal is closed, which reads as an error."""
    with suppress(OSError):
        while data := os.read(source, 65536):
            os.write(target, data)


async def _relay_input(source: int, master: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        ready = asyncio.Event()
        try:
            loop.add_reader(source, ready.set)
        except PermissionError:  # a plain file is always ready
            ready.set()
        try:
            await ready.wait()
        finally:
            with suppress(PermissionError):
                loop.remove_reader(source)
        data = os.read(source, 1024)
        os.write(master, data or b"\x04")
        if not data:
            return


def fetch(layout: Layout, run: Run, into: Path, progress: Progress, most: int | None) -> Fetched | None:
    """Copy the results of each task's last attempt; an array's into a directory per index. None when larger than ``most`` bytes."""
    from qwex.workspace.unpack import Mark, changes, collect

    found = []
    for task in run.last.tasks:
        ended = [one.number for one in task.attempts if one.state.final]
        if ended:
            directory = Path(layout.attempt(run.id, task.index, ended[-1]).results)
            prefix = b"%d/" % task.index if run.spec.array else b""
            found.append((prefix, directory, changes(EMPTY, directory, Mark(0, 0))))
    total = sum(one.size for _, _, files in found for one in files)
    if most is not None and total > most:
        return None
    paths: list[bytes] = []
    done = 0
    for prefix, directory, files in found:
        for one in files:
            # One by one, so that progress is told; what an earlier call left half-way is replaced.
            target = os.fsencode(into) + b"/" + prefix + one.path
            if os.path.lexists(target) and not os.path.isdir(target):
                os.unlink(target)
            collect([one], directory, into / os.fsdecode(prefix))
            paths.append(prefix + one.path)
            done += one.size
            progress("results", done, total)
    return Fetched(into, tuple(sorted(paths)), total)
