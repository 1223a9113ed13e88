"""Any machine with an SSH server as a place: a queue kept there by one shell script, under one directory of the account."""

from __future__ import annotations

from collections.abc import Callable

from qwex.backends.ssh.backend import SSHBackend
from qwex.backends.ssh.upkeep import check
from qwex.config import Paths, Settings
from qwex.model.places import Place

__all__ = ["SSHBackend", "check", "connect"]


def connect(
    place: Place,
    paths: Paths,
    settings: Settings,
    notify: Callable[[str], None],
    confirm: Callable[[str], bool],
) -> SSHBackend:
    """As ``backends.registry.open_backend`` says; the connection is made when the backend is entered."""
    return SSHBackend(place, paths, notify, confirm)
