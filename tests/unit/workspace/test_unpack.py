"""Copies for jobs, what jobs changed in them, and taking it out."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.unit.workspace.grove import git, grow, layouts, picture

from qwex.config import Paths
from qwex.errors import WorkspaceError
from qwex.model.trees import Kind
from qwex.workspace.scan import Found, scan
from qwex.workspace.snapshot import BlobSource, capture
from qwex.workspace.unpack import Mark, changes, collect, discard, materialise


def paths_of(found: list[Found]) -> list[bytes]:
    return [one.path for one in found]


@pytest.fixture
def source(project: Path, paths: Paths) -> BlobSource:
    grow(project, {
        b"a": b"one", b"d/\xff\n": b"two", b"run": b"#!/bin/sh\n", b"link": (b"a",), b"empty": None, b"shut": b"x", b"big": b"z" * 400_000,
    })  # fmt: skip
    (project / "run").chmod(0o755)
    (project / "shut").chmod(0o444)
    os.utime(project / "a", ns=(1, 1_500_000_000_123_456_789))
    return capture(scan(project), paths)


@settings(max_examples=25, deadline=None)
@given(layout=layouts())
def test_a_copy_is_the_same_and_unchanged(layout: dict[bytes, bytes | tuple[bytes] | None]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root, copy = Path(place, "w"), Path(place, "copy")
        root.mkdir()
        grow(root, layout)
        kept = capture(scan(root), Paths(Path(place, "s"), Path(place, "c"), Path(place, "k")))
        mark = materialise(kept, copy, {})
        assert picture(copy, times=True) == picture(root, times=True)
        assert changes(kept.tree, copy, mark, {}, ()) == []


def test_times_modes_and_links(source: BlobSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    materialise(source, copy, {})
    assert (copy / "a").stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert (copy / "run").stat().st_mode & 0o777 == 0o755
    assert (copy / "shut").stat().st_mode & 0o777 == 0o444
    assert os.readlink(copy / "link") == "a"
    (copy / "a").write_bytes(b"private")
    assert b"one" in {path.read_bytes()[:3] for path in (tmp_path / "own/state/blobs").glob("*/*")}


def test_a_mode_the_umask_would_cut(project: Path, paths: Paths, tmp_path: Path) -> None:
    (project / "open").write_text("x")
    (project / "open").chmod(0o666)
    before = os.umask(0o077)
    try:
        materialise(capture(scan(project), paths), tmp_path / "copy", {})
    finally:
        os.umask(before)
    assert (tmp_path / "copy/open").stat().st_mode & 0o777 == 0o666


def test_links_to_originals_stand_where_nothing_is_in_the_way(source: BlobSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    links = {
        b"data": b"/far/data",
        b"new/deep/x": b"/far/x",
        b"d": b"/far/d",
        b"a/below": b"/far/b",
        b"link/z": b"/far/z",
    }
    mark = materialise(source, copy, links)
    assert os.readlink(copy / "data") == "/far/data"
    assert os.readlink(copy / "new/deep/x") == "/far/x"
    assert (copy / "d").is_dir()
    assert not (copy / "d").is_symlink()
    assert (copy / "a").read_bytes() == b"one"
    assert changes(source.tree, copy, mark, links) == []
    (copy / "data").unlink()
    (copy / "data").write_text("mine now")
    assert paths_of(changes(source.tree, copy, mark, links)) == [b"data"]


def test_a_copy_that_fails_leaves_nothing(source: BlobSource, tmp_path: Path) -> None:
    digest = next(one.digest for one in source.tree.entries if one.path == b"run")
    source.locate(digest).unlink()
    with pytest.raises(WorkspaceError, match="no longer kept"):
        materialise(source, tmp_path / "copy", {})
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", [b"a", b"big"])
def test_a_damaged_content_is_noticed(source: BlobSource, tmp_path: Path, name: bytes) -> None:
    digest = next(one.digest for one in source.tree.entries if one.path == name)
    path = source.locate(digest)
    path.chmod(0o600)
    os.truncate(path, 1)
    with pytest.raises(WorkspaceError, match="damaged"):
        materialise(source, tmp_path / "copy", {})


def test_only_an_empty_directory_is_filled(source: BlobSource, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(WorkspaceError, match="not empty"):
        materialise(source, tmp_path, {})
    assert (tmp_path / "x").exists()


@pytest.mark.root
def test_a_full_disk(source: BlobSource, project: Path, paths: Paths, small_disk: Path) -> None:
    (project / "more").write_bytes(os.urandom(2_000_000))
    with pytest.raises(WorkspaceError, match="No space left"):
        materialise(capture(scan(project), paths), small_disk / "copy", {})
    assert not (small_disk / "copy").exists()


def test_every_kind_of_change_is_found(source: BlobSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    mark = materialise(source, copy, {})
    stamp = (copy / "a").stat()
    (copy / "a").write_bytes(b"eno")  # same size, and the time is put back
    os.utime(copy / "a", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (copy / "run").chmod(0o700)
    (copy / "link").unlink()
    (copy / "link").symlink_to("run")
    (copy / "d/\udcff\n").unlink()
    (copy / "d/\udcff\n").mkdir()
    (copy / "made/by").mkdir(parents=True)
    (copy / "made/too").write_bytes(b"")
    (copy / "shut").unlink()
    os.mkfifo(copy / "pipe")
    os.utime(copy / "big")  # touched only
    found = changes(source.tree, copy, mark, {})
    assert [(one.path, one.kind) for one in found] == [
        (b"a", Kind.FILE), (b"d/\xff\n", Kind.DIRECTORY), (b"link", Kind.LINK), (b"made/by", Kind.DIRECTORY), (b"made/too", Kind.FILE),
        (b"run", Kind.FILE),
    ]  # fmt: skip


def test_a_changed_clock_hides_nothing(source: BlobSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    mark = materialise(source, copy, {})
    (copy / "a").write_bytes(b"eno")
    os.utime(copy / "a", ns=(1, 1_500_000_000_123_456_789))
    later = Mark(mark.started_ns + 10**15, mark.ended_ns + 10**15)  # as if the clock had gone back
    assert paths_of(changes(source.tree, copy, later, {})) == [b"a"]
    assert Mark.from_json(mark.to_json()) == mark


def test_patterns_choose_among_results(source: BlobSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    mark = materialise(source, copy, {})
    grow(copy, {b"out/a.csv": b"", b"out/b.tmp": b"", b"x.csv": b"", b"note": b""})
    assert paths_of(changes(source.tree, copy, mark, {}, ["out/", "!*.tmp", "/x.*"])) == [b"out/a.csv", b"x.csv"]


def test_a_removed_or_replaced_copy_has_no_results(source: BlobSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    mark = materialise(source, copy, {})
    discard(copy)
    assert changes(source.tree, copy, mark, {}) == []
    copy.write_text("a file now")
    assert changes(source.tree, copy, mark, {}) == []


def test_what_a_job_locked_is_found_collected_and_removed(ordinary: Path) -> None:
    root = ordinary / "w"
    root.mkdir()
    git(root, "init", "-q")
    grow(root, {b"a": b"1"})
    source = capture(scan(root), Paths(ordinary / "s", ordinary / "c", ordinary / "k"))
    copy = ordinary / "copy"
    mark = materialise(source, copy, {})
    grow(copy, {b"locked/in/x": b"2", b"secret": b"3", b"listed/y": b"4"})
    (copy / "secret").chmod(0)
    (copy / "locked/in").chmod(0)
    (copy / "locked").chmod(0)
    (copy / "listed").chmod(0o600)
    copy.chmod(0o500)
    found = changes(source.tree, copy, mark, {})
    assert paths_of(found) == [b"listed/y", b"locked/in/x", b"secret"]
    collected = collect(found, copy, ordinary / "out")
    assert (ordinary / "out/locked/in/x").read_bytes() == b"2"
    assert (ordinary / "out/secret").read_bytes() == b"3"
    assert collected.size == 3
    (copy / "locked").chmod(0)
    discard(copy)
    assert not copy.exists()


@pytest.mark.parametrize("move", [False, True])
def test_collected_results_are_as_the_job_left_them(source: BlobSource, tmp_path: Path, move: bool) -> None:
    copy = tmp_path / "copy"
    mark = materialise(source, copy, {})
    grow(copy, {b"out/x": b"data", b"out/\xfe": (b"../nowhere",), b"void": None})
    (copy / "out/x").chmod(0o750)
    with (copy / "holes").open("wb") as file:
        file.truncate(8 << 20)
        file.write(b"1")
    found = changes(source.tree, copy, mark, {})
    (copy / "gone").write_text("")
    found = sorted([*found, *changes(source.tree, copy, mark, {}, ["gone"])])
    (copy / "gone").unlink()
    done = collect(found, copy, tmp_path / "out", move=move)
    assert done.paths == (b"holes", b"out/x", b"out/\xfe", b"void")
    assert done.missing == (b"gone",)
    assert done.size == 4 + (8 << 20)
    assert (tmp_path / "out/out/x").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out/holes").stat().st_blocks <= (copy / "holes").stat().st_blocks + 64 if not move else True
    assert (copy / "out/x").exists() is not move


def test_discarding_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").write_text("")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/data").symlink_to(tmp_path / "keep")
    discard(tmp_path / "copy")
    discard(tmp_path / "copy")
    assert (tmp_path / "keep/file").exists()


def test_a_job_that_inits_a_repository(source: BlobSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    mark = materialise(source, copy, {})
    subprocess.run(["git", "init", "-q", str(copy / "repo")], check=True)
    assert b"repo/.git/HEAD" in paths_of(changes(source.tree, copy, mark, {}))
