"""KWOK: nodes and pods that exist in the API only, for tests of scale."""

from __future__ import annotations

from tests.lab.bundle import golang
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["recipes"]

MODULE = LAB / "go" / "kwok"


def _build(bench: Bench) -> None:
    module = str(pin("kwok")["module"])
    flags = f"-X {module}/pkg/consts.Version={version('kwok')}"
    golang.build(bench, MODULE, {"kwok": f"{module}/cmd/kwok"}, ldflags=flags)


def recipes() -> list[Recipe]:
    """`kwok/kwok`."""
    return [
        Recipe(
            "kwok",
            version("kwok"),
            (MODULE,),
            (),
            _build,
            place="kwok",
            kind="program",
            source=f"Go module {pin('kwok')['module']} {version('kwok')}",
            requires=("go",),
        )
    ]
