"""The quick start of README.md, so that what is tested is what is written: ``python readme.py 1`` prints its first command.

``--without-tests`` leaves out the last step (``&& pytest``): what only prepares.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def commands() -> list[str]:
    """The code blocks of the section "Quick start", one command each."""
    section = README.read_text().split("## Quick start", 1)[1].split("\n## ", 1)[0]
    return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)]


def main() -> None:
    """Print the command that the first argument numbers."""
    command = commands()[int(sys.argv[1]) - 1]
    if "--without-tests" in sys.argv:
        command = command.rpartition("&&")[0].strip()
    sys.stdout.write(command + "\n")


if __name__ == "__main__":
    main()
