"""Go programs out of pinned modules, checked against their go.sum and the public checksum database."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.lab.bundle.errors import Missing
from tests.lab.bundle.recipe import Bench

__all__ = ["ENVIRONMENT", "build", "require", "source"]

# GOFLAGS and GOWORK of the user must not change what is built; the checksum database stays as the user has it, or on.
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}


def build(
    bench: Bench,
    module: Path,
    outputs: Mapping[str, str],
    *,
    ldflags: str = "",
    tags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> None:
    """Compile packages of `module` (a directory with go.mod and go.sum) to static programs.

    `outputs` maps a path under the bench's `out` to a package: an import path, or `.` for the module's own.
    `ldflags` are added to `-s -w`. Failed with the log's end when it does not compile or a checksum differs.
    """
    require([module])
    for name, package in outputs.items():
        argv: list[str | Path] = ["go", "build", "-p", str(os.cpu_count() or 2), "-trimpath", "-buildvcs=false"]
        argv += ["-ldflags", f"-s -w -buildid= {ldflags}".strip()]
        argv += ["-tags", ",".join(tags)] if tags else []
        bench.run([*argv, "-o", bench.out / name, package], env={**ENVIRONMENT, **(env or {})}, cwd=module)


def source(bench: Bench, module: Path, dependency: str) -> Path:
    """The directory, read-only, with the whole source of a module that `module` requires."""
    bench.run(["go", "mod", "download", dependency], env=ENVIRONMENT, cwd=module)
    found = json.loads(bench.read(["go", "list", "-m", "-json", dependency], env=ENVIRONMENT, cwd=module))
    return Path(found["Dir"])


def require(paths: Iterable[Path]) -> None:
    """Missing unless a Go is installed that is new enough for every go.mod among (or directly in) `paths`."""
    needed = max((_wanted(path) for path in paths), default=(0,))
    wanted = ".".join(map(str, needed))
    if shutil.which("go") is None:
        raise Missing(
            f"go is not installed; the lab's artifacts need Go {wanted} or newer\nhint: see go.dev/doc/install"
        )
    said = subprocess.run(
        ["go", "version"], capture_output=True, text=True, check=False, env={**os.environ, **ENVIRONMENT}
    )
    found = _numbers(re.search(r"\bgo(\d+(?:\.\d+)*)", said.stdout))
    if found < needed:
        have = ".".join(map(str, found)) or said.stderr.strip()
        raise Missing(f"go is {have}; the lab's artifacts need Go {wanted} or newer\nhint: see go.dev/doc/install")


def _wanted(path: Path) -> tuple[int, ...]:
    file = path if path.name == "go.mod" else path / "go.mod"
    if not file.is_file():
        return (0,)
    return _numbers(re.search(r"^go (\d+(?:\.\d+)*)", file.read_text(), re.MULTILINE))


def _numbers(match: re.Match[str] | None) -> tuple[int, ...]:
    return tuple(map(int, match.group(1).split("."))) if match else (0,)
