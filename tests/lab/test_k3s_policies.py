"""Network policies of a k3s: who may talk to whom, within a node and between nodes, as policies come and go."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping

import pytest
from tests.lab.cluster import Cluster
from tests.lab.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

PORTS = (8000, 8001)
SERVE = """
import http.server as h, threading as t
for port in {ports}:
    t.Thread(target=h.HTTPServer(("", port), h.SimpleHTTPRequestHandler).serve_forever).start()
"""
ASK = "import urllib.request as u; u.urlopen('http://{address}:{port}/', timeout=2)"

DENY = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}
ALLOW = {
    "podSelector": {"matchLabels": {"app": "web"}},
    "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": 8000}]}],
}
INSIDE = {"podSelector": {"matchLabels": {"app": "friend"}}, "policyTypes": ["Egress"]}


class Ground:
    """A namespace with a web server on one node, and who asks it: a friend on the other node, a stranger beside it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.name = cluster, f"policies-{secrets.token_hex(3)}"
        cluster.kubectl("create", "namespace", self.name)
        here, there = cluster.servers[0].name, cluster.agents[0].name
        for pod, node in (("web", here), ("stranger", here), ("friend", there)):
            spec = json.dumps({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 0}})
            command = ["python3", "-c", SERVE.format(ports=PORTS)] if pod == "web" else ["sleep", "3600"]
            self.kubectl(
                "run",
                pod,
                "--image=lab.local/job:1",
                f"--labels=app={pod}",
                "--overrides",
                spec,
                "--command",
                "--",
                *command,
            )
        self.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
        self.address = self.kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}")

    def kubectl(self, *argv: str) -> str:
        return self.cluster.kubectl("--namespace", self.name, *argv, timeout=130)

    def policy(self, name: str, spec: Mapping[str, object]) -> None:
        document = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": self.name},
            "spec": spec,
        }
        self.cluster.apply(json.dumps(document))

    def reached(self) -> set[tuple[str, int]]:
        """Which pod reaches which port of the server."""
        return {(pod, port) for pod in ("friend", "stranger") for port in PORTS if self.asks(pod, port)}

    def asks(self, pod: str, port: int) -> bool:
        command = ("python3", "-c", ASK.format(address=self.address, port=port))
        return self.cluster.try_kubectl("--namespace", self.name, "exec", pod, "--", *command).returncode == 0

    def expect(self, what: str, *pairs: tuple[str, int]) -> None:
        until(what, lambda: self.reached() == set(pairs), within=60)


@pytest.fixture
def ground(cluster: Cluster) -> Iterator[Ground]:
    made = Ground(cluster)
    yield made
    cluster.kubectl("delete", "namespace", made.name, "--wait=true", timeout=120)


def test_policies_are_enforced_as_they_come_and_go(ground: Ground) -> None:
    everything = [(pod, port) for pod in ("friend", "stranger") for port in PORTS]
    ground.expect("all to reach the server", *everything)
    ground.policy("deny", DENY)
    ground.expect("nobody to reach it")
    # A node always reaches its own pods, or its kubelet could not probe them.
    ground.cluster.servers[0].run("python3", "-c", ASK.format(address=ground.address, port=8000))
    ground.policy("allow", ALLOW)
    ground.expect("the friend to reach one port", ("friend", 8000))
    ground.policy("inside", INSIDE)
    ground.expect("the friend to be kept in")
    ground.kubectl("delete", "networkpolicy", "deny", "allow", "inside")
    ground.expect("all to reach the server again", *everything)
