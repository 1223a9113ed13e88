"""Identifying and keeping: digests, the stat cache, files that change meanwhile, blobs."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from tests.unit.workspace.grove import grow

from qwex.config import Paths
from qwex.errors import WorkspaceError
from qwex.model.trees import Kind, Tree
from qwex.workspace import blobs, content, snapshot
from qwex.workspace.faults import Changed
from qwex.workspace.roots import guard
from qwex.workspace.scan import scan
from qwex.workspace.snapshot import BlobSource, WorkingSource, capture, identify, keep, load_tree, save_tree
from qwex.workspace.statcache import StatCache
from qwex.workspace.unpack import prune_blobs

LAYOUT = {
    b"a": b"one", b"d/\xff\n": b"two", b"-x": b"", b"link": (b"/nowhere/\xff",), b"empty/inner": None, b"d/same": b"one",
}  # fmt: skip


@pytest.fixture
def work(project: Path) -> Path:
    grow(project, LAYOUT)
    (project / "a").chmod(0o755)
    return project


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made just now count as made long ago."""
    real = time.time_ns
    monkeypatch.setattr("qwex.workspace.statcache.time.time_ns", lambda: real() + 60 * 10**9)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []

    def counted(file: int, size: int) -> bytes:
        sizes.append(size)
        return content.read_all(file, size)

    monkeypatch.setattr(snapshot, "read_all", counted)
    return sizes


def test_a_tree_says_what_is_there(work: Path, paths: Paths) -> None:
    tree = identify(scan(work), paths)
    seen = {one.path: (one.kind, one.digest, one.size) for one in tree.entries}
    assert seen == {
        b"a": (Kind.FILE, sha256(b"one").hexdigest(), 3),
        b"d/\xff\n": (Kind.FILE, sha256(b"two").hexdigest(), 3),
        b"d/same": (Kind.FILE, sha256(b"one").hexdigest(), 3),
        b"-x": (Kind.FILE, sha256(b"").hexdigest(), 0),
        b"link": (Kind.LINK, b"/nowhere/\xff".hex(), 0),
        b"empty/inner": (Kind.DIRECTORY, "", 0),
    }
    assert tree.size == 9
    assert next(one.mode for one in tree.entries if one.path == b"a") == 0o755
    assert next(one for one in tree.entries if one.kind is Kind.LINK).target == b"/nowhere/\xff"


@pytest.mark.usefixtures("old")
def test_unchanged_files_are_not_read_again(work: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    first = identify(scan(work), paths)
    reads = count_reads(monkeypatch)
    assert identify(scan(work), paths) == first
    assert reads == []
    (work / "a").write_bytes(b"changed")
    assert identify(scan(work), paths).digest != first.digest
    assert reads == [7]


def test_a_file_written_just_now_is_not_trusted(work: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwex.workspace.statcache.time.time_ns", lambda: os.stat(work / "a").st_ctime_ns)
    identify(scan(work), paths)
    reads = count_reads(monkeypatch)
    identify(scan(work), paths)
    assert len(reads) == 4


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_cache_is_ignored(work: Path, paths: Paths, damage: bytes | None) -> None:
    first = identify(scan(work), paths)
    (file,) = (paths.cache / "stat").iterdir()
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage is None else damage)
    assert identify(scan(work), paths) == first


def test_a_cache_that_cannot_be_written_is_done_without(work: Path, paths: Paths) -> None:
    paths.cache.parent.mkdir()
    paths.cache.write_text("a file where the directory would be")
    assert identify(scan(work), paths).entries


def meddling(monkeypatch: pytest.MonkeyPatch, module: object, meddle: Callable[[int], object]) -> list[int]:
    """After every read of a file ``meddle`` is called with the number of the read."""
    done: list[int] = []
    real = content.read_all

    def read(file: int, size: int) -> bytes:
        data = real(file, size)
        done.append(size)
        meddle(len(done))
        return data

    monkeypatch.setattr(module, "read_all", read)
    return done


@pytest.mark.parametrize("how", ["appended", "replaced"])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    project: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    file = project / "log"
    file.write_bytes(b"one")

    def meddle(number: int) -> None:
        if number > 2:
            return
        if how == "appended":
            with file.open("ab") as opened:
                opened.write(b"+")
        else:
            other = project.parent / "other"
            other.write_bytes(b"new")
            os.replace(other, file)

    done = meddling(monkeypatch, snapshot, meddle)
    tree = identify(scan(project), paths)
    assert len(done) == 3
    assert tree.entries[0].digest == sha256(file.read_bytes()).hexdigest()
    assert tree.entries[0].size == file.stat().st_size


def test_a_file_that_never_holds_still_is_an_error(
    project: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "log").write_bytes(b"x")
    meddling(monkeypatch, blobs, lambda number: (project / "log").write_bytes(b"x" * number))
    with pytest.raises(Changed, match="log kept changing") as caught:
        capture(scan(project), paths)
    assert caught.value.hint is not None


def test_a_file_deleted_after_the_scan_is_left_out_and_one_replaced_is_an_error(work: Path, paths: Paths) -> None:
    seen = scan(work)
    (work / "a").unlink()
    assert b"a" not in {one.path for one in identify(seen, paths).entries}
    (work / "a").symlink_to("-x")
    with pytest.raises(Changed, match="a was replaced"):
        identify(seen, paths)
    (work / "a").unlink()
    os.mkfifo(work / "a")
    with pytest.raises(Changed, match="a was replaced"):
        identify(seen, paths)


def test_unreadable_files_are_one_error(ordinary: Path) -> None:
    for number in range(12):
        (ordinary / f"f{number:02}").write_text("x")
        (ordinary / f"f{number:02}").chmod(0o200)
    with pytest.raises(WorkspaceError, match=r"cannot be read: f00, f01, .*f09 and 2 more") as caught:
        identify(scan(ordinary), Paths(ordinary / "s", ordinary / "c", ordinary / "k"))
    assert "chmod" in (caught.value.hint or "")


def test_blobs_are_whole_read_only_and_stored_once(work: Path, paths: Paths) -> None:
    seen = scan(work)
    source = capture(seen, paths)
    kept = sorted((paths.state / "blobs").glob("*/*"))
    assert [file.name for file in kept] == sorted({sha256(text).hexdigest() for text in (b"one", b"two", b"")})
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o400}
    assert source.locate(sha256(b"one").hexdigest()).read_bytes() == b"one"
    (work / "a").write_bytes(b"edited later")
    assert source.locate(sha256(b"one").hexdigest()).read_bytes() == b"one"
    assert keep(scan(work), identify(scan(work), paths), paths).tree.digest != source.tree.digest


