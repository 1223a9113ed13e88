"""What lies where for runs of this machine.

``runs/<id>/`` holds ``env`` (the submitter's environment, 0600, gone when the run ended), ``stdin`` and ``links`` where there are any,
and for every attempt ``<index>.<attempt>.`` with these endings. One directory for all, because making inodes is most of the cost of a
short job.

========  =====================================================================================================
out err   the job's output, as it wrote it
times     ``epoch out_bytes err_bytes``, a line about every 2 s while the output grows (for ``--since``)
shell     two lines, by the shell above the job: its pid, and the job's exit code once it ended; whoever makes this file
          decides whether the attempt begins
stdin     the fifo of live input
mark      what is needed to tell later what the job changed (JSON of the workspace's mark)
work      the job's private copy of the workspace, gone when its results are out
results   what the job created or changed
========  =====================================================================================================
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from qwex.config import Paths
from qwex.errors import BackendError, StoreError

__all__ = [
    "AttemptFiles",
    "Layout",
    "environment_text",
    "parse_environment",
    "read_environment",
    "read_pairs",
    "socket_path",
    "write_environment",
    "write_pairs",
]

_LONGEST_SOCKET = 100  # sun_path holds 104 bytes on macOS, 108 on Linux


class AttemptFiles(NamedTuple):
    """One attempt's files, as strings: the worker opens many of them."""

    prefix: str

    @property
    def out(self) -> str:
        return self.prefix + ".out"

    @property
    def err(self) -> str:
        return self.prefix + ".err"

    @property
    def times(self) -> str:
        return self.prefix + ".times"

    @property
    def shell(self) -> str:
        return self.prefix + ".shell"

    @property
    def mark(self) -> str:
        return self.prefix + ".mark"

    @property
    def work(self) -> str:
        return self.prefix + ".work"

    @property
    def results(self) -> str:
        return self.prefix + ".results"

    @property
    def fifo(self) -> str:
        return self.prefix + ".stdin"


class Layout(NamedTuple):
    """The state directory as the local place uses it."""

    state: Path

    @classmethod
    def of(cls, paths: Paths) -> Layout:
        return cls(paths.state)

    @property
    def database(self) -> Path:
        return self.state / "runs.db"

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    @property
    def lock(self) -> Path:
        return self.state / "worker.lock"

    @property
    def pid(self) -> Path:
        return self.state / "worker.pid"

    @property
    def log(self) -> Path:
        return self.state / "worker.log"

    def run(self, run_id: str) -> str:
        return f"{self.state}/runs/{run_id}"

    def attempt(self, run_id: str, index: int, attempt: int) -> AttemptFiles:
        return AttemptFiles(f"{self.state}/runs/{run_id}/{index}.{attempt}")


def socket_path(state: Path) -> Path:
    """Where the worker of this state directory listens: in it, or in a private directory in /tmp when that name is too long.

    StoreError when somebody else has that directory.
    """
    inside = state / "worker.sock"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET:
        return inside
    directory = Path(f"/tmp/qwex-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(directory)
    if found.st_uid != os.getuid() or found.st_mode & 0o170077 != 0o040000:
        raise StoreError(
            f"{directory} belongs to somebody else, or others may enter it",
            hint="remove it, or choose a shorter state directory with XDG_STATE_HOME",
        )
    return directory / f"{hashlib.sha256(os.fsencode(state)).hexdigest()[:16]}.sock"


def _write_private(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)


def write_environment(path: str, env: Mapping[bytes, bytes]) -> None:
    """``NAME=value`` separated by NUL, in a file that only the user can read."""
    _write_private(path, b"\0".join(b"%s=%s" % pair for pair in env.items()))


def read_environment(path: str) -> dict[bytes, bytes]:
    """BackendError when the file is gone."""
    return parse_environment(environment_text(path))


def environment_text(path: str) -> bytes:
    """The file as it is: whoever reads many of them may find that it is the same again."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except OSError as error:
        raise BackendError(f"the run's environment cannot be read: {error.strerror}") from error


def parse_environment(text: bytes) -> dict[bytes, bytes]:
    return {name: value for name, equals, value in (entry.partition(b"=") for entry in text.split(b"\0")) if equals}


def write_pairs(path: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Pairs of byte strings without NUL."""
    _write_private(path, b"".join(b"%s\0%s\0" % pair for pair in pairs))


def read_pairs(path: str) -> dict[bytes, bytes]:
    """What ``write_pairs`` wrote, nothing when the file was never written."""
    try:
        with open(path, "rb") as file:
            parts = file.read().split(b"\0")
    except FileNotFoundError:
        return {}
    return dict(zip(parts[:-1:2], parts[1::2], strict=True))
