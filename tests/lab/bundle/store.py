"""Finished artifacts, each in `store/<name>-<key>/`: its files under `out/`, their checksums beside them.

An entry appears by one rename, so a builder that is killed leaves only a temporary directory that nobody reads.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from tests.lab.bundle.errors import BundleError, Damaged, Failed
from tests.lab.bundle.recipe import Recipe, sha256
from tests.lab.waiting import until

__all__ = ["Artifact", "Store", "discard", "place_in"]

SUMS, SEEN = "SHA256SUMS", "seen.json"
PATIENCE = 2 * 3600.0  # seconds to wait for another builder


@dataclass(frozen=True)
class Artifact:
    """A finished one. `entry` is its directory in the store."""

    recipe: Recipe
    entry: Path

    @property
    def out(self) -> Path:
        return self.entry / "out"

    @cached_property
    def sums(self) -> dict[str, str]:
        """SHA-256 by path relative to `out`, in order."""
        lines = (self.entry / SUMS).read_text().splitlines()
        return {name.removeprefix("out/"): digest for digest, _, name in (line.partition("  ") for line in lines)}


def place_in(cache: Path, *parts: str) -> Path:
    """A directory in the cache, made where it is not there yet."""
    directory = cache.joinpath(*parts)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def discard(place: Path) -> None:
    """Remove a build's directory, but not through a mount: a tree under construction may have the host's /dev in it."""
    listing = Path("/proc/self/mountinfo")  # of Linux; elsewhere nothing is built that mounts anything
    mounted = [line.split()[4] for line in listing.read_text().splitlines()] if listing.exists() else []
    if below := [point for point in mounted if Path(point).is_relative_to(place.resolve())]:
        raise BundleError(f"{below[0]} is still mounted, so {place} stays\nhint: umount it and build again")
    shutil.rmtree(place)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


class Store:
    """The cache's `store` directory."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._root = place_in(cache, "store")

    def find(self, recipe: Recipe, key: str, *, whole: bool = False) -> Artifact | None:
        """The artifact, or None when it is not there.

        Its files are compared with their checksums when they changed since the last time (size, time, inode), with
        `whole` always. Damaged, naming the file, when one differs or is gone.
        """
        entry = self._root / f"{recipe.name}-{key[:20]}"
        artifact = Artifact(recipe, entry)
        try:
            sums = artifact.sums
        except FileNotFoundError:
            if entry.exists():
                raise Damaged(f"{entry / SUMS} is gone\nhint: remove {entry} and build again") from None
            return None
        try:
            seen: dict[str, list[int]] = json.loads((entry / SEEN).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            seen = {}
        now: dict[str, list[int]] = {}
        for name, digest in sums.items():
            path = artifact.out / name
            try:
                now[name] = _stamp(path)
                if (whole or now[name] != seen.get(name)) and sha256(path) != digest:
                    raise Damaged(f"{path} does not match its checksum\nhint: remove {entry} and build again")
            except FileNotFoundError:
                raise Damaged(f"{path} is gone\nhint: remove {entry} and build again") from None
        if now != seen:
            self._write(entry / SEEN, json.dumps(now))
        return artifact

    def put(self, recipe: Recipe, key: str, made: Path) -> Artifact:
        """Take over the directory `made`, which holds `out/`. Failed for anything that is no regular file, or none at all.

        Damaged, naming the file, when a pinned checksum differs.
        """
        out = made / "out"
        names = sorted(path.relative_to(out).as_posix() for path in self._regular(recipe, out))
        if not names:
            raise Failed(f"{recipe.title}: its recipe made no file")
        sums = {name: sha256(out / name) for name in names}
        for name, digest in recipe.sums.items():
            if name not in sums:
                raise Damaged(f"{recipe.title}: {name} has a pinned checksum but was not made")
            if sums[name] != digest:
                raise Damaged(f"{recipe.title}: {name} has the SHA-256 {sums[name]}, pinned is {digest}")
        for name in names:
            path = out / name
            path.chmod(0o555 if path.stat().st_mode & 0o100 else 0o444)
        self._write(made / SUMS, "".join(f"{digest}  out/{name}\n" for name, digest in sums.items()))
        self._write(made / SEEN, json.dumps({name: _stamp(out / name) for name in names}))
        entry = self._root / f"{recipe.name}-{key[:20]}"
        made.rename(entry)
        return Artifact(recipe, entry)

    @staticmethod
    def _regular(recipe: Recipe, out: Path) -> Iterator[Path]:
        for directory, folders, plain in os.walk(out):
            for name in folders + plain:
                path = Path(directory, name)
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    raise Failed(f"{recipe.title}: {path.relative_to(out)} is neither a regular file nor a directory")
                if path.is_file():
                    yield path

    @staticmethod
    def _write(path: Path, text: str) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        part.write_text(text)
        part.replace(path)

    def workplace(self, recipe: Recipe) -> Path:
        """An empty directory for a build; the lock must be held, for what earlier builders left is removed."""
        root = place_in(self.cache, "tmp")
        for stale in root.glob(f"{recipe.name}@*"):
            discard(stale)
        place = root / f"{recipe.name}@{os.getpid()}"
        (place / "out").mkdir(parents=True)
        (place / "scratch").mkdir()
        return place

    @contextmanager
    def lock(
        self, name: str, waiting: Callable[[str], None], *, check: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Held by one process at a time. `waiting` is told once who has it; `check` may raise to give up."""
        path = place_in(self.cache, "locks") / name
        with path.open("a+") as file:
            if not self._taken(file):
                file.seek(0)
                waiting(file.read().strip() or "another process")

                def probe() -> bool:
                    if check is not None:
                        check()
                    return self._taken(file)

                try:
                    until(f"the lock {path}", probe, within=PATIENCE)
                except TimeoutError as error:
                    raise BundleError(str(error)) from error
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            try:
                yield
            finally:
                with suppress(OSError):
                    file.truncate(0)

    @staticmethod
    def _taken(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def prune(self, keep: set[Path]) -> None:
        """Remove every entry but those."""
        for entry in self._root.iterdir():
            if entry not in keep:
                shutil.rmtree(entry)
