"""The tailnet: machines that no route joins meet over it, and the control server's say is final."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.lab import bundle as bundles
from tests.lab.bundle.pins import version
from tests.lab.lab import Lab
from tests.lab.machine import Machine, MachineError
from tests.lab.tailnet import Tailnet, TailnetError, address, status
from tests.lab.waiting import until

pytestmark = pytest.mark.lab

ARTIFACTS = ("node", "tailscale", "headscale")
PATIENCE = 60.0  # seconds for news to reach a node and a relayed link to come up


@dataclass(frozen=True)
class Members:
    """`east` and `near` share a network, `west` is on another; all three are in the tailnet. `spare`, beside `west`, is not."""

    tailnet: Tailnet
    east: Machine
    near: Machine
    west: Machine
    spare: Machine


@pytest.fixture(scope="module")
def members(lab: Lab) -> Iterator[Members]:
    bundle = bundles.cached(*ARTIFACTS)
    if bundle is None:
        pytest.skip(f"not built: python -m tests.lab.bundle build {' '.join(ARTIFACTS)}")
    east, west = lab.network("east"), lab.network("west")
    machines = [*lab.machines("east", "near", network=east), *lab.machines("west", "spare", network=west)]
    try:
        with Tailnet.create(lab, bundle, east, west) as tailnet:
            tailnet.install(*machines)
            for machine in machines[:3]:
                tailnet.join(machine)
            yield Members(tailnet, *machines)
    finally:
        for machine in machines:
            lab.discard(machine)


def pings(one: Machine, to: str) -> bool:
    """Whether an ordinary ping is answered."""
    return one.run("ping", "-c", "1", "-W", "1", to, check=False).returncode == 0


def greets(one: Machine, to: str) -> bool:
    """Whether the SSH server there greets over a TCP connection of the kernel's."""
    script = f"exec 3<>/dev/tcp/{to}/22 && head -c 4 <&3"
    return one.run("timeout", "5", "bash", "-c", script, check=False).stdout == "SSH-"


def reaches(one: Machine, to: str) -> None:
    until(f"{one.name} to reach {to}", lambda: greets(one, to), within=PATIENCE)


def loses(one: Machine, to: str) -> None:
    until(f"{one.name} to lose {to}", lambda: not greets(one, to), within=PATIENCE)


def way(one: Machine, to: str) -> str:
    """What `tailscale ping` says about the way that an answer took."""

    def answer() -> str:
        said = one.run("tailscale", "ping", "-c", "1", "--until-direct=false", to, check=False).stdout
        return said if "pong from" in said else ""

    return until(f"{one.name} to ping {to}", answer, within=PATIENCE)


def peers(one: Machine) -> dict[str, dict[str, Any]]:
    """Who it knows, by host name."""
    return {peer["HostName"]: peer for peer in (status(one).get("Peer") or {}).values()}


@pytest.fixture
def spare(members: Members) -> Machine:
    """A machine that was never in the tailnet."""
    if any(node["given_name"] == "spare" for node in members.tailnet.nodes()):
        members.tailnet.delete("spare")
    members.spare.run("systemctl", "stop", "tailscaled")
    members.spare.run("sh", "-c", "rm -rf /var/lib/tailscale/*")
    members.spare.run("systemctl", "start", "tailscaled")
    return members.spare


def refused(tailnet: Tailnet, machine: Machine, key: str, why: str) -> None:
    """At once, not after the client's own timeout."""
    with pytest.raises(MachineError, match=f"backend error: {why}"):
        tailnet.join(machine, key=key, timeout="60s")
    assert status(machine)["BackendState"] == "NeedsLogin"


def test_machines_on_two_networks_meet_over_the_relay_only(members: Members) -> None:
    east, west = members.east, members.west
    assert east.network.subnet != west.network.subnet
    assert pings(east, members.near.address)  # ping itself works here
    assert not pings(east, west.address)
    assert not pings(west, east.address)
    assert not greets(east, west.address)
    assert "via DERP(lab)" in way(east, address(west))
    assert "via DERP(lab)" in way(west, address(east))
    assert "dev tailscale0" in east.run("ip", "route", "get", address(west)).stdout
    reaches(east, address(west))
    reaches(west, address(east))


def test_machines_on_one_network_find_the_direct_way(members: Members) -> None:
    until(
        "a direct way",
        lambda: f"via {members.near.address}:" in way(members.east, address(members.near)),
        within=PATIENCE,
    )


def test_nodes_are_listed_by_name(members: Members) -> None:
    node = members.tailnet.node("west")
    assert address(members.west) in node["ip_addresses"]
    assert node["online"] is True
    with pytest.raises(TailnetError, match="no node nobody; it has east, near"):
        members.tailnet.node("nobody")


def test_an_installed_machine_is_as_the_package_leaves_it(spare: Machine) -> None:
    assert spare.run("systemctl", "is-active", "tailscaled").stdout.strip() == "active"
    assert spare.run("systemctl", "is-enabled", "tailscaled").stdout.strip() == "enabled"
    assert spare.run("stat", "-c", "%a", "/var/lib/tailscale").stdout.strip() == "700"
    assert status(spare)["BackendState"] == "NeedsLogin"
    assert spare.run("tailscale", "version").stdout.splitlines()[0] == version("tailscale").removeprefix("v")
    assert spare.ssh("tailscale", "status", check=False).stdout.startswith("Logged out.")


