"""What goes into the k3s stand-in: an archive that depends on its programs alone, put in place of an empty one."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.bundle import payload_recipe
from tests.lab.bundle.pins import pin
from tests.lab.bundle.recipe import Recipe, keys


@dataclass
class Bench:
    """A bench with one finished artifact."""

    scratch: Path
    made: Path
    out: Path = Path("/nonexistent")

    @property
    def recipe(self) -> Recipe:
        return payload_recipe.recipes()[0]

    def input(self, name: str) -> Path:
        assert name == "payload"
        return self.made

    def run(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        raise AssertionError(f"{argv} is not to run here")

    def read(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> bytes:
        raise AssertionError(f"{argv} is not to run here")


def programs(place: Path, order: Sequence[str]) -> Path:
    place.mkdir()
    for number, name in enumerate(order):
        (place / name).write_text(f"program {name}")
        os.utime(place / name, (number, number))
    return place


def test_the_archive_depends_on_the_programs_alone(tmp_path: Path) -> None:
    payload_recipe.archive(programs(tmp_path / "one", ["a", "b"]), tmp_path / "one.tar")
    payload_recipe.archive(programs(tmp_path / "two", ["b", "a"]), tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert [(each.name, each.mode, each.uid) for each in tar] == [("bin/a", 0o755, 0), ("bin/b", 0o755, 0)]


def test_the_build_sees_the_artifact_in_place_of_the_empty_archive(tmp_path: Path) -> None:
    made = tmp_path / "a place with spaces"
    made.mkdir()
    flags = payload_recipe.embedded(Bench(tmp_path, made))["GOFLAGS"]
    overlay = re.fullmatch(r"-mod=readonly '-overlay=(.*)'", flags)
    assert overlay is not None
    ((placeholder, real),) = json.loads(Path(overlay.group(1)).read_text())["Replace"].items()
    assert Path(real) == made / payload_recipe.ARCHIVE
    assert Path(placeholder).stat().st_size == 0, "the checkout carries no programs"


def test_the_modules_are_those_that_are_pinned() -> None:
    modules = dict(re.findall(r"^\t(\S+) (v\S+)", (payload_recipe.TOOLS / "go.mod").read_text(), re.MULTILINE))
    for name in ("containerd", "cni-plugins"):
        assert modules[pin(name)["module"]] == pin(name)["version"]
    node = (payload_recipe.HOME.parents[1] / "go.mod").read_text()
    assert f"{pin('flannel')['module']} {pin('flannel')['version']}" in node
    assert f"{pin('containerd')['module']} {pin('containerd')['version']}" in node, "client and server are the same"


def test_every_program_is_built_and_counts() -> None:
    (recipe,) = payload_recipe.recipes()
    tools = (payload_recipe.TOOLS / "go.mod").read_text()
    assert all(package in tools for package in payload_recipe.PROGRAMS.values())
    assert recipe.place is None, "it is part of k3s, not of the bundle"
    assert set(payload_recipe.PROGRAMS) <= set(recipe.arguments)
    assert len(keys({recipe.name: recipe})) == 1
