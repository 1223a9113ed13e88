"""SSH connections as `command:remote` makes them: host key checked if one is given, dialled again until a limit."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from threading import Event
from typing import Any, Final, TypeVar

import asyncssh
from tests.lab.providers.provider import Refused
from tests.lab.providers.wire import Tree

T = TypeVar("T")

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0

Say = Callable[[str], None]


def alone(work: Coroutine[Any, Any, T], cancelled: Event) -> T:
    """Runs a coroutine to its end on an event loop of its own; raises Refused when the provider is cancelled meanwhile."""

    async def watched() -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=0.1)
            if cancelled.is_set():
                task.cancel()
                await asyncio.wait([task])
                raise Refused("cancelled while at work over SSH")
        return task.result()

    return asyncio.run(watched())


def _options(connection: Tree) -> dict[str, Any]:
    key = connection.get("privateKey")
    try:
        keys = [asyncssh.import_private_key(key, connection.get("privateKeyPassword"))] if key else None
        trusted = connection.get("hostKey")
        known = asyncssh.import_known_hosts(f"* {_public(trusted)}\n") if trusted else None
    except (asyncssh.KeyImportError, ValueError) as fault:
        raise Refused(f"cannot read a key of the connection to {connection['host']}: {fault}") from fault
    return {
        "port": int(connection.get("port", 22)),
        "username": connection.get("user", "root"),
        "password": connection.get("password"),
        "client_keys": keys,
        "agent_path": connection.get("agentSocketPath") or (),
        "known_hosts": known,
        "config": None,
        "connect_timeout": float(connection.get("perDialTimeout", 15)) or None,
    }


def _public(line: str) -> str:
    """Type and key of a public key line: its comment may hold anything."""
    return " ".join(line.split()[:2])


async def _again(what: str, limit: int, say: Say, attempt: Callable[[], Awaitable[T]]) -> T:
    """The first success of at most `limit` failures (-1: of any number)."""
    pause, failures = FIRST_PAUSE, 0
    while True:
        try:
            return await attempt()
        except (OSError, asyncssh.Error) as fault:
            failures += 1
            if 0 <= limit < failures:
                raise Refused(f"after {failures - 1} failed attempts: {what}: {fault}") from fault
            say(f"Dial {failures}/{limit if limit >= 0 else 'inf'} failed: retrying")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


async def dial(stack: AsyncExitStack, connection: Tree, say: Say) -> asyncssh.SSHClientConnection:
    """A connection that `stack` will close, through the proxy if there is one. Raises Refused."""
    tunnel = await _dial(stack, connection["proxy"], None, say) if connection.get("proxy") else None
    return await _dial(stack, connection, tunnel, say)


async def _dial(
    stack: AsyncExitStack, connection: Tree, tunnel: asyncssh.SSHClientConnection | None, say: Say
) -> asyncssh.SSHClientConnection:
    options = _options(connection)

    async def attempt() -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(connection["host"], tunnel=tunnel or (), **options)

    where = f"ssh: {options['username']}@{connection['host']}:{options['port']}"
    found = await _again(where, int(connection.get("dialErrorLimit", 10)), say, attempt)
    return await stack.enter_async_context(found)
