"""What options mean: from the words of a Request to a JobSpec. Every error names the option as it was typed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from qwex.config import SETTINGS
from qwex.errors import UsageError
from qwex.model.jobs import ArrayRange, Condition, Dependency, JobSpec, Resources, parse_array

if TYPE_CHECKING:
    from qwex.model.places import Place
    from qwex.services.context import Context
    from qwex.services.submission import Request

__all__ = ["Wanted", "parse_after", "read_env_file", "read_request"]

_T = TypeVar("_T")
_READ = {setting.name: setting.read for setting in SETTINGS}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_TASKS = 100_000
_LONGEST_NAME = 100


class Wanted(NamedTuple):
    """A request, understood. ``needs``: names of other requests of the call, with their conditions. ``secrets``: the values."""

    spec: JobSpec
    needs: tuple[tuple[str, Condition], ...]
    secrets: dict[str, str]


def read_request(ctx: Context, request: Request, place: Place) -> Wanted:
    """Options over settings. The spec has no snapshot, stdin and needs yet. UsageError names the option that is wrong."""
    if not request.argv or not any(request.argv):
        raise UsageError("no command was given", hint="write it after the options: qwex batch python main.py")
    if any("\0" in one for one in request.argv):
        raise UsageError("the command holds a NUL character, which no program can be given")
    shell = ctx.settings.get("run.shell") if request.shell is None else request.shell
    gpus, product = _option(ctx, "gpus", request.gpus)
    secrets = _secrets(ctx, request)
    return Wanted(
        spec=JobSpec(
            argv=(" ".join(request.argv),) if shell else request.argv,
            shell=shell,
            cwd=os.path.relpath(ctx.directory, ctx.settings.root),
            name=_name(request.name or ""),
            resources=Resources(_option(ctx, "cpus", request.cpus), _option(ctx, "mem", request.mem), gpus, product),
            time_limit=_option(ctx, "time", request.time),
            priority=_option(ctx, "priority", request.priority),
            retries=_retries(_option(ctx, "retries", request.retries)),
            array=None if request.array is None else _said("--array", request.array, _array),
            after=tuple(_dependency(ctx, text, place) for text in request.after),
            env=_variables(ctx, request, secrets),
            secrets=tuple(sorted(secrets)),
            root=str(ctx.settings.root),
            out=ctx.settings.get("run.out") if request.out is None else request.out,
        ),
        needs=tuple(parse_after("needs", text) for text in request.needs),
        secrets=secrets,
    )


def _said(option: str, text: str, read: Callable[[str], _T]) -> _T:
    try:
        return read(text)
    except ValueError as error:
        reason = str(error)
        raise UsageError(f"{option}: {reason}" if repr(text) in reason else f"{option} {text!r}: {reason}") from error


def _option(ctx: Context, name: str, text: str | None) -> Any:
    """What was typed for ``--name``, or the setting ``run.name``."""
    return ctx.settings.get(f"run.{name}") if text is None else _said(f"--{name}", text, _READ[f"run.{name}"])


def _name(text: str) -> str:
    if len(text) > _LONGEST_NAME or not text.isprintable():
        raise UsageError(f"--name {text[:40]!r}: names are at most {_LONGEST_NAME} printable characters")
    return text


def _retries(count: int) -> int:
    if count > 1000:
        raise UsageError(f"--retries {count}: more than 1,000 is not retrying")
    return count


def _array(text: str) -> ArrayRange:
    array = parse_array(text)
    if len(array.indexes) > _MOST_TASKS:
        raise ValueError(f"{text!r} asks for {len(array.indexes):,} tasks, and one array has at most {_MOST_TASKS:,}")
    return array


def parse_after(option: str, text: str) -> tuple[str, Condition]:
    """``NAME[:ok|fail|any]``."""
    name, colon, word = text.rpartition(":")
    if not colon:
        return text, Condition.OK
    if word not in set(Condition) or not name:
        raise UsageError(f"{option} {text!r}: after the colon comes ok, fail or any")
    return name, Condition(word)


def _dependency(ctx: Context, text: str, place: Place) -> Dependency:
    ref, condition = parse_after("--after", text)
    run_id, task = ctx.store.resolve(ref)
    if task is not None:
        raise UsageError(
            f"--after {text!r}: a run waits for whole runs, not for one element", hint=f"write --after {run_id}"
        )
    run = ctx.store.get(run_id)
    if run.place != place.name:
        raise UsageError(
            f"--after {text!r}: run {run.id} is on {run.place} and this one goes to {place.name}",
            hint=f"a run can wait for runs of its own place: add --on {run.place}",
        )
    return Dependency(run.id, condition)


def _pair(option: str, name: str, value: str) -> tuple[str, str]:
    if not _VARIABLE.fullmatch(name):
        raise UsageError(
            f"{option} {name!r}: no name of a variable",
            hint="names are letters, digits and _, and do not start with a digit",
        )
    if "\0" in value:
        raise UsageError(f"{option} {name}: the value holds a NUL character")
    return name, value


def _variables(ctx: Context, request: Request, secrets: dict[str, str]) -> tuple[tuple[str, str], ...]:
    merged: dict[str, str] = dict(ctx.settings.get("run.env"))
    for file in request.env_files:
        merged.update(read_env_file(ctx.directory / file))
    merged.update(_pair("--env", name, value) for name, value in request.env)
    return tuple((name, value) for name, value in merged.items() if name not in secrets)


def _secrets(ctx: Context, request: Request) -> dict[str, str]:
    values = {}
    for given in (*ctx.settings.get("run.secrets"), *request.secrets):
        name, equals, value = given.partition("=")
        if not equals:
            if name not in ctx.env:
                raise UsageError(
                    f"the secret {name!r} is not in the environment",
                    hint=f"export {name}=…, or read it in: {name}=$(cat FILE) qwex …",
                )
            value = ctx.env[name]
        _pair("--secret", name, "\0" if "\0" in value else "")
        values[name] = value
    return values


_QUOTED = re.compile(r"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)" """.strip(), re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_env_file(file: Path) -> dict[str, str]:
    r"""Lines ``NAME=VALUE``, with or without ``export``; empty lines and lines from ``#`` on are passed over.

    ``'…'`` is taken as it stands, ``"…"`` with ``\n``, ``\t``, ``\"`` and ``\\``; both may span lines.
    Without quotes the value ends before `` #``. Nothing is expanded. UsageError names file and line.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"--env-file {file}: {(error.strerror or str(error)).lower()}") from error
    values: dict[str, str] = {}
    at = 0
    while at < len(text):
        number = text.count("\n", 0, at) + 1
        end = text.find("\n", at) + 1 or len(text)
        line = text[at:end].strip()
        if not line or line.startswith("#"):
            at = end
            continue
        match = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*").match(text, at)
        if not match:
            raise UsageError(f"{file}, line {number}: {line[:40]!r} is not NAME=VALUE")
        start = match.end()
        if text[start : start + 1] in {"'", '"'}:
            quoted = _QUOTED.match(text, start)
            end = 0 if quoted is None else text.find("\n", quoted.end()) + 1 or len(text)
            rest = "" if quoted is None else text[quoted.end() : end].strip()
            if quoted is None or (rest and not rest.startswith("#")):
                raise UsageError(f"{file}, line {number}: the quotes of {match[1]} do not close")
            single, double = quoted["single"], quoted["double"]
            value = (
                single
                if single is not None
                else re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), double, flags=re.DOTALL)
            )
        else:
            value = re.split(r"(?:^|\s)#", text[start:end].rstrip("\r\n"), maxsplit=1)[0].strip()
        if "\0" in value:
            raise UsageError(f"{file}, line {number}: {match[1]} holds a NUL character")
        values[match[1]] = value
        at = end
    return values
