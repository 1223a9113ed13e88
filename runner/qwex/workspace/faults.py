"""Failures of the file system as errors a person can act on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from qwex.errors import WorkspaceError

__all__ = ["LISTED", "Changed", "failure", "shown", "unreadable"]

LISTED = 10
"""So many names are listed in one message."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Changed(WorkspaceError):
    """A file kept changing while it was read, or is no longer what was identified. Identifying again may help."""

    code = "workspace-changed"


def shown(path: bytes | str | os.PathLike[str]) -> str:
    """A path on one line: control characters and bytes that are no UTF-8 are written as ``\\x0a``."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def failure(doing: str, path: bytes | str | os.PathLike[str], error: OSError) -> WorkspaceError:
    """``cannot <doing> <path>: <why>``, with what to do about a full or read-only disk."""
    hint = None
    if error.errno in _FULL:
        hint = "free some space there, or set XDG_STATE_HOME or TMPDIR to a larger disk"
    elif error.errno == errno.EROFS:
        hint = "choose a directory that can be written"
    elif error.errno == errno.EMFILE:
        hint = "raise the limit of open files (ulimit -n)"
    return WorkspaceError(f"cannot {doing} {shown(path)}: {error.strerror or error}", hint=hint)


def unreadable(paths: Iterable[bytes]) -> WorkspaceError:
    """One error for all of them, the first few by name."""
    names = sorted(set(paths))
    listed = ", ".join(shown(name) for name in names[:LISTED])
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return WorkspaceError(
        f"the workspace has files that cannot be read: {listed}{more}",
        hint="make them readable (chmod u+r), or leave them out with .gitignore or .qwexignore",
    )
