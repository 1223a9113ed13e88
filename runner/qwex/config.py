"""Settings: where files live, what may be set, and which layer said what.

Layers, each overriding the one before: default, the user's ``config.toml``, the project's ``qwex.toml``, ``QWEX_*`` in the
environment, and the command line (``Settings.overridden``). The table ``SETTINGS`` is the only list of settings:
``config show``, the documentation and the messages about unknown keys are made from it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Never

from qwex.errors import ConfigError, UnknownName
from qwex.model.places import Place
from qwex.model.units import parse_duration, parse_size

__all__ = [
    "HOST_FIELDS",
    "PROJECT_FILE",
    "SETTINGS",
    "Paths",
    "Setting",
    "Settings",
    "check_host",
    "load",
    "parse_gpus",
]

PROJECT_FILE = "qwex.toml"
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GPU_PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*")


class Paths(NamedTuple):
    """The user's directories (XDG, also on macOS). None of them need exist: whoever writes makes them, 0700.

    ``state`` holds runs and their content, ``config`` the user's ``config.toml``, ``cache`` what may be deleted at any time.
    """

    state: Path
    config: Path
    cache: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Paths:
        home = env.get("HOME") or os.path.expanduser("~")

        def base(variable: str, fallback: str) -> Path:
            named = env.get(variable, "")
            # The XDG specification: a relative path is to be ignored.
            return Path(named if os.path.isabs(named) else os.path.join(home, fallback), "qwex")

        return cls(
            state=base("XDG_STATE_HOME", ".local/state"),
            config=base("XDG_CONFIG_HOME", ".config"),
            cache=base("XDG_CACHE_HOME", ".cache"),
        )

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"


# Kinds of value: each reads a TOML value, or the text of an environment variable, and raises ValueError saying what it takes.


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("write a text in quotes")
    return value


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (word := value.strip().lower()) in {
        "1",
        "true",
        "yes",
        "on",
        "0",
        "false",
        "no",
        "off",
        "",
    }:
        return word in {"1", "true", "yes", "on"}
    raise ValueError("write true or false")


def _number(value: object) -> float:
    try:
        if isinstance(value, str) or _is_number(value):
            number = float(str(value))
            if math.isfinite(number) and number > 0:
                return number
    except ValueError:
        pass
    raise ValueError("write a number above 0, such as 2 or 0.5")


def _integer(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,9}", value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9:
        return value
    raise ValueError("write a whole number, such as 10 or -5")


def _count(value: object) -> int:
    try:
        if (number := _integer(value)) >= 0:
            return number
    except ValueError:
        pass
    raise ValueError("write a whole number, 0 or more")


def _size(value: object) -> int:
    if isinstance(value, str) or (_is_number(value) and not isinstance(value, float)):
        return parse_size(str(value))
    raise ValueError('write a size: "512M", "4G", "1.5GiB" or a number of bytes')


def _duration(value: object) -> float:
    if isinstance(value, str) or _is_number(value):
        return parse_duration(str(value))
    raise ValueError('write a duration: "90s", "30m", "1h30m", "2d", "1:30:00" or a number of seconds')


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(word for part in value.split(",") if (word := part.strip()))
    if isinstance(value, list) and all(isinstance(one, str) and "\0" not in one for one in value):
        return tuple(value)
    raise ValueError('write a list of texts, such as ["data/", "*.csv"]')


def _names(value: object) -> tuple[str, ...]:
    words = _words(value)
    if all(_VARIABLE.fullmatch(word) for word in words):
        return words
    raise ValueError('write a list of variable names, such as ["WANDB_API_KEY"]')


def _table(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, dict):
        pairs = []
        for name, one in value.items():
            if not _VARIABLE.fullmatch(name) or not (isinstance(one, str) or _is_number(one)) or "\0" in str(one):
                break
            pairs.append((name, str(one)))
        else:
            return tuple(pairs)
    raise ValueError('write a table of variables, such as { SEED = "1" }')


def parse_gpus(value: object) -> tuple[int, str]:
    """``2`` → (2, ""), ``"a100"`` → (1, "a100"), ``"a100:2"`` → (2, "a100"). ValueError with the forms it takes."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10_000:
        return value, ""
    if isinstance(value, str):
        product, colon, count = value.strip().rpartition(":")
        if not colon and count and not count.isdigit():
            product, count = count, "1"
        if re.fullmatch(r"[0-9]{1,4}", count) and (not (colon or product) or _GPU_PRODUCT.fullmatch(product)):
            return int(count), product
    raise ValueError('write a number of GPUs or a product: 1, "a100" or "a100:2"')


def _directory(value: object) -> str:
    """A directory of results: below the project, or anywhere when absolute."""
    text = _text(value)
    if text in {"", ".", "/"} or ".." in text.split("/"):
        raise ValueError("write the name of a directory in the project, or an absolute path")
    return text


def _interrupt(value: object) -> str:
    if value in ("detach", "cancel"):
        return str(value)
    raise ValueError('write "detach" or "cancel"')


