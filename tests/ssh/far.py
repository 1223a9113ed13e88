"""A real SSH server on loopback with an ordinary account on it, and what tests do with it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from qwex.backends.base import LogRequest, Submission
from qwex.backends.ssh import SSHBackend, connect
from qwex.config import Paths, load
from qwex.model.ids import fresh_ids
from qwex.model.jobs import JobSpec
from qwex.model.places import Place
from qwex.model.runs import Observation
from qwex.model.trees import Entry, Kind, Tree

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/libexec:" + os.environ.get("PATH", ""))


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for it, with a deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def account() -> pwd.struct_passwd:
    """An ordinary account: our own, or as root any that can log in; one is made if there is none."""
    if os.getuid():
        return pwd.getpwuid(os.getuid())
    rows = [line.split(":") for line in Path("/etc/shadow").read_text().splitlines()]
    locked = {name for name, password, *_ in rows if password.startswith("!")}
    for one in pwd.getpwall():
        if (
            one.pw_name not in locked
            and 1000 <= one.pw_uid < 60000
            and os.path.isdir(one.pw_dir)
            and one.pw_shell.endswith(("/bash", "/sh", "/dash"))
        ):
            return one
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", "qwex-tests"], check=True)
    subprocess.run(["usermod", "--password", "*", "qwex-tests"], check=True)
    return pwd.getpwnam("qwex-tests")


@dataclass
class Server:
    """A running server. ``pid`` is None for asyncssh's own."""

    port: int
    user: pwd.struct_passwd
    folder: Path
    key: Path
    pid: int | None = None
    stop: Callable[[], object] = field(default=lambda: None)

    @property
    def host_key(self) -> Path:
        return self.folder / "host"

    def connections(self) -> list[int]:
        """The server's processes for connections, privileged ones first."""
        listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
        return [pid for pid, parent in pairs if parent == self.pid]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_server(folder: Path, *, sftp: bool = True, extra: str = "", port: int = 0, own: bool = False) -> Server:
    """sshd with keys of its own for one ordinary account (``own``: for ours); ``extra`` are lines for its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o755)
    for name in ("host", "id"):
        if not (folder / name).exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(folder / name)
            key.write_public_key(folder / f"{name}.pub")
            os.chmod(folder / name, 0o600)
    user = pwd.getpwuid(os.getuid()) if own else account()
    port = port or free_port()
    if SSHD is None:
        return _own_server(folder, user, port)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/id.pub\n"
        f"UsePAM no\nStrictModes no\nPidFile {folder}/pid\nMaxStartups 200\nPasswordAuthentication no\n"
        f"{'Subsystem sftp internal-sftp' if sftp else ''}\n{extra}\n"
    )
    process = subprocess.Popen([SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")])

    def stop() -> None:
        process.terminate()
        process.wait()

    server = Server(port, user, folder, folder / "id", process.pid, stop)
    until(lambda: listening(port))
    return server


def allow(home: Path, server: Server) -> None:
    """Give the user's ~/.ssh the key for the server, and the server a line in known_hosts."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(server.key, folder / "id_ed25519")
    os.chmod(folder / "id_ed25519", 0o600)
    public = (server.folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {public}")


def other_shell(folder: Path, command: str) -> str:
    """Lines for sshd_config that make ``sh`` over there this shell (a program and maybe one word after it)."""
    programs = folder / f"bin-{command.replace(' ', '-')}"
    programs.mkdir(parents=True, exist_ok=True)
    program, *words = command.split()
    found = shutil.which(program)
    assert found is not None
    if words:
        (programs / "sh").write_text(f'#!/bin/sh\nexec {found} {" ".join(words)} "$@"\n')
        (programs / "sh").chmod(0o755)
    elif not (programs / "sh").exists():
        (programs / "sh").symlink_to(found)
    return f"SetEnv PATH={programs}:/usr/local/bin:/usr/bin:/bin"


def _own_server(folder: Path, user: pwd.struct_passwd, port: int) -> Server:
    """asyncssh as the server, in a thread: for machines without sshd."""
    loop = asyncio.new_event_loop()

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        shell = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", process.command or "exit 1", stdin=-1, stdout=-1, stderr=-1, cwd=str(folder)
        )
        await process.redirect(stdin=shell.stdin, stdout=shell.stdout, stderr=shell.stderr)
        process.exit(await shell.wait())

    async def serve() -> None:
        await asyncssh.listen(
            "127.0.0.1",
            port,
            server_host_keys=[str(folder / "host")],
            authorized_client_keys=str(folder / "id.pub"),
            process_factory=handle,
            encoding=None,
        )

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    return Server(port, user, folder, folder / "id", None, lambda: loop.call_soon_threadsafe(loop.stop) and None)


