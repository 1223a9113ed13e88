"""Every error Qwex raises on purpose.

The tree::

    QwexError                 exit 1
    ├── UsageError            exit 2   a wrong option, value, file or name
    │   ├── UnknownName                a place, run or setting that does not exist; lists the known ones
    │   └── UnsupportedHere            the chosen place cannot do what was asked
    ├── ConfigError           exit 2   a configuration file that cannot be used
    ├── WorkspaceError        exit 1   a directory that cannot be sent or a result that cannot be written
    ├── StoreError            exit 1   the run records cannot be read or written
    ├── PlaceError            exit 1   the place cannot be used
    │   ├── Unreachable                no answer: retrying later may help
    │   ├── AccessRefused              the place answers and says no
    │   └── HostKeyError               the host's key is unknown or has changed
    └── BackendError          exit 1   the place took the request and failed at it

A message says what happened and to what; a hint says what to do. Only ``qwex.cli`` prints or exits.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "AccessRefused",
    "BackendError",
    "ConfigError",
    "HostKeyError",
    "PlaceError",
    "QwexError",
    "StoreError",
    "UnknownName",
    "Unreachable",
    "UnsupportedHere",
    "UsageError",
    "WorkspaceError",
]


class QwexError(Exception):
    """Something a person can read and act on. ``code`` is stable and documented in ``runner/docs/errors.md``."""

    code = "error"
    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(QwexError):
    code = "usage"
    exit_status = 2


class UnknownName(UsageError):
    """No ``kind`` is called ``name``. ``known`` is listed in the hint, the nearest one first."""

    code = "unknown-name"

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str | None = None) -> None:
        from difflib import get_close_matches

        self.known = tuple(known)
        near = get_close_matches(name, self.known, n=1)
        listed = ", ".join(self.known) or "none yet"
        guess = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"no {kind} is called {name!r}", hint=hint or f"{guess}known: {listed}")


class UnsupportedHere(UsageError):
    code = "unsupported"


class ConfigError(QwexError):
    code = "config"
    exit_status = 2


class WorkspaceError(QwexError):
    code = "workspace"


class StoreError(QwexError):
    code = "store"


class PlaceError(QwexError):
    code = "place"


class Unreachable(PlaceError):
    code = "unreachable"


class AccessRefused(PlaceError):
    code = "access-refused"


class HostKeyError(PlaceError):
    code = "host-key"


class BackendError(QwexError):
    code = "backend"
