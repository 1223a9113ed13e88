"""Every fault takes effect, touches only what it names, and is gone when it is undone."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator

import pytest
from tests.lab.faults import FaultError
from tests.lab.lab import Lab
from tests.lab.machine import Machine, MachineError
from tests.lab.waiting import until

pytestmark = pytest.mark.lab

Take = Callable[[int], list[Machine]]
PING = ("ping", "-n", "-q", "-i", "0.05", "-W", "1")


def lost(machine: Machine, to: str, count: int = 5) -> float:
    """Percent."""
    said = machine.run(*PING, "-c", str(count), to, check=False).stdout
    return float(re.search(r"([\d.]+)% packet loss", said)[1])  # type: ignore[index]


def round_trip(machine: Machine, to: str, count: int = 20) -> float:
    """The quickest of so many, in milliseconds: the others also tell how busy this machine is."""
    said = machine.run(*PING, "-c", str(count), to).stdout
    return float(re.search(r"= ([\d.]+)/", said)[1])  # type: ignore[index]


@pytest.fixture
def small(lab: Lab) -> Iterator[Machine]:
    """A machine with a disk of its own."""
    machine = lab.machine("small", disk=256)
    yield machine
    lab.discard(machine)


def test_a_paused_machine_answers_nothing_and_goes_on(machines: Take) -> None:
    (machine,) = machines(1)
    machine.run("systemd-run", "--unit=ticks", "sh", "-c", "while sleep 0.1; do echo x >>/root/ticks; done")
    until("ticks", lambda: machine.run("test", "-s", "/root/ticks", check=False).returncode == 0, within=10)
    with machine.pause():
        assert machine.state() == "paused"
        with pytest.raises(MachineError):
            machine.ssh("true", timeout=3)
    before = machine.read("/root/ticks")
    until("more ticks", lambda: len(machine.read("/root/ticks")) > len(before), within=10)
    assert machine.ssh("true").returncode == 0


def test_a_paused_machine_can_lose_its_power(machines: Take) -> None:
    (machine,) = machines(1)
    machine.pause()
    machine.power_cut()
    machine.power_on()
    assert machine.ssh("hostname").stdout.strip() == machine.name
    assert machine.faults == []


def test_a_cut_is_between_two_machines_only(machines: Take) -> None:
    first, second, third = machines(3)
    with first.cut_from(second):
        assert (lost(first, second.address), lost(second, first.address)) == (100, 100)
        assert (lost(first, third.address), lost(third, second.address)) == (0, 0)
        assert lost(first, first.network.gateway) == 0
        first.power_cut()
        first.power_on()
        assert lost(first, second.address) == 100
        second.cut_from(third)
        assert lost(third, second.address) == 100
    # Neighbours that were silent for a while are asked for again once a second.
    until("both to be joined", lambda: lost(first, second.address) == 0, within=10)
    third.join_with(second)
    until("both to be joined", lambda: lost(third, second.address) == 0, within=10)


def test_a_slow_line(machines: Take) -> None:
    first, second, third = machines(3)
    with first.netem(delay_ms=60):
        assert 120 <= round_trip(first, second.address, 5) < 200
        assert 120 <= round_trip(second, first.address, 5) < 200
        assert round_trip(second, third.address) < 40
        assert first.ssh("hostname").stdout.strip() == first.name
        first.power_cut()
        first.power_on()
        assert 120 <= round_trip(first, second.address, 5) < 200
    assert round_trip(first, second.address) < 40
    assert first.ssh("hostname").stdout.strip() == first.name


def test_a_lossy_line(machines: Take) -> None:
    first, second = machines(2)
    with first.netem(loss_pct=30):
        # Each way loses 30 %: 51 % of 200 on average, ± 3.5 (one sigma).
        assert 30 < lost(first, second.address, 200) < 72
    assert lost(first, second.address, 20) == 0


def test_a_slow_line_carries_bulk(machines: Take) -> None:
    (machine,) = machines(1)
    data = bytes(range(256)) * (16 << 12)  # 16 MiB
    with machine.netem(delay_ms=5):
        machine.ssh("sh", "-c", "cat >bulk", input=data, timeout=120)
    assert machine.run("sha256sum", "/home/debian/bulk").stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_a_full_disk(small: Machine) -> None:
    write = ("sh", "-c", "echo more >/home/debian/more")
    with small.fill_disk("/"):
        with pytest.raises(MachineError, match="No space left on device"):
            small.ssh(*write)
        with pytest.raises(MachineError, match="No space left on device"):
            small.put(b"x" * 8192, "/var/lib/rancher/more")
        small.power_cut()
        small.power_on()
        with pytest.raises(MachineError, match="No space left on device"):
            small.ssh(*write)
    small.ssh(*write)
    assert small.ssh("cat", "more").stdout == "more\n"
    with small.fill_disk("/var/lib/rancher", leave=10 << 20):
        free = int(small.run("df", "--block-size=1", "--output=avail", "/").stdout.split()[-1])
        assert abs(free - (10 << 20)) < 1 << 20


def test_a_machine_with_its_own_disk_is_like_any_other(small: Machine) -> None:
    assert small.run("df", "--block-size=1M", "--output=size", "/").stdout.split()[-1] in ("225", "226", "230", "232")
    assert small.ssh("sudo", "hostname").stdout == "small\n"
    assert small.run("stat", "--file-system", "--format=%T", "/var/lib/rancher").stdout != "overlayfs\n"
    small.put(b"kept", "/root/kept")
    small.power_off()
    small.power_on()
    assert small.read("/root/kept") == "kept"


def test_a_disk_that_is_the_hosts_is_not_filled(machines: Take) -> None:
    (machine,) = machines(1)
    with pytest.raises(FaultError, match="no disk of its own"):
        machine.fill_disk("/")


def test_memory_is_not_a_disk(small: Machine) -> None:
    with pytest.raises(FaultError, match="in memory"):
        small.fill_disk("/run")


def test_a_moved_clock(machines: Take) -> None:
    (machine,) = machines(1)
    python = ("python3", "-c", "import time; print(time.time(), time.monotonic())")

    def ahead(said: str) -> float:
        return float(said.split()[0]) - time.time()

    uptime = float(machine.run(*python).stdout.split()[1])
    with machine.move_clock(-86400):
        assert ahead(machine.run(*python).stdout) == pytest.approx(-86400, abs=30)
        assert ahead(machine.ssh(*python).stdout) == pytest.approx(-86400, abs=30)
        assert ahead(machine.ssh("date", "+%s").stdout) == pytest.approx(-86400, abs=30)
        script = "date +%s >/root/seen"
        machine.run("systemd-run", "--wait", "--quiet", "sh", "-c", script)
        assert ahead(machine.read("/root/seen")) == pytest.approx(-86400, abs=30)
        assert 0 <= float(machine.run(*python).stdout.split()[1]) - uptime < 60
        machine.power_off()
        machine.power_on()
        assert ahead(machine.ssh("date", "+%s").stdout) == pytest.approx(-86400, abs=30)
        assert machine.run("systemctl", "is-system-running", "--wait", check=False).stdout == "running\n"
    assert ahead(machine.ssh(*python).stdout) == pytest.approx(0, abs=30)
    assert ahead(machine.run(*python).stdout) == pytest.approx(0, abs=30)


def test_a_machine_cannot_move_the_hosts_clock(machines: Take) -> None:
    (machine,) = machines(1)
    with pytest.raises(MachineError, match="Operation not permitted"):
        machine.run("date", "--set=2001-01-01")


def test_machines_on_different_networks_cannot_be_cut(lab: Lab, machines: Take) -> None:
    (machine,) = machines(1)
    far = lab.machine("elsewhere", lab.network("elsewhere"))
    try:
        with pytest.raises(FaultError, match="share no network"):
            machine.cut_from(far)
    finally:
        lab.discard(far)
