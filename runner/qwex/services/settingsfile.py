"""The user's ``config.toml`` and a project's ``qwex.toml``, edited as text: comments, order and spelling stay, the result is proven."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwex.config import load
from qwex.errors import ConfigError

if TYPE_CHECKING:
    from qwex.services.context import Context

__all__ = ["edit", "parsed", "proven"]


def edit(ctx: Context, file: Path, change: Callable[[str], str], mode: int = 0o600) -> None:
    """Replace the file by its changed text, whole or not at all, and read the settings again.

    Its mode and, if it is a link, the link stay; a new one gets ``mode``. Two edits at a time take turns.
    ConfigError when it cannot be written.
    """
    file = Path(os.path.realpath(file))
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(file.parent):
            exists = file.exists()
            changed = change(file.read_text(encoding="utf-8") if exists else "")
            mode = file.stat().st_mode & 0o777 if exists else mode
            fd, temporary = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
            try:
                with open(fd, "w", encoding="utf-8") as out:
                    out.write(changed)
                    out.flush()
                    os.fchmod(out.fileno(), mode)
                    os.fsync(out.fileno())
                os.replace(temporary, file)
            except BaseException:
                os.unlink(temporary)
                raise
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}", hint="check its owner and mode") from error
    ctx.settings = load(ctx.directory, ctx.env)


def parsed(text: str) -> dict[str, Any]:
    """What the text says."""
    import tomllib

    return tomllib.loads(text)


def proven(text: str, expected: dict[str, Any], what: str) -> str:
    """``text`` if it says what is expected of it; an empty table is as good as none. ConfigError for ``what`` otherwise."""
    import tomllib

    try:
        right = _filled(parsed(text)) == _filled(expected)
    except tomllib.TOMLDecodeError:
        right = False
    if not right:
        raise ConfigError(f"{what} is written in a way that Qwex cannot edit safely", hint="edit the file by hand")
    return text


def _filled(tables: dict[str, Any]) -> dict[str, Any]:
    return {name: table for name, table in tables.items() if table != {}}


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
