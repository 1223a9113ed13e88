"""What a provider is, apart from the wire: requests in Python values, answers in Python values, errors as exceptions."""

import re
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from threading import Event
from typing import Literal, Protocol

from tests.lab.providers.wire import Tree

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Refused(Exception):
    """The operation failed and nothing came of it; the text is for the user."""


class InitFailed(Exception):
    """The object exists now but is not what was asked for: the engine keeps `state`, and shows `reasons`."""

    def __init__(
        self, message: str, identity: str, state: Tree, reasons: list[str], inputs: Tree | None = None
    ) -> None:
        super().__init__(message)
        self.identity = identity
        self.state = state
        self.reasons = reasons
        self.inputs = inputs


class Change(Enum):
    """How one property differs; the names are those of the protocol's PropertyDiff."""

    ADD = "ADD"
    DELETE = "DELETE"
    UPDATE = "UPDATE"


@dataclass(frozen=True)
class PropertyChange:
    """One property's difference, and whether it takes a new object to make it."""

    change: Change
    replaces: bool = False


@dataclass(frozen=True)
class Diff:
    """What would change, by property path; `delete_first` when the new object would take the old one's name."""

    properties: dict[str, PropertyChange] = field(default_factory=dict)
    delete_first: bool = False

    @property
    def replaces(self) -> list[str]:
        """The properties because of which the object is replaced."""
        return [path for path, change in self.properties.items() if change.replaces]


@dataclass(frozen=True)
class Failure:
    """An input that cannot be, with its property (empty: the object as a whole)."""

    property: str
    reason: str


@dataclass(frozen=True)
class Urn:
    """`urn:pulumi:STACK::PROJECT::PARENTS$TYPE::NAME`, taken apart."""

    text: str

    @property
    def type(self) -> str:
        """The resource's own type token, without its parents'."""
        return self.text.split("::")[2].rsplit("$", 1)[-1]

    @property
    def name(self) -> str:
        """The logical name in the program; it may hold `::` itself."""
        return self.text.split("::", 3)[3]


@dataclass(frozen=True)
class Naming:
    """How to name what the program leaves unnamed: the engine's seed and its own proposal."""

    seed: bytes = b""
    proposal: str = ""
    disabled: bool = False


class Log(Protocol):
    """Messages to the engine: lasting lines under the resource, or its passing status."""

    def __call__(self, severity: Severity, message: str, urn: str = "", passing: bool = False) -> None: ...


class Provider(ABC):
    """One configured provider: the engine makes one for each provider resource of a stack and each run.

    Every method may raise Refused, those that make or change an object also InitFailed.
    `cancelled` is set once, when the engine gives up: waits end then, with an error.
    """

    package: str
    version: str

    def __init__(self, log: Log) -> None:
        self.log = log
        self.cancelled = Event()

    def cancel(self) -> None:
        """Ends every wait of this provider."""
        self.cancelled.set()

    def check_config(self, news: Tree) -> list[Failure]:
        """Faults of the provider's own inputs."""
        return []

    def diff_config(self, olds: Tree, news: Tree) -> Diff:
        """What differs between two configurations of the provider."""
        changed = [key for key in sorted({*olds, *news}) if olds.get(key) != news.get(key)]
        return Diff({key: PropertyChange(Change.UPDATE) for key in changed})

    @abstractmethod
    def configure(self, variables: dict[str, str]) -> None:
        """Takes the configuration, `PACKAGE:config:KEY` to text; called before any of the following."""

    @abstractmethod
    def check(self, urn: Urn, olds: Tree, news: Tree, naming: Naming) -> tuple[Tree, list[Failure]]:
        """The inputs as they will be used (names and defaults filled in), and what is wrong with them."""

    @abstractmethod
    def diff(self, urn: Urn, state: Tree, news: Tree, ignore: list[str]) -> Diff:
        """What separates the recorded state from checked inputs."""

    @abstractmethod
    def create(self, urn: Urn, inputs: Tree, timeout: float, preview: bool) -> tuple[str, Tree]:
        """Makes the object: its id and its state. A preview makes nothing, and its id is empty."""

    @abstractmethod
    def read(self, urn: Urn, identity: str, inputs: Tree, state: Tree) -> tuple[Tree, Tree] | None:
        """The inputs and state that the object has now, or None when it is gone."""

    @abstractmethod
    def update(
        self, urn: Urn, identity: str, state: Tree, news: Tree, ignore: list[str], timeout: float, preview: bool
    ) -> Tree:
        """Changes the object: its new state. A preview changes nothing."""

    @abstractmethod
    def delete(self, urn: Urn, identity: str, state: Tree, timeout: float) -> None:
        """Removes the object and returns once it is gone; what is gone already is a success."""

    @abstractmethod
    def invoke(self, token: str, args: Tree) -> tuple[Tree, list[Failure]]:
        """The result of one of the provider's functions."""

    def construct(self, token: str) -> str:
        """Why a component of this type cannot be made here: the stand-ins have none."""
        return f"{token} runs inside the plugin, and pulumi-resource-{self.package} is stood in for here: not supported"


def unique(prefix: str, seed: bytes = b"") -> str:
    """`prefix` and eight hexadecimal digits: those of the seed, so that a preview and its update agree, else random."""
    return prefix + (seed[:4].hex() if len(seed) >= 4 else secrets.token_hex(4))


def path_text(path: tuple[str | int, ...]) -> str:
    """A property path as the engine writes it: `spec.ports[0].port`, `metadata.labels["app.kubernetes.io/name"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif any(mark in part for mark in '."[]'):
            quoted = part.replace('"', '\\"')
            text += f'["{quoted}"]'
        else:
            text += f".{part}" if text else part
    return text


_STEP = re.compile(r'\.?([^.\["\]]+)|\[(\d+|\*)\]|\["((?:[^"\\]|\\.)*)"\]')


def parse_path(text: str) -> tuple[str | int, ...]:
    """The parts of a property path; `[*]` is the part `*`. Raises Refused on anything else."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        step = _STEP.match(text, at)
        if not step:
            raise Refused(f"cannot read the property path {text!r} at character {at + 1}")
        name, index, quoted = step.groups()
        if index is not None:
            parts.append(index if index == "*" else int(index))
        else:
            parts.append(name if name is not None else quoted.replace('\\"', '"'))
        at = step.end()
    return tuple(parts)


def covers(pattern: tuple[str | int, ...], path: tuple[str | int, ...]) -> bool:
    """Does `path` lie at or under `pattern`?"""
    return len(pattern) <= len(path) and all(want in ("*", have) for want, have in zip(pattern, path, strict=False))
