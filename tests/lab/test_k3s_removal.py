"""What k3s leaves behind: nothing in the kernel after killall, nothing at all after uninstall."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from tests.lab.bundle import Bundle
from tests.lab.cluster import LAB_ONLY, TOKEN, Cluster, add_images, install, k3s, ready, start, unit
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

JOB = "lab.local/job:1"
KILLALL = "/usr/local/bin/k3s-killall.sh"

# A pod with a network, a port on the host and a volume in memory: each leaves something else in the kernel.
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lab.local/job:1
    imagePullPolicy: Never
    command: [sleep, "3600"]
    ports: [{{containerPort: 80, hostPort: 8099}}]
    volumeMounts: [{{name: scratch, mountPath: /scratch}}]
  volumes: [{{name: scratch, emptyDir: {{medium: Memory}}}}]
"""


@dataclass(frozen=True)
class Kernel:
    """What a machine's kernel holds that k3s could have put there."""

    mounts: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]
    namespaces: frozenset[str]
    processes: frozenset[str]

    def beyond(self, other: Kernel) -> dict[str, list[str]]:
        """What is here and not there."""
        pairs = ((each.name, getattr(self, each.name) - getattr(other, each.name)) for each in fields(self))
        return {name: sorted(more) for name, more in pairs if more}


def kernel(machine: Machine) -> Kernel:
    rules = machine.run("sh", "-c", "iptables-save; ip6tables-save").stdout.splitlines()
    return Kernel(
        frozenset(line.split()[1] for line in machine.read("/proc/self/mounts").splitlines()),
        frozenset(each["ifname"] for each in json.loads(machine.run("ip", "-json", "link", "show").stdout)),
        # Tables and their chains' policies stay once they were looked at; they do nothing.
        frozenset(line for line in rules if not re.match(r"#|\*|COMMIT|:[A-Z]+ ACCEPT", line)),
        frozenset(machine.run("ip", "netns", "list").stdout.split()),
        frozenset(machine.run("ps", "-e", "-o", "comm=").stdout.split()) - {"ps"},
    )


# What changes on a machine by itself, or holds the log of what was done.
RESTLESS = "|".join(
    (
        "/var/lib/(systemd|private|apt|dpkg|dhcp)/",
        "/run/(systemd|udev|dbus|log|lock|user|sudo|utmp|motd)",
        "/etc/(ld.so.cache|resolv.conf)",
    )
)


NODE = ("/etc/rancher/node", "/etc/rancher/node/password")


def files(machine: Machine) -> set[str]:
    found = machine.run("find", "/etc", "/usr/local", "/var/lib", "/run", "/opt", "-xdev", "-print").stdout
    volumes = machine.run("sh", "-c", "find /var/lib/rancher /var/lib/kubelet /var/lib/containerd -print").stdout
    return {line for line in [*found.splitlines(), *volumes.splitlines()] if not re.match(RESTLESS, line)}


@dataclass
class Installed:
    """A cluster of two, and how its machines were before."""

    cluster: Cluster
    kernels: dict[str, Kernel]
    files: dict[str, set[str]]

    def role(self, machine: Machine) -> str:
        return "server" if machine in self.cluster.servers else "agent"

    def run_pod(self, machine: Machine) -> None:
        self.cluster.apply(POD.format(name=f"on-{machine.name}", node=machine.name))
        self.wait(machine)

    def wait(self, machine: Machine) -> None:
        wait = ("wait", "--for=condition=Ready", f"pod/on-{machine.name}", "--timeout=120s")
        self.cluster.kubectl(*wait, timeout=130)


