"""What goes wrong with SSH, said as ``qwex.errors``. Every exception of asyncssh that can reach us has its line here."""

from __future__ import annotations

import asyncio
import errno
import socket

import asyncssh

from qwex.errors import AccessRefused, BackendError, ConfigError, HostKeyError, PlaceError, QwexError, Unreachable

__all__ = ["translated"]

_SOCKET = {
    errno.ECONNREFUSED: ("connection refused", "start sshd there, or check the port"),
    errno.EHOSTUNREACH: ("no route to the host", "is the machine on, and are you in the right network or VPN?"),
    errno.ENETUNREACH: ("the network is unreachable", "is this machine online, and in the right network or VPN?"),
    errno.ETIMEDOUT: ("it did not answer in time", "is the machine on, and are you in the right network or VPN?"),
    errno.ECONNRESET: ("the connection was reset", "does an SSH server listen there? try again"),
}

_CLOSED = "SSH connection closed"  # asyncssh's reason when a channel is asked of a connection that has just broken


def translated(error: BaseException, where: str, *, seconds: float = 0, tried: str = "") -> QwexError:
    """The QwexError for what asyncssh or the socket raised.

    ``where`` is ``host:port`` as the user knows it, ``tried`` names the keys that were offered.
    """
    if isinstance(error, QwexError):
        return error
    if isinstance(error, socket.gaierror):
        return Unreachable(
            f"no machine is known by the name in {where} ({error.strerror or error})",
            hint="check the spelling, or add a Host to ~/.ssh/config",
        )
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) and not getattr(error, "errno", None):
        limit = f" within {seconds:g} s" if seconds else ""
        return Unreachable(
            f"no SSH server answers at {where}{limit}",
            hint="is the machine on, and are you in the right network or VPN? ConnectTimeout in ~/.ssh/config sets the wait",
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return HostKeyError(f"the host key of {where} cannot be trusted: {error.reason}")
    if isinstance(error, asyncssh.PermissionDenied):
        return AccessRefused(
            f"{where} refuses to let you in ({error.reason}); tried {tried or 'no key'}",
            hint="put your public key there (ssh-copy-id), load it with ssh-add, or name it with IdentityFile in ~/.ssh/config",
        )
    if isinstance(error, (asyncssh.KeyExchangeFailed, asyncssh.ProtocolNotSupported)):
        return PlaceError(
            f"{where} and this client have no common SSH algorithms: {error.reason}",
            hint="Ciphers, MACs, KexAlgorithms and HostKeyAlgorithms in ~/.ssh/config say what is offered",
        )
    if isinstance(error, asyncssh.ConnectionLost) or (
        isinstance(error, asyncssh.ChannelOpenError) and error.reason == _CLOSED
    ):
        return Unreachable(
            f"the connection to {where} broke ({error.reason})", hint="try again when the network is back"
        )
    if isinstance(error, (asyncssh.ProtocolError, asyncssh.MACError, asyncssh.CompressionError)):
        return Unreachable(
            f"what answers at {where} does not speak SSH properly ({error.reason})", hint="check the address and port"
        )
    if isinstance(error, asyncssh.IllegalUserName):
        return AccessRefused(f"{where} cannot be asked with that user name: {error.reason}")
    if isinstance(error, asyncssh.DisconnectError):
        return Unreachable(f"{where} ended the connection: {error.reason}")
    if isinstance(error, asyncssh.ChannelOpenError):
        return AccessRefused(
            f"{where} lets you in but runs no command ({error.reason})",
            hint="Qwex needs an account with a shell: no SFTP-only account, and MaxSessions above 1 in sshd_config",
        )
    if isinstance(error, asyncssh.ConfigParseError):
        return ConfigError(f"the SSH configuration cannot be read: {error}")
    if isinstance(error, (asyncssh.KeyEncryptionError, asyncssh.KeyImportError)):
        return AccessRefused(
            f"a key for {where} cannot be used: {error}",
            hint="load it into an agent first: ssh-add FILE",
        )
    if isinstance(error, OSError):
        reason, hint = _SOCKET.get(error.errno or 0, (error.strerror or str(error), "check the address and port"))
        several = "Multiple exceptions" in str(error)
        if several and "refused" in str(error).lower():
            reason, hint = _SOCKET[errno.ECONNREFUSED]
        if error.filename:
            return AccessRefused(
                f"cannot read {error.filename} for {where}: {error.strerror}", hint="check IdentityFile"
            )
        return Unreachable(f"no SSH server answers at {where} ({reason})", hint=hint)
    if isinstance(error, (asyncssh.Error, ValueError)):
        return PlaceError(f"cannot connect to {where}: {error}")
    return BackendError(f"{where}: {error!r}")
