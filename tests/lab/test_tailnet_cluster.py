"""A cluster over the tailnet: nodes on networks that do not reach each other, flannel's packets through tailscale0."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.lab.bundle import Bundle
from tests.lab.cluster import LAB_ONLY, TOKEN, Cluster, add_images, install, k3s, start
from tests.lab.lab import Lab
from tests.lab.tailnet import Tailnet
from tests.lab.test_cluster import SERVE, fetch, pod, running
from tests.lab.waiting import until

pytestmark = pytest.mark.lab

CONTROL = 6443


@pytest.fixture
def apart(lab: Lab, bundle: Bundle, tmp_path: Path) -> Iterator[Cluster]:
    """A server on one network, an agent on another; both know each other by tailnet addresses only."""
    east, west = lab.network("east"), lab.network("west")
    server, agent = lab.machine("far-server", east), lab.machine("far-agent", west)
    try:
        with Tailnet.create(lab, bundle, east, west) as tailnet:
            tailnet.install(server, agent)
            there, here = (tailnet.join(machine) for machine in (server, agent))
            made = Cluster(lab, k3s(bundle), [server], [], tmp_path, (bundle.path("images/job.tar"),))
            over = {"flannel-iface": "tailscale0"}
            names = {"node-ip": there, "tls-san": [there, server.address]}  # the second for kubectl on this host
            settings = {**over, **names, "disable": ["metrics-server"], **LAB_ONLY}
            install(server, made.k3s, "server", settings)
            add_images(server, made.images)
            start(server, "server")
            made.wait_for_images(server)
            made.token = server.read(TOKEN).strip()
            made.add_agent(agent, {**over, "server": f"https://{there}:{CONTROL}", "node-ip": here})
            made.fetch_kubeconfig(server)
            yield made
    finally:
        for machine in (server, agent):
            lab.discard(machine)


@pytest.mark.timeout(600)
def test_pods_on_networks_apart_reach_each_other_and_a_service_by_name(apart: Cluster, bundle: Bundle) -> None:
    server, agent = apart.machines
    assert agent.run("ping", "-c", "1", "-W", "1", server.address, check=False).returncode != 0
    until("both nodes to be Ready", lambda: apart.nodes_ready() == {server.name, agent.name}, within=120)
    for machine in apart.machines:
        (link,) = json.loads(machine.run("ip", "-d", "-json", "link", "show", "flannel.1").stdout)
        assert link["linkinfo"]["info_data"]["link"] == "tailscale0"
        assert link["mtu"] == 1280 - 50

    image = bundle.text("images/job.txt")
    names = {machine.name: f"on-{machine.name}" for machine in apart.machines}
    for node, name in names.items():
        apart.apply(pod(name, "default", image, SERVE, node))
    apart.kubectl("expose", "pod", names[server.name], "--name=web", "--port=80", "--target-port=8080")
    running(apart, "default", *names.values())
    found = apart.json("get", "pods")["items"]
    addresses = {item["metadata"]["name"]: item["status"]["podIP"] for item in found}
    asked = [(one, f"http://{addresses[other]}:8080/hostname", other) for one in addresses for other in addresses]
    asked += [(name, "http://web/hostname", names[server.name]) for name in addresses]
    for name, url, answer in asked:
        ask = partial(fetch, apart, "default", name, url)
        assert until(f"{name} to reach {url}", ask, within=60).strip() == answer
