"""limactl, and the Debian disk that it boots."""

from __future__ import annotations

import shlex

from tests.lab.bundle import debian, golang
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["recipes"]

LIMA, VM = LAB / "go" / "lima", LAB / "images" / "vm"


def _limactl(bench: Bench) -> None:
    module = str(pin("lima")["module"])
    # The template's minimumLimaVersion is compared with this.
    flags = f"-X {module}/pkg/version.Version={version('lima').removeprefix('v')}"
    golang.build(bench, LIMA, {"limactl": f"{module}/cmd/limactl"}, ldflags=flags)


def _vm(bench: Bench) -> None:
    """Packages come from the ordinary mirror as it is today; the rest is fixed."""
    made = bench.scratch / "made"
    made.mkdir()
    packages = [line for line in (VM / "packages.txt").read_text().splitlines() if not line.startswith("#")]
    hook = f'{shlex.quote(str(VM / "customize.sh"))} "$1" {shlex.quote(str(made))}'
    debian.rootfs(bench, bench.scratch / "tree.tar", packages, hooks=[hook])
    # A raw file's holes would be lost where it is copied, and it is copied for every machine.
    bench.run(["qemu-img", "convert", "-O", "qcow2", made / "disk.raw", bench.out / "disk.qcow2"])
    for name in ("vmlinuz", "initrd"):
        (bench.out / name).write_bytes((made / name).read_bytes())


def recipes() -> list[Recipe]:
    """`lima/limactl` and `lab/vm/{disk.qcow2,vmlinuz,initrd}`."""
    return [
        Recipe(
            "lima",
            version("lima"),
            (LIMA,),
            (),
            _limactl,
            place="lima",
            kind="program",
            source=f"Go module {pin('lima')['module']} {version('lima')}",
            requires=("go",),
        ),
        Recipe(
            "lima-vm",
            version("lima-vm"),
            (VM,),
            (),
            _vm,
            place="lab/vm",
            kind="machine image",
            source=f"Debian {debian.suite()}",
            requires=(*debian.PROGRAMS, "mke2fs", "qemu-img"),
            arguments=(debian.suite(),),
        ),
    ]
