"""A place over SSH on loopback, beside what one would type instead: ssh true, scp -r, tar | ssh tar x, rsync -az, ssh cat.

The server is Debian's sshd with an ordinary account. Qwex is timed inside a client that has imported all it needs, from the scan of the
directory to the end of the last request; connecting is included everywhere. Bytes are those that a TCP proxy on loopback saw leave the
client. The far directory is new for every first upload. The stream is read by a process of its own, whose peak memory is shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.harness import Figure, alternate, command, seconds
from tests.ssh.far import FarDirectory, Server, allow, processes, start_server

from qwex.backends.base import LogRequest, Submission
from qwex.backends.ssh import SSHBackend, connect
from qwex.config import Paths, load
from qwex.model.ids import fresh_ids
from qwex.model.jobs import JobSpec
from qwex.model.places import Place
from qwex.workspace.scan import scan
from qwex.workspace.snapshot import WorkingSource, identify

FILES = 10_000
CHANGED = 100
STREAM = 1_000_000_000
ROUNDS = 5
_ids = fresh_ids(time.time())


class Proxy:
    """Passes TCP on to a port and counts what goes there."""

    def __init__(self, target: int) -> None:
        self.sent = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pass, args=(client, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                self.sent += len(data) if counted else 0
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()


class Ground:
    """A server, a home with its key, a workspace of many files."""

    def __init__(self, scratch: Path, server: Server, far: Path) -> None:
        self.server, self.far, self.scratch = server, far, scratch
        self.user = server.user.pw_name
        self.paths = Paths.from_environment({"HOME": str(scratch)})
        self.settings = load(scratch, {"HOME": str(scratch)})
        self.root = scratch / "workspace"
        self.chance = random.Random(5)
        self.count = 0
        for number in range(FILES):
            file = self.root / f"d{number % 100:02}" / f"f{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.text())
        self.ssh = ["ssh", "-F", str(scratch / "config"), "far"]
        self.configure(server.port)

    def configure(self, port: int) -> None:
        lines = {
            "HostName": "127.0.0.1", "Port": port, "User": self.user, "IdentityFile": self.server.key, "LogLevel": "ERROR",
            "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null",
        }  # fmt: skip
        (self.scratch / "config").write_text(
            "Host far\n" + "".join(f" {key} {value}\n" for key, value in lines.items())
        )

    def text(self) -> str:
        """What source files look like to a compressor: about a quarter of their size."""
        words = [f"word{self.chance.randrange(3000)}" for _ in range(self.chance.randrange(30, 500))]
        return "\n".join(" ".join(words[at : at + 8]) for at in range(0, len(words), 8)) + "\n"

    def change(self) -> None:
        for number in self.chance.sample(range(FILES), CHANGED):
            with (self.root / f"d{number % 100:02}" / f"f{number}.txt").open("a") as file:
                file.write(f"changed {self.chance.random()}\n")

    def fresh(self) -> str:
        self.count += 1
        return f"{self.far}/{self.count}"

    def backend(self, directory: str, port: int = 0) -> SSHBackend:
        place = Place("far", "ssh", "127.0.0.1", self.user, port or self.server.port, 2, directory)
        return connect(place, self.paths, self.settings, lambda line: None, lambda question: True)

    async def submit(self, backend: SSHBackend) -> dict[str, dict[str, object]]:
        tree = identify(scan(self.root), self.paths)
        one = Submission(next(_ids), JobSpec(("true",), snapshot=tree.digest), WorkingSource(self.root, tree))
        return await backend.submit([one], lambda what, done, total: None)

    def idle(self, directory: str) -> None:
        """Wait until nothing runs there any more: a spare copy in the making would disturb the next figure."""
        while processes(f"{directory}/bin"):
            time.sleep(0.1)


@contextmanager
def ground() -> Iterator[Ground]:
    home = os.environ.get("HOME", "")
    scratch = Path(tempfile.mkdtemp(prefix="qwex-bench-"))
    server = start_server(scratch / "sshd")
    os.chmod(scratch, 0o755)
    os.environ["HOME"] = str(scratch)
    allow(scratch, server)
    try:
        with FarDirectory(server) as far:
            yield Ground(scratch, server, far)
    finally:
        os.environ["HOME"] = home
        server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def measure() -> list[Figure]:
    with ground() as place:
        return [*_trivial(place), *_first(place), *_changed(place), *_stream(place)]


def _run(action: Callable[[], Awaitable[object]]) -> Callable[[], object]:
    async def main() -> object:
        return await action()

    return lambda: asyncio.run(main())


def _trivial(place: Ground) -> list[Figure]:
    directory = place.fresh()

    async def attached() -> None:
        async with place.backend(directory) as backend:
            handles = await place.submit(backend)
            for handle in handles.values():
                async for _ in backend.logs(handle, LogRequest(follow=True)):
                    continue
            await backend.observe(handles)

    _run(attached)()
    place.idle(directory)
    ours, peer = alternate([_run(attached), command([*place.ssh, "true"])], ROUNDS)
    what = f"trivial job, unchanged workspace of {FILES:,} files, attached, to its known end"
    met = ours <= 2 * peer and ours < 0.35
    return [Figure(what, _ms(ours), f"{_ms(peer)} ssh true", ours / peer, "≤ 2.00 and < 350 ms", met)]


def _first(place: Ground) -> list[Figure]:
    used: list[str] = []

    async def upload() -> None:
        used.append(place.fresh())
        async with place.backend(used[-1]) as backend:
            await place.submit(backend)

    def settle() -> None:
        place.idle(used[-1])

    scp = ["scp", "-F", str(place.scratch / "config"), "-q", "-r", str(place.root)]
    pipe = "tar c -C {} . | {} 'mkdir {d} && tar x -C {d}'"

    def tar() -> None:
        subprocess.run(pipe.format(place.root, " ".join(place.ssh), d=place.fresh()), shell=True, check=True)

    def copied() -> None:
        subprocess.run([*scp, f"far:{place.fresh()}"], check=True)

    ours, settled, by_tar, by_scp = alternate([_run(upload), settle, tar, copied], 2, warm=0)
    del settled
    what = f"first upload of {FILES:,} files, up to the job's start"
    return [
        Figure(what, _ms(ours), f"{_ms(by_scp)} scp -r", ours / by_scp, "< 1.00", ours < by_scp),
        Figure(what, _ms(ours), f"{_ms(by_tar)} tar, ssh tar x", ours / by_tar, "≤ 1.20", ours <= 1.2 * by_tar),
    ]


def _changed(place: Ground) -> list[Figure]:
    proxy = Proxy(place.server.port)
    place.configure(proxy.port)
    (place.scratch / ".ssh/known_hosts").unlink()
    directory, mirror = place.fresh(), place.fresh()
    sent: dict[str, list[int]] = {"ours": [], "rsync": []}

    async def again() -> None:
        before = proxy.sent
        async with place.backend(directory, proxy.port) as backend:
            await place.submit(backend)
        sent["ours"].append(proxy.sent - before)

    def rsync() -> None:
        before = proxy.sent
        subprocess.run(["rsync", "-az", "-e", " ".join(place.ssh[:-1]), f"{place.root}/", f"far:{mirror}/"], check=True)
        sent["rsync"].append(proxy.sent - before)

    def settle() -> None:
        place.idle(directory)

    _run(again)()
    rsync()
    settle()
    ours, peer, *_ = alternate([_run(again), rsync, settle, place.change], ROUNDS)
    place.configure(place.server.port)
    # The first of each was the whole tree, the second found nothing changed.
    ours_sent, peer_sent = max(sent["ours"][2:]), min(sent["rsync"][2:])
    what = f"{CHANGED} of {FILES:,} files changed: up to the job's start"
    return [
        Figure(what, _ms(ours), f"{_ms(peer)} rsync -az", ours / peer, "≤ 1.20", ours <= 1.2 * peer),
        Figure(
            "bytes sent for that",
            f"{ours_sent:,}",
            f"{peer_sent:,} rsync -az",
            ours_sent / peer_sent,
            "≤ 1.00",
            ours_sent <= peer_sent,
        ),
    ]


def _stream(place: Ground) -> list[Figure]:
    directory = place.fresh()

    async def prepare() -> dict[str, object]:
        async with place.backend(directory) as backend:
            one = Submission(next(_ids), JobSpec(("head", "-c", str(STREAM), "/dev/urandom")))
            handles = await backend.submit([one], lambda what, done, total: None)
            async for _ in backend.watch(handles):
                continue
            return handles[one.run_id]

    handle = asyncio.run(prepare())
    reader = [sys.executable, __file__, "--read", json.dumps([directory, place.server.port, place.user, handle])]
    file = f"{directory}/runs/{handle['run']}/0.1/out"
    told: list[tuple[float, int]] = []

    def ours() -> None:
        done = subprocess.run(reader, capture_output=True, check=True, text=True)
        spent, memory = json.loads(done.stdout)
        told.append((float(spent), int(memory)))

    def cat() -> None:
        subprocess.run([*place.ssh, "cat", file], stdout=subprocess.DEVNULL, check=True)

    _, peer = alternate([ours, cat], 3)
    spent = sorted(one for one, _ in told)[len(told) // 2]
    memory = max(one for _, one in told)

    async def clean() -> None:
        async with place.backend(directory) as backend:
            await backend.purge()

    asyncio.run(clean())
    rate, peer_rate = STREAM / spent / 1e6, STREAM / peer / 1e6
    return [
        Figure(
            "1 GB of output",
            f"{rate:.0f} MB/s",
            f"{peer_rate:.0f} MB/s ssh cat",
            rate / peer_rate,
            "≥ 0.70",
            rate >= 0.7 * peer_rate,
        ),
        Figure("peak memory of that client", f"{memory} MB", "150 MB", memory / 150, "< 1.00", memory < 150),
    ]


def _read(directory: str, port: int, user: str, handle: dict[str, object]) -> None:
    """The process that reads the stream: its seconds with connecting, and its peak memory in MB."""
    paths = Paths.from_environment()
    place = Place("far", "ssh", "127.0.0.1", user, port, 2, directory)

    async def main() -> int:
        total = 0
        async with connect(
            place, paths, load(Path.home(), dict(os.environ)), lambda line: None, lambda question: True
        ) as backend:
            async for chunk in backend.logs(handle, LogRequest()):
                total += len(chunk.data)
        return total

    total = 0

    def whole() -> None:
        nonlocal total
        total = asyncio.run(main())

    spent = seconds(whole)
    if total != STREAM:
        raise AssertionError(f"{total} of {STREAM} bytes came")
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1_000_000
    sys.stdout.write(json.dumps([spent, peak]))


def _ms(value: float) -> str:
    return f"{value * 1000:.0f} ms"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        _read(*json.loads(sys.argv[2]))
    else:
        from tests.bench.harness import table

        sys.stdout.write(table(measure()))
