"""Connecting as ``ssh`` would: the user's configuration, jump hosts, agent, keys and known hosts."""

from __future__ import annotations

import asyncio
import getpass
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncssh
from asyncssh.config import SSHClientConfig

from qwex.adapters.ssh.channel import Channel, Session
from qwex.adapters.ssh.failures import translated
from qwex.adapters.ssh.hostkeys import KnownHosts, record
from qwex.errors import AccessRefused, ConfigError, HostKeyError, QwexError

__all__ = ["Connection", "Endpoint", "connect"]

_PATIENCE = 15.0  # seconds to connect, unless ConnectTimeout says otherwise
_KEEPALIVE = 10  # seconds of silence before asking; three unanswered questions end the connection
_WINDOW = 16 << 20  # how far the far side may be ahead: more is memory, less is speed on long lines
_SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_SYSTEM_KNOWN = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
_DEFAULT_KEYS = ("id_ed25519_sk", "id_ecdsa_sk", "id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect: an address or a Host of ssh_config. Empty user and port 0: what the configuration says."""

    host: str
    user: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Trust:
    """What to do about unknown host keys: where they are recorded, who is asked, who is told."""

    own: Path
    confirm: Callable[[str], bool]
    notify: Callable[[str], None]


class _Config(SSHClientConfig):
    """asyncssh's reader of ssh_config, which passes over one directive that matters here."""

    def __init__(self, *terms: Any) -> None:
        super().__init__(*terms)
        name = "StrictHostKeyChecking"
        self._handlers = {**self._handlers, name.lower(): (name, SSHClientConfig._set_string)}

    def text(self, name: str) -> str:
        return str(self.get(name) or "")


@dataclass(slots=True)
class _Settings:
    config: _Config
    files: list[Path]
    host: str
    port: int

    @classmethod
    def read(cls, endpoint: Endpoint) -> _Settings:
        files = [file for file in (Path("~/.ssh/config").expanduser(), _SYSTEM_CONFIG) if os.access(file, os.R_OK)]
        user = cast(str, endpoint.user or ())
        port = cast(int, endpoint.port or ())
        arguments = (getpass.getuser(), user, endpoint.host, port)
        config = cast(_Config, _Config.load(None, list(files), False, False, False, *arguments))
        name = config.text("Hostname") or endpoint.host
        return cls(config, files, name, int(cast(int, config.get("Port", 22))))

    def known_files(self, own: Path) -> list[Path]:
        user = cast("list[str]", self.config.get("UserKnownHostsFile", ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]))
        system = cast("list[str]", self.config.get("GlobalKnownHostsFile", list(map(str, _SYSTEM_KNOWN))))
        return [Path(name).expanduser() for name in (*user, *system)] + [own]

    def key_files(self) -> list[Path]:
        named = cast("list[str]", self.config.get("IdentityFile", []))
        files = named or [f"~/.ssh/{name}" for name in _DEFAULT_KEYS]
        return [Path(name).expanduser() for name in files]


