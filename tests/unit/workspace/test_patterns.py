"""Our reading of gitignore patterns agrees with git's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qwex.workspace.patterns import Patterns, parents

PIECES = b"a b * ** ? [ ] ! - / \\ ^ # . [:alpha:] /**/ [a- [!b]".split(b" ")
NAMES = [b"a", b"b", b"ab", b"a.b", b"-", b"]", b"a b", b"!a", b"#", b"abba", b"\\a", b"[a", b"a "]
lines = st.lists(
    st.lists(st.sampled_from([*PIECES, b" "]), min_size=1, max_size=6).map(b"".join), min_size=1, max_size=4
)
asked = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(b"/".join), min_size=1, max_size=8)


def left_out(patterns: Patterns, path: bytes) -> bool:
    """As git walks: what is below an excluded directory is excluded, whatever other patterns say."""
    return any(patterns.match(one, True) for one in parents(path)) or patterns.match(path, False) is True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=lines, asked=asked)
@example(lines=[b"a/**/b"], asked=[b"a/b", b"a/a/b", b"ab/b"])
@example(lines=[b"**a"], asked=[b"ba", b"b/a", b"b/ba"])
@example(lines=[b"a/**"], asked=[b"a", b"a/b", b"a/b/a"])
@example(lines=[b"[]-a]"], asked=[b"]", b"a", b"-"])
@example(lines=[b"a\\ ", b"b  "], asked=[b"a ", b"b", b"a"])
def test_same_as_git(project: Path, lines: list[bytes], asked: list[bytes]) -> None:
    text = b"\n".join(lines)
    (project / ".git/info/exclude").write_bytes(text)
    done = subprocess.run(
        ["git", "check-ignore", "-z", "--stdin", "--no-index"],
        cwd=project, input=b"".join(b"./%s\0" % one for one in asked), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    by_git = {one[2:] for one in done.stdout.split(b"\0") if one}
    assert {one for one in asked if left_out(Patterns.read(text), one)} == by_git


@pytest.mark.parametrize(
    ("lines", "path", "selected"),
    [
        (["results/"], b"results/a/b", True),
        (["results/"], b"results", False),
        (["*.csv"], b"deep/down/x.csv", True),
        (["/x"], b"deep/x", False),
        (["out", "!out/tmp"], b"out/tmp/a", False),
        (["out", "!out/tmp", "out/tmp/keep"], b"out/tmp/keep", True),
        (["./out/*.png"], b"out/a.png", True),
        (["\udcff*"], b"\xff1", True),
        ([], b"a", False),
    ],
)
def test_selection(lines: list[str], path: bytes, selected: bool) -> None:
    assert Patterns.of(lines).selects(path) is selected


@pytest.mark.parametrize(
    ("line", "directory", "may"),
    [
        ("*.csv", b"venv", True),
        ("data/raw", b"data", True),
        ("data/raw", b"venv", False),
        ("data/raw", b"data/raw", False),
        ("*/raw", b"venv", True),
        ("**/raw", b"venv/deep", True),
        ("!data/raw", b"data", False),
    ],
)
def test_where_to_search(line: str, directory: bytes, may: bool) -> None:
    assert Patterns.of([line]).reaches_below(directory) is may


def test_byte_order_mark_and_cr_lf() -> None:
    assert Patterns.read(b"\xef\xbb\xbfa\r\nb\r\n").match(b"a", False)
    assert Patterns.read(b"\xef\xbb\xbfa\r\nb\r\n").match(b"b", False)
