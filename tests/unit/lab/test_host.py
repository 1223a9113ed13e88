"""A machine that cannot run the lab is told why in one line, and its lab tests are skipped with that line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.lab import host

ROOT = Path(__file__).resolve().parents[3]

FULL = "Name:\tdockerd\nCapBnd:\t000001ffffffffff\n"
NO_RESOURCE = "CapBnd:\t000001fffeffffff\n"


@pytest.mark.parametrize(
    ("status", "missing"), [(FULL, []), (NO_RESOURCE, ["SYS_RESOURCE"]), ("CapBnd:\t000001fffdfeffff\n", ["SYS_MODULE", "SYS_TIME"])]
)  # fmt: skip
def test_missing_capabilities(status: str, missing: list[str]) -> None:
    assert host.missing_capabilities(status) == missing


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Pretend that this machine has everything, but for what is said."""

    def pretend(
        *, system: str = "Linux", user: int = 0, programs: bool = True, memory: int = 8 << 30, version: str | None = "20.10",
        root: str = str(tmp_path), options: str = "[]", free: int = 100 << 30,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("os.uname", lambda: os.uname_result((system, "", "", "", "")))
        monkeypatch.setattr("os.geteuid", lambda: user)
        monkeypatch.setattr(
            "shutil.which", lambda name, **_: f"/bin/{name}" if programs or name != "ebtables" else None
        )
        monkeypatch.setattr("os.path.exists", lambda path: True)
        monkeypatch.setattr(host, "_available_memory", lambda: memory)
        monkeypatch.setattr(host, "engine", lambda: version)
        monkeypatch.setattr(host, "docker", lambda *argv, **_: root if "Root" in argv[-1] else options)
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))

    return pretend


def test_a_fit_machine(able: Callable[..., None]) -> None:
    able()
    assert host.unavailable() is None


@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        ({"system": "Darwin"}, "needs Linux"),
        ({"user": 1000}, "needs root"),
        ({"programs": False}, "ebtables (iptables or ebtables)"),
        ({"memory": 1 << 30}, "needs 2048 MiB of memory, 1024 MiB are available"),
        ({"version": None}, "needs a running Docker engine: python -m tests.lab docker"),
        ({"root": "/nowhere/docker"}, "needs a Docker engine on this machine"),
        ({"options": "[name=rootless]"}, "rootless"),
        ({"free": 1 << 30}, "needs 6 GiB free"),
    ],
)
def test_what_is_missing_is_one_line(able: Callable[..., None], lack: dict[str, object], reason: str) -> None:
    able(**lack)
    said = host.unavailable()
    assert said is not None
    assert reason in said
    assert "\n" not in said


def test_building_needs_no_engine(able: Callable[..., None]) -> None:
    able(version=None)
    assert host.unavailable("build") is None


def lab_tests(tmp_path: Path, **environment: str) -> str:
    """What pytest says of lab tests where there is no docker command."""
    tools = tmp_path / "bin"
    tools.mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/lab/test_machines.py"]
    env = {"PATH": str(tools), "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False).stdout


def test_lab_tests_are_skipped_with_that_line(tmp_path: Path) -> None:
    said = lab_tests(tmp_path)
    assert "the lab needs" in said
    assert " skipped in " in said.splitlines()[-1]
    assert "Traceback" not in said
    assert "failed" not in said.splitlines()[-1]


def test_a_required_lab_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    said = lab_tests(tmp_path, QWEX_LAB="required")
    assert "the lab needs" in said
    assert " errors in " in said.splitlines()[-1]
    assert "skipped" not in said.splitlines()[-1]
    assert "Traceback" not in said