class _Client(asyncssh.SSHClient):
    """Notes the key of a host that is not trusted; asking happens outside the handshake."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None
        self.address = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        self.address = addr
        return False


@dataclass(slots=True)
class Connection:
    """An open connection, with the jumps it goes through. ``round_trip`` is about the seconds an answer takes."""

    where: str
    connection: asyncssh.SSHClientConnection
    round_trip: float
    jumps: list[asyncssh.SSHClientConnection] = field(default_factory=list)

    async def run(self, command: str, *, terminal: tuple[str, int, int] | None = None) -> Channel:
        """Start ``command`` in the account's login shell. ``terminal``: (TERM, columns, rows) for a pseudo-terminal.

        Unreachable when the connection broke, AccessRefused when the server starts nothing.
        """
        terms: dict[str, Any] = {"request_pty": False}
        if terminal:
            terms = {"request_pty": "force", "term_type": terminal[0], "term_size": terminal[1:]}
        try:
            chan, session = await self.connection.create_session(
                Session, command, encoding=None, window=_WINDOW, **terms
            )
        except (asyncssh.Error, OSError) as error:
            raise translated(error, self.where) from error
        return Channel(self.where, chan, cast(Session, session))

    def host_key(self) -> tuple[str, str]:
        """(type, SHA256 fingerprint) of the key the server showed."""
        key = self.connection.get_server_host_key()
        return ("", "") if key is None else (key.get_algorithm(), key.get_fingerprint())

    async def close(self) -> None:
        for one in (self.connection, *reversed(self.jumps)):
            one.close()
            try:
                await asyncio.wait_for(one.wait_closed(), 2)
            except TimeoutError:
                one.abort()


async def connect(
    endpoint: Endpoint,
    *,
    own_known_hosts: Path,
    confirm: Callable[[str], bool],
    notify: Callable[[str], None],
) -> Connection:
    """Connect to ``endpoint`` as the user's ``ssh`` would.

    An unknown host key is shown through ``confirm``, and recorded in ``own_known_hosts`` on yes; HostKeyError otherwise, and
    always for a changed key. Unreachable when nobody answers, AccessRefused when no key is accepted, ConfigError for an
    ssh_config that cannot be read.
    """
    trust = Trust(own_known_hosts, confirm, notify)
    jumps: list[asyncssh.SSHClientConnection] = []
    try:
        return await _connect(endpoint, trust, jumps, depth=0)
    except BaseException:
        for jump in jumps:
            jump.abort()
        raise


async def _connect(
    endpoint: Endpoint, trust: Trust, jumps: list[asyncssh.SSHClientConnection], depth: int
) -> Connection:
    where = f"{endpoint.host}:{endpoint.port}" if endpoint.port else endpoint.host
    try:
        settings = _Settings.read(endpoint)
    except (asyncssh.ConfigParseError, OSError) as error:
        raise ConfigError(f"the SSH configuration cannot be read: {error}") from error
    if depth > 8:
        raise ConfigError(f"ProxyJump to {endpoint.host} goes round in a circle")
    where = f"{endpoint.host}:{settings.port}"
    tunnel: asyncssh.SSHClientConnection | None = None
    proxy = settings.config.text("ProxyJump")
    for hop in filter(None, proxy.split(",")):
        jump = await _connect(_hop(hop), trust, jumps, depth + 1)
        tunnel = jump.connection
        jumps.append(tunnel)
    for attempt in range(2):
        started = time.monotonic()
        client = _Client()
        patience = float(cast(int, settings.config.get("ConnectTimeout", 0)) or _PATIENCE)
        try:
            options = _options(endpoint, settings, trust, client, patience)
            connection = await asyncssh.connect(
                endpoint.host, options=options, config=None, **({"tunnel": tunnel} if tunnel else {})
            )
        except asyncssh.HostKeyNotVerifiable as error:
            if client.offered is None or attempt:
                raise _refused_key(error, where, settings, trust) from error
            _judge(client, where, settings, trust)
            continue
        except (asyncssh.Error, OSError, ValueError, TimeoutError) as error:
            raise _failure(error, where, settings, patience) from error
        return Connection(where, connection, _round_trip(connection, time.monotonic() - started, bool(jumps)), jumps)
    raise HostKeyError(f"{where} showed another host key each time")


def _round_trip(connection: asyncssh.SSHClientConnection, handshake: float, tunnelled: bool) -> float:
    """Seconds from here to there and back: the kernel's own measure where it has one, else a guess from the handshake."""
    sock = connection.get_extra_info("socket")
    if sock is not None and not tunnelled and sys.platform == "linux":
        # struct tcp_info in linux/tcp.h: tcpi_rtt, in microseconds, after 8 bytes of flags and 15 32-bit counters
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return float(int.from_bytes(info[68:72], sys.byteorder)) / 1e6
    return max(0.0, handshake - 0.2) / 8


def _hop(text: str) -> Endpoint:
    text = text.strip().removeprefix("ssh://")
    user, _, address = text.rpartition("@")
    host, colon, port = address.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        host, port = address, ""
    if port and not port.isdigit():
        raise ConfigError(f"ProxyJump {text!r} has no port number after the colon")
    return Endpoint(host.strip("[]"), user, int(port or 0))


