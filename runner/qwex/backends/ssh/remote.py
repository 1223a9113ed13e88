"""Calling the far side's script: one exec a request, the script brought there when it is missing."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import cache
from importlib import resources

from qwex.adapters.ssh import Channel, Connection
from qwex.errors import AccessRefused, BackendError, ConfigError, QwexError

__all__ = ["Call", "Remote", "script"]

_GREETING = re.compile(rb"(?:^|\n)qwex 1\r?\n")
_GREETING_TIME = 60  # seconds a shell may take to start the script: home directories may be slow to mount
_NOISE = 1 << 16  # bytes a login shell's start-up files may print before the greeting
_SAFE = re.compile(r"[A-Za-z0-9_.+@%/][A-Za-z0-9_.+@%/-]*")


@cache
def script() -> tuple[bytes, str]:
    """(text, digest) of the far side's script: its parts in order, as one file."""
    folder = resources.files("qwex.backends.ssh") / "remote"
    parts = sorted((part for part in folder.iterdir() if part.name.endswith(".sh")), key=lambda part: part.name)
    text = b"".join(part.read_bytes() for part in parts)
    return text, hashlib.sha256(text).hexdigest()


class Call:
    """A request under way: its greeting has been read."""

    def __init__(
        self, remote: Remote, channel: Channel, chunks: AsyncIterator[tuple[bool, bytes]], first: bytes
    ) -> None:
        self.channel = channel
        self._remote = remote
        self._chunks = chunks
        self._first = first
        self._told = False
        self.complaint = b""

    async def both(self) -> AsyncIterator[tuple[bool, bytes]]:
        """``(is stderr, bytes)`` until the end."""
        if self._first:
            first, self._first = self._first, b""
            yield False, first
        async for chunk in self._chunks:
            yield chunk

    async def output(self) -> AsyncGenerator[bytes, None]:
        """What the request prints; its complaints are kept for ``check``."""
        async for error, data in self.both():
            if not error:
                yield data
            elif len(self.complaint) < _NOISE:
                self.complaint += data

    def full(self) -> None:
        """Tell the user, once, that jobs over there wait for room on the disk."""
        if not self._told:
            self._told = True
            self._remote.notify(
                f"the disk of {self._remote.where} is full: what has ended there is recorded once there is room"
            )

    def check(self) -> None:
        """BackendError when the request has failed."""
        if self.channel.status != 0:
            raise self._remote.failure(self.channel.status, self.complaint)

    async def rest(self) -> bytes:
        """All it prints; BackendError when it fails."""
        data = b"".join([part async for part in self.output()])
        self.check()
        return data


