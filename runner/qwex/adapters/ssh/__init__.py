"""SSH connections by asyncssh, of which this package is the only importer. Errors are ``qwex.errors``."""

from qwex.adapters.ssh.channel import Channel
from qwex.adapters.ssh.connection import Connection, Endpoint, connect

__all__ = ["Channel", "Connection", "Endpoint", "connect"]
