"""The k3s stand-in: one static program with the node's own programs inside."""

from __future__ import annotations

from tests.lab.bundle import golang, payload_recipe
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["MODULE", "recipes"]

MODULE = LAB / "go" / "k3s"
# The scripts are put on machines by the lab itself; a change of theirs builds nothing anew.
SOURCES = tuple(MODULE / name for name in ("go.mod", "go.sum", "images.txt", "internal", "main.go"))
SOURCE_DATE = (
    "2025-09-10T00:00:00Z"  # of Kubernetes' release, instead of the clock: the same sources give the same file
)


def _flags() -> str:
    release = version("k3s")
    major, minor, *_ = release.removeprefix("v").split(".")
    values = {
        "gitVersion": release,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "buildDate": SOURCE_DATE,
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())


def _build(bench: Bench) -> None:
    golang.build(bench, MODULE, {"k3s": "."}, ldflags=_flags(), env=payload_recipe.embedded(bench))


def recipes() -> list[Recipe]:
    """`k3s/k3s`."""
    return [
        Recipe(
            "k3s",
            version("k3s"),
            SOURCES,
            ("payload",),
            _build,
            place="k3s",
            kind="program",
            source=f"Go module {pin('k3s')['module']} {version('k3s').partition('+')[0]}, with tests/lab/go/k3s",
            stands_in="k3s: its command line and files over upstream Kubernetes",
            requires=("go",),
            arguments=(_flags(),),
        )
    ]
