"""The k3s stand-in's pins, and which k3s a cluster runs."""

from pathlib import Path

import pytest
import yaml
from tests.lab.bundle.layout import Bundle, architecture
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.cluster import PROBE, ClusterError, k3s

MODULE = LAB / "go" / "k3s"
ADDONS = ("coredns", "local-path", "metrics-server", "busybox", "pause")


def test_the_packaged_images_are_those_that_the_bundle_holds() -> None:
    packaged = set((MODULE / "images.txt").read_text().split())
    assert packaged == {pin(name)["image"] for name in ADDONS}


def test_the_module_builds_the_kubernetes_that_it_claims_to_be() -> None:
    kubernetes = version("k3s").partition("+")[0]
    staged = kubernetes.replace("v1.", "v0.")
    lines = (MODULE / "go.mod").read_text().splitlines()
    assert f"k8s.io/kubernetes {kubernetes}" in " ".join(lines)
    replaced = [line.split() for line in lines if " => k8s.io/" in line]
    assert replaced
    assert {words[-1] for words in replaced} == {staged}


def test_the_bundles_stand_in_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEX_LAB_K3S", raising=False)
    (tmp_path / "k3s").mkdir()
    for name in ("k3s", f"k3s-airgap-images-{architecture()}.tar"):
        (tmp_path / "k3s" / name).touch()
    chosen = k3s(Bundle(tmp_path))
    assert (chosen.binary, chosen.stands_in, len(chosen.archives)) == (tmp_path / "k3s" / "k3s", True, 1)


def test_a_real_one_is_taken_with_the_images_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "k3s-real"
    monkeypatch.setenv("QWEX_LAB_K3S", str(binary))
    with pytest.raises(ClusterError, match="which is no file"):
        k3s(Bundle(tmp_path))
    binary.touch()
    archive = tmp_path / f"k3s-airgap-images-{architecture()}.tar.zst"
    archive.touch()
    chosen = k3s(Bundle(tmp_path))
    assert (chosen.binary, chosen.archives, chosen.stands_in) == (binary, (archive,), False)


def test_the_probe_names_one_queue() -> None:
    kinds = {each["kind"]: each["metadata"]["name"] for each in yaml.safe_load_all(PROBE)}
    assert kinds == {
        "ResourceFlavor": "lab-probe",
        "ClusterQueue": "lab-probe",
        "LocalQueue": "default",
        "Job": "lab-probe",
    }