class FarDirectory:
    """A directory of the account, with all processes that come from it gone at the end."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="qwex-far-"))
        if os.getuid() == 0:
            os.chown(self.path, self.server.user.pw_uid, self.server.user.pw_gid)
        return self.path

    def __exit__(self, *_: object) -> None:
        for pid in processes(str(self.path)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.path, ignore_errors=True)


def runs(pid: int) -> bool:
    """Whether the process is there, and no zombie that nobody has collected yet."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def processes(text: str) -> list[int]:
    """Processes whose command line or (Linux) working directory speaks of ``text``."""
    found = []
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        pid, _, words = line.strip().partition(" ")
        where = ""
        with suppress(OSError):
            where = os.readlink(f"/proc/{pid}/cwd")
        if int(pid) != os.getpid() and (text in words or text in where):
            found.append(int(pid))
    return found


@dataclass
class Client:
    """Opens backends as the command line would; ``said`` and ``asked`` collect what the user is told and asked."""

    place: Place
    paths: Paths
    directory: Path
    answer: bool = False
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, place: Place | None = None) -> SSHBackend:
        def confirm(question: str) -> bool:
            self.asked.append(question)
            return self.answer

        settings = load(self.directory, dict(os.environ))
        return connect(place or self.place, self.paths, settings, self.said.append, confirm)


@dataclass
class Files:
    """A directory as a Source, without copies."""

    tree: Tree
    places: dict[str, Path]

    def locate(self, digest: str) -> Path:
        return self.places[digest]


def source_of(root: Path) -> Files:
    entries = []
    places: dict[str, Path] = {}
    top = os.fsencode(root)
    for folder, directories, names in os.walk(top):
        for name in directories + names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, top)
            status = os.lstat(path)
            mode = status.st_mode & 0o7777
            if os.path.islink(path):
                entries.append(Entry(relative, Kind.LINK, 0, 0, os.readlink(path).hex(), status.st_mtime_ns))
            elif os.path.isdir(path):
                entries.append(Entry(relative, Kind.DIRECTORY, mode, 0, "", status.st_mtime_ns))
            else:
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                places[digest] = Path(os.fsdecode(path))
                entries.append(Entry(relative, Kind.FILE, mode, status.st_size, digest, status.st_mtime_ns))
    return Files(Tree.of(entries), places)


_ids = fresh_ids(time.time())


def job(*argv: str, source: Files | None = None, **terms: object) -> Submission:
    """A run of ``argv`` with a fresh id; ``terms`` are fields of its spec."""
    spec = JobSpec(argv=argv, snapshot=source.tree.digest if source else "").replace(**terms)
    return Submission(next(_ids), spec, source)


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


async def start(backend: SSHBackend, *submissions: Submission) -> dict[str, dict[str, object]]:
    return await backend.submit(submissions, quiet)


async def ended(
    backend: SSHBackend, handles: dict[str, dict[str, object]], seconds: float = 30
) -> dict[str, Observation]:
    """The final observations of these runs."""
    last: dict[str, Observation] = {}
    async with asyncio.timeout(seconds):
        async for changed in backend.watch(handles):
            last.update(changed)
    return last


async def output(backend: SSHBackend, handle: dict[str, object], **terms: object) -> tuple[bytes, bytes]:
    """All of a run's stdout and stderr, with every chunk where it says it is."""
    streams: dict[tuple[str, str], bytes] = {}
    async for chunk in backend.logs(handle, LogRequest(follow=True, **terms)):  # type: ignore[arg-type]
        key = chunk.key, chunk.stream.value
        assert chunk.offset == len(streams.get(key, b"")) or "cursor" in terms or "tail" in terms
        streams[key] = streams.get(key, b"") + chunk.data
    return tuple(b"".join(data for (_, one), data in sorted(streams.items()) if one == name) for name in ("out", "err"))  # type: ignore[return-value]
