"""The lab's artifacts: built once from pinned sources, kept by content, handed out as one offline bundle.

`ready()` builds what is missing, `cached()` only looks; both answer with a `Bundle`. `python -m tests.lab.bundle`
does the same from a shell. A part of the lab adds an artifact as a `Recipe` in its own `*_recipe.py`; see `recipes`.
"""

from tests.lab.bundle.errors import BundleError
from tests.lab.bundle.layout import Bundle
from tests.lab.bundle.recipe import Bench, Recipe
from tests.lab.bundle.workshop import cached, ready

__all__ = ["Bench", "Bundle", "BundleError", "Recipe", "cached", "ready"]
