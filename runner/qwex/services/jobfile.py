"""``qwex submit FILE``: jobs written down, in TOML or YAML. ``runner/docs/jobfile.md`` describes the form."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from qwex.errors import UsageError
from qwex.services.submission import Request

__all__ = ["KEYS", "parse", "read"]


def _scalar(value: object) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError("write a text or a number")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("write a text")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ValueError("write a text or a list of texts")


def _arguments(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value:
        return tuple(_scalar(one) for one in value)
    raise ValueError('write a list of arguments, ["python", "main.py"], or a text for the shell')


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, dict):
        return tuple((_text(name), _scalar(one)) for name, one in value.items())
    raise ValueError("write a table of variables")


KEYS: Mapping[str, Callable[[object], Any]] = {
    "command": _arguments,
    "name": _text,
    "on": _text,
    "cpus": _scalar,
    "mem": _scalar,
    "gpus": _scalar,
    "time": _scalar,
    "priority": _scalar,
    "retries": _scalar,
    "array": _scalar,
    "after": _texts,
    "needs": _texts,
    "env": _pairs,
    "env_files": _texts,
    "secrets": _texts,
    "out": _texts,
    "include": _texts,
}
"""What a job may say, and how it is read. ``defaults`` takes the same but for ``command``, ``name`` and ``needs``."""

_NOT_SHARED = ("command", "name", "needs")


def read(file: Path) -> list[Request]:
    """The requests of a job file, as they stand there. UsageError names file, job and key.

    ``-`` reads YAML (of which JSON is a part) from standard input. Files that a job names are beside the job file.
    """
    try:
        if str(file) == "-":
            with open(0, "rb", closefd=False) as source:
                return parse(source.read(), "standard input", Path.cwd(), yaml=True)
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file}: {(error.strerror or str(error)).lower()}", hint="qwex submit takes a TOML or YAML file"
        ) from error
    return parse(content, str(file), Path(os.path.abspath(file)).parent, yaml=file.suffix.lower() != ".toml")


def parse(content: bytes, source: str, directory: Path, *, yaml: bool) -> list[Request]:
    """The requests in ``content``. ``source`` is its name in messages, ``directory`` where files it names are."""
    data = _load(content, source, yaml)
    if not isinstance(data, dict):
        raise UsageError(f"{source}: a job file is a table", hint='command = ["python", "main.py"]')
    if "jobs" not in data:
        return [_request(source, "", data, {}, directory)]
    for key in data:
        if key not in {"jobs", "defaults"}:
            _unknown(
                source,
                "",
                key,
                ("jobs", "defaults"),
                hint="beside jobs there is only defaults; settings of one job go into it",
            )
    shared = _fields(source, "defaults", data.get("defaults", {}), [key for key in KEYS if key not in _NOT_SHARED])
    requests = [_request(source, title, one, shared, directory) for title, one in _listed(source, data["jobs"])]
    if not requests:
        raise UsageError(f"{source}: jobs is empty")
    return requests


def _listed(source: str, jobs: object) -> Iterable[tuple[str, object]]:
    if isinstance(jobs, list):
        for number, one in enumerate(jobs, 1):
            name = one.get("name") if isinstance(one, dict) else None
            yield (f"job {name!r}" if name else f"job {number}"), one
    elif isinstance(jobs, dict):
        for name, one in jobs.items():
            if isinstance(one, dict) and "name" in one:
                raise UsageError(f"{source}: job {name!r}: its name is said twice", hint="take `name` out")
            yield f"job {name!r}", {"name": name, **one} if isinstance(one, dict) else one
    else:
        raise UsageError(f"{source}: jobs is a list of jobs or a table of jobs by name")


def _request(source: str, title: str, job: object, shared: Mapping[str, Any], directory: Path) -> Request:
    said = _fields(source, title, job, KEYS)
    if "command" not in said:
        raise UsageError(f"{source}: {title or 'the job'} has no command", hint='command = ["python", "main.py"]')
    fields = {**shared, **said, "env": (*shared.get("env", ()), *said.get("env", ()))}
    command = fields.pop("command")
    fields["env_files"] = tuple(directory / one for one in fields.get("env_files", ()))
    return Request(argv=(command,) if isinstance(command, str) else command, shell=isinstance(command, str), **fields)


def _fields(source: str, title: str, table: object, known: Iterable[str]) -> dict[str, Any]:
    where = f"{title}: " if title else ""
    if not isinstance(table, dict):
        raise UsageError(f"{source}: {where}write a table of what it needs")
    values = {}
    for key, value in table.items():
        if key not in known:
            _unknown(source, where, key, tuple(known))
        try:
            values[key] = KEYS[key](value)
        except ValueError as error:
            raise UsageError(f"{source}: {where}{key} cannot be {value!r}: {error}") from error
    return values


def _unknown(source: str, where: str, key: object, known: tuple[str, ...], hint: str = "") -> NoReturn:
    near = get_close_matches(str(key), known, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"{source}: {where}{key!r} is no key", hint=guess + (hint or f"known: {', '.join(known)}"))


def _load(content: bytes, source: str, as_yaml: bool) -> object:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8: byte {error.start} is wrong") from error
    if not as_yaml:
        import tomllib

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{source} is not TOML: {error}") from error
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML in which ``on`` and ``no`` are words, as everywhere but in YAML 1.1, and a key said twice is an error."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise yaml.MarkedYAMLError(problem=f"{key.value!r} is said twice", problem_mark=key.start_mark)
                    seen.add(key.value)
            return dict(super().construct_mapping(node, deep=deep))

    Loader.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|false", re.IGNORECASE), list("tTfF"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
