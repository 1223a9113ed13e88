"""The pinned versions, one table of `pins.toml` for each artifact."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from tests.lab.bundle.errors import BundleError

__all__ = ["LAB", "pin", "version"]

LAB = Path(__file__).resolve().parent.parent


@cache
def _pins() -> dict[str, dict[str, Any]]:
    return tomllib.loads((LAB / "pins.toml").read_text())


def pin(name: str) -> dict[str, Any]:
    """The table `[name]`; BundleError when there is none."""
    try:
        return _pins()[name]
    except KeyError:
        raise BundleError(f"tests/lab/pins.toml has no table [{name}]") from None


def version(name: str) -> str:
    """What `[name]` pins."""
    return str(pin(name)["version"])
