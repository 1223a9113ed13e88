"""Trees as tar streams: other programs read what is written, and what they write is read, safely."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.workspace.grove import grow, layouts, picture

from qwex.config import Paths
from qwex.errors import WorkspaceError
from qwex.model.trees import Kind
from qwex.workspace import archive
from qwex.workspace.archive import Member, data_segments, pack, pack_and_identify, packed_size
from qwex.workspace.content import read_all
from qwex.workspace.extraction import Unpacker, unpack
from qwex.workspace.faults import Changed
from qwex.workspace.scan import scan
from qwex.workspace.snapshot import WorkingSource, identify

TARS = [tool for tool in (["tar"], ["busybox", "tar"], ["bsdtar"]) if shutil.which(tool[0])]
LONG = b"d" * 120 + b"/" + b"e" * 130 + b"/\xff\n" + b"f" * 99


def places(base: Path) -> Paths:
    return Paths(base / "s", base / "c", base / "k")


def extract(tool: list[str], stream: bytes, into: Path) -> None:
    into.mkdir()
    subprocess.run(
        [*tool, "-x", "-p", "-f", "-"],
        cwd=into,
        input=stream,
        check=True,
        env={**os.environ, "EXTRACT_UNSAFE_SYMLINKS": "1"},
    )


def packed(root: Path, base: Path) -> bytes:
    tree = identify(scan(root), places(base))
    stream = b"".join(pack(tree.entries, WorkingSource(root, tree).locate))
    assert len(stream) == packed_size(tree.entries)
    return stream


@pytest.mark.parametrize("tool", TARS, ids=lambda tool: tool[0])
@settings(max_examples=10, deadline=None)
@given(layout=layouts())
def test_tar_reads_what_is_packed(tool: list[str], layout: dict[bytes, bytes | tuple[bytes] | None]) -> None:
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        root = base / "w"
        root.mkdir()
        grow(root, {**layout, LONG: b"long", b"long-link": (b"t" * 300,)})
        extract(tool, packed(root, base), base / "there")
        assert picture(base / "there", times=True) == picture(root, times=True)


@settings(max_examples=25, deadline=None)
@given(layout=layouts(), cut=st.integers(1, 2000))
def test_what_is_packed_can_be_unpacked_in_any_pieces(
    layout: dict[bytes, bytes | tuple[bytes] | None], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        root = base / "w"
        root.mkdir()
        grow(root, {**layout, LONG: b"long", b"long-link": (b"t" * 300,)})
        stream = packed(root, base)
        done = unpack((stream[at : at + cut] for at in range(0, len(stream), cut)), base / "there")
        assert picture(base / "there", times=True) == picture(root, times=True)
        assert done.paths == tuple(one.path for one in scan(root).found)


@pytest.mark.parametrize("tool", TARS, ids=lambda tool: tool[0])
@settings(max_examples=8, deadline=None)
@given(layout=layouts())
def test_what_tar_writes_is_unpacked(tool: list[str], layout: dict[bytes, bytes | tuple[bytes] | None]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "w")
        root.mkdir()
        grow(root, {**layout, LONG: b"long", b"long-link": (b"t" * 300,)})
        stream = subprocess.run([*tool, "-c", "-f", "-", "."], cwd=root, check=True, capture_output=True).stdout
        unpack([stream], Path(place, "here"))
        assert picture(Path(place, "here"), times=True) == picture(root, times=True)


@pytest.mark.parametrize(
    "options", [["--format=gnu"], ["--format=posix"], ["--format=posix", "--sparse-version=0.1"], ["--format=ustar"]]
)
def test_sparse_files_and_hard_links_of_gnu_tar(tmp_path: Path, options: list[str]) -> None:
    if b"GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True, check=False).stdout:
        pytest.skip("needs GNU tar")
    root = tmp_path / "w"
    root.mkdir()
    with (root / "holes").open("wb") as file:
        for number in range(40):
            file.seek(number << 20)
            file.write(b"%d" % number)
        file.truncate(50 << 20)
    os.link(root / "holes", root / "other")
    sparse = [] if "ustar" in options[0] else ["-S"]
    stream = subprocess.run(
        ["tar", *sparse, *options, "-cf", "-", "."], cwd=root, check=True, capture_output=True
    ).stdout
    done = unpack([stream], tmp_path / "here")
    assert (
        (tmp_path / "here/holes").read_bytes()
        == (root / "holes").read_bytes()
        == (tmp_path / "here/other").read_bytes()
    )
    assert (tmp_path / "here/holes").stat().st_blocks * 512 < 16 << 20
    assert done.size == 100 << 20


def test_prefix_extra_members_and_a_subset(project: Path, paths: Paths, tmp_path: Path) -> None:
    grow(project, {b"a": b"1", b"b": b"2"})
    tree = identify(scan(project), paths)
    chosen = [one for one in tree.entries if one.path == b"b"]
    extra = [Member(b"meta/list", 0o600, b"x" * 700), Member(b"none", 0o700, b"")]
    stream = b"".join(pack(chosen, WorkingSource(project, tree).locate, prefix=b"files/", extra=extra))
    assert len(stream) == packed_size(chosen, prefix=b"files/", extra=extra)
    unpack([stream], tmp_path / "there")
    assert {path: content[2] for path, content in picture(tmp_path / "there").items() if content[0] == "file"} == {
        b"files/b": b"2",
        b"meta/list": b"x" * 700,
        b"none": b"",
    }


def test_large_contents_come_in_large_chunks(project: Path, paths: Paths, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (project / "large").write_bytes(data)
    for number in range(600):
        (project / f"{number}").write_bytes(b"x" * 900)
    packing = pack_and_identify(scan(project), paths)
    chunks = list(packing)
    assert min(map(len, chunks[:-1])) >= archive.CHUNK
    unpack(chunks, tmp_path / "there")
    assert (tmp_path / "there/large").read_bytes() == data
    assert packing.tree == identify(scan(project), paths)
    assert len(b"".join(chunks)) == packed_size(packing.tree.entries)


def test_a_number_too_large_for_octal(tmp_path: Path) -> None:
    header = archive._header(b"x", 0o644, 9 << 30, -5, b"0")
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (info.size, info.mtime, info.mode, info.name) == (9 << 30, 0, 0o644, "x")


def test_what_changed_since_it_was_identified_is_not_sent_as_that(project: Path, paths: Paths) -> None:
    (project / "a").write_bytes(b"one")
    tree = identify(scan(project), paths)
    (project / "a").write_bytes(b"two")
    with pytest.raises(Changed, match="a changed while it was sent"):
        list(pack(tree.entries, lambda digest: project / "a"))


@pytest.mark.parametrize("size", [100, 3 << 20])
def test_a_file_that_changes_while_it_is_packed_is_sent_again(
    project: Path, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    file = project / "log"
    file.write_bytes(b"x" * size)
    calls: list[int] = []

    def shrink() -> None:
        calls.append(1)
        if len(calls) < 3:
            file.write_bytes(b"y" * (size - 50 * len(calls)))

    def small(opened: int, expected: int) -> bytes:
        data = read_all(opened, expected)
        shrink()
        return data

    def large(opened: int, expected: int, sparse: bool) -> Iterator[bytes]:
        first = os.pread(opened, 1000, 0)
        yield first
        shrink()
        rest = os.pread(opened, expected - 1000, 1000)
        yield rest

    monkeypatch.setattr(archive, "read_all", small)
    monkeypatch.setattr(archive, "feed", large)
    packing = pack_and_identify(scan(project), paths)
    unpack(packing, tmp_path / "there")
    assert (tmp_path / "there/log").read_bytes() == file.read_bytes() == b"y" * (size - 100)
    assert packing.tree == identify(scan(project), paths)
    assert len(calls) == 3


def test_a_file_that_never_holds_still_stops_the_packing(
    project: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(opened: int, expected: int) -> bytes:
        data = read_all(opened, expected)
        (project / "log").write_bytes(data + b"+")
        return data

    (project / "log").write_bytes(b"x")
    monkeypatch.setattr(archive, "read_all", read)
    with pytest.raises(Changed, match="log kept changing"):
        list(pack_and_identify(scan(project), paths))


def test_unreadable_files_while_packing(ordinary: Path) -> None:
    for name in ("one", "two"):
        (ordinary / name).write_text("x")
        (ordinary / name).chmod(0)
    with pytest.raises(WorkspaceError, match="one, two"):
        list(pack_and_identify(scan(ordinary), places(ordinary)))


def test_sparse_files_can_be_left_to_be_sent_by_themselves(project: Path, paths: Paths) -> None:
    with (project / "holes").open("wb") as file:
        file.seek(4 << 20)
        file.write(b"x" * 4096)
        file.truncate(1 << 30)
    (project / "a").write_text("1")
    if (project / "holes").stat().st_blocks > 1000:
        pytest.skip("this file system has no holes")
    (holes,) = [one for one in scan(project).found if one.sparse]
    assert holes.path == b"holes"
    ((start, length),) = data_segments(project / "holes")
    assert start <= 4 << 20 < start + length < 5 << 20
    packing = pack_and_identify(scan(project), paths, skip_sparse=True)
    assert sum(map(len, packing)) < 10_000
    assert [one.path for one in packing.tree.entries] == [b"a"]


def crafted(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([(member("../out"), b"x")], "leads out"),
        ([(member("a/../../out"), b"x")], "leads out"),
        ([(member("/abs"), b"x")], "absolute"),
        ([(member("l", tarfile.SYMTYPE, ".."), b""), (member("l/out"), b"x")], "in place of a file or link"),
        (
            [(member("l", tarfile.SYMTYPE, ".."), b""), (member("l", tarfile.DIRTYPE), b"")],
            "in place of a file or link",
        ),
        ([(member("d", tarfile.DIRTYPE), b""), (member("d"), b"x")], "in place of a directory"),
        ([(member("h", tarfile.LNKTYPE, "/etc/passwd"), b"")], "absolute"),
        ([(member("l", tarfile.SYMTYPE, "/etc/passwd"), b""), (member("h", tarfile.LNKTYPE, "l"), b"")], "hard link"),
        ([(member("dev", tarfile.CHRTYPE), b"")], "neither a file"),
        ([(member("pipe", tarfile.FIFOTYPE), b"")], "neither a file"),
        ([(member("."), b"x")], "in place of a directory"),
    ],
)
def test_archives_that_reach_out_are_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], why: str
) -> None:
    into = tmp_path / "in/into"
    with pytest.raises(WorkspaceError, match=why):
        unpack([crafted((member("fine"), b"1"), *members)], into)
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]
    assert list((tmp_path / "in").iterdir()) == []


def test_a_later_member_counts(tmp_path: Path) -> None:
    stream = crafted(
        (member("a"), b"long content"),
        (member("l", tarfile.SYMTYPE, "a"), b""),
        (member("l"), b"file"),
        (member("a"), b"2"),
    )
    assert unpack([stream], tmp_path / "x").size == 5
    assert (tmp_path / "x/a").read_bytes() == b"2"
    assert not (tmp_path / "x/l").is_symlink()


@settings(max_examples=25, deadline=None)
@given(end=st.integers(0, 3583), flip=st.none() | st.tuples(st.integers(0, 511), st.integers(1, 255)))
def test_a_truncated_or_damaged_stream_leaves_nothing(end: int, flip: tuple[int, int] | None) -> None:
    stream = bytearray(crafted((member("a" * 150), b"x" * 700), (member("b"), b"y"))[:3584])
    if flip:
        stream[flip[0]] ^= flip[1]
    with tempfile.TemporaryDirectory() as place:
        with pytest.raises(WorkspaceError, match="archive"):
            unpack([bytes(stream[:end])], Path(place, "into"))
        assert os.listdir(place) == []


def test_after_an_error_it_stays_failed(tmp_path: Path) -> None:
    unpacker = Unpacker(tmp_path / "x")
    with pytest.raises(WorkspaceError):
        unpacker.feed(b"\1" * 512)
    unpacker.feed(bytes(1024))
    with pytest.raises(WorkspaceError):
        unpacker.close()
    unpacker.discard()
    assert list(tmp_path.iterdir()) == []


def test_it_fills_an_empty_directory_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert unpack([crafted((member("a"), b"1"))], tmp_path / "empty").paths == (b"a",)
    with pytest.raises(WorkspaceError, match="cannot write"):
        unpack([crafted((member("a"), b"1"))], tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_zeros_become_holes(tmp_path: Path) -> None:
    unpack([crafted((member("z"), b"1" + bytes(8 << 20) + b"2"))], tmp_path / "x")
    assert (tmp_path / "x/z").read_bytes() == b"1" + bytes(8 << 20) + b"2"
    assert (tmp_path / "x/z").stat().st_blocks * 512 < 1 << 20


@pytest.mark.root
def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(WorkspaceError, match="No space left"):
        unpack([crafted((member("a"), b"1"), (member("b"), os.urandom(2 << 20)))], small_disk / "x")
    assert list(small_disk.iterdir()) == []


def test_kinds_of_the_tree_survive(project: Path, paths: Paths, tmp_path: Path) -> None:
    grow(project, {b"e": None, b"l": (b"e",), b"f": b""})
    packing = pack_and_identify(scan(project), paths)
    unpack(packing, tmp_path / "there")
    assert [(one.path, one.kind) for one in scan(tmp_path / "there").found] == [
        (b"e", Kind.DIRECTORY),
        (b"f", Kind.FILE),
        (b"l", Kind.LINK),
    ]


def test_the_tree_is_known_at_the_end_only(project: Path, paths: Paths) -> None:
    with pytest.raises(RuntimeError):
        assert pack_and_identify(scan(project), paths).tree