class Setting(NamedTuple):
    """One thing that can be set. ``read`` turns a TOML value or a text into the value ``Settings.get`` gives.

    ``kind`` is a word for people. ``default`` is already in that form; None means that Qwex finds it out.
    ``env`` names its variable, None where the environment cannot set it.
    """

    name: str
    kind: str
    default: Any
    doc: str
    read: Callable[[object], Any] = field(repr=False)
    env: str | None = None

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]


def _setting(
    name: str, kind: str, default: Any, read: Callable[[object], Any], doc: str, env: str | None = ""
) -> Setting:
    variable = "QWEX_" + name.upper().replace(".", "_") if env == "" else env
    return Setting(name, kind, default, doc, read, variable)


SETTINGS: tuple[Setting, ...] = (
    _setting(
        "run.on",
        "place",
        "local",
        _text,
        "Where to run: local, user@host[:port], an ssh_config name, a named host.",
        "QWEX_ON",
    ),
    _setting("run.cpus", "number", 1.0, _number, "CPUs for one task; may be a fraction."),
    _setting("run.mem", "size", 0, _size, "Memory for one task; 0: not said."),
    _setting("run.gpus", "gpus", (0, ""), parse_gpus, 'GPUs for one task: a number, "a100" or "a100:2".'),
    _setting("run.time", "duration", 0.0, _duration, "Longest time an attempt may run; 0: no limit."),
    _setting("run.priority", "integer", 0, _integer, "Higher runs first."),
    _setting("run.retries", "count", 0, _count, "Attempts after the first one failed."),
    _setting("run.env", "table", (), _table, "Variables every job gets.", None),
    _setting(
        "run.secrets",
        "names",
        (),
        _names,
        "Variables taken from the environment as secrets: never stored, never shown.",
    ),
    _setting("run.shell", "switch", False, _switch, "Run the command through /bin/sh."),
    _setting(
        "run.out", "list", (), _words, "Which files are results (patterns as in .gitignore); none: all that changed."
    ),
    _setting(
        "run.on_interrupt", "detach|cancel", "detach", _interrupt, "What the first Ctrl-C does to an attached run."
    ),
    _setting(
        "workspace.include", "list", (), _words, "Ignored paths to send nevertheless (patterns as in .gitignore)."
    ),
    _setting("workspace.large", "size", 100 * 1024**2, _size, "Above this Qwex says what is large and shows progress."),
    _setting(
        "results.directory", "directory", "qwex-runs", _directory, "Where results come home to, under the project."
    ),
    _setting("results.limit", "size", 1024**3, _size, "Larger results wait until `qwex pull` fetches them."),
    _setting("results.sync_back", "switch", False, _switch, "Put results into the working tree as well."),
    _setting("local.cpus", "number", None, _number, "CPUs local runs may use together. Unset: those of this machine."),
    _setting("local.mem", "size", None, _size, "Memory local runs may use together. Unset: that of this machine."),
    _setting("local.gpus", "count", None, _count, "GPUs local runs may use together. Unset: those of this machine."),
    _setting("local.idle", "duration", 60.0, _duration, "Time after which an idle local worker leaves."),
    _setting("local.keep_days", "number", 30.0, _number, "Days logs and results of ended local runs are kept."),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_SECTIONS = tuple(dict.fromkeys(setting.section for setting in SETTINGS))


def _port(value: object) -> int:
    if (port := _count(value)) > 65535:
        raise ValueError("write a port between 1 and 65535")
    return port


def _address(value: object) -> str:
    text = _text(value)
    if not text or text.startswith("-") or any(sign.isspace() for sign in text) or not text.isprintable():
        raise ValueError("write a name or an address, without spaces and not starting with a dash")
    return text


def _remote_directory(value: object) -> str:
    text = _text(value)
    if not text.strip("./") or text.startswith(("~", "-")) or ".." in text.split("/") or "\n" in text:
        raise ValueError(
            'write a directory of its own, absolute or relative to the home directory there, such as ".qwex"'
        )
    return text.rstrip("/")


HOST_FIELDS: Mapping[str, tuple[Callable[[object], Any], str]] = {
    "host": (_address, "Address or ssh_config name; unset: the name of the table."),
    "user": (_address, "Account there; unset: what ssh_config says, or yours."),
    "port": (_port, "Port; unset: what ssh_config says, or 22."),
    "slots": (_count, "How many tasks run there at a time; 0: as many as it has CPUs."),
    "directory": (
        _remote_directory,
        'Where Qwex keeps its files, absolute or relative to the home directory there; ".qwex".',
    ),
    "login_shell": (_switch, "Start jobs from a login shell, so that its profile is read."),
    "env": (_table, "Variables every job gets there."),
}
"""Fields of a ``[hosts.NAME]`` table: how each is read, and what it is."""


def check_host(name: str, fields: Mapping[str, object], where: str) -> Place:
    """The place of a ``[hosts.NAME]`` table of the file ``where``. ConfigError names file and key."""
    if not _HOST_NAME.fullmatch(name) or name == "local":
        _fail(where, f"hosts.{name}", "names of hosts are letters, digits, dots and dashes, and not 'local'")
    values: dict[str, Any] = {}
    for key, value in fields.items():
        if key not in HOST_FIELDS:
            _unknown(where, f"hosts.{name}.{key}", (f"hosts.{name}.{one}" for one in HOST_FIELDS))
        try:
            values[key] = HOST_FIELDS[key][0](value)
        except ValueError as error:
            _fail(where, f"hosts.{name}.{key}", str(error), value)
    return Place(**{"name": name, "kind": "ssh", "host": name, **values})


def _fail(where: str, key: str, allowed: str, value: object = None) -> Never:
    given = "" if value is None else f" {value!r}"
    raise ConfigError(f"{where}: {key} cannot be{given}: {allowed}" if given else f"{where}: {key}: {allowed}")


def _unknown(where: str, key: str, known: Iterable[str]) -> Never:
    error = UnknownName("setting", key, known)
    raise ConfigError(f"{where}: {error.message}", hint=error.hint)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set, for one directory. ``root`` is the project: the nearest directory at or above with a ``qwex.toml``.

    ``hosts`` are the named places of both files. ``files`` are those that were read.
    """

    root: Path
    hosts: Mapping[str, Place] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    _values: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    _host_sources: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """The value: sizes in bytes (int), durations in seconds (float), lists as tuples, tables as pairs, gpus as (count, product)."""
        return self._values[name][0] if name in self._values else _BY_NAME[name].default

    def source(self, name: str) -> str:
        """Which layer said it: ``default``, a file, ``environment QWEX_X`` or ``command line``. Hosts as ``hosts.NAME``."""
        if name.startswith("hosts."):
            return self._host_sources[name.removeprefix("hosts.")]
        return self._values[name][1] if name in self._values else "default"

    def overridden(self, values: Mapping[str, object], source: str = "command line") -> Settings:
        """These settings under one more layer of raw values (``{"run.cpus": "2"}``). ConfigError for a wrong one."""
        merged = dict(self._values)
        for name, value in values.items():
            merged[name] = (_read(name, value, source), source)
        return Settings(self.root, self.hosts, self.files, merged, self._host_sources)


def _read(name: str, value: object, where: str) -> Any:
    if name not in _BY_NAME:
        _unknown(where, name, (*_BY_NAME, "hosts.NAME"))
    try:
        return _BY_NAME[name].read(value)
    except ValueError as error:
        _fail(where, name, str(error), value)


def _parse(file: Path) -> Mapping[str, Any] | None:
    """The file's content, or None when there is none."""
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", hint="make it readable, or move it away"
        ) from error
    import tomllib

    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8: byte {error.start} is wrong") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}", hint="see https://toml.io; texts need quotes") from error


