"""`python -m tests.lab.bundle [build|list|check|prune] [NAME…]`: the lab's artifacts from a shell."""

from __future__ import annotations

import argparse
import sys
import time

from tests.lab.bundle.errors import BundleError
from tests.lab.bundle.recipes import table
from tests.lab.bundle.workshop import Workshop, cache_directory

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """0, 1 with one message on standard error, or 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.bundle", description=__doc__)
    parser.add_argument(
        "action",
        nargs="?",
        default="build",
        choices=["build", "list", "check", "prune"],
        help="build what is missing (default), list the artifacts, compare all checksums, or remove what no recipe makes",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, and what they need")
    given = parser.parse_args(argv)
    try:
        workshop = Workshop(table(), cache_directory())
        return {"build": _build, "list": _list, "check": _check, "prune": _prune}[given.action](
            workshop, tuple(given.names)
        )
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept", file=sys.stderr)
        return 130


def _build(workshop: Workshop, names: tuple[str, ...]) -> int:
    began = time.monotonic()
    bundle = workshop.ready(*names)
    print(bundle.root)
    print(f"{len(workshop.wanted(names))} artifacts ready after {time.monotonic() - began:.1f} s", file=sys.stderr)
    return 0


def _list(workshop: Workshop, names: tuple[str, ...]) -> int:
    for name in workshop.wanted(names):
        recipe, found = workshop.table[name], workshop.find(name)
        state = "missing" if found is None else f"{sum(p.stat().st_size for p in found.out.rglob('*')) >> 20:>5} MiB"
        print(f"{recipe.name:<20} {recipe.version:<14} {state:>10}  {recipe.source}")
    return 0


def _check(workshop: Workshop, names: tuple[str, ...]) -> int:
    for name in workshop.wanted(names):
        if workshop.find(name, whole=True) is None:
            print(f"error: {name} is not built", file=sys.stderr)
            return 1
    bundle = workshop.cached(*names)
    assert bundle is not None
    print(f"{bundle.check()} files match their checksums in {bundle.root}")
    return 0


def _prune(workshop: Workshop, names: tuple[str, ...]) -> int:
    print(f"{workshop.prune() >> 20} MiB freed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
