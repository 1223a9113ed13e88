"""Which providers a Pulumi environment takes: the real ones where they are installed, stand-ins for the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.lab.pulumi_stack import PulumiEnv, real_plugins, stand_ins


def plugin(plugins: Path, name: str, version: str, age: int = 0, binary: bool = True) -> Path:
    """A plugin's directory as Pulumi lays it out."""
    place = plugins / f"resource-{name}-v{version}"
    place.mkdir(parents=True)
    if binary:
        (place / f"pulumi-resource-{name}").touch()
    os.utime(place, (1_000_000 - age, 1_000_000 - age))
    return place


def test_where_no_plugin_is_installed_all_are_stood_in_for(tmp_path: Path) -> None:
    assert real_plugins(tmp_path / "none") == {}


def test_the_newest_installed_plugin_is_taken_and_a_broken_one_is_not(tmp_path: Path) -> None:
    plugin(tmp_path, "kubernetes", "4.24.0", age=10)
    newest = plugin(tmp_path, "kubernetes", "4.29.0")
    plugin(tmp_path, "command", "1.2.1", binary=False)
    plugin(tmp_path, "aws", "7.0.0")
    assert real_plugins(tmp_path) == {"kubernetes": newest}


def test_only_what_is_stood_in_for_is_attached(tmp_path: Path) -> None:
    env = PulumiEnv(tmp_path, tmp_path, {"command": 5}, {"kubernetes": tmp_path})
    assert env.environment["PULUMI_DEBUG_PROVIDERS"] == "command:5"
    assert "PULUMI_DEBUG_PROVIDERS" not in PulumiEnv(tmp_path, tmp_path, {}, {}).environment


def test_stand_ins_that_do_not_start_say_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="no stand-in for nothing"),
        stand_ins(["nothing"], tmp_path / "log"),
    ):
        raise AssertionError("it started")


def test_without_anything_to_stand_in_for_nothing_is_started(tmp_path: Path) -> None:
    with stand_ins([], tmp_path / "log") as ports:
        assert ports == {}
    assert list(tmp_path.iterdir()) == []
