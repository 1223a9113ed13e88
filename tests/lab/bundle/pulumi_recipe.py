"""Pulumi's engine. Inline programs of the Automation API bring their own language host, so nothing else is needed."""

from __future__ import annotations

from tests.lab.bundle import golang
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["recipes"]

MODULE = LAB / "go" / "pulumi"
# The Automation API refuses an engine that does not say its version.
VERSION = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"


def _build(bench: Bench) -> None:
    package = f"{pin('pulumi')['module']}/cmd/pulumi"
    golang.build(bench, MODULE, {"pulumi": package}, ldflags=f"-X {VERSION}={version('pulumi')}")


def recipes() -> list[Recipe]:
    """`pulumi/pulumi`."""
    return [
        Recipe(
            "pulumi",
            version("pulumi"),
            (MODULE,),
            (),
            _build,
            place="pulumi",
            kind="program",
            source=f"Go module {pin('pulumi')['module']} {version('pulumi')}",
            requires=("go",),
        )
    ]
