"""A real OpenSSH server of one's own: on loopback, for the account that runs the tests, gone when it is closed."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Server", "installed"]


def installed() -> str | None:
    """The server program, which is usually not on an ordinary user's PATH."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Server:
    """``directory`` gets its keys and log. ``key`` is a private key that it lets in; ``known`` a known_hosts line for it.

    ``extra`` are more lines for its configuration.
    """

    def __init__(self, directory: Path, *, sftp: bool = True, extra: str = "") -> None:
        program = installed()
        assert program is not None, "no sshd is installed"
        self.user = getpass.getuser()
        self.directory, self._program = directory, program
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("host", "key"):
            if not (directory / name).exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True)
        self.key = directory / "key"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.known = f"[127.0.0.1]:{self.port} {(directory / 'host.pub').read_text()}"
        self.place = f"{self.user}@127.0.0.1:{self.port}"
        (directory / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/key.pub\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
            f"PidFile {directory}/pid\nMaxStartups 200\nMaxSessions 100\n"
            + ("Subsystem sftp internal-sftp\n" if sftp else "")
            + extra
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Listen, unless it does; returns when it answers."""
        if self._process is not None:
            return
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-D", "-e", "-f", str(self.directory / "config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, (self.directory / "log").read_text()
                assert self._process.poll() is None, (self.directory / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def sessions(self) -> list[int]:
        """The processes that serve its connections."""
        assert self._process is not None
        return self._below(self._process.pid)

    @staticmethod
    def _below(pid: int) -> list[int]:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        own = [int(child) for child, parent, name in rows if int(parent) == pid and "sshd" in name]
        return own + [deeper for one in own for deeper in Server._below(one)]

    def cut(self) -> int:
        """Kill every connection at once, as a network that breaks does; how many processes that were."""
        found = self.sessions()
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(found)

    def stop(self) -> None:
        """Stop listening. Connections stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.cut()
        self.stop()
