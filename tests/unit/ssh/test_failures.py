"""Every exception of asyncssh, and what a socket raises, has its QwexError."""

from __future__ import annotations

import errno
import socket

import asyncssh
import pytest

from qwex.adapters.ssh.failures import translated
from qwex.errors import AccessRefused, ConfigError, HostKeyError, PlaceError, QwexError, Unreachable

TABLE: list[tuple[BaseException, type[QwexError], str]] = [
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), Unreachable, "connection refused"),
    (OSError(errno.EHOSTUNREACH, "No route to host"), Unreachable, "no route"),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), Unreachable, "network is unreachable"),
    (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), Unreachable, "did not answer in time"),
    (TimeoutError(), Unreachable, "within 5 s"),
    (ConnectionResetError(errno.ECONNRESET, "reset"), Unreachable, "reset"),
    (
        OSError("Multiple exceptions: [Errno 111] Connection refused, [Errno 111] refused"),
        Unreachable,
        "connection refused",
    ),
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Unreachable, "no machine is known"),
    (PermissionError(errno.EACCES, "Permission denied", "/k"), AccessRefused, "cannot read /k"),
    (asyncssh.PermissionDenied("no"), AccessRefused, "tried /my/key"),
    (asyncssh.HostKeyNotVerifiable("no"), HostKeyError, "cannot be trusted"),
    (asyncssh.KeyExchangeFailed("no kex"), PlaceError, "no common"),
    (asyncssh.ProtocolNotSupported("2"), PlaceError, "no common"),
    (asyncssh.ConnectionLost("gone"), Unreachable, "broke"),
    (asyncssh.ProtocolError("eh"), Unreachable, "does not speak SSH"),
    (asyncssh.MACError("eh"), Unreachable, "does not speak SSH"),
    (asyncssh.CompressionError("eh"), Unreachable, "does not speak SSH"),
    (asyncssh.ServiceNotAvailable("eh"), Unreachable, "ended the connection"),
    (asyncssh.IllegalUserName("eh"), AccessRefused, "user name"),
    (asyncssh.ChannelOpenError(1, "no sessions"), AccessRefused, "runs no command"),
    (asyncssh.ChannelOpenError(2, "SSH connection closed"), Unreachable, "broke"),
    (asyncssh.ConfigParseError("line 3"), ConfigError, "line 3"),
    (asyncssh.KeyEncryptionError("locked"), AccessRefused, "locked"),
    (asyncssh.KeyImportError("no key"), AccessRefused, "no key"),
]


@pytest.mark.parametrize(("error", "kind", "words"), TABLE, ids=lambda one: getattr(one, "__name__", None))
def test_table(error: BaseException, kind: type[QwexError], words: str) -> None:
    said = translated(error, "gpu1:22", seconds=5, tried="/my/key")
    assert type(said) is kind
    assert words in said.message
    assert "gpu1:22" in said.message or kind is ConfigError


def test_no_exception_of_asyncssh_is_forgotten() -> None:
    disconnects = {
        one for one in vars(asyncssh).values() if isinstance(one, type) and issubclass(one, asyncssh.DisconnectError)
    }
    assert disconnects - {type(error) for error, _, _ in TABLE} == {asyncssh.DisconnectError}


def test_our_own_errors_pass() -> None:
    own = HostKeyError("x")
    assert translated(own, "gpu1:22") is own