def _flat(data: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Place]]:
    """Checked values by dotted name, and hosts."""
    values: dict[str, Any] = {}
    hosts: dict[str, Place] = {}
    for section, content in data.items():
        if section not in _SECTIONS and section != "hosts":
            _unknown(where, section, (*_SECTIONS, "hosts"))
        if not isinstance(content, dict):
            _fail(where, section, f"write a table: [{section}]", content)
        for key, value in content.items():
            if section != "hosts":
                values[f"{section}.{key}"] = _read(f"{section}.{key}", value, where)
            elif isinstance(value, dict):
                hosts[key] = check_host(key, value, where)
            else:
                _fail(where, f"hosts.{key}", f"write a table: [hosts.{key}]", value)
    return values, hosts


def _project_file(directory: Path) -> Path | None:
    """The nearest ``qwex.toml``. One above that belongs to a stranger is passed over, as git does: it decides what is sent where."""
    for place in (directory, *directory.parents):
        try:
            owner = os.stat(place / PROJECT_FILE).st_uid
            if place == directory or owner in {0, os.geteuid(), os.stat(directory).st_uid}:
                return place / PROJECT_FILE
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
    return None


def load(directory: Path, env: Mapping[str, str] = os.environ) -> Settings:
    """The settings in ``directory``. ConfigError names the file, the key and what is allowed there."""
    start = Path(os.path.abspath(directory))
    project = _project_file(start)
    values: dict[str, tuple[Any, str]] = {}
    hosts: dict[str, Place] = {}
    host_sources: dict[str, str] = {}
    files = []
    for file in (Paths.from_environment(env).config_file, project):
        data = _parse(file) if file else None
        if file is None or data is None:
            continue
        files.append(file)
        read, named = _flat(data, str(file))
        values.update((name, (value, str(file))) for name, value in read.items())
        hosts.update(named)
        host_sources.update(dict.fromkeys(named, str(file)))
    for setting in SETTINGS:
        if setting.env and env.get(setting.env):
            where = f"environment {setting.env}"
            values[setting.name] = (_read(setting.name, env[setting.env], where), where)
    return Settings(project.parent if project else start, hosts, tuple(files), values, host_sources)
