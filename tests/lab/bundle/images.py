"""Container images without a registry or a daemon: written as the archives that `docker save` writes.

The same inputs give the same bytes: entries are sorted, times are fixed, owners are numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.bundle.layout import architecture
from tests.lab.bundle.recipe import sha256

__all__ = ["BASE", "EPOCH", "Content", "Image", "Link", "layer", "names", "save"]

EPOCH = 1_735_689_600  # 2025-01-01: the time of every file that has none of its own
CREATED = "2025-01-01T00:00:00Z"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    to: str


Content = bytes | Path | Link | None

# What an image needs beside one static program: a /tmp, and names for the two users that manifests ask for.
BASE: Mapping[str, Content] = {
    "tmp": None,
    "etc/passwd": b"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    "etc/group": b"root:x:0:\nnonroot:x:65532:\n",
}


@dataclass(frozen=True)
class Image:
    """`layers` are uncompressed tar archives, the lowest first. `user` is `uid:gid`, empty for root."""

    name: str
    layers: tuple[Path, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    workdir: str = "/"
    ports: tuple[str, ...] = ()

    def config(self, digests: Sequence[str]) -> bytes:
        """The image's configuration document; `digests` are the layers' SHA-256."""
        settings: dict[str, object] = {"Env": list(self.env), "WorkingDir": self.workdir}
        settings |= {"Entrypoint": list(self.entrypoint)} if self.entrypoint else {}
        settings |= {"Cmd": list(self.command)} if self.command else {}
        settings |= {"User": self.user} if self.user else {}
        settings |= {"ExposedPorts": {port: {} for port in self.ports}} if self.ports else {}
        document = {
            "architecture": architecture(),
            "os": "linux",
            "created": CREATED,
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": CREATED, "created_by": "tests.lab.bundle"} for _ in digests],
        }
        return json.dumps(document, sort_keys=True).encode()


def _entry(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, EPOCH
    return info


@contextmanager
def _archive(to: Path) -> Iterator[tarfile.TarFile]:
    with tarfile.open(to, "w", format=tarfile.GNU_FORMAT) as archive:
        yield archive


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path, mode: int = 0o644) -> None:
    info = _entry(name, mode=mode)
    if isinstance(content, bytes):
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
        return
    info.size = content.stat().st_size
    with content.open("rb") as file:
        archive.addfile(info, file)


def layer(tree: Mapping[str, Content], to: Path) -> Path:
    """Write a tree as a layer and answer with its path.

    A name without a leading slash maps to the contents, to a file (its executable bit is kept), to a `Link`, or to
    None for a directory; everything belongs to root, `tmp` is open to all. Directories above are made.
    """
    folders = {parent.as_posix() for name in tree for parent in Path(name).parents} - {"."}
    with _archive(to) as archive:
        for name in sorted(folders | set(tree)):
            content = tree.get(name)
            if content is None:
                archive.addfile(_entry(f"{name}/", tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755))
            elif isinstance(content, Link):
                link = _entry(name, tarfile.SYMTYPE, 0o777)
                link.linkname = content.to
                archive.addfile(link)
            else:
                runs = isinstance(content, Path) and content.stat().st_mode & 0o100
                _add(archive, name, content, 0o755 if runs else 0o644)
    return to


def save(images: Sequence[Image], to: Path) -> None:
    """Write one archive with those images; a layer that several share is in it once."""
    manifest: list[dict[str, object]] = []
    contents: dict[str, bytes | Path] = {}
    for image in images:
        digests = [sha256(path) for path in image.layers]
        contents |= {f"{digest}/layer.tar": path for digest, path in zip(digests, image.layers, strict=True)}
        config = image.config(digests)
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        contents[name] = config
        layers = [f"{digest}/layer.tar" for digest in digests]
        manifest.append({"Config": name, "RepoTags": [image.name], "Layers": layers})
    contents["manifest.json"] = json.dumps(manifest).encode()
    with _archive(to) as archive:
        for name in sorted(contents):
            _add(archive, name, contents[name])


def names(archive: Path) -> list[str]:
    """The images in an archive, in its order; ValueError when it is no such archive."""
    try:
        with tarfile.open(archive) as opened:
            file = opened.extractfile("manifest.json")
            assert file is not None
            return [tag for image in json.load(file) for tag in image["RepoTags"]]
    except (KeyError, tarfile.TarError) as error:
        raise ValueError(f"{archive} is no image archive: {error}") from error
