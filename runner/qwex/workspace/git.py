"""What git sees of one directory: the files it would take, and which directories it ignores."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from qwex.adapters.process import Finished, ProgramMissing, run
from qwex.errors import WorkspaceError
from qwex.workspace.faults import shown

__all__ = ["View"]

# Kept of GIT_*: what says which configuration counts. The rest (GIT_DIR, GIT_INDEX_FILE…) is set by hooks and speaks of another command.
_KEPT = re.compile(r"GIT_(CONFIG|CEILING_DIRECTORIES$|DISCOVERY_ACROSS_FILESYSTEM$|EXEC_PATH$)")
_NO_REPOSITORY = re.compile(
    rb"not a git repository|must be run in a work tree|in unpopulated submodule|invalid gitfile"
)
# Nothing here may start a program the repository names, which is also why another owner's repository does no harm.
_SETTINGS = (
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=false",
    "-c", "safe.directory=*",
)  # fmt: skip


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or _KEPT.match(name)}
    # Messages are compared below; a listing must not take a lock that a commit of the user's waits for.
    return {**kept, "LC_ALL": "C", "LANGUAGE": "", "GIT_OPTIONAL_LOCKS": "0"}


class View:
    """Git's view of ``root``: its repository's, or with ``plain`` (and where there is none) the same rules without one.

    ``listed``  every path git would take, relative to ``root``: tracked or not ignored. Some may be gone from the disk.
                A nested repository is one path, ending in ``/`` if it is no submodule.
    WorkspaceError when git is missing or cannot read the repository.
    """

    def __init__(self, root: Path, plain: bool = False) -> None:
        self._root = root
        self._plain = plain
        self.listed: set[bytes] = set()
        listing = ["ls-files", "-z", "-c", "-o", "--exclude-standard"]
        if not plain:
            done = self._git(listing)
            if done.code == 0:
                self.listed = set(done.out.split(b"\0")) - {b""}
                # A directory its repository ignores as a whole, a project under a home kept in git for one, is a place of its own.
                self._plain = not self.listed and self._is_ignored()
            elif _NO_REPOSITORY.search(done.err):
                self._plain = True
            else:
                raise self._failed(done)
        if self._plain:
            done = self._git(listing)
            if done.code != 0:
                raise self._failed(done)
            self.listed = set(done.out.split(b"\0")) - {b""}

    def ignores(self, directories: Iterable[bytes]) -> set[bytes]:
        """Those of ``directories`` (relative to the root, none with tracked files) that a rule leaves out."""
        # "./" keeps git from reading a leading ":" as pathspec magic; check-ignore echoes what it was given.
        asked = b"".join(b"./%s\0" % one for one in directories)
        done = self._git(["check-ignore", "-z", "--stdin"], asked)
        if done.code not in (0, 1):
            raise self._failed(done)
        return {one[2:] for one in done.out.split(b"\0") if one}

    def _is_ignored(self) -> bool:
        where = self._git(["rev-parse", "--show-prefix"])
        return bool(where.out.strip()) and self._git(["check-ignore", "-q", "."]).code == 0

    def _git(self, command: list[str], stdin: bytes | None = None) -> Finished:
        try:
            if not self._plain:
                return run(["git", *_SETTINGS, *command], cwd=self._root, env=_environment(), stdin=stdin)
            from tempfile import TemporaryDirectory

            with TemporaryDirectory(prefix="qwex-git-") as empty:
                for name in ("objects", "refs"):
                    os.mkdir(f"{empty}/{name}")
                Path(empty, "HEAD").write_text("ref: refs/heads/main\n")
                where = [f"--git-dir={empty}", f"--work-tree={self._root}"]
                return run(["git", *_SETTINGS, *where, *command], cwd=self._root, env=_environment(), stdin=stdin)
        except ProgramMissing as error:
            raise WorkspaceError(
                "git is needed to tell which files belong to the workspace, and it is not installed",
                hint="install git (apt install git, brew install git)",
            ) from error

    def _failed(self, done: Finished) -> WorkspaceError:
        said = done.err.decode(errors="backslashreplace").strip() or f"it ended with {done.code}"
        if b"dubious ownership" in done.err or b"unsafe repository" in done.err:
            return WorkspaceError(
                f"{shown(self._root)} belongs to another user and this git does not read it",
                hint=f"if you trust it: git config --global --add safe.directory '{shown(self._root)}'",
            )
        reason = said.splitlines()[-1].removeprefix("fatal: ")
        return WorkspaceError(f"git cannot list {shown(self._root)}: {reason}", hint="see what `git status` says there")