def _options(
    endpoint: Endpoint, settings: _Settings, trust: Trust, client: _Client, patience: float
) -> asyncssh.SSHClientConnectionOptions:
    config = settings.config
    terms: dict[str, Any] = {}
    if endpoint.user:
        terms["username"] = endpoint.user
    if endpoint.port:
        terms["port"] = endpoint.port
    if config.get("Ciphers") is None:
        # By far the fastest here, in asyncssh and in OpenSSH; the others stay on offer.
        terms["encryption_algs"] = "^aes128-gcm@openssh.com"
    if config.get("ServerAliveInterval") is None:
        terms["keepalive_interval"] = _KEEPALIVE
    if config.get("Compression") is None:
        terms["compression_algs"] = ["none"]
    named = config.get("IdentityFile")
    if named:
        # OpenSSH passes over key files that are not there; asyncssh would stop.
        present = [key for key in settings.key_files() if key.exists()]
        terms["client_keys"] = [str(key) for key in present] or ()
        terms["ignore_encrypted"] = True
    known = KnownHosts(settings.known_files(trust.own)).trusted()
    return asyncssh.SSHClientConnectionOptions(
        host=endpoint.host,
        config=[str(file) for file in settings.files],
        client_factory=lambda: client,
        known_hosts=known,
        connect_timeout=patience,
        login_timeout=max(30.0, patience),
        command=None,
        request_pty=False,
        agent_forwarding=False,
        x11_forwarding=False,
        **terms,
    )


def _judge(client: _Client, where: str, settings: _Settings, trust: Trust) -> None:
    """Return when the key that was shown may be used from now on; HostKeyError otherwise."""
    key = client.offered
    assert key is not None
    name = settings.config.text("HostKeyAlias") or settings.host
    shown = f"{key.get_algorithm()} {key.get_fingerprint()}"
    strict = settings.config.text("StrictHostKeyChecking").lower()
    known = KnownHosts(settings.known_files(trust.own)).lines_for(name, client.address, settings.port)
    if known:
        first = known[0]
        raise HostKeyError(
            f"the host key of {where} has changed: it shows {shown}, but {first.file} line {first.line} says "
            f"{first.key.get_algorithm()} {first.key.get_fingerprint()}",
            hint=f"somebody may be listening in. If the machine was reinstalled, remove line {first.line} of {first.file}",
        )
    question = f"The host key of {where} is unknown: {shown}. Trust it from now on?"
    if strict in ("yes", "true"):
        raise HostKeyError(
            f"the host key of {where} is unknown ({shown}) and StrictHostKeyChecking forbids to ask",
            hint="add it to ~/.ssh/known_hosts",
        )
    if strict not in ("no", "off", "false", "accept-new") and not trust.confirm(question):
        raise HostKeyError(
            f"the host key of {where} is unknown: {shown}",
            hint=f"compare it with the machine's own and record it: qwex host add NAME {where.rpartition(':')[0]}",
        )
    record(trust.own, name, settings.port, key)
    trust.notify(f"recorded the host key of {where} ({shown}) in {trust.own}")


def _refused_key(error: asyncssh.HostKeyNotVerifiable, where: str, settings: _Settings, trust: Trust) -> QwexError:
    if "revoked" in str(error):
        return HostKeyError(f"the host key of {where} has been revoked in one of your known_hosts files")
    files = ", ".join(str(file) for file in settings.known_files(trust.own) if file.exists())
    return HostKeyError(
        f"the host key of {where} cannot be trusted: {error.reason}", hint=f"known keys: {files or 'none'}"
    )


def _failure(error: Exception, where: str, settings: _Settings, patience: float) -> QwexError:
    if not isinstance(error, asyncssh.PermissionDenied):
        if isinstance(error, asyncssh.KeyExchangeFailed) and "host key" in str(error).lower():
            return HostKeyError(
                f"{where} no longer offers a host key of the type on record",
                hint="if the machine was reinstalled, remove its lines from your known_hosts",
            )
        return translated(error, where, seconds=patience)
    keys = [key for key in settings.key_files() if key.exists()]
    locked = [key for key in keys if _locked(key)]
    tried = [str(key) for key in keys if key not in locked]
    agent = os.environ.get("SSH_AUTH_SOCK")
    if agent:
        tried.append("the agent's keys")
    refusal = translated(error, where, tried=", ".join(tried))
    if locked:
        refusal = AccessRefused(
            f"{refusal.message}; {', '.join(map(str, locked))} is protected by a passphrase",
            hint=f"load it into an agent first: {'' if agent else 'eval $(ssh-agent); '}ssh-add {shlex.quote(str(locked[0]))}",
        )
    return refusal


def _locked(key: Path) -> bool:
    try:
        asyncssh.read_private_key(key)
    except asyncssh.KeyEncryptionError:
        return True
    except asyncssh.KeyImportError as error:
        return "assphrase" in str(error)
    except OSError:
        return False
    return False