@pytest.mark.usefixtures("old")
def test_a_blob_of_wrong_size_is_made_anew(work: Path, paths: Paths) -> None:
    source = capture(scan(work), paths)
    path = source.locate(sha256(b"one").hexdigest())
    path.chmod(0o600)
    path.write_bytes(b"")
    assert capture(scan(work), paths).locate(sha256(b"one").hexdigest()).read_bytes() == b"one"


def test_keeping_what_was_edited_since_is_an_error(work: Path, paths: Paths) -> None:
    seen = scan(work)
    tree = identify(seen, paths)
    (work / "a").write_bytes(b"two and more")
    with pytest.raises(Changed, match="a changed"):
        keep(seen, tree, paths)
    (work / "a").unlink()
    with pytest.raises(Changed, match="a was removed"):
        keep(seen, tree, paths)


def test_large_files_are_hashed_as_they_are_copied(project: Path, paths: Paths) -> None:
    data = os.urandom(3 << 20)
    (project / "large").write_bytes(data)
    reports: list[tuple[str, int, int]] = []
    source = capture(scan(project), paths, lambda *report: reports.append(report))
    assert source.locate(sha256(data).hexdigest()).read_bytes() == data


def test_gigabytes_of_hole_take_no_disk(project: Path, paths: Paths) -> None:
    size = 2 << 30
    with (project / "sparse").open("wb") as file:
        file.truncate(size)
        file.seek(1 << 30)
        file.write(b"here")
    if (project / "sparse").stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no holes")
    source = capture(scan(project), paths)
    (entry,) = source.tree.entries
    kept = source.locate(entry.digest)
    assert kept.stat().st_size == size
    assert kept.stat().st_blocks * 512 < 1 << 20
    with kept.open("rb") as file:
        file.seek(1 << 30)
        assert file.read(5) == b"here\0"


@pytest.mark.root
def test_a_full_disk_leaves_no_half_blob(project: Path, small_disk: Path) -> None:
    (project / "a").write_bytes(os.urandom(300_000))
    (project / "b").write_bytes(os.urandom(3_000_000))
    with pytest.raises(WorkspaceError, match="No space left") as caught:
        capture(scan(project), Paths(small_disk / "state", small_disk / "c", small_disk / "k"))
    assert "free" in (caught.value.hint or "")
    left = [file for file in small_disk.rglob("*") if file.is_file()]
    assert [file.stat().st_size for file in left if "blobs" in str(file)] == [300_000]
    assert not any(file.name.startswith("new-") for file in left)


