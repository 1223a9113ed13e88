"""The Lima part without Lima: its template, what it needs, and what it takes from a killed process."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.lab import lima
from tests.lab.bundle.lima_recipe import recipes
from tests.lab.bundle.pins import LAB, pin
from tests.lab.lima import Account, Lima, LimaError, lacking, sweep, template
from tests.lab.records import me, process


def test_a_template_boots_the_disk_with_its_kernel(tmp_path: Path) -> None:
    made = template(tmp_path, provision=["#!/bin/sh\ntrue\n"], cpus=4)
    (image,) = made["images"]
    assert image["location"] == f"{tmp_path}/disk.qcow2"
    assert image["kernel"]["location"] == f"{tmp_path}/vmlinuz"
    assert f"root=LABEL={lima.LABEL} " in image["kernel"]["cmdline"]
    assert made["provision"] == [{"mode": "system", "script": "#!/bin/sh\ntrue\n"}]
    assert (made["plain"], made["cpus"]) == (True, 4)


def test_the_disk_has_the_label_that_the_kernel_looks_for() -> None:
    assert f"-L {lima.LABEL} " in (LAB / "images" / "vm" / "customize.sh").read_text()


def test_what_is_not_installed_is_said_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(shutil, "which", lambda name: None if name.startswith("qemu-system") else f"/usr/bin/{name}")
    said = lacking()
    assert said is not None
    assert said.endswith("not installed: qemu-system-x86_64 (Debian: qemu-system-x86)")
    assert "\n" not in said
    with pytest.raises(LimaError, match="qemu-system-x86"):
        Lima.create(None)  # type: ignore[arg-type]


def test_another_processor_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    said = lacking()
    assert said is not None
    assert "riscv64" in said


def test_names_do_not_collide_and_leave_room_for_sockets() -> None:
    ids = {Lima(None).id for _ in range(50)}  # type: ignore[arg-type]
    assert len(ids) == 50
    longest = Lima(None).home / ("n" * 20) / "ssh.sock.1234567890123456"  # type: ignore[arg-type]
    assert len(str(longest)) < 108


def test_an_ordinary_user_keeps_his_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    account = Account.create("qwexlab-000000", tmp_path)
    assert (account.uid, account.own, account.options) == (1, False, {})
    account.remove()
    assert pwd.getpwuid(1).pw_name == account.name


def test_only_what_the_dead_left_is_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lima, "ROOT", tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = process(ended.pid)
    ended.communicate(b"\n")
    for name, content in {"qwexlab-aaaaaa": owner, "qwexlab-bbbbbb": me(), "other": owner}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "owner").write_text(content)
    (tmp_path / "qwexlab-cccccc").mkdir()  # not ours: nobody wrote down whose it is
    waiting = [sys.executable, "-c", "input()"]
    left, kept = (
        subprocess.Popen([*waiting, f"{tmp_path}/{name}/x"], stdin=subprocess.PIPE)
        for name in ("qwexlab-aaaaaa", "qwexlab-bbbbbb")
    )
    assert sweep() == ["qwexlab-aaaaaa"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "qwexlab-bbbbbb", "qwexlab-cccccc"]
    assert left.wait(10) == -signal.SIGKILL
    assert kept.poll() is None
    kept.communicate(b"\n")


def test_the_pins_are_those_of_the_go_module() -> None:
    limactl, disk = recipes()
    (module,) = limactl.inputs
    assert f"require {pin('lima')['module']} {limactl.version}" in (module / "go.mod").read_text()
    assert (module / "go.sum").is_file()
    assert disk.place == "lab/vm"
