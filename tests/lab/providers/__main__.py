"""`python -m tests.lab.providers [PACKAGE...]`: serves the stand-ins until its standard input ends.

One line on standard output says where: `{"command": 40001, "kubernetes": 40002}`.
The end of the standard input is the signal to leave, so that they never outlive who started them.
"""

import json
import sys
from contextlib import ExitStack

from tests.lab.providers.server import PROVIDERS, Server


def main(packages: list[str]) -> int:
    """Serves the named stand-ins, all of them when none is named; 2 for a name that there is none of."""
    unknown = [package for package in packages if package not in PROVIDERS]
    if unknown:
        print(f"error: no stand-in for {', '.join(unknown)}; there is {', '.join(PROVIDERS)}", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(package)) for package in packages or list(PROVIDERS)]
        print(json.dumps({server.package: server.port for server in servers}), flush=True)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
