"""Progress lines, image archives, the table of recipes and its pins, and the command line."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from tests.lab.bundle import Bench, Recipe, __main__, images, recipes
from tests.lab.bundle.images import BASE, Image, Link
from tests.lab.bundle.pins import LAB, pin
from tests.lab.bundle.progress import Progress
from tests.lab.bundle.recipe import keys


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_plain_lines() -> None:
    out = io.StringIO()
    with Progress(2, out) as progress:
        progress.begin("a v1")
        progress.begin("b v1")
        progress.end("b v1", "failed")
        progress.end("a v1")
    assert out.getvalue().splitlines() == ["[1/2] a v1 …", "[2/2] b v1 …", "[2/2] b v1  failed", "[1/2] a v1  0 s"]


def test_progress_on_a_terminal_counts_and_leaves_plain_lines_behind() -> None:
    out = Terminal()
    with Progress(1, out) as progress:
        progress.begin("a v1")
        progress.tick()
        progress.end("a v1")
    assert "\r\x1b[K[1/1] a v1 … 0 s" in out.getvalue()
    assert out.getvalue().endswith("\r\x1b[K[1/1] a v1  0 s\n\r\x1b[K")


def _program(directory: Path) -> Path:
    program = directory / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_a_layer_holds_the_tree_with_fixed_times_and_owners(tmp_path: Path) -> None:
    tree = {**BASE, "usr/bin/program": _program(tmp_path), "bin/sh": Link("/usr/bin/program"), "data": b"x"}
    with tarfile.open(images.layer(tree, tmp_path / "layer.tar")) as layer:
        found = {member.name: member for member in layer}
    assert list(found) == sorted(found)
    assert {member.mtime for member in found.values()} == {images.EPOCH}
    assert {(member.uid, member.gid, member.uname) for member in found.values()} == {(0, 0, "")}
    modes = {name: oct(found[name].mode) for name in ("tmp", "usr", "usr/bin/program", "data")}
    assert modes == {"tmp": "0o1777", "usr": "0o755", "usr/bin/program": "0o755", "data": "0o644"}
    assert (found["bin/sh"].issym(), found["bin/sh"].linkname) == (True, "/usr/bin/program")


def test_an_archive_is_what_docker_save_writes_and_the_same_every_time(tmp_path: Path) -> None:
    sums = set()
    for run in ("one", "two"):
        place = tmp_path / run
        place.mkdir()
        layer = images.layer({**BASE, "program": _program(place)}, place / "layer.tar")
        first = Image("lab.local/a:1", (layer,), entrypoint=("/program",), user="65532:65532", ports=("53/udp",))
        images.save([first, Image("lab.local/b:1", (layer,), command=("sh",))], place / "images.tar")
        sums.add(hashlib.sha256((place / "images.tar").read_bytes()).hexdigest())
    assert len(sums) == 1
    assert images.names(tmp_path / "one" / "images.tar") == ["lab.local/a:1", "lab.local/b:1"]
    with tarfile.open(tmp_path / "one" / "images.tar") as archive:
        read = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        contents = {name: file.read() for name, file in read.items() if file is not None}
    assert sum(name.endswith("/layer.tar") for name in contents) == 1
    for row in json.loads(contents["manifest.json"]):
        assert hashlib.sha256(contents[row["Config"]]).hexdigest() == row["Config"].removesuffix(".json")
        config = json.loads(contents[row["Config"]])
        digests = [f"sha256:{hashlib.sha256(contents[layer]).hexdigest()}" for layer in row["Layers"]]
        assert config["rootfs"]["diff_ids"] == digests
    config = json.loads(contents[json.loads(contents["manifest.json"])[0]["Config"]])["config"]
    assert (config["User"], config["Entrypoint"], config["ExposedPorts"]) == (
        "65532:65532",
        ["/program"],
        {"53/udp": {}},
    )


def test_what_is_no_archive_is_refused_by_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "no.tar", "w"):
        pass
    with pytest.raises(ValueError, match=r"no.tar is no image archive"):
        images.names(tmp_path / "no.tar")


def test_every_recipe_has_a_key_and_says_where_it_is_from() -> None:
    table = recipes.table()
    assert set(keys(table)) == set(table)
    assert [name for name, recipe in table.items() if not recipe.source] == []
    assert [name for name, recipe in table.items() if recipe.place and recipe.place.startswith(("/", "."))] == []


@pytest.mark.parametrize("name", ["coredns", "kueue", "kwok", "local-path", "metrics-server", "pulumi"])
def test_the_go_module_requires_the_pinned_version(name: str) -> None:
    lines = [line.removeprefix("require ").split() for line in (LAB / "go" / name / "go.mod").read_text().splitlines()]
    assert [pin(name)["module"], pin(name)["version"]] in [line[:2] for line in lines]
    assert (LAB / "go" / name / "go.sum").is_file()


@pytest.mark.parametrize("name", ["coredns", "kueue", "local-path", "metrics-server", "pause", "busybox"])
def test_an_image_is_tagged_with_the_version_in_it(name: str) -> None:
    assert str(pin(name)["image"]).rpartition(":")[2].lstrip("v") == str(pin(name)["version"]).lstrip("v")


def test_the_k3s_stand_in_deploys_the_images_that_are_in_its_archive() -> None:
    carried = [str(pin(name)["image"]) for name in ("coredns", "local-path", "metrics-server", "pause", "busybox")]
    assert (LAB / "go" / "k3s" / "images.txt").read_text().split() == sorted(carried)


def _write(bench: Bench) -> None:
    (bench.out / "file").write_text("a")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWEX_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(
        __main__, "table", lambda: {"low": Recipe("low", "v1", (), (), _write, place="low", source="here")}
    )
    return tmp_path


def test_the_command_builds_lists_and_checks(shell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["check"]) == 1
    assert capsys.readouterr().err == "error: low is not built\n"
    assert __main__.main([]) == 0
    told = capsys.readouterr()
    root = Path(told.out.strip())
    assert root == (shell / "bundle").resolve()
    assert re.fullmatch(r"\[1/1] low v1 …\n\[1/1] low v1  0 s\n1 artifacts ready after \d\.\d s\n", told.err)
    assert __main__.main(["list"]) == 0
    assert capsys.readouterr().out.split() == ["low", "v1", "0", "MiB", "here"]
    assert __main__.main(["check"]) == 0
    assert capsys.readouterr().out == f"2 files match their checksums in {root}\n"
    (root / "low" / "file").chmod(0o644)
    (root / "low" / "file").write_text("b")
    assert __main__.main(["check"]) == 1
    assert re.match(r"error: .*/low-\w+/out/file does not match its checksum\n", capsys.readouterr().err)


def test_the_command_answers_an_unknown_name_with_one_line(shell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["build", "high"]) == 1
    assert capsys.readouterr().err == "error: there is no artifact high; there are: low\n"
    assert __main__.main(["prune"]) == 0
