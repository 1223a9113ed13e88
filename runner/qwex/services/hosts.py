"""Named hosts in the user's ``config.toml``."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwex.backends.base import CanPurge
from qwex.config import check_host
from qwex.errors import ConfigError, PlaceError, QwexError, UnknownName, UsageError
from qwex.model.units import duration_text, size_text
from qwex.services.places import parse_address, resolve
from qwex.services.settingsfile import edit, parsed, proven

if TYPE_CHECKING:
    from qwex.backends.ssh.upkeep import HostFacts
    from qwex.model.places import Capabilities, Place
    from qwex.services.context import Context

__all__ = ["HostCheck", "add", "check", "concerns", "list_hosts", "remove", "with_host", "without_host"]

_PATIENCE = 20.0
_TIGHT = 1 << 30
_SKEW = 30.0


@dataclass(frozen=True, slots=True)
class HostCheck:
    """``problem`` and ``remedy`` are "" when it answered, after ``seconds``. ``concerns`` are what will be trouble there."""

    place: Place
    seconds: float
    capabilities: Capabilities | None
    problem: str = ""
    remedy: str = ""
    concerns: tuple[str, ...] = ()


async def add(
    ctx: Context, name: str, target: str, fields: Mapping[str, object] | None = None, *, probe: bool = True
) -> HostCheck:
    """Record ``[hosts.NAME]`` for ``target`` (``[user@]host[:port]``) once it answered (the key is shown and confirmed on first contact).

    ``fields`` are more keys of ``config.HOST_FIELDS``. UsageError when the name is taken; the PlaceError of a host that does not answer.
    """
    if name in ctx.settings.hosts:
        raise UsageError(
            f"a host is called {name!r} already, in {ctx.settings.source(f'hosts.{name}')}",
            hint=f"`qwex host remove {name}` first, or edit it there",
        )
    user, host, port = parse_address(target)
    wanted = {"host": host, "user": user, "port": port, **(fields or {})}
    values = {key: value for key, value in wanted.items() if value not in ("", 0, None)}
    try:
        place = check_host(name, values, "qwex host add")
    except ConfigError as error:
        raise UsageError(error.message, hint=error.hint) from error
    result = await _probe(ctx, place) if probe else HostCheck(place, 0.0, None)
    edit(ctx, ctx.paths.config_file, lambda text: with_host(text, name, values))
    return result


def list_hosts(ctx: Context) -> list[tuple[Place, str]]:
    """Named hosts and the file that names each."""
    return [(place, ctx.settings.source(f"hosts.{name}")) for name, place in ctx.settings.hosts.items()]


async def check(ctx: Context, names: Sequence[str] = ()) -> list[HostCheck]:
    """Connect to these, or to all named hosts, at once."""
    places = [resolve(ctx, name) for name in names] or list(ctx.settings.hosts.values())
    return list(await asyncio.gather(*(_check(ctx, place) for place in places)))


async def _check(ctx: Context, place: Place) -> HostCheck:
    started = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _probe(ctx, place)
    except TimeoutError:
        return HostCheck(
            place, _PATIENCE, None, f"{place.name} did not answer within {_PATIENCE:g} s", "is it switched on?"
        )
    except QwexError as error:
        return HostCheck(place, time.monotonic() - started, None, error.message, error.hint or "")


async def _probe(ctx: Context, place: Place) -> HostCheck:
    from qwex.backends.ssh import SSHBackend
    from qwex.backends.ssh import check as facts_of

    started = time.monotonic()
    backend = await ctx.backend(place)
    capabilities = await backend.capabilities()
    facts = await facts_of(backend) if isinstance(backend, SSHBackend) else None
    return HostCheck(place, time.monotonic() - started, capabilities, concerns=concerns(facts) if facts else ())


def concerns(facts: HostFacts) -> tuple[str, ...]:
    """Sentences about what will be trouble at a host that answers."""
    found = []
    if not facts.writable:
        found.append(f"{facts.directory} there cannot be written")
    if facts.free_disk is not None and facts.free_disk < _TIGHT:
        found.append(f"its disk has {size_text(facts.free_disk)} left")
    if abs(facts.skew) > _SKEW:
        found.append(f"its clock is {duration_text(abs(facts.skew))} {'ahead' if facts.skew > 0 else 'behind'}")
    return tuple(found)


async def remove(ctx: Context, name: str, *, purge: bool = False) -> None:
    """Take the host out of ``config.toml``. ``purge``: delete Qwex's directory there first.

    UnknownName lists the named hosts. Asks when runs still go on there, UsageError when nobody agrees.
    """
    if name not in ctx.settings.hosts:
        raise UnknownName("host", name, ctx.settings.hosts)
    source = ctx.settings.source(f"hosts.{name}")
    if source != str(ctx.paths.config_file):
        raise ConfigError(
            f"{name!r} is named in {source}, which is not Qwex's to edit", hint=f"take [hosts.{name}] out there"
        )
    place = ctx.settings.hosts[name]
    if active := ctx.store.active(name):
        which = ", ".join(run.id for run in active[:5])
        text = f"{len(active)} runs go on at {name} ({which})"
        if not ctx.reporter.confirm(f"{text}. Remove it nevertheless?"):
            raise UsageError(f"{text}, and could not be followed any more", hint="cancel them, or wait for them")
    if purge:
        backend = await ctx.backend(place)
        if not isinstance(backend, CanPurge):
            raise PlaceError(f"nothing of Qwex can be deleted at {name}")
        await backend.purge()
    edit(ctx, ctx.paths.config_file, lambda text: without_host(text, name))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: object) -> str:
    """As TOML. JSON's strings, numbers and booleans are TOML too."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def with_host(text: str, name: str, fields: Mapping[str, object]) -> str:
    """``text`` with a table ``[hosts.NAME]`` at its end."""
    lines = [f"[hosts.{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in fields.items())]
    body = text if not text or text.endswith("\n") else text + "\n"
    changed = body + ("\n" if body else "") + "\n".join(lines) + "\n"
    expected = parsed(text)
    expected.setdefault("hosts", {})[name] = dict(fields)
    return proven(changed, expected, f"[hosts.{name}]")


def without_host(text: str, name: str) -> str:
    """``text`` without the tables ``[hosts.NAME]`` and ``[hosts.NAME.…]``. Comments before the next table stay.

    ConfigError when it is written in a way that cannot be cut out safely.
    """
    own = re.compile(rf"""\s*\[\s*hosts\s*\.\s*(["']?){re.escape(name)}\1\s*(\.[^\]]*)?\]\s*(#.*)?""")
    kept: list[str] = []
    inside = False
    held: list[str] = []  # blank lines and comments inside: they belong to what follows, if that is another table
    for line in text.splitlines(keepends=True):
        if own.fullmatch(line.rstrip("\r\n")):
            inside, held = True, []
        elif inside and line.lstrip().startswith("["):
            inside = False
            kept += [*held, line]
        elif not inside:
            kept.append(line)
        elif not line.strip() or line.lstrip().startswith("#"):
            held.append(line)
        else:
            held = []
    if inside:
        kept += [line for line in held if line.strip()]
    expected = parsed(text)
    expected["hosts"].pop(name)
    return proven("".join(kept), expected, f"[hosts.{name}]")
