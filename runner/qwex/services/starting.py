"""``qwex init``."""

from __future__ import annotations

from pathlib import Path

from qwex.assets import text
from qwex.config import PROJECT_FILE
from qwex.errors import UsageError, WorkspaceError

__all__ = ["init"]


def init(directory: Path) -> Path:
    """Write a commented ``qwex.toml`` there. UsageError when there is one."""
    file = directory / PROJECT_FILE
    try:
        with open(file, "x", encoding="utf-8") as out:
            out.write(text(PROJECT_FILE))
    except FileExistsError as error:
        raise UsageError(
            f"{file} exists already, and is left alone", hint="edit it; `qwex config show` says what is set"
        ) from error
    except OSError as error:
        raise WorkspaceError(f"{file} cannot be written: {error.strerror}") from error
    return file