def test_a_used_key_is_refused(members: Members, spare: Machine) -> None:
    key = members.tailnet.auth_key()
    members.tailnet.join(members.near, key=key, force_reauth=True)
    refused(members.tailnet, spare, key, "authkey already used")


def test_a_reusable_key_is_good_for_several(members: Members, spare: Machine) -> None:
    key = members.tailnet.auth_key(reusable=True)
    members.tailnet.join(members.near, key=key, force_reauth=True)
    members.tailnet.join(spare, key=key)
    assert members.tailnet.node("spare")["online"] is True


def test_an_expired_key_is_refused(members: Members, spare: Machine) -> None:
    refused(members.tailnet, spare, members.tailnet.expired_key(), "authkey expired")


def test_a_key_is_nowhere_after_joining(members: Members, spare: Machine) -> None:
    key = members.tailnet.auth_key()
    members.tailnet.join(spare, key=key)
    places = ("/etc", "/root", "/home", "/run", "/tmp", "/var/lib/tailscale", "/var/log")
    assert spare.run("grep", "-rlF", key, *places, check=False).stdout == ""


def test_a_tag_comes_with_the_key(members: Members, spare: Machine) -> None:
    members.tailnet.join(spare, key=members.tailnet.auth_key(tags=("tag:gpu",)))
    assert members.tailnet.node("spare")["forced_tags"] == ["tag:gpu"]
    assert status(spare)["Self"]["Tags"] == ["tag:gpu"]


def test_a_machine_gives_itself_the_tags_that_the_policy_allows(members: Members, spare: Machine) -> None:
    members.tailnet.join(spare, advertise_tags="tag:qwex")
    until("the tag", lambda: status(spare)["Self"].get("Tags") == ["tag:qwex"], within=PATIENCE)


def test_an_approved_route_is_used(members: Members) -> None:
    east, west, inside = members.east, members.west, "10.99.0.1"
    east.run("ip", "link", "add", "inside", "type", "bridge")
    try:
        east.run("ip", "address", "add", f"{inside}/24", "dev", "inside")
        east.run("ip", "link", "set", "inside", "up")
        east.run("tailscale", "set", "--advertise-routes=10.99.0.0/24")
        west.run("tailscale", "set", "--accept-routes")
        reaches(west, address(east))
        assert not greets(west, inside)
        members.tailnet.approve_routes("east", ["10.99.0.0/24"])
        assert members.tailnet.routes("east") == ["10.99.0.0/24"]
        reaches(west, inside)
        members.tailnet.approve_routes("east", [])
        loses(west, inside)
    finally:
        east.run("ip", "link", "delete", "inside")
        east.run("tailscale", "set", "--advertise-routes=")
        west.run("tailscale", "set", "--accept-routes=false")


def test_a_deleted_node_is_cut_off(members: Members, spare: Machine) -> None:
    there = members.tailnet.join(spare)
    reaches(members.east, there)
    members.tailnet.delete("spare")
    until("east to forget it", lambda: "spare" not in peers(members.east), within=PATIENCE)
    loses(members.east, there)


def test_an_expired_node_is_cut_off_until_it_logs_in_again(members: Members, spare: Machine) -> None:
    there = members.tailnet.join(spare)
    reaches(members.east, there)
    members.tailnet.expire("spare")
    until("it to need a login", lambda: status(spare)["BackendState"] == "NeedsLogin", within=PATIENCE)
    loses(members.east, there)
    assert members.tailnet.join(spare, force_reauth=True) == there
    reaches(members.east, there)


def test_leaving_keeps_the_record(members: Members, spare: Machine) -> None:
    members.tailnet.join(spare)
    members.tailnet.leave(spare)
    assert status(spare)["BackendState"] == "NeedsLogin"
    assert members.tailnet.node("spare")["given_name"] == "spare"


def test_an_ephemeral_node_is_forgotten_when_it_leaves(members: Members, spare: Machine) -> None:
    members.tailnet.join(spare, key=members.tailnet.auth_key(ephemeral=True))
    assert members.tailnet.node("spare")["online"] is True
    members.tailnet.leave(spare)
    names = {"spare"}
    until("it to be gone", lambda: names.isdisjoint(n["given_name"] for n in members.tailnet.nodes()), within=PATIENCE)


def test_the_address_survives_a_restart_and_a_reboot(members: Members) -> None:
    west, before = members.west, address(members.west)
    west.run("systemctl", "restart", "tailscaled")
    until("west to run again", lambda: status(west)["BackendState"] == "Running", within=PATIENCE)
    assert address(west) == before
    with west.power_cut():
        pass
    until("tailscaled to be up", lambda: west.run("tailscale", "status", check=False).returncode == 0, within=PATIENCE)
    assert address(west) == before
    reaches(members.east, before)


def test_without_the_control_server_direct_links_go_on_and_relayed_ones_come_back_with_it(members: Members) -> None:
    east, near, west = members.east, address(members.near), address(members.west)
    until("a direct way", lambda: f"via {members.near.address}:" in way(east, near), within=PATIENCE)
    reaches(east, west)
    members.tailnet.stop()
    try:
        loses(east, west)
        reaches(east, near)
    finally:
        members.tailnet.start()
    reaches(east, west)