def test_an_error_of_the_state_directory_names_it(work: Path, paths: Paths) -> None:
    paths.state.mkdir(parents=True)
    (paths.state / "blobs").write_text("a file in the way")
    with pytest.raises(WorkspaceError, match="blobs"):
        capture(scan(work), paths)


def test_a_working_source_knows_when_a_file_was_edited(work: Path, paths: Paths) -> None:
    source = WorkingSource(work, identify(scan(work), paths))
    one = sha256(b"one").hexdigest()
    assert source.locate(one) == work / "a"
    (work / "a").write_bytes(b"edited")
    assert source.locate(one) == work / "d/same"
    (work / "d/same").unlink()
    with pytest.raises(Changed, match="a changed since"):
        source.locate(one)


def test_manifests_come_back_the_same_and_damaged_ones_do_not(work: Path, paths: Paths) -> None:
    tree = identify(scan(work), paths)
    save_tree(tree, paths)
    save_tree(tree, paths)
    assert load_tree(tree.digest, paths) == tree
    assert load_tree("", paths) == Tree(())
    assert load_tree("0" * 64, paths) is None
    file = paths.state / "trees" / tree.digest
    for damage in (file.read_bytes()[:-1], b"", b"qwex tree 1\nx"):
        file.write_bytes(damage)
        assert load_tree(tree.digest, paths) is None


def test_pruning_spares_what_is_kept_and_what_is_young(work: Path, paths: Paths) -> None:
    source = capture(scan(work), paths)
    one = sha256(b"one").hexdigest()
    assert prune_blobs(paths, {one}, older_than=3600) == 0
    assert prune_blobs(paths, {one}, older_than=0) == 3
    assert source.locate(one).exists()
    with pytest.raises(WorkspaceError, match="no longer kept"):
        source.locate(sha256(b"two").hexdigest())


def test_a_used_blob_is_young_again(work: Path, paths: Paths) -> None:
    source = capture(scan(work), paths)
    path = source.locate(sha256(b"one").hexdigest())
    os.utime(path, (0, 0))
    assert capture(scan(work), paths).tree == source.tree
    prune_blobs(paths, (), older_than=600)
    assert path.exists()


def test_pruning_an_empty_place(paths: Paths) -> None:
    assert prune_blobs(paths, (), older_than=0) == 0


@pytest.mark.usefixtures("old")
def test_the_cache_belongs_to_one_root_and_forgets_what_is_gone(work: Path, paths: Paths) -> None:
    identify(scan(work), paths)
    found = scan(work).found
    known = StatCache(paths.cache, work).lookup(found[1:])
    assert all(digest or one.kind is Kind.DIRECTORY for one, digest in zip(found[1:], known, strict=True))
    assert not any(StatCache(paths.cache, work / "d").lookup(found))
    (work / "a").unlink()
    identify(scan(work), paths)
    known = StatCache(paths.cache, work).lookup(found)
    assert {one.path for one, digest in zip(found, known, strict=True) if not digest} == {b"a", b"empty/inner"}


@pytest.mark.usefixtures("old")
def test_large_inode_numbers(work: Path, paths: Paths) -> None:
    found = [one._replace(ino=(1 << 64) - 1) for one in scan(work).found]
    cache = StatCache(paths.cache, work)
    cache.lookup(found)
    cache.learn(found[1], "digest")
    cache.save()
    assert StatCache(paths.cache, work).lookup(found)[1] == "digest"


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_other_failures_name_the_file(work: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def broken(file: int, size: int) -> bytes:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(snapshot, "read_all", broken)
    with pytest.raises(WorkspaceError, match=os.strerror(error)):
        identify(scan(work), paths)


def test_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "people/me"
    (home / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    assert guard(home / "project") is None
    assert "your home directory" in (guard(home) or "")
    assert "contains your home" in (guard(tmp_path) or "")
    assert "whole machine" in (guard(Path("/")) or "")
    for place in ("/etc", "/etc/ssh", "/tmp", "/usr"):
        assert "system" in (guard(Path(place)) or "")
    assert "another user" in (guard(Path("/home/somebody-else")) or "")


def test_a_source_of_blobs_tells_where(work: Path, paths: Paths) -> None:
    source = capture(scan(work), paths)
    again = BlobSource(source.tree, paths)
    assert all(Path(again.path(one.digest)).exists() for one in source.tree.entries if one.kind is Kind.FILE)
