"""What concerns a host and no run: its facts, its key."""

from __future__ import annotations

import time
from dataclasses import dataclass

from qwex.backends.ssh.backend import SSHBackend

__all__ = ["HostFacts", "check"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A host as Qwex sees it. ``skew``: seconds its clock is ahead of ours, to about the time of an answer.

    ``queue``: how many are queued, held, active, waiting to retry, and open. ``free_disk`` in bytes, None when not known.
    """

    address: str
    os: str
    machine: str
    hostname: str
    shell: str
    directory: str
    tools: tuple[str, ...]
    slots: int
    free_slots: int
    gpus: tuple[str, ...]
    free_disk: int | None
    writable: bool
    skew: float
    host_key: tuple[str, str]
    queue: dict[str, int]


async def check(backend: SSHBackend) -> HostFacts:
    """Facts about the place of an entered backend, in one exchange."""
    before = time.time()
    answer = await backend.remote.ask("check")
    middle = (before + time.time()) / 2
    single: dict[str, str] = {}
    tools: list[str] = []
    gpus: list[str] = []
    queue: dict[str, int] = {}
    for line in answer.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(" ")
        match name:
            case "tool":
                tools.append(value)
            case "gpu":
                gpus.append(value)
            case "count":
                kind, _, number = value.partition(" ")
                queue[kind] = int(number)
            case _:
                single[name] = value
    total, _, free = single.get("slots", "0 0").partition(" ")
    return HostFacts(
        address=backend.remote.where,
        os=single.get("os", ""),
        machine=single.get("machine", ""),
        hostname=single.get("host", ""),
        shell=single.get("shell", ""),
        directory=single.get("directory", ""),
        tools=tuple(tools),
        slots=int(total),
        free_slots=int(free),
        gpus=tuple(gpus),
        free_disk=int(single["disk"]) if single.get("disk", "").isdigit() else None,
        writable="readonly" not in single,
        skew=float(single.get("time", middle)) - middle,
        host_key=backend.remote.connection.host_key(),
        queue=queue,
    )