@pytest.fixture(scope="module")
def installed(lab: Lab, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A server and an agent with a pod on each."""
    first, second = lab.machines("gone-server", "gone-agent")
    try:
        for machine in (first, second):
            machine.run("sh", "-c", "iptables-save; ip6tables-save")
        kernels = {machine.name: kernel(machine) for machine in (first, second)}
        before = {machine.name: files(machine) for machine in (first, second)}
        images = (bundle.path("images/job.tar"),)
        made = Cluster(lab, k3s(bundle), [first], [], tmp_path_factory.mktemp("gone"), images)
        install(first, made.k3s, "server", {"tls-san": [first.address], "disable": ["metrics-server"], **LAB_ONLY})
        add_images(first, images)
        start(first, "server")
        made.token = first.read(TOKEN).strip()
        made.add_agent(second)
        made.fetch_kubeconfig(first)
        here = Installed(made, kernels, before)
        for machine in made.machines:
            here.run_pod(machine)
        yield here
    finally:
        for machine in (first, second):
            lab.discard(machine)


def shims(machine: Machine) -> list[str]:
    return machine.run("pgrep", "-f", "/bin/[c]ontainerd-shim", check=False).stdout.split()


@pytest.mark.parametrize("which", ["agent", "server"])
def test_killall_leaves_nothing_in_the_kernel_and_the_data_in_place(installed: Installed, which: str) -> None:
    cluster = installed.cluster
    machine = cluster.agents[0] if which == "agent" else cluster.servers[0]
    before = installed.kernels[machine.name]
    assert shims(machine)
    held = kernel(machine).beyond(before)
    assert {"cni0", "flannel.1"} <= set(held["links"])
    assert any("KUBE-" in rule for rule in held["rules"])
    assert any("hostport" in rule.lower() or "8099" in rule for rule in held["rules"])
    assert any("/var/lib/kubelet/pods/" in mount for mount in held["mounts"])
    assert held["namespaces"]

    machine.run(KILLALL, timeout=120)
    assert kernel(machine).beyond(before) == {}
    assert not shims(machine)
    assert machine.run("systemctl", "is-active", unit(which), check=False).stdout.strip() == "inactive"

    machine.run(KILLALL, timeout=120)  # with nothing left to do
    machine.run("systemctl", "start", "--no-block", unit(which))
    ready(machine, which)
    until("the node to be Ready", lambda: machine.name in nodes_ready(cluster), within=90)
    until("its pod to run again", lambda: len(shims(machine)) > 0, within=90)
    installed.wait(machine)


def nodes_ready(cluster: Cluster) -> set[str]:
    """None while the server comes up."""
    return cluster.nodes_ready() if cluster.try_kubectl("get", "nodes").returncode == 0 else set()


def test_killall_takes_back_the_routes_that_were_advertised(installed: Installed) -> None:
    machine = installed.cluster.agents[0]
    fake = b'#!/bin/sh\necho "$*" >>/run/tailscale-was-told\n'
    machine.put(fake, "/usr/local/bin/tailscale", 0o755)
    try:
        machine.run(KILLALL, timeout=120)
        assert "set --advertise-routes=" in machine.read("/run/tailscale-was-told")
    finally:
        machine.run("rm", "-f", "/usr/local/bin/tailscale", "/run/tailscale-was-told")
        machine.run("systemctl", "start", "--no-block", "k3s-agent")
        ready(machine, "agent")


@pytest.mark.parametrize("which", ["agent", "server"])
def test_uninstall_leaves_the_machine_as_it_was(installed: Installed, which: str) -> None:
    machine = installed.cluster.agents[0] if which == "agent" else installed.cluster.servers[0]
    script = {"agent": "k3s-agent-uninstall.sh", "server": "k3s-uninstall.sh"}[which]
    machine.run(f"/usr/local/bin/{script}", timeout=120)
    assert kernel(machine).beyond(installed.kernels[machine.name]) == {}
    # The real one leaves /etc/rancher/node, which identifies the machine to a cluster that it may join again.
    more = files(machine) - installed.files[machine.name]
    assert sorted(path for path in more if path not in ("/etc/rancher", *NODE)) == []
    assert machine.run("systemctl", "cat", unit(which), check=False).returncode != 0
    for name in ("k3s", "kubectl", "crictl", "ctr"):
        assert machine.run("sh", "-c", f"command -v {name}", check=False).returncode != 0


def test_a_machine_can_be_installed_again(installed: Installed, bundle: Bundle, tmp_path: Path) -> None:
    machine = installed.cluster.servers[0]
    again = Cluster(installed.cluster.lab, k3s(bundle), [machine], [], tmp_path)
    install(machine, again.k3s, "server", {"tls-san": [machine.address], "disable": ["metrics-server"], **LAB_ONLY})
    start(machine, "server")
    again.fetch_kubeconfig(machine)
    assert again.nodes_ready() == {machine.name}
    names = [each["metadata"]["name"] for each in again.json("get", "pods")["items"]]
    assert names == [], "the old cluster is gone"
