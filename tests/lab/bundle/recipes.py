"""The one table of artifacts, in the order they are built.

What takes longest comes first, and Debian's trees, which mostly wait for downloads, beside it: two are built at a time.
Each `*_recipe.py` offers `recipes() -> list[Recipe]`. A recipe's `build` works on a `Bench`: everything that it puts
under `bench.out` becomes the artifact, and under `place` part of the bundle.
"""

from __future__ import annotations

from tests.lab.bundle import (
    cluster_recipe,
    images_recipe,
    k3s_recipe,
    kueue_recipe,
    kwok_recipe,
    lima_recipe,
    node_recipe,
    payload_recipe,
    pulumi_recipe,
    tailnet_recipe,
)
from tests.lab.bundle.errors import BundleError
from tests.lab.bundle.recipe import Recipe

__all__ = ["table"]

MODULES = (
    payload_recipe,
    k3s_recipe,
    node_recipe,
    images_recipe,
    lima_recipe,
    kueue_recipe,
    tailnet_recipe,
    pulumi_recipe,
    cluster_recipe,
    kwok_recipe,
)


def table() -> dict[str, Recipe]:
    """By name. BundleError when two recipes have the same."""
    found: dict[str, Recipe] = {}
    for module in MODULES:
        for recipe in module.recipes():
            if recipe.name in found:
                raise BundleError(f"two recipes are named {recipe.name}")
            found[recipe.name] = recipe
    return found
