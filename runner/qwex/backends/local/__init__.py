"""This machine as a place: a queue in the user's records, and a worker that starts by itself and leaves when idle."""

from __future__ import annotations

from collections.abc import Callable

from qwex.backends.base import Backend
from qwex.config import Paths, Settings
from qwex.model.places import Place

__all__ = ["connect"]


def connect(
    place: Place,
    paths: Paths,
    settings: Settings,
    notify: Callable[[str], None],
    confirm: Callable[[str], bool],
) -> Backend:
    """As ``backends.registry.open_backend`` says. The client's half is imported here, so that the worker does not carry it."""
    from qwex.backends.local.backend import LocalBackend

    return LocalBackend(place, paths, settings, notify)
