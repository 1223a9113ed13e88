"""What k3s brings for its own cluster: CoreDNS, local-path storage, metrics server, pause and busybox.

They become the release's `k3s-airgap-images-<arch>.tar` and `k3s-images.txt`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.bundle import debian, golang, images
from tests.lab.bundle.images import BASE, Content, Image, Link
from tests.lab.bundle.layout import architecture
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe, sha256

__all__ = ["recipes"]

PAUSE = LAB / "images" / "pause"


@dataclass(frozen=True)
class Addon:
    """A Go program of the cluster, and where its manifests expect it in the image."""

    name: str
    path: str
    package: str
    ldflags: str = ""
    user: str = ""
    run: bool = True  # it is the entrypoint; else the manifest names a command

    def build(self, bench: Bench) -> None:
        flags = self.ldflags.format(version=version(self.name))
        golang.build(bench, LAB / "go" / self.name, {self.name: self.package}, ldflags=flags)

    def recipe(self) -> Recipe:
        source = f"Go module {pin(self.name)['module']} {version(self.name)}"
        module = (LAB / "go" / self.name,)
        return Recipe(self.name, version(self.name), module, (), self.build, source=source, requires=("go",))

    def image(self, bench: Bench) -> Image:
        tree: dict[str, Content] = {**BASE, self.path: bench.input(self.name) / self.name}
        layer = images.layer(tree, bench.scratch / f"{self.name}.tar")
        entrypoint = (f"/{self.path}",) if self.run else ()
        return Image(str(pin(self.name)["image"]), (layer,), entrypoint=entrypoint, user=self.user)


ADDONS = (
    Addon("coredns", "coredns", "."),
    Addon(
        "local-path",
        "usr/bin/local-path-provisioner",
        "github.com/rancher/local-path-provisioner",
        ldflags="-X main.VERSION={version}",
        run=False,
    ),
    Addon(
        "metrics-server",
        "metrics-server",
        "sigs.k8s.io/metrics-server/cmd/metrics-server",
        ldflags="-X k8s.io/client-go/pkg/version.gitVersion={version}",
        user="65532:65532",
    ),
)


def _pause(bench: Bench) -> None:
    golang.build(bench, PAUSE, {"pause": "."})


def _busybox(bench: Bench) -> None:
    """Debian's static one, taken out of its package; local-path storage makes and removes its directories with it."""
    tree = debian.rootfs(bench, bench.scratch / "tree.tar", ["busybox-static"], variant="extract")
    bench.run(["tar", "-xf", tree, "-C", bench.out, "--strip-components=2", "./bin/busybox"])
    (bench.out / "applets.txt").write_bytes(bench.read([bench.out / "busybox", "--list"]))


def _busybox_image(bench: Bench) -> Image:
    program = bench.input("busybox") / "busybox"
    applets = (bench.input("busybox") / "applets.txt").read_text().split()
    links = {f"bin/{name}": Link("busybox") for name in applets if name != "busybox"}
    layer = images.layer({**BASE, **links, "bin/busybox": program}, bench.scratch / "busybox.tar")
    return Image(str(pin("busybox")["image"]), (layer,), command=("sh",))


def _pause_image(bench: Bench) -> Image:
    layer = images.layer({"pause": bench.input("pause") / "pause"}, bench.scratch / "pause.tar")
    return Image(str(pin("pause")["image"]), (layer,), entrypoint=("/pause",), user="65535:65535")


def _airgap(bench: Bench) -> None:
    found = [*(addon.image(bench) for addon in ADDONS), _pause_image(bench), _busybox_image(bench)]
    found.sort(key=lambda image: image.name)
    images.save(found, bench.out / f"k3s-airgap-images-{architecture()}.tar")
    (bench.out / "k3s-images.txt").write_text("".join(f"docker.io/{image.name}\n" for image in found))


def _sums(bench: Bench) -> None:
    files = [file for need in bench.recipe.needs for file in bench.input(need).iterdir()]
    lines = [f"{sha256(file)}  {file.name}\n" for file in sorted(files, key=lambda file: file.name)]
    (bench.out / f"sha256sum-{architecture()}.txt").write_text("".join(lines))


def recipes() -> list[Recipe]:
    """The programs, and `k3s/{k3s-airgap-images-<arch>.tar,k3s-images.txt,sha256sum-<arch>.txt}` made of them."""
    parts = [
        *(addon.recipe() for addon in ADDONS),
        Recipe("pause", version("pause"), (PAUSE,), (), _pause, source="tests/lab/images/pause", requires=("go",)),
        Recipe(
            "busybox",
            version("busybox"),
            (),
            (),
            _busybox,
            source=f"Debian {debian.suite()}, package busybox-static",
            requires=debian.PROGRAMS,
            arguments=(debian.suite(),),
        ),
    ]
    airgap = Recipe(
        "k3s-images",
        "1",
        (),
        tuple(part.name for part in parts),
        _airgap,
        place="k3s",
        kind="images",
        source=", ".join(part.title for part in parts),
        arguments=tuple(str(pin(part.name)["image"]) for part in parts),
    )
    sums = Recipe(
        "k3s-sums", "1", (), ("k3s", "k3s-images"), _sums, place="k3s", kind="checksums", source="k3s, k3s-images"
    )
    return [*parts, airgap, sums]
