"""A recipe says how one artifact is made and from what; its key is a checksum over all of that."""

from __future__ import annotations

import hashlib
import inspect
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from tests.lab.bundle.errors import BundleError

__all__ = ["Bench", "Builder", "Recipe", "files", "keys", "sha256"]

SCHEME = "1"  # raise it when the workshop itself changes what an unchanged recipe yields


class Bench(Protocol):
    """Where a recipe works. Everything under `out` when the recipe returns is the artifact: regular files only."""

    @property
    def recipe(self) -> Recipe:
        """What is being built."""

    @property
    def out(self) -> Path:
        """An empty directory that becomes the artifact's."""

    @property
    def scratch(self) -> Path:
        """An empty directory that is thrown away."""

    def input(self, name: str) -> Path:
        """The directory of a finished artifact that the recipe `needs`; KeyError for any other."""

    def run(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        """Run to the end, output to the log. `env` adds to the environment. Failed unless it exits with 0."""

    def read(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> bytes:
        """Like `run`, but its standard output is the answer."""


Builder = Callable[[Bench], None]


@dataclass(frozen=True)
class Recipe:
    """One artifact.

    `inputs`: files and directories whose contents make it what it is; the file that defines `build` always counts.
    `needs`: artifacts that must be finished first. `place`: the directory of the bundle that gets its files, or None
    for one that is only needed by others. `requires`: programs of the host that `build` calls; with `go` among them the
    version named in each input's go.mod is asked for. `arguments`: anything else that the result depends on.
    `sums`: SHA-256 that given files of the result must have.
    """

    name: str
    version: str
    inputs: tuple[Path, ...]
    needs: tuple[str, ...]
    build: Builder
    place: str | None = None
    kind: str = "file"
    source: str = ""
    stands_in: str = ""
    requires: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    sums: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def sha256(path: Path) -> str:
    """Of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(root: Path) -> Iterator[Path]:
    """Every file under a directory (or the file itself), in a fixed order; hidden ones and caches are left out."""
    if not root.is_dir():
        yield root
        return
    for entry in sorted(os.scandir(root), key=lambda each: each.name):
        if entry.name.startswith(".") or entry.name == "__pycache__" or entry.name.endswith("_test.go"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files(Path(entry.path))
        else:
            yield Path(entry.path)


def _source(build: Builder) -> Path:
    while isinstance(build, partial):
        build = build.func
    return Path(inspect.getfile(build))


def _content(root: Path) -> Iterator[str]:
    for path in files(root):
        name = path.relative_to(root) if path != root else Path(path.name)
        if path.is_symlink():
            yield f"{name} -> {os.readlink(path)}"
        else:
            yield f"{name} {sha256(path)} {bool(path.stat().st_mode & stat.S_IXUSR)}"


def keys(table: Mapping[str, Recipe]) -> dict[str, str]:
    """The key of every recipe; BundleError when one needs an unknown artifact or itself, or an input is not there."""
    done: dict[str, str] = {}
    sources: dict[Path, str] = {}

    def visit(name: str, path: tuple[str, ...]) -> str:
        if name in done:
            return done[name]
        if name in path:
            raise BundleError(f"artifacts need each other in a circle: {' → '.join((*path, name))}")
        if name not in table:
            raise BundleError(f"{path[-1]} needs {name}, which no recipe makes")
        recipe = table[name]
        source = _source(recipe.build)
        if source not in sources:
            sources[source] = sha256(source)
        lines = [SCHEME, recipe.name, recipe.version, sources[source], *recipe.arguments]
        lines += [f"{need}={visit(need, (*path, name))}" for need in recipe.needs]
        lines += [f"{file}={digest}" for file, digest in sorted(recipe.sums.items())]
        try:
            for root in recipe.inputs:
                lines += [f"<{root.name}>", *_content(root)]
        except FileNotFoundError as error:
            raise BundleError(f"{name}: its input {error.filename} is not there") from error
        done[name] = hashlib.sha256("\0".join(lines).encode()).hexdigest()
        return done[name]

    for name in table:
        visit(name, ())
    return done
