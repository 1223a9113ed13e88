"""Copying files and directories over SFTP, as `command:remote:CopyToRemote` and the older `CopyFile` do."""

import os
from contextlib import AsyncExitStack
from pathlib import Path, PurePosixPath

import asyncssh
from tests.lab.providers.command.ssh import Say, dial
from tests.lab.providers.provider import Refused
from tests.lab.providers.wire import Tree


async def to_remote(inputs: Tree, say: Say) -> None:
    """Puts an asset where `remotePath` says. Raises Refused.

    A directory goes into the remote one, its contents only if the source ends with `/`; a file goes into an existing
    directory, else under the given name; parents are made.
    """
    source, target = inputs["source"], inputs["remotePath"]
    async with AsyncExitStack() as stack:
        sftp = await _sftp(stack, inputs, say)
        try:
            if "text" in source:
                await _text(sftp, source["text"], target)
            else:
                await _path(sftp, source["path"], target)
        except (OSError, asyncssh.SFTPError) as fault:
            raise Refused(f"failed to copy to remote path {target}: {fault}") from fault


async def file(inputs: Tree, say: Say) -> None:
    """Copies `localPath` to exactly `remotePath`. Raises Refused."""
    async with AsyncExitStack() as stack:
        sftp = await _sftp(stack, inputs, say)
        try:
            await _write(sftp, Path(inputs["localPath"]).read_bytes(), inputs["remotePath"])
        except (OSError, asyncssh.SFTPError) as fault:
            raise Refused(f"failed to copy {inputs['localPath']} to {inputs['remotePath']}: {fault}") from fault


async def _sftp(stack: AsyncExitStack, inputs: Tree, say: Say) -> asyncssh.SFTPClient:
    connection = await dial(stack, inputs["connection"], say)
    try:
        return await stack.enter_async_context(connection.start_sftp_client())
    except asyncssh.Error as fault:
        raise Refused(f"{inputs['connection']['host']} offers no SFTP: {fault}") from fault


async def _text(sftp: asyncssh.SFTPClient, text: str, target: str) -> None:
    if await sftp.isdir(target):
        raise Refused(f"remote path {target} is a directory; when using a text asset, remotePath must be a file path")
    await sftp.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
    await _write(sftp, text.encode(), target)


async def _path(sftp: asyncssh.SFTPClient, source: str, target: str) -> None:
    local = Path(source)
    if local.is_dir():
        if not source.endswith("/"):
            target = str(PurePosixPath(target) / local.name)
        await _directory(sftp, local, target)
    elif await sftp.isdir(target):
        await _write(sftp, local.read_bytes(), str(PurePosixPath(target) / local.name))
    else:
        await sftp.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
        await _write(sftp, local.read_bytes(), target)


async def _directory(sftp: asyncssh.SFTPClient, local: Path, target: str) -> None:
    for folder, _, names in os.walk(local):
        into = PurePosixPath(target) / Path(folder).relative_to(local).as_posix()
        if await sftp.exists(str(into)) and not await sftp.isdir(str(into)):
            raise Refused(f"remote path {into} exists but is not a directory")
        await sftp.makedirs(str(into), exist_ok=True)
        for name in names:
            await _write(sftp, (Path(folder) / name).read_bytes(), str(into / name))


async def _write(sftp: asyncssh.SFTPClient, content: bytes, target: str) -> None:
    async with sftp.open(target, "wb") as remote:
        await remote.write(content)
