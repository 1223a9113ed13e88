"""What the k3s stand-in carries inside itself: containerd, its shim, ctr, runc and CNI plugins, as one archive.

All but runc are Go modules. runc is Debian's, since it is linked with libseccomp; every systemd machine has that library.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.lab.bundle import debian, golang
from tests.lab.bundle.images import EPOCH
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["ARCHIVE", "PROGRAMS", "archive", "build", "embedded", "recipes"]

ARCHIVE = "payload.tar.zst"
HOME = LAB / "go" / "k3s" / "internal" / "payload"
TOOLS = HOME / "tools"

CONTAINERD = "github.com/containerd/containerd/v2"
PLUGINS = "github.com/containernetworking/plugins/plugins"
PROGRAMS: Mapping[str, str] = {
    "containerd": f"{CONTAINERD}/cmd/containerd",
    "containerd-shim-runc-v2": f"{CONTAINERD}/cmd/containerd-shim-runc-v2",
    "ctr": f"{CONTAINERD}/cmd/ctr",
    "bandwidth": f"{PLUGINS}/meta/bandwidth",
    "bridge": f"{PLUGINS}/main/bridge",
    "firewall": f"{PLUGINS}/meta/firewall",
    "host-local": f"{PLUGINS}/ipam/host-local",
    "loopback": f"{PLUGINS}/main/loopback",
    "portmap": f"{PLUGINS}/meta/portmap",
}
# Snapshotters that need a C library or a daemon of their own.
TAGS = ("no_btrfs", "no_devmapper", "no_zfs")


def build(bench: Bench) -> None:
    """Leaves the archive in `out`."""
    release = f"-X {CONTAINERD}/version.Version={version('containerd')}+lab"
    golang.build(bench, TOOLS, PROGRAMS, ldflags=release, tags=TAGS)
    programs = bench.scratch / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (bench.out / name).rename(programs / name)
    _runc(bench, programs / "runc")
    archive(programs, bench.scratch / "payload.tar")
    bench.run(["zstd", "-q", "-10", "-T2", bench.scratch / "payload.tar", "-o", bench.out / ARCHIVE])


def _runc(bench: Bench, to: Path) -> None:
    tree = debian.rootfs(bench, bench.scratch / "runc.tar", ["runc"], variant="extract")
    with tarfile.open(tree) as tar:
        member = next(each for each in tar if each.name.removeprefix("./") == "usr/sbin/runc")
        source = tar.extractfile(member)
        assert source is not None, "runc is a regular file"
        with source, to.open("wb") as target:
            shutil.copyfileobj(source, target)


def archive(programs: Path, to: Path) -> None:
    """Every file of a directory as `bin/<name>` in a tar archive that depends on their contents alone."""
    with tarfile.open(to, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(programs.iterdir()):
            entry = tarfile.TarInfo(f"bin/{path.name}")
            entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o755, EPOCH
            with path.open("rb") as file:
                tar.addfile(entry, file)


def embedded(bench: Bench) -> dict[str, str]:
    """Environment for a `go build` of the k3s module that needs the artifact `payload`.

    The checkout holds an empty archive, so that everything compiles without this one; the build sees this one in its place.
    """
    file = bench.scratch / "overlay.json"
    file.write_text(json.dumps({"Replace": {str(HOME / ARCHIVE): str(bench.input("payload") / ARCHIVE)}}))
    return {"GOFLAGS": f"-mod=readonly '-overlay={file}'"}


def recipes() -> list[Recipe]:
    return [
        Recipe(
            name="payload",
            version=version("containerd"),
            inputs=(TOOLS,),
            needs=(),
            build=build,
            kind="programs",
            source=f"Go modules {pin('containerd')['module']} and {pin('cni-plugins')['module']}, runc of Debian",
            requires=("go", "zstd", *debian.PROGRAMS),
            arguments=(debian.suite(), *PROGRAMS, *TAGS),
        )
    ]
