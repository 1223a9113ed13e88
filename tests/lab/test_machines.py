"""Machines are small servers: booted in seconds, reachable by SSH, alone with their network, and back after any loss."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from tests.lab.lab import Lab
from tests.lab.machine import Machine, MachineError
from tests.lab.standing import memory

pytestmark = pytest.mark.lab

Take = Callable[[int], list[Machine]]


def test_two_machines_boot_at_the_same_time(lab: Lab) -> None:
    first, second = lab.machines("quick-1", "quick-2")
    try:
        assert first.ssh("hostname").stdout == "quick-1\n"
        assert second.ssh("hostname").stdout == "quick-2\n"
    finally:
        lab.discard(first)
        lab.discard(second)


def test_a_machine_is_an_ordinary_debian_server(machines: Take) -> None:
    (machine,) = machines(1)
    assert "bookworm" in machine.read("/etc/os-release")
    assert machine.ssh("id", "-un").stdout == "debian\n"
    assert machine.ssh("sudo", "-n", "id", "-un").stdout == "root\n"
    assert machine.run("systemctl", "is-system-running", "--wait", check=False).stdout == "running\n"
    assert machine.run("systemctl", "--failed", "--quiet", "--no-legend").stdout == ""
    for absent in ("k3s", "kubelet", "containerd", "runc", "docker", "tailscaled"):
        assert machine.run("which", absent, check=False).returncode == 1
    machine.run("test", "-c", "/dev/net/tun")
    assert machine.run("ip", "route", "show", "default").stdout.split()[2] == machine.network.gateway
    sources = machine.run("sh", "-c", "cat /etc/apt/sources.list.d/*").stdout
    assert {line.split()[1] for line in sources.splitlines() if line.startswith("URIs:")} == {
        "http://deb.debian.org/debian",
        "http://deb.debian.org/debian-security",
    }


def test_no_two_machines_are_the_same(machines: Take) -> None:
    first, second = machines(2)
    assert first.host_key != second.host_key
    assert first.host_key.startswith("ssh-ed25519 ")
    assert first.read("/etc/machine-id") != second.read("/etc/machine-id")
    assert first.address != second.address


def test_only_the_labs_key_gets_in(machines: Take) -> None:
    (machine,) = machines(1)
    options = [
        "-F",
        "/dev/null",
        "-oBatchMode=yes",
        f"-oUserKnownHostsFile={machine.known_hosts}",
        "-oIdentityFile=none",
    ]
    refused = subprocess.run(
        ["ssh", *options, "-oIdentitiesOnly=yes", f"debian@{machine.address}", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr
    root = ["ssh", *machine.ssh_options(), f"root@{machine.address}", "true"]
    assert subprocess.run(root, capture_output=True, check=False).returncode == 255


def test_commands_and_files(machines: Take) -> None:
    (machine,) = machines(1)
    assert machine.run("cat", input="words\n").stdout == "words\n"
    assert machine.ssh("cat", input=b"words\n").stdout == "words\n"
    assert machine.ssh("printf", "%s|", "a b", "$HOME", "'").stdout == "a b|$HOME|'|"
    machine.put(b"#!/bin/sh\necho here\n", "/opt/new/place/run", mode=0o755)
    assert machine.run("/opt/new/place/run").stdout == "here\n"
    assert machine.run("false", check=False).returncode == 1
    with pytest.raises(MachineError, match=r"ls /nowhere.*No such file"):
        machine.run("ls", "/nowhere")
    with pytest.raises(MachineError, match="ls /nowhere"):
        machine.ssh("ls", "/nowhere")
    with pytest.raises(MachineError, match="sleep 987"):
        machine.run("sleep", "987", timeout=0.5)
    assert machine.run("pgrep", "-x", "sleep", check=False).returncode == 1


def test_each_has_a_cgroup_tree_of_its_own(machines: Take) -> None:
    first, second = machines(2)
    start = ("systemd-run", "--unit=mine", "--property=MemoryMax=64M", "sleep", "600")
    first.run(*start)
    second.run(*start)
    first.run("systemctl", "stop", "mine")
    assert second.run("systemctl", "is-active", "mine").stdout == "active\n"


def test_nothing_leaves_the_network(lab: Lab, machines: Take) -> None:
    (machine,) = machines(1)
    outside = lab.network("outside")
    far = lab.machine("far", outside)
    try:
        script = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
    print("connected")
except OSError as error:
    print(error.strerror or error)
"""
        dial = ("python3", "-c", script)
        assert machine.run(*dial, "198.51.100.1", "80").stdout == "Connection refused\n"
        assert machine.run(*dial, "10.43.0.1", "443").stdout == "Connection refused\n"
        assert machine.run(*dial, far.address, "22").stdout == "Connection refused\n"
        assert far.run(*dial, machine.address, "22").stdout == "Connection refused\n"
        assert machine.run(*dial, "deb.debian.org", "80").stdout == "Temporary failure in name resolution\n"
        assert machine.run("ip", "-6", "route", "show", "default").stdout == ""
        assert machine.run("ping", "-c1", "-W2", machine.network.gateway).returncode == 0
    finally:
        lab.discard(far)


def test_machines_of_a_network_know_each_other_by_name(machines: Take) -> None:
    first, second = machines(2)
    assert first.run("getent", "hosts", second.name).stdout.split()[0] == second.address


@pytest.mark.parametrize("way", ["power_off", "power_cut"])
def test_a_machine_comes_back_as_it_was(machines: Take, way: str) -> None:
    (machine,) = machines(1)
    before = machine.read("/etc/machine-id"), machine.host_key, machine.address
    machine.put(b"kept", "/var/lib/rancher/kept")
    machine.put(b"kept", "/root/kept")
    machine.run("sync")
    with getattr(machine, way)():
        assert machine.state() == "exited"
        with pytest.raises(MachineError):
            machine.run("true")
        assert machine.ssh("true", check=False).returncode == 255
    assert machine.ssh("hostname").stdout.strip() == machine.name
    assert machine.read("/var/lib/rancher/kept") + machine.read("/root/kept") == "keptkept"
    assert (machine.read("/etc/machine-id"), machine._read_host_key(), machine.address) == before


def test_a_machine_that_does_not_boot_says_its_last_words(lab: Lab) -> None:
    (machine,) = lab.machines("broken")
    try:
        machine.run("systemctl", "mask", "ssh")
        machine.power_cut()
        machine.patience = 3
        with pytest.raises(MachineError, match=r"broken at .* to be reachable by SSH: not within"):
            machine.power_on()
    finally:
        lab.discard(machine)


def test_an_idle_machine_costs_little(machines: Take) -> None:
    (machine,) = machines(1)
    used = memory(machine.container)
    print(f"an idle machine uses {used / 2**20:.0f} MiB")
    assert used < 64 << 20
