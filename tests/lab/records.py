"""What is written down about every lab on this machine, so that the remains of one that died can be found and removed.

A lab has a directory `/run/qwex-lab/<id>` with its keys, disks and `lab.json`; its Docker objects carry its id and its
owner as labels. The owner is a process (boot, pid, start time: never mistaken for a later one with the same number), or
`keep` for a lab that outlives the command which started it, until `down` or the next boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Record", "alive", "host_lock", "keep", "me", "process", "stop"]

ROOT = Path("/run/qwex-lab")


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start(pid: int) -> str | None:
    """A process's start time in ticks since boot; None when there is no such process, or only its exit status is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def process(pid: int) -> str:
    """The name by which that running process is known here, `<boot>:<pid>:<start>`."""
    return f"{_boot()}:{pid}:{_start(pid)}"


def me() -> str:
    """This process as an owner."""
    return process(os.getpid())


def keep() -> str:
    """The owner of a lab that outlives its command."""
    return f"{_boot()}:keep:"


def alive(owner: str) -> bool:
    """Whether that owner still wants its lab. What is no owner's name (nothing was written yet, or garbage) is not alive."""
    boot, _, rest = owner.partition(":")
    pid, _, start = rest.partition(":")
    if boot != _boot():
        return False
    return pid == "keep" or (pid.isdigit() and _start(int(pid)) == start)


def stop(owner: str) -> None:
    """Kill that very process, should it still run."""
    if alive(owner) and (pid := owner.split(":")[1]).isdigit():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def host_lock() -> Iterator[None]:
    """One holder on this machine, for choosing what labs must not choose twice. Freed by the kernel when the holder dies."""
    ROOT.mkdir(mode=0o755, exist_ok=True)
    with (ROOT / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Record:
    """A lab's directory and `lab.json`: `owner`, `label`, and the `processes` on the host that die with the lab."""

    def __init__(self, lab: str) -> None:
        self.id, self.directory = lab, ROOT / lab
        self._file = self.directory / "lab.json"

    def create(self, owner: str, label: str) -> None:
        """FileExistsError when there is one with that id."""
        self.directory.mkdir(mode=0o711, parents=True)
        self._write({"owner": owner, "label": label, "processes": []})

    def read(self) -> dict[str, Any]:
        """Empty when nothing was written, or not to its end."""
        try:
            return dict(json.loads(self._file.read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def update(self, **changes: Any) -> None:
        """Replace those entries, at once."""
        self._write(self.read() | changes)

    def _write(self, content: dict[str, Any]) -> None:
        part = self._file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(self._file)

    @staticmethod
    def ids() -> list[str]:
        """Of every lab that has a directory."""
        return sorted(path.name for path in ROOT.iterdir() if path.is_dir()) if ROOT.is_dir() else []
