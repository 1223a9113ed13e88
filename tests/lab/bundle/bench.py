"""The bench of one running build: its directories, its log, and the programs it started."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.lab.bundle.errors import BundleError, Damaged, Failed, Missing, NoRoom
from tests.lab.bundle.recipe import Recipe

__all__ = ["Cancelled", "Running", "WorkBench"]

TAIL, WIDTH = 12, 200  # lines of a failed build's log that its message repeats, and characters of each
NETWORK = re.compile(
    r"dial tcp|connection re(set|fused)|i/o timeout|handshake timeout|unexpected EOF|no such host"
    r"|Temporary failure resolving|Could not connect|Bad Gateway|Service Unavailable"
)
GRACE = 10.0  # seconds from SIGTERM to SIGKILL


class Cancelled(Exception):
    """Another build failed, or the user interrupted: this one was stopped."""


class Running:
    """The programs of all benches, so that they can be ended together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._cancelled = False

    def check(self) -> None:
        if self._cancelled:
            raise Cancelled

    def start(self, begin: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Begin one in a session of its own, so that it can be ended with its children; Cancelled when all are ended."""
        with self._lock:
            self.check()
            process = begin()
            self._processes.add(process)
            return process

    def finish(self, process: subprocess.Popen[bytes]) -> int:
        """Its exit code, once it ends."""
        code = process.wait()
        with self._lock:
            self._processes.discard(process)
        self.check()
        return code

    def cancel(self) -> None:
        """End every program with all its children; no new one can start."""
        with self._lock:
            self._cancelled = True
            processes = set(self._processes)
        for process in processes:
            self._signal(process, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._signal(process, signal.SIGKILL)

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return


# A process and mount namespace of its own: when the builder is killed outright, so is everything that the program
# started, and what it mounted is gone with it (mmdebstrap mounts the host's /dev in a tree that is later removed).
ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", '"$@"', "sh")


@cache
def _wrapper() -> tuple[str, ...]:
    """A build is polite, and dies with the builder as far as this machine and account can see to it."""
    deadly = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
    alone = (
        shutil.which("unshare") and subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    )
    return (*deadly, "nice", "-n", "5", *(ALONE if alone else ()))


@dataclass(frozen=True)
class WorkBench:
    """See `Bench`. `place` holds `out` and `scratch`."""

    recipe: Recipe
    place: Path
    log: Path
    inputs: Mapping[str, Path]
    running: Running
    _wrap: tuple[str, ...] = field(default_factory=_wrapper)

    @property
    def out(self) -> Path:
        return self.place / "out"

    @property
    def scratch(self) -> Path:
        return self.place / "scratch"

    def input(self, name: str) -> Path:
        return self.inputs[name]

    def run(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self._do(argv, env, cwd, None)

    def read(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> bytes:
        answer = self.place / "answer"
        self._do(argv, env, cwd, answer)
        return answer.read_bytes()

    def _do(
        self, argv: Sequence[str | Path], env: Mapping[str, str] | None, cwd: Path | None, answer: Path | None
    ) -> None:
        words = [os.fspath(word) for word in argv]
        if shutil.which(words[0]) is None:
            raise Missing(f"{self.recipe.title} needs {words[0]}, which is not installed\nhint: install it")
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(words)}\n".encode())
            log.flush()
            with answer.open("wb") if answer else log as out:
                code = self.running.finish(
                    self.running.start(
                        lambda: subprocess.Popen(
                            [*self._wrap, *words],
                            cwd=cwd or self.scratch,
                            env={**os.environ, **(env or {})},
                            stdin=subprocess.DEVNULL,
                            stdout=out,
                            stderr=log,
                            start_new_session=True,
                        )
                    )
                )
        if code != 0:
            raise self._failure(words[0], code)

    def _failure(self, program: str, code: int) -> BundleError:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16384))
            said = log.read().decode(errors="replace").splitlines()
        tail = "\n".join(line for line in said if not line.startswith("$ "))  # without the commands themselves
        if "no space left on device" in tail.lower():
            return NoRoom(f"{self.recipe.title}: no room left on the disk of {self.place.parent.parent}")
        if differs := re.search(r"^.*checksum mismatch.*$", tail, re.MULTILINE):
            return Damaged(f"{self.recipe.title}: {differs.group().strip()}\nhint: see {self.log}")
        how = f"exit status {code}" if code >= 0 else f"signal {-code}"
        lines = "\n".join(f"  {line[:WIDTH]}" for line in said[-TAIL:])
        hint = "\nhint: a download failed; run it again, what is finished is kept" if NETWORK.search(tail) else ""
        return Failed(f"{self.recipe.title}: {program} ended with {how}; {self.log} ends with\n{lines}{hint}")
