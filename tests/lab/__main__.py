"""`python -m tests.lab`: the lab from a shell. Exit status 0, 1 with one line on standard error, 2 for wrong usage."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence

from tests.lab import bundle, image, lima, standing
from tests.lab.bundle import BundleError
from tests.lab.docker import DockerError
from tests.lab.host import HostError, start_docker, unavailable
from tests.lab.machine import MachineError
from tests.lab.network import NetworkError
from tests.lab.removal import labs, remove, sweep

__all__ = ["main"]

ERRORS = (BundleError, DockerError, HostError, MachineError, NetworkError, TimeoutError, standing.NotStanding)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _docker(given: argparse.Namespace) -> int:
    print(f"Docker {start_docker()}")
    return 0


def _build(given: argparse.Namespace) -> int:
    began = time.monotonic()
    made = bundle.ready(*given.names)
    say(f"artifacts ready after {time.monotonic() - began:.1f} s")
    print(made.root)
    return 0


def _up(given: argparse.Namespace) -> int:
    if reason := unavailable():
        raise HostError(reason)
    standing.up(servers=given.servers, agents=given.agents, kueue=not given.without_kueue, say=say)
    return _status(given)


def _down(given: argparse.Namespace) -> int:
    gone = sweep()
    lima.sweep()
    wanted = [lab for lab, owner in labs().items() if given.all or standing.is_kept(owner)]
    for lab in wanted:
        began = time.monotonic()
        remove(lab)
        say(f"lab {lab} removed in {time.monotonic() - began:.1f} s")
    sweep()  # the host's own settings come back with the last lab
    if given.images:
        image.remove_all()
    if not wanted and not gone:
        say("no lab is up")
    return 0


def _shell(given: argparse.Namespace) -> int:
    argv = standing.shell(given.name, root=given.root)
    os.execvp(argv[0], [*argv, *given.command])


def _status(given: argparse.Namespace) -> int:
    found = standing.status()
    if given.json:
        print(json.dumps(found, indent=1))
        return 0
    if not found:
        print("no lab is up")
    for lab in found:
        print(f"lab {lab['id']}  {lab['label'] or '-'}  {lab['owner']}")
        for machine in lab["machines"]:
            size = f"{machine['memory_mib']} MiB" if machine["memory_mib"] is not None else "-"
            print(f"  {machine['name']:<10} {machine['address']:<15} {machine['state']:<8} {size:>9}")
        if lab["kubeconfig"]:
            print(f"  kubeconfig {lab['kubeconfig']}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description="A real cluster's parts on this machine: needs Linux, root and Docker. Nothing leaves the machine.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")

    def action(name: str, do: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        made.set_defaults(do=do)
        return made

    action("docker", _docker, "start the Docker engine, unless it runs")
    build = action("build", _build, "build what the lab is made of, from pinned sources; seconds when it is there")
    build.add_argument("names", nargs="*", metavar="NAME", help="only these artifacts, and what they need")
    up = action("up", _up, "start a lab that stays: a cluster with Kueue, until `down` or the next boot")
    up.add_argument("--servers", type=int, default=1, metavar="N", help="machines that run the control plane (1)")
    up.add_argument("--agents", type=int, default=1, metavar="N", help="machines that only run pods (1)")
    up.add_argument("--without-kueue", action="store_true", help="leave Kueue out")
    up.add_argument("--json", action="store_true", help="what is up, as JSON")
    down = action("down", _down, "remove labs that stay, and the remains of those whose process died")
    down.add_argument("--all", action="store_true", help="also labs that running tests use")
    down.add_argument("--images", action="store_true", help="also the machines' image in the Docker engine")
    shell = action("shell", _shell, "log in to a machine over SSH, or run a command there")
    shell.add_argument("name", metavar="NAME", help="the machine, such as m1")
    shell.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="instead of a login shell")
    shell.add_argument("--root", action="store_true", help="at the console, as root")
    status = action("status", _status, "what is up, with addresses and memory")
    status.add_argument("--json", action="store_true", help="the same as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """What the command returns; see the module."""
    given = _parser().parse_args(argv)
    try:
        if given.action in ("down", "shell", "status") and (reason := unavailable()):
            raise HostError(reason)
        return int(given.do(given))
    except ERRORS as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
