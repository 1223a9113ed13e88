"""Debian file trees, made by mmdebstrap from signed packages of one pinned suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.lab.bundle.images import EPOCH
from tests.lab.bundle.pins import pin
from tests.lab.bundle.recipe import Bench

__all__ = ["PROGRAMS", "SLIM", "rootfs", "suite"]

PROGRAMS = ("mmdebstrap",)

# What a slim image leaves out.
SLIM = tuple(f"/usr/share/{name}/*" for name in ("doc", "man", "info", "locale", "lintian", "linda"))


def suite() -> str:
    """The pinned one."""
    return str(pin("debian")["suite"])


def rootfs(
    bench: Bench,
    to: Path,
    packages: Sequence[str],
    *,
    variant: str = "minbase",
    without: Sequence[str] = SLIM,
    hooks: Sequence[str] = (),
) -> Path:
    """Write a tar archive of a fresh system with those packages; `to`.

    `hooks` are mmdebstrap's customize hooks: shell commands with the tree as `$1`, or its own such as `copy-in`.
    Times later than the fixed one are set to it, and what differs from run to run is removed.
    """
    argv: list[str | Path] = ["mmdebstrap", "--quiet", f"--variant={variant}"]
    argv += [f"--include={','.join(packages)}"] if packages else []
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in without]
    argv += ['--aptopt=Acquire::Retries "3"', '--aptopt=Acquire::Languages "none"']
    # Else two directories belong to apt's own account, or not, by whether that may enter the cache's directory.
    argv += ['--aptopt=APT::Sandbox::User "root"']
    argv += [f"--customize-hook={hook}" for hook in hooks]
    cleaned = [f'"$1"/var/{path}' for path in ("cache/ldconfig", "log/apt", "log/dpkg.log", "log/alternatives.log")]
    argv += [f"--customize-hook=rm -rf {' '.join(cleaned)}"]
    bench.run(
        [*argv, suite(), to], env={"SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8", "TMPDIR": str(bench.scratch)}
    )
    return to
