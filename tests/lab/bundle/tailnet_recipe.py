"""Tailscale for the machines, and headscale, which stands where Tailscale's own control server would."""

from __future__ import annotations

from tests.lab.bundle import golang
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.recipe import Bench, Recipe

__all__ = ["recipes"]

TAILSCALE, HEADSCALE = LAB / "go" / "tailscale", LAB / "go" / "headscale"


def _tailscale(bench: Bench) -> None:
    module, number = str(pin("tailscale")["module"]), version("tailscale").removeprefix("v")
    # Unstamped programs call themselves unstable, and warn whoever talks to them.
    flags = f"-X {module}/version.shortStamp={number} -X {module}/version.longStamp={number}"
    packages = {name: f"{module}/cmd/{name}" for name in ("tailscaled", "tailscale")}
    golang.build(bench, TAILSCALE, packages, ldflags=flags)
    source = golang.source(bench, TAILSCALE, module) / "cmd" / "tailscaled"
    for name in ("tailscaled.service", "tailscaled.defaults"):
        (bench.out / name).write_bytes((source / name).read_bytes())


def _headscale(bench: Bench) -> None:
    golang.build(bench, HEADSCALE, {"headscale": f"{pin('headscale')['module']}/cmd/headscale"})


def recipes() -> list[Recipe]:
    """`tailscale/{tailscaled,tailscale,tailscaled.service,tailscaled.defaults}` and `lab/headscale`."""
    return [
        Recipe(
            name,
            version(name),
            (module,),
            (),
            build,
            place=place,
            kind="program",
            source=f"Go module {pin(name)['module']} {version(name)}",
            requires=("go",),
        )
        for name, module, build, place in (
            ("tailscale", TAILSCALE, _tailscale, "tailscale"),
            ("headscale", HEADSCALE, _headscale, "lab"),
        )
    ]