class Remote:
    """The script of one place over one connection."""

    def __init__(self, connection: Connection, directory: str, notify: Callable[[str], None]) -> None:
        self.connection = connection
        self.notify = notify
        self.directory = directory.removeprefix("~/").rstrip("/") or ".qwex"
        if not _SAFE.fullmatch(self.directory) or ".." in self.directory.split("/") or self.directory == ".":
            raise ConfigError(
                f"{directory!r} cannot be Qwex's directory on {connection.where}",
                hint="letters, digits and ./_-+@% only, and a directory of its own",
            )

    @property
    def where(self) -> str:
        return self.connection.where

    async def open(
        self, verb: str, *words: str, data: bytes = b"", terminal: tuple[str, int, int] | None = None
    ) -> Call:
        """Start a request; ``words`` hold no blank and nothing a shell could take amiss. ``data`` goes to its stdin at once.

        AccessRefused when the account runs no shell, BackendError when the request refuses to start.
        """
        text, digest = script()
        command = f"exec sh {self.directory}/bin/{digest}.sh {' '.join((verb, *words))}"
        call, _, _ = await self._start(command, data, terminal)
        if call is None:
            await self._install(text, digest)
            call, status, said = await self._start(command, data, terminal)
            if call is None:
                raise self.failure(status, said)
        return call

    async def ask(self, verb: str, *words: str, data: bytes = b"") -> bytes:
        """A whole request: everything it prints. BackendError when it fails."""
        call = await self.open(verb, *words, data=data)
        call.channel.end_input()
        return await call.rest()

    async def _start(
        self, command: str, data: bytes, terminal: tuple[str, int, int] | None
    ) -> tuple[Call | None, int | None, bytes]:
        channel = await self.connection.run(command, terminal=terminal)
        try:
            async with asyncio.timeout(_GREETING_TIME):
                return await self._greeted(channel, data)
        except TimeoutError:
            await channel.close()
            raise AccessRefused(
                f"{self.where} lets this account in and then runs no shell for it: no answer for {_GREETING_TIME} s",
                hint="see what `ssh HOST true` does; a forced command in authorized_keys may be in the way",
            ) from None

    async def _greeted(self, channel: Channel, data: bytes) -> tuple[Call | None, int | None, bytes]:
        if data:
            await channel.write(data)
        out = b""
        err = b""
        chunks = channel.chunks()
        async for error, chunk in chunks:
            if error:
                err = (err + chunk)[-_NOISE:]
                continue
            out += chunk
            greeting = _GREETING.search(out)
            if greeting:
                call = Call(self, channel, chunks, out[greeting.end() :])
                call.complaint = err
                return call, None, b""
            if len(out) > _NOISE:
                await channel.close()
                raise AccessRefused(
                    f"the login shell on {self.where} prints too much before it runs a command",
                    hint="let its start-up files print only when they run in a terminal",
                )
        return None, channel.status, err or out

    async def _install(self, text: bytes, digest: str) -> None:
        name = f"{self.directory}/bin/{digest}"
        lines = b"""umask 077
mkdir -p %(folder)s || exit 3
cat >%(name)s.$$ <<'%(end)s' || exit 3
%(text)s%(end)s
[ $(wc -c <%(name)s.$$) -eq %(size)d ] || { echo 'qwex: the disk is full' >&2; rm -f %(name)s.$$; exit 3; }
mv -f %(name)s.$$ %(name)s.sh && echo && echo qwex 1
exit
""" % {
            b"folder": f"{self.directory}/bin".encode(),
            b"name": name.encode(),
            b"end": b"END-" + digest.encode(),
            b"text": text,
            b"size": len(text),
        }
        channel = await self.connection.run("exec sh")
        out, err, status = await channel.collect(lines)
        if not _GREETING.search(out):
            raise self.failure(status, err or out)

    def failure(self, status: int | None, said: bytes) -> QwexError:
        """What a request's exit status and last words mean."""
        lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        own = [line.removeprefix("qwex: ") for line in lines if line.startswith("qwex: ")]
        shown = "; ".join(own) or " / ".join(lines[-3:]) or f"exit status {status}"
        everything = " ".join(lines).lower()
        if "no space left" in everything or "disk full" in everything or "disk is full" in everything:
            detail = "no space left" if "no space" in everything else shown
            return BackendError(
                f"the disk of {self.where} is full ({detail})",
                hint="free some space there; qwex host check shows how much is left, qwex host remove --purge removes Qwex's part",
            )
        if "quota" in everything:
            return BackendError(f"the disk quota on {self.where} is used up ({shown})", hint="free some space there")
        if "read-only" in everything or (not own and "permission denied" in everything):
            return BackendError(
                f"{self.where} does not let Qwex write to {self.directory} ({shown})",
                hint="set `directory` of that host to one that can be written",
            )
        if own:
            cause = [line for line in lines if not line.startswith("qwex: ")]
            return BackendError(f"{self.where}: {shown}" + (f" ({cause[-1]})" if cause else ""))
        if status == 3:
            return BackendError(f"{self.where} could not do what was asked: {shown}")
        if status is None:
            return BackendError(
                f"{self.where} ended a request without a word: {shown}", hint="is its disk or memory full?"
            )
        return AccessRefused(
            f"{self.where} runs no POSIX shell for this account: {shown}",
            hint="Qwex needs an account whose login shell runs commands; ask whoever keeps that machine",
        )
