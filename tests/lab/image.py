"""The machines' image in the Docker engine: loaded from the bundle once, kept until another one takes its place."""

from __future__ import annotations

from tests.lab import bundle
from tests.lab.docker import DockerError, docker
from tests.lab.records import host_lock

__all__ = ["NAME", "loaded", "remove_all"]

NAME = "qwexlab-node"
TARBALL = "lab/node.tar"
MARK = "qwex.lab.image=node"


def loaded() -> str:
    """The image's name; built first when it is not. BundleError when it cannot be had."""
    made = bundle.ready("node")
    name = f"{NAME}:{_digest(made.path('SHA256SUMS').read_text())[:12]}"
    with host_lock():
        if not docker("image", "ls", "--quiet", name):
            options = ['ENTRYPOINT ["/usr/local/sbin/lab-init"]', f"LABEL {MARK}"]
            options += ["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "ENV LANG=C.UTF-8"]
            changes = [f"--change={option}" for option in options]
            docker("import", *changes, str(made.path(TARBALL)), name, timeout=300)
            _remove_others(name)
    return name


def _digest(sums: str) -> str:
    """The tarball's checksum, from the bundle's list of them."""
    return next(line.split()[0] for line in sums.splitlines() if line.endswith(f"  {TARBALL}"))


def _remove_others(but: str) -> None:
    for name in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", NAME).splitlines():
        if name != but:
            try:
                docker("image", "rm", name)
            except DockerError as error:
                if "conflict" not in str(error):  # a living lab's machines run from it
                    raise


def remove_all() -> None:
    """Forget the image; the next lab loads it again (a few seconds)."""
    _remove_others("")
