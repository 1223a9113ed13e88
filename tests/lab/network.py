"""The lab's networks: Docker bridges with a subnet of their own, from which nothing leaves this machine."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.lab.docker import ID, OWNER, docker, inspect
from tests.lab.records import host_lock

__all__ = ["POOL", "Network", "NetworkError", "bridges", "free_subnet", "mac", "unseal"]

POOL = ipaddress.IPv4Network("172.30.0.0/15")
CHAIN = "DOCKER-USER"  # Docker's chain for rules that come before its own; it never touches what is in it


class NetworkError(Exception):
    """The host's network could not be set up; the message says what was tried and what the tool answered."""


def command(*argv: str) -> str:
    """Run a network tool of the host; NetworkError when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NetworkError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def free_subnet(taken: Iterable[ipaddress.IPv4Network], start: int) -> ipaddress.IPv4Network:
    """The first /24 of the pool, from number `start` on and around, that overlaps none of `taken`.

    Labs start at different numbers, so that an address is seldom used again soon after. NetworkError when none is left.
    """
    used = [one for one in taken if one.overlaps(POOL)]
    subnets = list(POOL.subnets(new_prefix=24))
    start %= len(subnets)
    for subnet in subnets[start:] + subnets[:start]:
        if not any(subnet.overlaps(one) for one in used):
            return subnet
    raise NetworkError(f"no free /24 is left in {POOL}")


def _taken() -> list[ipaddress.IPv4Network]:
    """Subnets that Docker gave away or that the host has a route to."""
    names = docker("network", "ls", "--quiet", "--no-trunc").split()
    found = [
        ipaddress.IPv4Network(config["Subnet"])
        for network in inspect("network", names)
        for config in network["IPAM"]["Config"] or []
        if ":" not in config.get("Subnet", ":")
    ]
    for line in command("ip", "-4", "-o", "route", "show", "table", "all").splitlines():
        words = [word for word in line.split() if word not in ("local", "broadcast", "unreachable", "blackhole")]
        if re.match(r"\d+\.", words[0]):
            found.append(ipaddress.IPv4Network(words[0], strict=False))
    return found


def mac(address: str) -> str:
    """The Ethernet address of the machine that has this IPv4 address: fixed, so that rules about it outlive a restart."""
    return "02:42:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def bridges(lab: str) -> str:
    """How the names of that lab's interfaces on the host begin (the kernel allows 15 letters)."""
    return f"qx{lab}"


def _rule(bridge: str) -> list[str]:
    """Matches on interfaces, not addresses: pods talk from machine to machine with addresses of their own."""
    return [CHAIN, "-i", bridge, "!", "-o", bridge, "-j", "REJECT"]


def sealed() -> list[str]:
    """The bridges that a rule of this module stands for."""
    done = subprocess.run(["iptables", "-w", "-S", CHAIN], capture_output=True, text=True, check=False)
    return re.findall(r"-i (qx[0-9a-f]{6}n\d+) ", done.stdout)  # no such chain, no rules


def unseal(lab: str) -> None:
    """Remove the rules of that lab, however many there are."""
    for bridge in sealed():
        if bridge.startswith(bridges(lab)):
            command("iptables", "-w", "-D", *_rule(bridge))


@dataclass
class Network:
    """`subnet` such as 172.30.7.0/24; the host has `gateway`, machines get the addresses after it."""

    name: str
    full_name: str
    bridge: str
    subnet: str
    gateway: str
    _given: int = field(default=1, repr=False)

    def address(self) -> str:
        """The next address. Addresses are not given twice in the life of a lab."""
        self._given += 1
        if self._given > 250:
            raise NetworkError(f"network {self.name} has no address left")
        return str(ipaddress.IPv4Network(self.subnet)[self._given])

    @classmethod
    def create(cls, lab: str, owner: str, name: str, number: int) -> Network:
        """NetworkError or DockerError when the host refuses. Sealed before anything can be on it."""
        bridge = f"{bridges(lab)}n{number}"
        full_name = f"qwexlab-{lab}-{name}"
        with host_lock():
            subnet = free_subnet(_taken(), int(lab, 16) + number)
            gateway = str(subnet[1])
            # The rule may stand before its interface exists: there is no moment in which the network is open.
            command("iptables", "-w", "-I", *_rule(bridge))
            options = ["--subnet", str(subnet), "--gateway", gateway]
            options += ["-o", f"com.docker.network.bridge.name={bridge}"]
            options += ["--label", f"{ID}={lab}", "--label", f"{OWNER}={owner}"]
            docker("network", "create", *options, full_name)
        return cls(name, full_name, bridge, str(subnet), gateway)
