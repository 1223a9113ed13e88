"""Names of places, as ``--on`` takes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from qwex.errors import UnknownName, UsageError
from qwex.model.places import Place

if TYPE_CHECKING:
    from qwex.services.context import Context

__all__ = ["LOCAL", "known", "parse_address", "resolve", "shares_files"]

LOCAL = Place("local")
_MOST_INCLUDES = 16  # as deep as OpenSSH follows them


def resolve(ctx: Context, name: str) -> Place:
    """``local``, a named host, ``user@host[:port]`` or a name of ``~/.ssh/config``.

    UnknownName lists the known ones; UsageError for a ``user@host`` that is none. ``Place.name`` resolves to the same place again.
    """
    if name == LOCAL.name:
        return LOCAL
    if name in ctx.settings.hosts:
        return ctx.settings.hosts[name]
    if "@" in name:
        user, host, port = parse_address(name)
        return Place(name, "ssh", host, user, port)
    names = list(_ssh_config_names(ctx))
    if any(_matches(name, patterns) for patterns in names):
        return Place(name, "ssh", name)
    listed = dict.fromkeys([LOCAL.name, *ctx.settings.hosts, *_plain(names)])
    error = UnknownName("place", name, listed)
    raise UnknownName("place", name, listed, hint=f"{error.hint}; any machine with an SSH server works as USER@{name}")


def known(ctx: Context) -> list[Place]:
    """``local``, the named hosts, then the names in ``~/.ssh/config``."""
    named = ctx.settings.hosts
    aliases = (alias for alias in _plain(_ssh_config_names(ctx)) if alias not in named and alias != LOCAL.name)
    return [LOCAL, *named.values(), *(Place(alias, "ssh", alias) for alias in dict.fromkeys(aliases))]


def shares_files(place: Place) -> bool:
    """Whether jobs there can reach this machine's files, so that ignored paths are linked and nothing is sent over a network."""
    return place.kind == LOCAL.kind


def parse_address(text: str) -> tuple[str, str, int]:
    """``[user@]host[:port]`` → user or "", host, port or 0. An IPv6 address with a port is written in brackets."""
    wrong = UsageError(
        f"{text!r} is not a machine: write user@host or user@host:port", hint="an IPv6 address: user@[::1]:22"
    )
    user, at, rest = text.rpartition("@")
    if match := re.fullmatch(r"\[([0-9A-Fa-f:.%\w]+)\](?::(\d{1,5}))?", rest):
        host, port = match[1], int(match[2] or 0)
    elif rest.count(":") > 1:
        host, port = rest, 0
    else:
        host, colon, digits = rest.partition(":")
        if colon and not re.fullmatch(r"[0-9]{1,5}", digits):
            raise wrong
        port = int(digits or 0)
    parts = (user, host) if at else (host,)
    if (
        any(not part or part.startswith("-") or not part.isprintable() or set(part) & set(" []/") for part in parts)
        or port > 65535
    ):
        raise wrong
    return user, host, port


def _plain(names: Iterator[list[str]] | list[list[str]]) -> Iterator[str]:
    return (one for patterns in names for one in patterns if not set(one) & set("*?!"))


def _matches(name: str, patterns: list[str]) -> bool:
    """Whether a Host line speaks of this name by more than ``*``."""
    if any(one.startswith("!") and fnmatchcase(name, one[1:]) for one in patterns):
        return False
    return any(one.strip("*?") and fnmatchcase(name, one) for one in patterns if not one.startswith("!"))


def _ssh_config_names(ctx: Context) -> Iterator[list[str]]:
    """The patterns of every Host line of the user's ssh_config and what it includes."""
    base = Path(ctx.env.get("HOME") or os.path.expanduser("~"), ".ssh")
    return _host_lines(base / "config", base, 0)


def _host_lines(file: Path, base: Path, depth: int) -> Iterator[list[str]]:
    try:
        lines = file.read_text(errors="surrogateescape").splitlines()
    except OSError:  # none, or not ours to read: the same to someone who looks for a name in it
        return
    for line in lines:
        match = re.fullmatch(r"\s*(host|include)(?:\s*=\s*|\s+)(.*?)\s*", line, re.IGNORECASE)
        if not match:
            continue
        words = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', match[2])]
        if match[1].lower() == "host":
            yield words
        elif depth < _MOST_INCLUDES:
            for word in words:
                pattern = os.path.join(base, word.replace("~", str(base.parent), 1) if word.startswith("~/") else word)
                for found in sorted(Path("/").glob(pattern.lstrip("/"))):
                    yield from _host_lines(found, base, depth + 1)
