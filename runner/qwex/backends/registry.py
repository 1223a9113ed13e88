"""Which module is which kind of place. Looked up when a place is opened: nobody pays for a backend that is not used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from qwex.backends.base import Backend
from qwex.config import Paths, Settings
from qwex.errors import UnknownName
from qwex.model.places import Place

__all__ = ["KINDS", "open_backend"]

KINDS = {"local": "qwex.backends.local", "ssh": "qwex.backends.ssh"}
"""Kind of place → the module whose ``connect`` makes its backend."""


class _Module(Protocol):
    def connect(
        self,
        place: Place,
        paths: Paths,
        settings: Settings,
        notify: Callable[[str], None],
        confirm: Callable[[str], bool],
    ) -> Backend: ...


def open_backend(
    place: Place,
    paths: Paths,
    settings: Settings,
    notify: Callable[[str], None],
    confirm: Callable[[str], bool],
) -> Backend:
    """The backend of this place, to be entered with ``async with``.

    ``notify`` says one line to the user; ``confirm`` asks a yes-or-no question and is False when nobody can answer.
    UnknownName for a kind that does not exist.
    """
    if place.kind not in KINDS:
        raise UnknownName("kind of place", place.kind, KINDS)
    module = cast(_Module, import_module(KINDS[place.kind]))
    return module.connect(place, paths, settings, notify, confirm)
