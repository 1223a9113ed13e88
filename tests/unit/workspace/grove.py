"""Small directory trees for the tests of the workspace: as data, as files, and drawn at random."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hypothesis import strategies as st

NAMES = [
    b"a", b"b", b"build", b"x.o", b"k.txt", b"new\nline", b"\xff\xfe", b"-n", b" sp ", b":c", b"*", b"[x]", b'q"', b"!k", b"#h", b"b\\s",
]  # fmt: skip
RULES = [
    b"*.o", b"/a", b"a/", b"!x.o", b"**/b", b"a/**", b"b/*", b"!b/k.txt", b"[xk]*", b"\\!k", b"# comment", b"*", b"!*/", b"build",
    b"build/", b"!build", b"a/b", b"/b/", b"\\#h", b"?", b"new*", b"k.txt ", b"**/a/x.o", b"!/a", b"\\*", b"\xff*", b"!*.txt", b"",
]  # fmt: skip

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
contents = st.binary(max_size=40)
rules = st.lists(st.sampled_from(RULES), max_size=4).map(b"\n".join)


@st.composite
def layouts(draw: st.DrawFn, special: bool = True) -> dict[bytes, bytes | tuple[bytes] | None]:
    """Path → content, None for a directory, a 1-tuple for a symlink's target. Later ones that do not fit are dropped by ``grow``."""
    found: dict[bytes, bytes | tuple[bytes] | None] = dict(draw(st.dictionaries(paths, contents, max_size=8)))
    for path in draw(st.lists(paths, max_size=2)):
        found.setdefault(path, None)
    if special:
        targets = st.sampled_from([b"a", b"../b", b"/nowhere", b"\xff\n", b"x" * 150])
        for path in draw(st.lists(paths, max_size=2)):
            found.setdefault(path, (draw(targets),))
    return found


def grow(root: Path, layout: Mapping[bytes, bytes | tuple[bytes] | None]) -> None:
    """Make what fits: a path below a file, or where something is, is left out."""
    base = os.fsencode(root)
    for path, content in layout.items():
        full = base + b"/" + path
        try:
            os.makedirs(full if content is None else os.path.dirname(full), exist_ok=True)
            if isinstance(content, tuple):
                os.symlink(content[0], full)
            elif content is not None and not os.path.lexists(full):
                with open(full, "wb") as file:
                    file.write(content)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ELOOP}:
                raise


def picture(root: Path, times: bool = False) -> dict[bytes, tuple[object, ...]]:
    """Everything under ``root``: kind, mode and content (and whole seconds of mtime), to compare two places. Not ``.git``."""
    base = os.fsencode(root)
    found: dict[bytes, tuple[object, ...]] = {}
    for directory, names, files in os.walk(base):
        for name in [*names, *files]:
            full = os.path.join(directory, name)
            path = os.path.relpath(full, base)
            info = os.lstat(full)
            when = int(info.st_mtime) if times else 0
            if stat.S_ISLNK(info.st_mode):
                found[path] = ("link", os.readlink(full))
            elif stat.S_ISDIR(info.st_mode):
                found[path] = ("directory",)
            else:
                with open(full, "rb") as file:
                    found[path] = ("file", stat.S_IMODE(info.st_mode), file.read(), when)
        names[:] = [name for name in names if name != b".git"]
    return found


def git(where: Path, *command: str) -> bytes:
    return subprocess.run(["git", *command], cwd=where, check=True, capture_output=True).stdout
