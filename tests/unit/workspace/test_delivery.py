"""Results at the user's: whole, repeated without harm, and never over an edit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.workspace.grove import grow, picture

from qwex.config import Paths
from qwex.errors import WorkspaceError
from qwex.model.trees import Tree
from qwex.workspace.delivery import Conflict, deliver, sync_back
from qwex.workspace.scan import scan
from qwex.workspace.snapshot import identify

BASE = {b"a": b"old", b"run": b"#!", b"l": (b"a",), b"d/in": b"1", b"e": None}


@pytest.fixture
def base(project: Path, paths: Paths) -> Tree:
    grow(project, BASE)
    return identify(scan(project), paths)


def results(tmp_path: Path, layout: dict[bytes, bytes | tuple[bytes] | None]) -> Path:
    place = tmp_path / "fetched"
    place.mkdir()
    grow(place, layout)
    return place


def test_delivery_moves_and_keeps_what_is_there(tmp_path: Path) -> None:
    into = tmp_path / "runs/1"
    fetched = results(tmp_path, {b"0/x": b"1", b"0/l": (b"x",), b"0/e": None, b"same": b"new"})
    grow(tmp_path, {b"runs/1/same": b"old", b"runs/1/mine": b"m"})
    done = deliver(fetched, into)
    assert done.paths == (b"0/e", b"0/l", b"0/x", b"same")
    assert done.size == 4
    assert picture(into) == {
        b"0": ("directory",), b"0/e": ("directory",), b"0/l": ("link", b"x"), b"0/x": ("file", 0o644, b"1", 0),
        b"mine": ("file", 0o644, b"m", 0), b"same": ("file", 0o644, b"new", 0),
    }  # fmt: skip


def test_delivery_where_a_directory_or_file_is_in_the_way(tmp_path: Path) -> None:
    into = tmp_path / "into"
    grow(tmp_path, {b"into/d/kept": b"k", b"into/f": b"k"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (into / "l").symlink_to(outside)
    done = deliver(results(tmp_path, {b"d": b"1", b"f/x": b"2", b"l/y": b"3"}), into)
    assert done.paths == (b"d.qwex-new", b"f.qwex-new/x", b"l.qwex-new/y")
    assert (into / "d/kept").read_bytes() == b"k"
    assert (into / "f").read_bytes() == b"k"
    assert list(outside.iterdir()) == []


def test_untouched_files_are_replaced_and_new_ones_added(project: Path, base: Tree, tmp_path: Path) -> None:
    fetched = results(
        tmp_path, {b"a": b"result", b"l": (b"d",), b"new/x": b"n", b"e/x": b"in", b"run": b"#!", b"void": None}
    )
    (fetched / "run").chmod(0o755)
    assert sync_back(fetched, project, base, "id") == []
    assert (project / "a").read_bytes() == b"result"
    assert os.readlink(project / "l") == "d"
    assert (project / "new/x").read_bytes() == b"n"
    assert (project / "e/x").read_bytes() == b"in"
    assert (project / "run").stat().st_mode & 0o777 == 0o755
    assert (project / "void").is_dir()
    before = picture(project)
    assert sync_back(fetched, project, base, "id") == []
    assert picture(project) == before
    assert (fetched / "a").exists()


def edit(project: Path) -> None:
    (project / "a").write_bytes(b"mine")


def remove(project: Path) -> None:
    (project / "a").unlink()


def to_directory(project: Path) -> None:
    (project / "a").unlink()
    (project / "a").mkdir()
    (project / "a/kept").write_text("")


def to_empty_directory(project: Path) -> None:
    (project / "a").unlink()
    (project / "a").mkdir()


def to_link(project: Path) -> None:
    (project / "a").unlink()
    (project / "a").symlink_to("run")


def to_pipe(project: Path) -> None:
    (project / "a").unlink()
    os.mkfifo(project / "a")


def mode(project: Path) -> None:
    (project / "a").chmod(0o600)


@pytest.mark.parametrize("change", [edit, remove, to_directory, to_empty_directory, to_link, to_pipe, mode])
def test_an_edit_is_never_overwritten(
    project: Path, base: Tree, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(project)
    before = os.lstat(project / "a") if os.path.lexists(project / "a") else None
    fetched = results(tmp_path, {b"a": b"result"})
    for _ in range(2):
        assert sync_back(fetched, project, base, "1p4c") == [Conflict(b"a", b"a.qwex-1p4c")]
        assert (project / "a.qwex-1p4c").read_bytes() == b"result"
        assert (os.lstat(project / "a") if os.path.lexists(project / "a") else None) == before
    assert sorted(path.name for path in project.iterdir() if "qwex" in path.name) == ["a.qwex-1p4c"]


def test_the_same_edit_is_no_conflict(project: Path, base: Tree, tmp_path: Path) -> None:
    (project / "a").write_bytes(b"result")
    (project / "extra").write_bytes(b"both")
    assert sync_back(results(tmp_path, {b"a": b"result", b"extra": b"both"}), project, base, "id") == []


def test_a_file_that_appeared_meanwhile(project: Path, base: Tree, tmp_path: Path) -> None:
    (project / "out").write_bytes(b"mine")
    (project / "out.qwex-id").write_bytes(b"taken")
    conflicts = sync_back(results(tmp_path, {b"out": b"result"}), project, base, "id")
    assert conflicts == [Conflict(b"out", b"out.qwex-id.2")]
    assert (project / "out.qwex-id").read_bytes() == b"taken"


def test_links_conflict_like_files(project: Path, base: Tree, tmp_path: Path) -> None:
    (project / "l").unlink()
    (project / "l").symlink_to("run")
    assert sync_back(results(tmp_path, {b"l": (b"d",)}), project, base, "id") == [Conflict(b"l", b"l.qwex-id")]
    assert os.readlink(project / "l.qwex-id") == "d"
    assert os.readlink(project / "l") == "run"


def test_nothing_is_written_through_a_link(project: Path, base: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (project / "d/in").unlink()
    (project / "d").rmdir()
    (project / "d").symlink_to(outside)
    conflicts = sync_back(results(tmp_path, {b"d/in": b"2", b"d/x": b"3"}), project, base, "id")
    assert conflicts == [Conflict(b"d/in", b"d.qwex-id/in"), Conflict(b"d/x", b"d.qwex-id/x")]
    assert list(outside.iterdir()) == []


def test_a_file_the_job_made_a_directory_of(project: Path, base: Tree, tmp_path: Path) -> None:
    fetched = results(tmp_path, {b"a/x": b"1", b"l/y": b"2"})
    assert sync_back(fetched, project, base, "id") == []
    assert (project / "a/x").read_bytes() == b"1"
    assert (project / "l/y").read_bytes() == b"2"


def test_a_directory_the_job_made_a_file_of(project: Path, base: Tree, tmp_path: Path) -> None:
    conflicts = sync_back(results(tmp_path, {b"d": b"1", b"e": b"2"}), project, base, "id")
    assert conflicts == [Conflict(b"d", b"d.qwex-id")]
    assert (project / "d/in").read_bytes() == b"1"
    assert (project / "e").read_bytes() == b"2"


def test_a_working_tree_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no longer there"):
        sync_back(results(tmp_path, {}), tmp_path / "gone", Tree(()), "id")


@pytest.mark.root
def test_a_full_disk_leaves_whole_files_only(tmp_path: Path, small_disk: Path) -> None:
    fetched = results(tmp_path, {b"a": os.urandom(300_000), b"b": os.urandom(2_000_000)})
    with pytest.raises(WorkspaceError, match="No space left"):
        deliver(fetched, small_disk / "into")
    assert [path.name for path in (small_disk / "into").iterdir()] == ["a"]
    assert (fetched / "b").stat().st_size == 2_000_000
