"""Which subnet a lab gets, and what its interfaces and rules are named by."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from tests.lab import network
from tests.lab.network import POOL, Network, NetworkError, bridges, free_subnet, mac


@pytest.mark.parametrize(
    ("taken", "start", "chosen"),
    [
        ([], 0, "172.30.0.0/24"),
        ([], 5, "172.30.5.0/24"),
        ([], 512 + 5, "172.30.5.0/24"),
        (["172.30.5.0/24"], 5, "172.30.6.0/24"),
        (["172.30.5.128/25"], 5, "172.30.6.0/24"),
        (["172.30.0.0/16"], 5, "172.31.0.0/24"),
        (["172.31.255.0/24"], 511, "172.30.0.0/24"),
        (["10.0.0.0/8", "192.168.0.0/16"], 7, "172.30.7.0/24"),
        (["172.16.0.0/13"], 300, "172.31.44.0/24"),
    ],
)
def test_a_free_subnet(taken: list[str], start: int, chosen: str) -> None:
    assert str(free_subnet([IPv4Network(one) for one in taken], start)) == chosen


@pytest.mark.parametrize("taken", ["172.30.0.0/15", "172.16.0.0/12"])
def test_no_subnet_is_left(taken: str) -> None:
    with pytest.raises(NetworkError, match="no free /24"):
        free_subnet([IPv4Network(taken)], 3)


def test_every_subnet_can_be_given() -> None:
    taken: list[IPv4Network] = []
    for number in range(512):
        taken.append(free_subnet(taken, number * 37))
    assert len(set(taken)) == 512
    assert all(one.subnet_of(POOL) for one in taken)


def test_an_address_names_its_ethernet_address_as_docker_does() -> None:
    assert mac("172.31.9.250") == "02:42:ac:1f:09:fa"


def test_interface_names_fit_the_kernel() -> None:
    assert len(f"{bridges('abcdef')}t254") <= 15


def test_addresses_are_given_once() -> None:
    lan = Network("lan", "qwexlab-abcdef-lan", "qxabcdefn0", "172.30.4.0/24", "172.30.4.1")
    given = [lan.address() for _ in range(249)]
    assert (given[0], given[-1], len(set(given))) == ("172.30.4.2", "172.30.4.250", 249)
    with pytest.raises(NetworkError, match="no address left"):
        lan.address()


def test_what_docker_and_the_host_have_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = "default via 192.168.1.1 dev eth0\n172.30.8.0/24 dev vpn scope link\nbroadcast 172.31.1.255 dev x\n172.31.2.7 dev y\n"
    monkeypatch.setattr(network, "command", lambda *argv: routes)
    monkeypatch.setattr(network, "docker", lambda *argv: "one\ntwo")
    configs = [{"IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}, {"Subnet": "fd00::/64"}]}}, {"IPAM": {"Config": None}}]
    monkeypatch.setattr(network, "inspect", lambda kind, names: configs)
    assert [str(each) for each in network._taken()] == [
        "172.17.0.0/16",
        "172.30.8.0/24",
        "172.31.1.255/32",
        "172.31.2.7/32",
    ]
