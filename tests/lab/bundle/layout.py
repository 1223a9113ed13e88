"""The offline bundle: the built artifacts under one directory, as hard links, with a list and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.bundle.errors import Damaged, Missing
from tests.lab.bundle.recipe import sha256
from tests.lab.bundle.store import Artifact, Store, place_in

__all__ = ["Bundle", "architecture", "assemble", "sweep"]

SCHEMA = 1
Row = tuple[dict[str, object], Path]  # of bundle.json, and the file it is about
KEEP = 24 * 3600.0  # seconds that a bundle no longer current stays for those who may still read it


def architecture() -> str:
    """This machine's, as Go and Kubernetes name it."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


@dataclass(frozen=True)
class Bundle:
    """An assembled one. `root` stays as it is; a later build makes another directory."""

    root: Path

    def path(self, name: str) -> Path:
        """A file (or directory) of the bundle, such as `k3s/k3s`; Missing, naming it, when it is not there."""
        path = self.root / name
        if not path.exists():
            raise Missing(f"the bundle {self.root} has no {name}\nhint: run python -m tests.lab.bundle build")
        return path

    def text(self, name: str) -> str:
        """A small file's contents without surrounding blanks, such as the image name in `images/job.txt`."""
        return self.path(name).read_text().strip()

    def check(self) -> int:
        """Compare every file with SHA256SUMS; how many there are. Damaged, naming the file, for the first that differs."""
        count = 0
        for line in self.path("SHA256SUMS").read_text().splitlines():
            digest, _, name = line.partition("  ")
            path = self.root / name
            if not path.is_file():
                raise Damaged(f"{path} is gone")
            if sha256(path) != digest:
                raise Damaged(f"{path} does not match its checksum")
            count += 1
        return count


def _rows(artifacts: Sequence[Artifact]) -> Iterator[Row]:
    for artifact in artifacts:
        recipe = artifact.recipe
        if recipe.place is None:
            continue
        for name, digest in artifact.sums.items():
            file = artifact.out / name
            row: dict[str, object] = {"name": recipe.name, "version": recipe.version, "kind": recipe.kind}
            row |= {"path": (Path(recipe.place) / name).as_posix(), "sha256": digest, "size": file.stat().st_size}
            yield row | {"source": recipe.source, "stands_in": recipe.stands_in}, file


def assemble(store: Store, artifacts: Sequence[Artifact]) -> Bundle:
    """The bundle of those artifacts, made where it is not there yet; `bundle` in the cache points to it.

    The directory appears by one rename, the pointer changes by another.
    """
    rows = sorted(_rows(artifacts), key=lambda each: str(each[0]["path"]))
    listed = {"schema": SCHEMA, "arch": architecture(), "artifacts": [row for row, _ in rows]}
    text = json.dumps(listed, indent=1) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    bundles = place_in(store.cache, "bundles")
    root = bundles / digest
    pointer = store.cache / "bundle"
    if _whole(root, rows) and pointer.is_symlink() and Path(os.readlink(pointer)).name == digest:
        return Bundle(root)
    with store.lock("bundle", lambda holder: None):
        if not _whole(root, rows):
            shutil.rmtree(root, ignore_errors=True)
            _write(bundles, root, text, rows)
        part = store.cache / f".bundle.{os.getpid()}"
        part.unlink(missing_ok=True)
        part.symlink_to(f"bundles/{digest}")
        part.replace(pointer)
        sweep(store, older=KEEP)
    return Bundle(root)


def _whole(root: Path, rows: list[Row]) -> bool:
    try:
        return all(os.path.samefile(root / str(row["path"]), file) for row, file in rows) and root.is_dir()
    except FileNotFoundError:
        return False


def _write(bundles: Path, root: Path, text: str, rows: list[Row]) -> None:
    for stale in bundles.glob(".part-*"):
        shutil.rmtree(stale)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=bundles))
    sums = [f"{hashlib.sha256(text.encode()).hexdigest()}  bundle.json"]
    for row, file in rows:
        target = part / str(row["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except FileExistsError:
            raise Damaged(f"two artifacts make {row['path']}; the second is {row['name']}") from None
        sums.append(f"{row['sha256']}  {row['path']}")
    (part / "bundle.json").write_text(text)
    (part / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    part.chmod(0o755)
    part.rename(root)


def sweep(store: Store, *, older: float = 0.0) -> None:
    """Remove the bundles that are no longer current and at least so many seconds old."""
    current = (store.cache / "bundle").resolve()
    for old in place_in(store.cache, "bundles").iterdir():
        if old != current and time.time() - old.stat().st_mtime >= older:
            shutil.rmtree(old)
