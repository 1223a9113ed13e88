"""What goes wrong on purpose. Each fault is in effect once started, and `undo` (or the end of its `with` block) ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.lab import bundle
from tests.lab.network import bridges, command, mac
from tests.lab.removal import cuts

if TYPE_CHECKING:
    from tests.lab.machine import Machine

__all__ = ["Cut", "Fault", "FaultError", "Filled", "Moved", "Paused", "Powerless", "Slow"]

FILL = ".lab-fill"
CLOCK = "/usr/local/lib/lab-clock.so"  # images/clock/clock.c, put there when first needed
CLOCK_DEFAULTS = "/etc/systemd/system.conf.d/lab-clock.conf"


class FaultError(Exception):
    """This machine cannot have that fault; the message says why and what it would need."""


class Fault:
    """Of one machine. Faults last over a power cycle, except the lack of power itself."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def start(self) -> None:
        """Take effect; returns when it did."""

    def end(self) -> None:
        """Take it back; the machine may be in any state."""

    def machine_started(self) -> None:
        """The machine came back while this was in effect."""

    def abandon(self) -> None:
        """The machine is about to be thrown away: let go of what is held on the host."""

    def undo(self) -> None:
        """As before the fault. Once is enough, more often does no harm."""
        if self in self.machine.faults:
            self.machine.faults.remove(self)
            self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


class Powerless(Fault):
    """Switched off, in whichever way."""

    def machine_started(self) -> None:
        self.machine.faults.remove(self)

    def end(self) -> None:
        if self.machine.state() in ("exited", "created"):
            self.machine.power_on()


class Paused(Fault):
    """Frozen."""

    def end(self) -> None:
        self.machine.unpause()


class Filled(Fault):
    """A file that takes the room."""

    def __init__(self, machine: Machine, path: str, leave: int) -> None:
        super().__init__(machine)
        self.path, self.leave = path, leave
        self.file = f"{path.rstrip('/')}/{FILL}"

    def start(self) -> None:
        if self.machine.disk is None:
            raise FaultError(f"{self.machine.name} has no disk of its own to fill: make it with disk=<MiB>")
        source = self.machine.run("stat", "--file-system", "--format=%T", self.path).stdout.strip()
        if source in ("tmpfs", "proc", "sysfs", "cgroup", "cgroup2"):
            raise FaultError(f"{self.path} on {self.machine.name} is in memory ({source}), not on its disk")
        free = self.free()
        if free > self.leave:
            # All at once where the file system can, then byte by byte until it refuses.
            self.machine.run("fallocate", f"--length={free - self.leave}", self.file, check=False)
            left = self.free() - self.leave
            if left > 0:
                script = 'head -c "$1" /dev/zero >>"$2" 2>/dev/null; sync'
                self.machine.run("sh", "-c", script, "sh", str(left), self.file, timeout=300)

    def free(self) -> int:
        """Bytes that are left, as the machine sees it."""
        return int(self.machine.run("df", "--block-size=1", "--output=avail", self.path).stdout.split()[-1])

    def end(self) -> None:
        if self.machine.state() == "running":
            self.machine.run("rm", "-f", self.file)


class Moved(Fault):
    """A clock that programs see ahead or behind, by a library that every new one is given.

    The environment of services, logins and the console is where it goes in, so that systemd itself keeps its clock.
    Only the time of day moves: programs measure how long something takes as before.
    """

    def __init__(self, machine: Machine, seconds: float) -> None:
        super().__init__(machine)
        self.seconds = seconds
        self.environment = {"LD_PRELOAD": CLOCK, "LAB_CLOCK": f"{seconds:.9f}"}

    def start(self) -> None:
        for other in [one for one in self.machine.faults if isinstance(one, Moved)]:
            other.undo()
        self.machine.put(bundle.ready("clock").path("lab/clock.so"), CLOCK)
        pairs = [f"{key}={value}" for key, value in self.environment.items()]
        before = self.machine.read("/etc/environment")
        self.machine.put((before + "".join(f"{pair}\n" for pair in pairs)).encode(), "/etc/environment")
        self.machine.put(f"[Manager]\nDefaultEnvironment={' '.join(pairs)}\n".encode(), CLOCK_DEFAULTS)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.console.update(self.environment)

    def end(self) -> None:
        for name in self.environment:
            self.machine.console.pop(name, None)
        if self.machine.state() != "running":
            return
        before = self.machine.read("/etc/environment").splitlines(keepends=True)
        kept = [line for line in before if line.partition("=")[0] not in self.environment]
        self.machine.put("".join(kept).encode(), "/etc/environment")
        self.machine.run("rm", "-f", CLOCK_DEFAULTS)
        self.machine.run("systemctl", "daemon-reload")


