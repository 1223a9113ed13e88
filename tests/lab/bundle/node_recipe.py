"""The machines' image: a Debian server with systemd and sshd, as a tarball that `docker import` takes; and its false clock."""

from __future__ import annotations

from tests.lab.bundle import debian
from tests.lab.bundle.pins import LAB, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["build", "packages", "recipes"]

FILES = LAB / "images" / "node"
CLOCK = LAB / "images" / "clock" / "clock.c"
CLOCK_FLAGS = (
    *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-ffreestanding", "-nostdlib", "-s"),
    *("-fno-stack-protector", "-fvisibility=hidden", "-Wl,--build-id=none"),
)


def packages() -> list[str]:
    """What is installed beyond Debian's minimal set."""
    return [line for line in (FILES / "packages.txt").read_text().split("\n") if line and not line.startswith("#")]


def build(bench: Bench) -> None:
    hook = f'{FILES / "customize.sh"} "$1" {FILES}'
    debian.rootfs(bench, bench.out / "node.tar", packages(), hooks=[hook])


def build_clock(bench: Bench) -> None:
    """For `Machine.move_clock` alone, so it stays out of the image. Without a C library, so any compiler's will do."""
    bench.run(["cc", *CLOCK_FLAGS, "-o", bench.out / "clock.so", CLOCK])


def recipes() -> list[Recipe]:
    return [
        Recipe(
            name="node",
            version=version("node"),
            inputs=(FILES,),
            needs=(),
            build=build,
            place="lab",
            kind="machine image",
            source=f"Debian {debian.suite()}",
            requires=debian.PROGRAMS,
            arguments=(debian.suite(),),
        ),
        Recipe(
            name="clock",
            version=version("node"),
            inputs=(CLOCK,),
            needs=(),
            build=build_clock,
            place="lab",
            kind="library",
            source="tests/lab/images/clock",
            requires=("cc",),
        ),
    ]
