"""``qwex`` and ``python -m qwex``. What must be quick, the version and completion, is answered without the rest."""

from __future__ import annotations

import os
import sys

from qwex.version import __version__

__all__ = ["main"]


def main() -> int:
    """Run the command line of this process; its exit status."""
    _hold_descriptors()
    if "QWEX_COMPLETE" in os.environ:
        from qwex.cli.complete import answer

        return answer(os.environ["QWEX_COMPLETE"], sys.argv[1:])
    if sys.argv[1:] in (["--version"], ["-V"]):
        from qwex.cli.output import write

        return write(f"qwex {__version__}\n")
    from qwex.cli.app import run

    return run(sys.argv[1:])


def _hold_descriptors() -> None:
    """Open the standard descriptors that came closed, so that no database ever becomes number 1. Writing to them fails, as before."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)


if __name__ == "__main__":
    sys.exit(main())
