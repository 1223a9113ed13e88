"""Tar streams of other programs are read, whole and safely."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.workspace.grove import grow, layouts, picture

from qwex.errors import WorkspaceError
from qwex.workspace.extraction import Unpacker, unpack
from qwex.workspace.scan import scan

TARS = [tool for tool in (["tar"], ["busybox", "tar"], ["bsdtar"]) if shutil.which(tool[0])]
LONG = b"d" * 120 + b"/" + b"e" * 130 + b"/\xff\n" + b"f" * 99


@pytest.mark.parametrize("tool", TARS, ids=lambda tool: tool[0])
@settings(max_examples=12, deadline=None)
@given(layout=layouts(), cut=st.integers(1, 2000))
def test_what_tar_writes_is_unpacked_in_any_pieces(
    tool: list[str], layout: dict[bytes, bytes | tuple[bytes] | None], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "w")
        root.mkdir()
        grow(root, {**layout, LONG: b"long", b"long-link": (b"t" * 300,)})
        stream = subprocess.run([*tool, "-c", "-f", "-", "."], cwd=root, check=True, capture_output=True).stdout
        done = unpack((stream[at : at + cut] for at in range(0, len(stream), cut)), Path(place, "here"))
        assert picture(Path(place, "here"), times=True) == picture(root, times=True)
        assert sorted(done.paths) == sorted(one.path for one in scan(root).found)


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
