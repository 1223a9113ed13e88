"""The images that users' pods run in the lab: one for jobs, one for development sessions."""

from __future__ import annotations

from pathlib import Path

from tests.lab.bundle import debian, images
from tests.lab.bundle.images import Image
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["recipes"]

JOB, SESSION = LAB / "images" / "job", LAB / "images" / "dev-session"
USER, HOME = "1000:1000", "/home/dev"


def _packages(directory: Path) -> list[str]:
    lines = (directory / "packages.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _save(bench: Bench, image: Image) -> None:
    images.save([image], bench.out / f"{bench.recipe.name}.tar")
    (bench.out / f"{bench.recipe.name}.txt").write_text(f"{image.name}\n")


def _job(bench: Bench) -> None:
    tree = debian.rootfs(bench, bench.scratch / "tree.tar", _packages(JOB))
    _save(bench, Image(str(pin("job")["image"]), (tree,), command=("/bin/sh",)))


def _session(bench: Bench) -> None:
    hooks = [
        f"copy-in {SESSION}/session /usr/local/bin/",
        f"upload {SESSION}/sshd_config /etc/ssh/session_config",
        f"upload {SESSION}/pam /etc/pam.d/sshd",
        # Every copy of the image would have the same host keys.
        'rm -f "$1"/etc/ssh/ssh_host_*',
        'mkdir -p "$1"/etc/dev-session "$1"/run/sshd',
        f'chroot "$1" useradd --uid {USER.split(":")[0]} --user-group --create-home --home-dir {HOME} --shell /bin/bash dev',
    ]
    tree = debian.rootfs(bench, bench.scratch / "tree.tar", _packages(JOB) + _packages(SESSION), hooks=hooks)
    image = Image(
        str(pin("dev-session")["image"]),
        (tree,),
        entrypoint=("/usr/local/bin/session",),
        env=(*Image.env, f"HOME={HOME}", "USER=dev", "LANG=C.UTF-8"),
        user=USER,
        workdir=HOME,
        ports=("2222/tcp",),
    )
    _save(bench, image)


def recipes() -> list[Recipe]:
    """`images/{job,dev-session}.tar`, each with a `.txt` that holds the image's name."""
    return [
        Recipe(
            name,
            version(name),
            inputs,
            (),
            build,
            place="images",
            kind="image",
            source=f"Debian {debian.suite()}",
            requires=debian.PROGRAMS,
            arguments=(debian.suite(), str(pin(name)["image"])),
        )
        for name, inputs, build in (("job", (JOB,), _job), ("dev-session", (JOB, SESSION), _session))
    ]
