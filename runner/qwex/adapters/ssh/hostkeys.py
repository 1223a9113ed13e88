"""Which host keys are trusted: the user's known_hosts, the system's, and Qwex's own beside its state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh

__all__ = ["KnownHosts", "Match", "record"]


@dataclass(frozen=True, slots=True)
class Match:
    """A line that speaks of a host."""

    file: Path
    line: int
    key: asyncssh.SSHKey


class KnownHosts:
    """The lines of several known_hosts files. Lines that cannot be read are passed over, as OpenSSH does."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._texts: list[tuple[Path, str]] = []
        for file in files:
            try:
                self._texts.append((file, file.read_text(errors="surrogateescape")))
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue

    def trusted(self) -> asyncssh.SSHKnownHosts:
        text = "\n".join(text for _, text in self._texts)
        try:
            return asyncssh.import_known_hosts(text)
        except ValueError:
            known = asyncssh.import_known_hosts("")
            for line in text.splitlines():
                parsed = _parsed(line)
                if parsed is not None:
                    known.load(line)
            return known

    def lines_for(self, host: str, address: str, port: int) -> list[Match]:
        """The plain keys recorded for this host, with where they stand."""
        found = []
        for file, text in self._texts:
            for number, line in enumerate(text.splitlines(), 1):
                parsed = _parsed(line)
                if parsed is None:
                    continue
                keys = parsed.match(host, address, None if port == 22 else port)[0]
                found += [Match(file, number, key) for key in keys]
        return found


def _parsed(line: str) -> asyncssh.SSHKnownHosts | None:
    stripped = line.strip()
    if not stripped or stripped.startswith("#"):
        return None
    try:
        return asyncssh.import_known_hosts(stripped)
    except ValueError:
        return None


def record(file: Path, host: str, port: int, key: asyncssh.SSHKey) -> None:
    """Append a line for this key; one write, so that two processes do not mix their lines."""
    name = host if port == 22 else f"[{host}]:{port}"
    line = f"{name} {key.export_public_key('openssh').decode().split(' ', 2)[0]} "
    line += key.export_public_key("openssh").decode().split(" ", 2)[1].strip() + "\n"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
