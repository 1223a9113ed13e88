"""Kueue: its controller in an image, and the manifests of the same module pointed at that image."""

from __future__ import annotations

import shutil

import yaml
from tests.lab.bundle import golang, images
from tests.lab.bundle.errors import Failed
from tests.lab.bundle.images import BASE, Image
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["recipes"]

MODULE = LAB / "go" / "kueue"
USER = "65532:65532"


def _name() -> str:
    return str(pin("kueue")["image"])


def _build(bench: Bench) -> None:
    module, pinned = str(pin("kueue")["module"]), version("kueue")
    golang.build(
        bench,
        MODULE,
        {"manager": f"{module}/cmd/kueue"},
        ldflags=f"-X {module}/pkg/version.GitVersion={pinned}",
    )
    manager = bench.scratch / "manager"
    (bench.out / "manager").rename(manager)
    layer = images.layer({**BASE, "manager": manager}, bench.scratch / "layer.tar")
    images.save([Image(_name(), (layer,), entrypoint=("/manager",), user=USER)], bench.out / "images.tar")
    (bench.out / "images.txt").write_text(f"{_name()}\n")
    (bench.out / "manifests.yaml").write_bytes(_manifests(bench, module))


def _manifests(bench: Bench, module: str) -> bytes:
    """What the release's `manifests.yaml` holds, for an image that is already on the node."""
    tree = bench.scratch / "config"
    shutil.copytree(golang.source(bench, MODULE, module) / "config", tree, copy_function=shutil.copyfile)
    # The name that the image has before a release renames it.
    (unreleased,) = yaml.safe_load((tree / "components/manager/kustomization.yaml").read_text())["images"]
    overlay = bench.scratch / "lab"
    overlay.mkdir()
    repository, _, tag = _name().rpartition(":")
    present = [{"op": "replace", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "IfNotPresent"}]
    kustomization = {
        "resources": ["../config/default"],
        "images": [{"name": unreleased["newName"], "newName": repository, "newTag": tag}],
        "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump(present)}],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    kustomize = "sigs.k8s.io/kustomize/kustomize/v5"
    text = bench.read(["go", "run", kustomize, "build", overlay], env=golang.ENVIRONMENT, cwd=MODULE)
    used = {
        container["image"]
        for document in yaml.safe_load_all(text)
        if document["kind"] == "Deployment"
        for container in document["spec"]["template"]["spec"]["containers"]
    }
    if used != {_name()}:
        raise Failed(f"{bench.recipe.title}: its manifests name the images {', '.join(sorted(used))}")
    return text


def recipes() -> list[Recipe]:
    """`kueue/{manifests.yaml,images.tar,images.txt}`."""
    return [
        Recipe(
            "kueue",
            version("kueue"),
            (MODULE,),
            (),
            _build,
            place="kueue",
            kind="images and manifests",
            source=f"Go module {pin('kueue')['module']} {version('kueue')}",
            requires=("go",),
            arguments=(_name(),),
            sums=pin("kueue")["sha256"],
        )
    ]
