"""What is asked for: a command, what it needs and what it waits for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

__all__ = ["ArrayRange", "Condition", "Dependency", "JobSpec", "Resources", "StdinMode", "parse_array"]


class Condition(StrEnum):
    """When a dependency lets its dependant go: after it succeeded, after it failed, or after any end."""

    OK = "ok"
    FAIL = "fail"
    ANY = "any"


class StdinMode(StrEnum):
    NONE = "none"  # /dev/null
    FILE = "file"  # spooled whole at submission: survives a detached client and is read anew by every attempt
    LIVE = "live"  # fed by the attached client while the job runs; ends when the client goes


class Dependency(NamedTuple):
    run_id: str
    condition: Condition = Condition.OK


class Resources(NamedTuple):
    """What one task is given. ``mem`` in bytes; 0 means: not said. ``cpus`` may be a fraction."""

    cpus: float = 1.0
    mem: int = 0
    gpus: int = 0
    gpu_product: str = ""


class ArrayRange(NamedTuple):
    """``--array 0-99%10``: the indexes, each once and ascending, and how many may run at a time (0: no limit)."""

    indexes: tuple[int, ...]
    limit: int = 0

    def __str__(self) -> str:
        spans: list[list[int]] = []
        for index in self.indexes:
            if spans and spans[-1][1] == index - 1:
                spans[-1][1] = index
            else:
                spans.append([index, index])
        text = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
        return f"{text}%{self.limit}" if self.limit else text


_SPAN = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?", re.ASCII)
_MOST_TASKS = 100_000


def parse_array(text: str) -> ArrayRange:
    """``0-99``, ``0-99%10``, ``1,5,9-12``, ``0-100:10`` (in tens). ValueError with the forms it takes."""
    body, percent, limit = text.strip().partition("%")
    wrong = ValueError(f"{text!r} is not an array: write 0-99, 0-99%10, 1,5,9-12 or 0-100:10")
    if percent and (not limit.isascii() or not limit.isdigit() or int(limit) < 1):
        raise wrong
    indexes: set[int] = set()
    for part in body.split(","):
        match = _SPAN.fullmatch(part.strip())
        if not match:
            raise wrong
        low, high, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if high < low or step < 1:
            raise wrong
        if (high - low) // step >= _MOST_TASKS:
            raise ValueError(f"{text!r} asks for more than {_MOST_TASKS:,} tasks in one array")
        indexes.update(range(low, high + 1, step))
    return ArrayRange(tuple(sorted(indexes)), int(limit or 0))


class JobSpec(NamedTuple):
    """One run as asked for. Immutable, and JSON both ways (``to_json``, ``from_json``) for stores and other machines.

    ``argv``      the command, argument by argument; bytes that are no UTF-8 are kept by surrogateescape.
                  With ``shell`` it is one element: a script for ``/bin/sh -c``.
    ``cwd``       where in the workspace it runs, relative, ``.`` for its root.
    ``time_limit`` seconds an attempt may run, 0 for none; then TERM, and KILL after ``grace`` seconds.
    ``retries``   attempts after the first. Never after a cancellation.
    ``secrets``   names only. Values travel beside the spec and are written to no record.
    ``snapshot``  digest of the workspace's tree, "" for an empty one.
    ``root``      the directory it was taken from, on the submitting machine.
    ``out``       gitignore-style patterns: which files are results; none: every file created or changed.
    """

    argv: tuple[str, ...]
    shell: bool = False
    cwd: str = "."
    name: str = ""
    resources: Resources = Resources()
    time_limit: float = 0
    grace: float = 10
    priority: int = 0
    retries: int = 0
    array: ArrayRange | None = None
    after: tuple[Dependency, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    stdin: StdinMode = StdinMode.NONE
    snapshot: str = ""
    root: str = ""
    out: tuple[str, ...] = ()

    @property
    def indexes(self) -> tuple[int, ...]:
        """The tasks of this run: the array's indexes, or 0."""
        return self.array.indexes if self.array else (0,)

    def replace(self, **changes: Any) -> JobSpec:
        return self._replace(**changes)

    def to_json(self) -> dict[str, Any]:
        return {
            **self._asdict(),
            "resources": self.resources._asdict(),
            "array": self.array and self.array._asdict(),
            "after": [one._asdict() for one in self.after],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobSpec:
        known = dict(data)
        array = known["array"]
        return cls(
            **{
                **known,
                "argv": tuple(known["argv"]),
                "resources": Resources(**known["resources"]),
                "array": ArrayRange(tuple(array["indexes"]), array["limit"]) if array else None,
                "after": tuple(Dependency(one["run_id"], Condition(one["condition"])) for one in known["after"]),
                "env": tuple((name, value) for name, value in known["env"]),
                "secrets": tuple(known["secrets"]),
                "stdin": StdinMode(known["stdin"]),
                "out": tuple(known["out"]),
            }
        )
