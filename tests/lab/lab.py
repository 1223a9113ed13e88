"""A lab: networks, machines and host processes that live and die together."""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import disks, image, limits, logs
from tests.lab.host import KEPT_FROM_MACHINES, HostError, engine_lacks, unavailable
from tests.lab.machine import Machine, flags, labels
from tests.lab.network import Network
from tests.lab.records import Record, host_lock, keep, me, process
from tests.lab.removal import remove, remove_container, sweep

__all__ = ["Lab"]


class Lab:
    """Everything it makes carries its `id` and is gone after `close`. What a killed lab left goes when the next one starts.

    `directory`: for its keys and files, readable by root only where it matters, gone with it.
    """

    def __init__(self, label: str, owner: str) -> None:
        self.id, self.label, self.owner = secrets.token_hex(3), label, owner
        self.record = Record(self.id)
        self.directory = self.record.directory
        self.networks: dict[str, Network] = {}
        self.all_machines: dict[str, Machine] = {}
        self.image = ""
        self.key = self.directory / "key"
        self.authorized = b""  # an archive with the user's authorized_keys, as `docker cp` takes it
        self._closers: list[Callable[[], None]] = []
        self._collectors: dict[str, Callable[[Path], None]] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def create(cls, label: str = "", *, kept: bool = False) -> Lab:
        """HostError when this machine cannot run one. `kept`: it outlives this process, until `removal.remove`."""
        if reason := unavailable():
            raise HostError(reason)
        sweep()
        lab = cls(label, keep() if kept else me())
        with host_lock():
            lab.record.create(lab.owner, label)
        try:
            with host_lock():
                limits.lift()
            lab.image = image.loaded()
            lab._make_key()
        except BaseException:
            lab.close()
            raise
        return lab

    def _make_key(self) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"qwexlab-{self.id}", "-f", str(self.key)]
        subprocess.run(command, check=True, capture_output=True)
        public = self.key.with_suffix(".pub").read_bytes()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("home/debian/.ssh/authorized_keys")
            entry.uid = entry.gid = 1000
            entry.mode, entry.size = 0o600, len(public)
            archive.addfile(entry, io.BytesIO(public))
        self.authorized = buffer.getvalue()

    # -- networks and machines -----------------------------------------------------------------------------------

    def network(self, name: str = "lan") -> Network:
        """The network of that name, made when there is none yet. Two networks of a lab reach each other by no route."""
        if name not in self.networks:
            self.networks[name] = Network.create(self.id, self.owner, name, len(self.networks))
        return self.networks[name]

    def machine(self, name: str, network: Network | None = None, *, disk: int | None = None) -> Machine:
        """Boot one; it is reachable by SSH on return. `disk`: MiB of a disk of its own that holds all its files."""
        network = network or self.network()
        if name in self.all_machines:
            raise ValueError(f"there is a machine {name} already")
        place = self.directory / "machines" / name
        place.mkdir(parents=True)
        machine = Machine(
            lab=self,
            name=name,
            container=f"qwexlab-{self.id}-{name}",
            network=network,
            address=network.address(),
            key=self.key,
            known_hosts=place / "known_hosts",
            disk=disk,
        )
        self.all_machines[name] = machine
        mounted = disks.create(place, disk) if disk is not None else None
        lacking = sorted({*engine_lacks(), *KEPT_FROM_MACHINES})
        machine.create(self.image, labels(self.id, self.owner, name), flags(lacking, mounted))
        machine.power_on()
        return machine

    def machines(self, *names: str, network: Network | None = None, disk: int | None = None) -> list[Machine]:
        """Boot several at the same time, in the order given."""
        network = network or self.network()
        with ThreadPoolExecutor(max(1, len(names))) as workers:
            return list(workers.map(lambda name: self.machine(name, network, disk=disk), names))

    def discard(self, machine: Machine) -> None:
        """Remove one machine with its disks, for good."""
        for fault in list(machine.faults):
            fault.abandon()
        remove_container(machine.container)
        disks.remove(self.directory / "machines" / machine.name)
        self.all_machines.pop(machine.name, None)

    # -- what else belongs to it ---------------------------------------------------------------------------------

    def spawn(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        pipe: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a process on the host that ends with the lab, even with one that is killed. `env` adds to the environment.

        Its output goes to `log`; with `pipe`, what it writes to standard output is the caller's to read.
        """
        with log.open("ab") as out:
            started = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else out,
                stderr=out,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                user=user,
                start_new_session=True,
            )
        self._processes.append(started)
        with host_lock():
            known = self.record.read().get("processes", [])
            self.record.update(processes=[*known, process(started.pid)])
        return started

    def record_pids(self) -> list[int]:
        """Processes on the host that were started for this lab, whether they still run or not."""
        return [int(known.split(":")[1]) for known in self.record.read().get("processes", [])]

    def on_close(self, closer: Callable[[], None]) -> None:
        """Called first when the lab closes, the latest first."""
        self._closers.append(closer)

    def on_logs(self, name: str, collector: Callable[[Path], None]) -> None:
        """Have `logs` call it with a directory for its files."""
        self._collectors[name] = collector

    def logs(self, to: Path) -> None:
        """Every component's logs below that directory, bounded in size."""
        logs.collect(to, list(self.all_machines.values()), self._collectors)

    # -- end -----------------------------------------------------------------------------------------------------

    def _ending(self) -> Iterator[Callable[[], object]]:
        yield from reversed(self._closers)
        for started in self._processes:
            yield started.kill
            yield partial(started.wait, timeout=10)
        yield self._remove

    def _remove(self) -> None:
        remove(self.id)
        with host_lock():
            limits.restore()

    def close(self) -> None:
        """Leave nothing. All is tried; what could not be removed is raised at the end."""
        errors: list[Exception] = []
        for step in self._ending():
            try:
                step()
            except Exception as error:  # noqa: BLE001
                errors.append(error)
        self._closers, self._processes = [], []
        self.networks, self.all_machines = {}, {}
        if errors:
            raise ExceptionGroup(f"lab {self.id} was not removed whole", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
