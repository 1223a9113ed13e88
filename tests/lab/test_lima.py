"""A real virtual machine through the real limactl: reached over SSH, its disk kept, nothing left of it."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator

import pytest
from tests.lab import bundle as bundles
from tests.lab.lima import VM, Lima, LimaError, lacking, processes
from tests.lab.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]  # under emulation, on a machine that does other things too

ARTIFACTS = ("lima", "lima-vm")
MARK = "/etc/lab-provisioned"
# Provision scripts run at every boot.
SCRIPT = f"#!/bin/sh\necho boot >> {MARK}\n"


@pytest.fixture(scope="module")
def lima() -> Iterator[Lima]:
    if reason := lacking():
        pytest.skip(reason)
    bundle = bundles.cached(*ARTIFACTS)
    if bundle is None:
        pytest.skip(f"not built: python -m tests.lab.bundle build {' '.join(ARTIFACTS)}")
    with Lima.create(bundle) as made:
        yield made


@pytest.fixture(scope="module")
def vm(lima: Lima, record_testsuite_property: Callable[[str, object], None]) -> VM:
    """One machine for all tests here, booted once for them."""
    made = lima.create_vm("node", provision=[SCRIPT])
    began = time.monotonic()
    made.start()
    record_testsuite_property("seconds to a provisioned machine", round(time.monotonic() - began, 1))
    return made


def test_it_is_reached_over_ssh_by_anyone_with_the_key(vm: VM) -> None:
    assert vm.status == "Running"
    assert vm.address == "127.0.0.1"
    assert vm.login("cat", "/etc/debian_version").stdout.startswith("12.")
    assert vm.login("sudo", "id", "-u").stdout == "0\n"
    assert vm.ssh("hostname").stdout == "lima-node\n"
    assert vm.login("sh", "-c", "exit 3", check=False).returncode == 3


def test_another_host_key_is_refused(vm: VM) -> None:
    honest = vm.known_hosts.read_text()
    other = (
        f"[{vm.address}]:{vm.port} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIITWL/lDjYilbFU2Pk/8QFSKbs+r/19TBNO5QquQHpve\n"
    )
    vm.known_hosts.write_text(other)
    try:
        done = vm.login("true", check=False)
    finally:
        vm.known_hosts.write_text(honest)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_the_provision_script_ran(vm: VM) -> None:
    assert vm.ssh("cat", MARK).stdout == "boot\n"


def test_it_is_a_fresh_debian_server(vm: VM) -> None:
    disk = vm.ssh("df", "--output=size", "-BG", "/").stdout.split()[-1]
    assert int(disk.removesuffix("G")) >= 5  # the template's disk, not the image's
    failed = vm.ssh("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
    assert failed == ""
    assert vm.ssh("sh", "-c", "command -v containerd k3s docker || true").stdout == ""
    assert vm.ssh("stat", "-c", "%F", "/dev/net/tun").stdout == "character special file\n"


def test_two_homes_do_not_see_each_others_machines(lima: Lima, vm: VM) -> None:
    bundle = bundles.cached(*ARTIFACTS)
    assert bundle is not None
    with Lima.create(bundle) as other:
        assert other.list() == []
        mine = other.create_vm(vm.name)
        assert mine.status == "Stopped"
        assert other.directory != lima.directory
        with pytest.raises(LimaError, match="already exists"):
            other.create_vm(vm.name)
        assert vm.status == "Running"
    assert vm.ssh("true").returncode == 0
    assert not other.directory.exists()


def test_a_setting_that_lima_refuses_is_said(lima: Lima) -> None:
    with pytest.raises(LimaError, match="memory"):
        lima.create_vm("wrong", memory="much")
    assert "wrong" not in [found["name"] for found in lima.list()]


def test_what_is_written_survives_a_stop(vm: VM) -> None:
    vm.ssh("sudo", "sh", "-c", "echo kept > /etc/lab-kept")
    before = vm.host_key
    vm.stop()
    assert vm.status == "Stopped"
    vm.start()
    assert vm.status == "Running"
    assert vm.login("cat", "/etc/lab-kept").stdout == "kept\n"
    assert vm.ssh("cat", MARK).stdout == "boot\nboot\n"
    assert vm.host_key != before  # Lima gives every boot a new instance id, for which cloud-init makes new host keys


def test_nothing_is_left_of_a_closed_one(lima: Lima, vm: VM) -> None:
    """The last one here, for it ends what the others use."""
    assert lima.account is not None
    name, directory = lima.account.name, lima.directory
    assert any("qemu-system" in command for command in processes(directory).values())
    vm.delete()
    assert not vm.directory.exists()
    until("its processes to end", lambda: not processes(directory), within=30)
    lima.close()
    assert not directory.exists()
    if os.geteuid() == 0:
        assert name not in {entry.pw_name for entry in pwd.getpwall()}
