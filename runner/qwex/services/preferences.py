"""Settings written to a file: the user's ``config.toml`` or the project's ``qwex.toml``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwex.config import PROJECT_FILE, SETTINGS
from qwex.errors import UnknownName, UsageError
from qwex.services.settingsfile import edit, parsed, proven

if TYPE_CHECKING:
    from qwex.services.context import Context

__all__ = ["change", "with_setting"]


def change(ctx: Context, name: str, text: str, *, project: bool = False) -> Path:
    """Set ``name`` to what ``text`` says; the file it was written to. Comments and order stay.

    UsageError for a value it cannot have, UnknownName for a setting that does not exist.
    """
    known = {setting.name: setting for setting in SETTINGS}
    if name not in known:
        raise UnknownName("setting", name, known)
    try:
        value = known[name].read(text)
    except ValueError as error:
        raise UsageError(f"{name} cannot be {text!r}: {error}", hint=_by_hand(name)) from error
    file, mode = (ctx.settings.root / PROJECT_FILE, 0o644) if project else (ctx.paths.config_file, 0o600)
    edit(ctx, file, lambda old: with_setting(old, name, _toml(known[name].kind, text, value)), mode)
    return file


def _by_hand(name: str) -> str | None:
    return "edit the file by hand: `qwex config path` says where" if name == "run.env" else None


def _toml(kind: str, text: str, value: Any) -> str:
    """The value as TOML: as it was typed where a text will do."""
    if isinstance(value, tuple) and kind in {"list", "names"}:
        return json.dumps(list(value), ensure_ascii=False)
    if isinstance(value, bool):
        return json.dumps(value)
    if kind in {"number", "integer", "count"}:
        return f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False)


def with_setting(text: str, name: str, value: str) -> str:
    """``text`` with ``name`` set to the TOML ``value``. ConfigError when it is written in a way that cannot be edited safely."""
    section, _, key = name.partition(".")
    expected = parsed(text)
    expected.setdefault(section, {})[key] = parsed(f"x = {value}")["x"]
    lines = text.splitlines()
    header = next(
        (at for at, line in enumerate(lines) if re.fullmatch(rf"\s*\[\s*{section}\s*\]\s*(#.*)?", line)), None
    )
    if header is None:
        lines += [*([""] if lines else []), f"[{section}]", f"{key} = {value}"]
    else:
        end = next((at for at in range(header + 1, len(lines)) if lines[at].lstrip().startswith("[")), len(lines))
        own = next((at for at in range(header + 1, end) if re.match(rf"\s*{key}\s*=", lines[at])), None)
        if own is not None:
            lines[own] = f"{key} = {value}"
        else:
            lines.insert(header + 1, f"{key} = {value}")
    return proven("\n".join(lines) + "\n", expected, name)
