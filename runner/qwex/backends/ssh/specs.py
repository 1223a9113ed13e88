"""A run as files the far side's shell can read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from qwex.backends.base import Submission
from qwex.errors import UsageError
from qwex.model.jobs import ArrayRange, JobSpec, StdinMode
from qwex.model.places import Place

__all__ = ["RunFile", "files_of", "quote", "set_words", "slots_of"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MIDDLE = 1_000_000  # priorities count down from here, so that names sort in the order of starting


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file of a run's directory: its bytes, or the local file that holds them."""

    name: str
    data: bytes = b""
    file: Path | None = None


def quote(data: bytes) -> bytes:
    """One word for a POSIX shell, whatever the bytes."""
    return b"'" + data.replace(b"'", b"'\\''") + b"'"


def set_words(argv: Iterable[str]) -> bytes:
    return b"set -- " + b" ".join(quote(os.fsencode(word)) for word in argv) + b"\n"


def slots_of(spec: JobSpec) -> int:
    return max(1, ceil(spec.resources.cpus))


def files_of(submission: Submission, place: Place) -> Iterator[RunFile]:
    """What makes up ``runs/<id>/`` at first. UsageError for environment names no shell can set."""
    spec = submission.spec
    yield RunFile("spec", _spec(spec, place))
    exports = {**dict(place.env), **dict(spec.env)}
    yield RunFile("job", _exports(exports) + set_words(spec.argv))
    secrets = {name: submission.secrets[name] for name in spec.secrets if name in submission.secrets}
    if secrets or submission.secrets:
        yield RunFile("secret", _exports({**submission.secrets, **secrets}))
    if spec.stdin is StdinMode.FILE and submission.stdin is not None:
        yield RunFile("stdin", file=submission.stdin)


def _spec(spec: JobSpec, place: Place) -> bytes:
    values: dict[str, str | int | bytes] = {
        "priority": f"{_MIDDLE - max(-_MIDDLE + 1, min(spec.priority, _MIDDLE - 1)):07d}",
        "slots": slots_of(spec),
        "gpus": spec.resources.gpus,
        "product": spec.resources.gpu_product.lower().replace(" ", "-"),
        "limit": f"{spec.time_limit:.3f}".rstrip("0").rstrip(".") if spec.time_limit else 0,
        "grace": ceil(spec.grace),
        "retries": spec.retries,
        "width": spec.array.limit if spec.array else 0,
        "count": len(spec.indexes),
        "todo": _spans(spec.array),
        "tree": spec.snapshot,
        "cwd": os.fsencode(spec.cwd),
        "shell": "yes" if spec.shell else "no",
        "login": "yes" if place.login_shell else "no",
        "stdin": spec.stdin.value,
        "after": " ".join(f"{one.run_id}:{one.condition.value}" for one in spec.after),
    }
    lines = (
        name.encode() + b"=" + quote(value if isinstance(value, bytes) else str(value).encode())
        for name, value in values.items()
    )
    return b"\n".join(lines) + b"\n"


def _spans(array: ArrayRange | None) -> str:
    text = str(ArrayRange(array.indexes)) if array else "0"
    return text.replace(",", " ")


def _exports(values: Mapping[str, str]) -> bytes:
    wrong: Sequence[str] = [name for name in values if not _NAME.fullmatch(name)]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} cannot be set as an environment variable over SSH",
            hint="a shell takes letters, digits and underscores, and no digit first",
        )
    return b"".join(b"export %s=%s\n" % (name.encode(), quote(os.fsencode(value))) for name, value in values.items())
