"""Several servers: etcd among them, the loss of one, a server that comes back, one that leaves, and one that disagrees."""

from __future__ import annotations

import pytest
from tests.lab.bundle import Bundle
from tests.lab.cluster import Cluster, configure, create, install, log, ready
from tests.lab.lab import Lab
from tests.lab.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def three(lab: Lab, bundle: Bundle) -> object:
    """Three servers and two agents without Kueue."""
    made = create(lab, bundle, servers=3, agents=2, kueue=False, name="ha-", config={"disable": ["metrics-server"]})
    yield made
    made.close()


def not_ready(cluster: Cluster) -> set[str]:
    return {machine.name for machine in cluster.machines} - cluster.nodes_ready()


def test_three_servers_and_two_agents_start(three: Cluster) -> None:
    assert three.nodes_ready() == {machine.name for machine in three.machines}
    roles = three.json("get", "nodes", "-l", "node-role.kubernetes.io/etcd=true")["items"]
    assert {node["metadata"]["name"] for node in roles} == {machine.name for machine in three.servers}
    for node in roles:
        assert node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] == "true"
    with open("/proc/meminfo") as file:
        total, free, available = (int(next(file).split()[1]) for _ in range(3))
    print(f"five machines up, {available >> 10} of {total >> 10} MiB available")
    assert available > 1 << 20, f"{free} KiB free"


def test_the_loss_of_one_server_is_survived_and_it_comes_back(three: Cluster, bundle: Bundle) -> None:
    first, second = three.servers[:2]
    three.kubectl("create", "configmap", "before", "--from-literal=a=b")
    with first.power_cut():
        three.fetch_kubeconfig(second)
        until("the others to answer", lambda: three.try_kubectl("get", "nodes").returncode == 0, 60)
        until("a write", lambda: three.try_kubectl("create", "configmap", "during").returncode == 0, 60)
        assert three.kubectl("get", "configmap", "before", "-o", "jsonpath={.data.a}") == "b"
        until("the lost one to be noticed", lambda: not_ready(three) == {first.name}, 120)
        # The agents knew only the first; their load balancer knows the others. What needs an agent: a pod's log.
        three.kubectl(
            "create",
            "deployment",
            "web",
            f"--image={bundle.text('images/job.txt')}",
            "--replicas=2",
            "--",
            "sleep",
            "3600",
        )
        three.kubectl("rollout", "status", "deployment/web", "--timeout=120s", timeout=130)
    ready(first, "server")
    until("all to be Ready again", lambda: not not_ready(three), 120)
    three.fetch_kubeconfig(first)
    until("the first to answer", lambda: three.try_kubectl("get", "configmap", "during").returncode == 0, 60)


def test_servers_that_disagree_are_refused(three: Cluster, lab: Lab) -> None:
    odd = lab.machine("ha-odd")
    try:
        joining = {
            "server": three.url,
            "token": three.token,
            "cluster-cidr": "10.99.0.0/16",
            "disable": ["metrics-server"],
        }
        install(odd, three.k3s, "server", joining)
        odd.run("systemctl", "start", "--no-block", "k3s")
        until("the refusal", lambda: "critical configuration value mismatch" in log(odd, "server").lower(), within=60)
        assert odd.run("systemctl", "is-active", "k3s", check=False).stdout.strip() != "active"
        members = three.json("get", "nodes", "-l", "node-role.kubernetes.io/etcd=true")["items"]
        assert len(members) == 3
        configure(odd, {**joining, "cluster-cidr": "10.42.0.0/16", "tls-san": [odd.address]})
        odd.run("systemctl", "restart", "--no-block", "k3s")
        ready(odd, "server")
        until("the fourth to be Ready", lambda: odd.name in three.nodes_ready(), 60)
        # It leaves: its Node goes, and with it its vote.
        odd.run("systemctl", "stop", "k3s")
        three.kubectl("delete", "node", odd.name)
        until(
            "its etcd member to be removed",
            lambda: any(f"Removing name={odd.name}" in log(server, "server") for server in three.servers),
            within=60,
        )
        with three.servers[2].power_cut():  # two of three are a majority again, two of four were none
            until("a write", lambda: three.try_kubectl("create", "configmap", "after").returncode == 0, 60)
        ready(three.servers[2], "server")
    finally:
        lab.discard(odd)
