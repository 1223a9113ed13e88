"""The command line as a user has it: a process of its own, in a project of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.sshd import Server, installed

WORD = "QWEX_RUN_ID="
FINAL = {"succeeded", "failed", "cancelled", "lost"}


class Qwex:
    """``qwex`` in a directory. Ends what it started and is still there when the test is over."""

    def __init__(self, directory: Path, place: str = "local") -> None:
        self.directory = directory
        self.place = place
        self._started: list[subprocess.Popen[bytes]] = []

    def argv(self, *words: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-m", "qwex", *words]

    def __call__(
        self,
        *words: str | bytes,
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; a minute and a half at most."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            self.argv(*words),
            cwd=cwd or self.directory,
            env={**os.environ, **(env or {})},
            capture_output=True,
            timeout=90,
            check=False,
            **given,
        )

    def batch(self, *words: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return self("batch", "--on", self.place, *words, **options)

    def start(self, *words: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
        """In the background, both streams as pipes unless said otherwise."""
        given = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "bufsize": 0,
            **options,
        }
        process = subprocess.Popen(self.argv(*words), cwd=self.directory, **given)
        self._started.append(process)
        return process

    def json(self, *words: str) -> Any:
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def runs(self) -> list[dict[str, Any]]:
        """Every run on record, oldest first."""
        listed: list[dict[str, Any]] = self.json("list", "--limit", "1000")
        return sorted(listed, key=lambda run: str(run["id"]))

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
                with suppress(BrokenPipeError):
                    stream.close()


def eventually(check: Callable[[], object], seconds: float = 30) -> Any:
    """The first true answer of ``check``, asked again until then; fails with its last answer."""
    end = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < end, f"still {answer!r} after {seconds} s"
        time.sleep(0.05)
    return answer


def ended(qwex: Qwex) -> list[dict[str, Any]]:
    """All runs, when each of them has ended."""
    end = time.monotonic() + 120
    runs = qwex.runs()
    while any(run["state"] not in FINAL for run in runs):
        assert time.monotonic() < end, f"after two minutes: {runs}"
        time.sleep(0.05)
        runs = qwex.runs()
    return runs


def alive(run_id: str) -> list[int]:
    """Processes of a run, by their environment (Linux only; elsewhere none are found)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{WORD}{run_id}".encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except (OSError, ValueError):
            continue
    return found


def one_message(done: subprocess.CompletedProcess[bytes], *words: str, code: int = 1) -> str:
    """What the failed command said: one error, on stderr, that speaks of ``words``."""
    said = os.fsdecode(done.stderr)
    assert done.returncode == code, said
    assert done.stdout == b""
    assert [line.partition(":")[0] for line in said.splitlines() if line.startswith(("error", "hint"))][:1] == ["error"]
    assert said.count("error:") == 1
    assert "Traceback" not in said
    for word in words:
        assert word in said
    return said


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")


@contextmanager
def small_disk(directory: Path, size: str, *more: str) -> Iterator[None]:
    """A file system of its own in ``directory``."""
    directory.mkdir(exist_ok=True)
    options = ",".join([f"size={size}", *more])
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def processes(text: str | Path) -> list[int]:
    """Processes whose command line speaks of ``text``, but for our own; none that has ended and was not collected yet."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,stat=,args="], capture_output=True, check=True).stdout
    rows = [line.split(None, 2) for line in os.fsdecode(listed).splitlines()]
    found = [int(pid) for pid, state, *words in rows if str(text) in "".join(words) and not state.startswith("Z")]
    return [pid for pid in found if pid != os.getpid()]


def end(pids: list[int]) -> int:
    """Kill them at once; how many were still there."""
    count = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            count += 1
    return count


def know(server: Server, home: Path) -> None:
    """Give the user's ~/.ssh its key, and the server a line among the known hosts."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(server.key, folder / "id_ed25519")
    (folder / "known_hosts").write_text(server.known)


def name_host(home: Path, name: str, server: Server, directory: Path, **more: object) -> None:
    """Add ``[hosts.NAME]`` to the user's config.toml."""
    values = {"host": "127.0.0.1", "user": server.user, "port": server.port, "directory": str(directory), **more}
    file = home / ".config/qwex/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(f"[hosts.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenSSH's server for our own account."""
    if installed() is None:
        pytest.skip("no OpenSSH server is installed here")
    with Server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def server(sshd: Server, home: Path) -> Iterator[Server]:
    """The same, known to the user and listening, whatever the test before did to it."""
    know(sshd, home)
    yield sshd
    sshd.start()


@pytest.fixture
def far(server: Server, home: Path, tmp_path: Path) -> Iterator[Path]:
    """Where Qwex keeps what it keeps on the host ``far``: a directory of this test's own; nothing from there runs on after it."""
    directory = tmp_path / "far"
    name_host(home, "far", server, directory, slots=2)
    yield directory
    while end(processes(directory)):
        pass


@pytest.fixture
def place() -> str:
    """Where the runs of a test go; test files that go elsewhere have a fixture of this name."""
    return "local"


@pytest.fixture
def qwex(project: Path, place: str) -> Iterator[Qwex]:
    """On this machine, with ``place`` as the one that ``batch`` takes."""
    driver = Qwex(project, place)
    yield driver
    driver.end()