class Cut(Fault):
    """No packet between two machines. The rule is on the host's bridge, by Ethernet address, so pod traffic is cut as well."""

    def __init__(self, machine: Machine, other: Machine) -> None:
        super().__init__(machine)
        self.other = other
        first, second = mac(machine.address), mac(other.address)
        self.rules = [["-s", a, "-d", b, "-j", "DROP"] for a, b in ((first, second), (second, first))]
        self.chain = cuts(machine.lab.id)

    def start(self) -> None:
        if self.machine.network is not self.other.network:
            raise FaultError(f"{self.machine.name} and {self.other.name} share no network that could be cut")
        exists = subprocess.run(["ebtables", "-L", self.chain], capture_output=True, check=False)
        if exists.returncode != 0:
            command("ebtables", "-N", self.chain, "-P", "RETURN")
            command("ebtables", "-A", "FORWARD", "-j", self.chain)
        for rule in self.rules:
            command("ebtables", "-A", self.chain, *rule)

    def end(self) -> None:
        for rule in self.rules:
            command("ebtables", "-D", self.chain, *rule)

    def abandon(self) -> None:
        self.undo()


class Slow(Fault):
    """A line with delay and loss: a relay process between the host's end of the machine's cable and the bridge."""

    def __init__(self, machine: Machine, delay_ms: float, loss_pct: float) -> None:
        super().__init__(machine)
        if delay_ms < 0 or not 0 <= loss_pct <= 100:
            raise ValueError(f"a line cannot have {delay_ms:g} ms of delay and {loss_pct:g} % of loss")
        self.delay_ms, self.loss_pct = delay_ms, loss_pct
        self.log = machine.known_hosts.parent / "relay.log"
        self.tap = f"{bridges(machine.lab.id)}t{machine.address.rpartition('.')[2]}"
        self.relay: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.port = self._port()
        script = Path(__file__).with_name("relay.py")
        argv = [sys.executable, str(script), self.port, self.tap, f"{self.delay_ms:g}", f"{self.loss_pct:g}"]
        self.relay = self.machine.lab.spawn(argv, log=self.log, pipe=True)
        assert self.relay.stdout is not None
        if self.relay.stdout.readline() != b"ready\n":
            raise FaultError(f"the relay for {self.machine.name} did not start: {self.log.read_text().strip()}")
        # The host must not answer for the machine's neighbours on the loose cable end.
        Path(f"/proc/sys/net/ipv4/conf/{self.port}/arp_ignore").write_text("8\n")
        command("ip", "link", "set", self.port, "nomaster")
        command("ip", "link", "set", self.tap, "master", self.machine.network.bridge)

    def _port(self) -> str:
        """The host's end of the machine's cable."""
        number = self.machine.run("cat", "/sys/class/net/eth0/iflink").stdout.strip()
        for place in Path("/sys/class/net").iterdir():
            if (place / "ifindex").read_text().strip() == number:
                return place.name
        raise FaultError(f"{self.machine.name} has no cable to this host's bridges")

    def machine_started(self) -> None:
        self.abandon()  # the old cable is gone
        self.start()

    def end(self) -> None:
        self.abandon()
        if Path(f"/sys/class/net/{self.port}").exists():
            command("ip", "link", "set", self.port, "master", self.machine.network.bridge)
            Path(f"/proc/sys/net/ipv4/conf/{self.port}/arp_ignore").write_text("0\n")

    def abandon(self) -> None:
        if self.relay is not None:
            self.relay.kill()
            self.relay.wait(10)
            if self.relay.stdout is not None:
                self.relay.stdout.close()
            self.relay = None
