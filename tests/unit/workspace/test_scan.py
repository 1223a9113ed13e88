"""What is sent: the set that git itself would see."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.workspace.grove import git, grow, layouts, paths, rules

from qwex.errors import WorkspaceError
from qwex.model.trees import Kind
from qwex.workspace.scan import Scan, scan


def names(seen: Scan, *kinds: Kind) -> set[bytes]:
    return {one.path for one in seen.found if one.kind in (kinds or (Kind.FILE, Kind.LINK))}


def by_git(root: Path) -> set[bytes]:
    listed = set(git(root, "ls-files", "-z", "-c", "-o", "--exclude-standard").split(b"\0")) - {b""}
    return {one for one in listed if os.path.lexists(os.fsencode(root) + b"/" + one)}


def empty_by_git(root: Path, sent: set[bytes]) -> set[bytes]:
    """Directories that are not ignored and have nothing sent below; of these only the innermost."""
    base = os.fsencode(root)
    found = []
    for directory, inner, _ in os.walk(base):
        inner[:] = [name for name in inner if name != b".git"]
        for name in list(inner):
            path = os.path.relpath(os.path.join(directory, name), base)
            if os.path.islink(base + b"/" + path):
                continue
            done = subprocess.run(["git", "check-ignore", "-q", b"./" + path], cwd=root, check=False)
            if any(one.startswith(path + b"/") for one in sent):
                continue
            if done.returncode == 0:
                inner.remove(name)
            else:
                found.append(path)
    return {one for one in found if not any(other.startswith(one + b"/") for other in found)}


@settings(max_examples=25, deadline=None)
@given(
    layout=layouts(),
    ignores=st.dictionaries(st.sampled_from([b"", b"a/", b"b/", b"build/", b"a/b/"]), rules, max_size=3),
    info=rules,
    everywhere=rules,
    added=st.lists(paths, max_size=3),
    removed=st.lists(st.integers(0, 20), max_size=2),
)
def test_sent_is_what_git_lists(
    layout: dict[bytes, bytes | tuple[bytes] | None],
    ignores: dict[bytes, bytes],
    info: bytes,
    everywhere: bytes,
    added: list[bytes],
    removed: list[int],
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "w")
        root.mkdir()
        git(root, "init", "-q")
        grow(root, layout)
        grow(root, {where + b".gitignore": text for where, text in ignores.items()})
        (root / ".git/info/exclude").write_bytes(info)
        Path(place, "global").write_bytes(everywhere)
        git(root, "config", "core.excludesFile", f"{place}/global")
        for path in added:  # tracked, ignored or not
            if os.path.lexists(os.fsencode(root) + b"/" + path):
                subprocess.run(["git", "add", "-f", b"./" + path], cwd=root, capture_output=True, check=False)
        tracked = [one for one in git(root, "ls-files", "-z").split(b"\0") if one]
        for number in removed:
            if tracked and os.path.lexists(gone := os.fsencode(root) + b"/" + tracked[number % len(tracked)]):
                os.unlink(gone)
        seen = scan(root)
        sent = by_git(root)
        assert names(seen) == sent
        assert names(seen, Kind.DIRECTORY) == empty_by_git(root, sent)
        assert list(seen.found) == sorted(seen.found)
        left = {one.path for one in seen.ignored}
        assert not left & sent
        assert not any(one.startswith(tuple(path + b"/" for path in left)) for one in sent)


@settings(max_examples=15, deadline=None)
@given(layout=layouts(), ignores=st.dictionaries(st.sampled_from([b"", b"a/", b"build/"]), rules, max_size=2))
def test_outside_a_repository_the_same_rules(
    layout: dict[bytes, bytes | tuple[bytes] | None], ignores: dict[bytes, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "w")
        root.mkdir()
        grow(root, layout)
        grow(root, {where + b".gitignore": text for where, text in ignores.items()})
        seen = names(scan(root))
        git(root, "init", "-q")
        assert seen == by_git(root)


def test_a_subdirectory_sends_only_itself_by_the_rules_above_it(project: Path) -> None:
    grow(
        project, {b".gitignore": b"*.o\n/sub/deep/\n", b"top": b"", b"sub/a": b"", b"sub/a.o": b"", b"sub/deep/x": b""}
    )
    seen = scan(project / "sub")
    assert names(seen) == {b"a"}
    assert {one.path for one in seen.ignored} == {b"a.o", b"deep"}


def test_a_project_its_surroundings_ignore_is_sent(project: Path) -> None:
    grow(project, {b".gitignore": b"*\n", b"work/.gitignore": b"*.o\n", b"work/main.py": b"", b"work/x.o": b""})
    assert names(scan(project / "work")) == {b".gitignore", b"main.py"}


def test_nested_repositories_go_by_their_own_rules(project: Path) -> None:
    grow(
        project,
        {b".gitignore": b"*.o\n", b"lib/.gitignore": b"*.tmp\n", b"lib/a.o": b"", b"lib/a.tmp": b"", b"lib/d/e": b""},
    )
    git(project / "lib", "init", "-q")
    assert names(scan(project)) == {b".gitignore", b"lib/.gitignore", b"lib/a.o", b"lib/d/e"}


def test_submodules_are_sent_and_their_git_file_is_not(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    grow(other, {b"file": b"1", b".gitignore": b"left\n"})
    git(other, "add", "-A")
    git(other, "commit", "-qm", "x")
    git(project, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "sub")
    grow(project, {b"sub/left": b"", b"sub/new": b""})
    assert names(scan(project)) == {b".gitmodules", b"sub/file", b"sub/.gitignore", b"sub/new"}
    git(project, "commit", "-qm", "x")
    git(tmp_path, "clone", "-q", str(project), "bare")
    assert names(scan(tmp_path / "bare"), Kind.DIRECTORY) == {b"sub"}


def test_a_hooks_variables_do_not_mislead(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(project, {b"here": b""})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert names(scan(project)) == {b"here"}


def test_a_program_named_by_the_repository_is_not_started(project: Path) -> None:
    trap = project / "trap"
    trap.write_text("#!/bin/sh\ntouch sprung\n")
    trap.chmod(0o755)
    git(project, "config", "core.fsmonitor", str(trap))
    assert names(scan(project)) == {b"trap"}


def test_another_users_repository(project: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a directory away needs root")
    grow(project, {b"file": b""})
    for path in [project, *project.rglob("*")]:
        os.chown(path, 65534, 65534)
    assert names(scan(project)) == {b"file"}


def test_qwexignore_adds_to_the_rules_and_include_brings_back(project: Path) -> None:
    grow(project, {
        b".gitignore": b"data/\n*.log\n",
        b".qwexignore": b"/docs/\n*.bin\n!keep.bin\n",
        b"src/.qwexignore": b"local\n!x.bin\n",
        b"docs/a": b"", b"a.bin": b"", b"keep.bin": b"", b"src/x.bin": b"", b"src/y.bin": b"", b"src/local/z": b"", b"src/m.py": b"",
        b"data/in.csv": b"", b"data/raw/one": b"", b"data/raw/two": b"", b"run.log": b"",
    })  # fmt: skip
    git(project, "add", "-f", "a.bin", "docs")
    always = {b".gitignore", b".qwexignore", b"src/.qwexignore", b"keep.bin", b"src/x.bin", b"src/m.py"}
    seen = scan(project)
    assert names(seen) == always
    assert {one.path for one in seen.ignored} == {b"docs", b"a.bin", b"src/local", b"src/y.bin", b"data", b"run.log"}
    assert names(scan(project, ["data/raw/", "!two"])) == always | {b"data/raw/one"}
    assert {one.path for one in scan(project, ["data/raw/one"]).ignored} >= {b"data/in.csv", b"data/raw/two"}
    assert names(scan(project, ["*.csv", "*.log", "a.bin"])) == always | {b"data/in.csv", b"run.log", b"a.bin"}
    assert names(scan(project, ["./data"])) == always | {b"data/in.csv", b"data/raw/one", b"data/raw/two"}


def test_what_is_searched_in_vain_is_one_ignored_directory(project: Path) -> None:
    grow(project, {b".gitignore": b"venv/\n", b"venv/lib/a": b"", b"venv/lib/deep/b": b""})
    assert [tuple(one) for one in scan(project, ["*.csv"]).ignored] == [(b"venv", True)]


def test_skipped_paths_are_not_even_ignored(project: Path) -> None:
    grow(project, {b"qwex-runs/.gitignore": b"*\n", b"qwex-runs/1/out": b"", b"a": b""})
    seen = scan(project, skip=[b"qwex-runs/"])
    assert names(seen) == {b"a"}
    assert seen.ignored == ()


def test_sockets_and_pipes_are_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(project / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock")  # the working directory is the project: the full path may be too long
    seen = scan(project)
    assert seen.special == (b"pipe", b"sock")
    assert seen.found == ()


def test_unreadable_directories_are_one_error(ordinary: Path) -> None:
    git(ordinary, "init", "-q")
    grow(ordinary, {b"shut/x": b"", b"closed/y": b"", b"open/z": b""})
    modes = {"shut": 0o000, "closed": 0o300, "nosearch": 0o600}
    grow(ordinary, {b"nosearch/w": b""})
    for name, mode in modes.items():
        (ordinary / name).chmod(mode)
    try:
        with pytest.raises(WorkspaceError, match="closed, nosearch, shut"):
            scan(ordinary)
    finally:
        for name in modes:
            (ordinary / name).chmod(0o700)


def test_without_git_it_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(WorkspaceError, match="git is needed") as caught:
        scan(project)
    assert caught.value.hint is not None


def test_a_damaged_repository_is_an_error_and_no_directory_is(project: Path) -> None:
    (project / ".git/index").write_bytes(b"no index")
    with pytest.raises(WorkspaceError, match="git cannot list"):
        scan(project)
    with pytest.raises(WorkspaceError, match="not a directory"):
        scan(project / "absent")


def test_an_empty_workspace(project: Path) -> None:
    seen = scan(project)
    assert (seen.found, seen.ignored, seen.size, seen.files) == ((), (), 0, 0)
