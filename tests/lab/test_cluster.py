"""The cluster that later tests build on: two nodes, driven by `config.yaml` and systemd alone, with Kueue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest
from tests.lab.bundle import Bundle
from tests.lab.cluster import Cluster
from tests.lab.waiting import until

pytestmark = pytest.mark.lab

SERVE = "python3 -m http.server --directory /etc 8080"
QUOTA = """
apiVersion: kueue.x-k8s.io/v1beta1
kind: ResourceFlavor
metadata: {name: plain}
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata: {name: one-at-a-time}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [cpu]
    flavors:
    - {name: plain, resources: [{name: cpu, nominalQuota: 100m}]}
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: LocalQueue
metadata: {name: default, namespace: NAMESPACE}
spec: {clusterQueue: one-at-a-time}
"""


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty one, deleted afterwards without waiting."""
    name = request.node.name.replace("_", "-")[:50].strip("-")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def pod(name: str, namespace: str, image: str, command: str, node: str = "", extra: str = "") -> str:
    """A pod in YAML; `extra` are further lines of its one container."""
    placed = f"nodeName: {node}" if node else "terminationGracePeriodSeconds: 0"
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  {placed}
  restartPolicy: Never
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Never
    command: [sh, -c, "exec {command}"]
    {extra}
"""


def running(cluster: Cluster, namespace: str, *names: str) -> None:
    for name in names:
        cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=60s", timeout=70)


def fetch(cluster: Cluster, namespace: str, source: str, url: str) -> str:
    """What a pod gets from a URL; empty while it gets nothing."""
    script = f"import urllib.request as u; print(u.urlopen('{url}', timeout=3).read().decode())"
    done = cluster.try_kubectl("exec", "-n", namespace, source, "--", "python3", "-c", script)
    return done.stdout if done.returncode == 0 else ""


def test_pods_of_two_nodes_reach_each_other_and_a_service_by_name(
    cluster: Cluster, bundle: Bundle, namespace: str
) -> None:
    image = bundle.text("images/job.txt")
    nodes = sorted(cluster.nodes_ready())
    assert nodes == sorted(machine.name for machine in cluster.machines)
    names = [f"on-{node}" for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        cluster.apply(pod(name, namespace, image, SERVE, node))
    cluster.kubectl("expose", "-n", namespace, "pod", names[0], "--name=web", "--port=80", "--target-port=8080")
    running(cluster, namespace, *names)
    addresses = {
        item["metadata"]["name"]: item["status"]["podIP"]
        for item in cluster.json("get", "pods", "-n", namespace)["items"]
    }
    asked = [(name, f"http://{addresses[other]}:8080/hostname", other) for name in names for other in names]
    asked += [(name, "http://web/hostname", names[0]) for name in names]
    for name, url, answer in asked:
        ask = partial(fetch, cluster, namespace, name, url)
        assert until(f"{name} to reach {url}", ask, within=30).strip() == answer


def test_a_volume_claim_is_bound_and_keeps_what_is_written(cluster: Cluster, bundle: Bundle, namespace: str) -> None:
    default = cluster.kubectl(
        "get",
        "storageclass",
        "local-path",
        "-o",
        r"jsonpath={.metadata.annotations.storageclass\.kubernetes\.io/is-default-class}",
    )
    assert default == "true"
    cluster.apply(f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data, namespace: {namespace}}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Mi}}}}
""")
    image = bundle.text("images/job.txt")
    mounted = "volumeMounts: [{name: data, mountPath: /data}]\n  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]"
    for name, command in (("writer", "sh -c 'echo kept >/data/file'"), ("reader", "cat /data/file")):
        cluster.apply(pod(name, namespace, image, command, extra=mounted))
        cluster.kubectl(
            "wait",
            "-n",
            namespace,
            "--for=jsonpath={.status.phase}=Succeeded",
            f"pod/{name}",
            "--timeout=90s",
            timeout=100,
        )
    assert cluster.kubectl("logs", "-n", namespace, "reader").strip() == "kept"
    claim = cluster.json("get", "pvc", "-n", namespace, "data")
    volume = cluster.json("get", "pv", claim["spec"]["volumeName"])
    assert claim["status"]["phase"] == "Bound"
    assert volume["spec"]["local"]["path"].startswith("/var/lib/rancher/k3s/storage/")
    cluster.kubectl("delete", "-n", namespace, "pod/writer", "pod/reader", "pvc/data", "--timeout=60s", timeout=70)
    until(
        "the volume to be gone",
        lambda: cluster.try_kubectl("get", "pv", volume["metadata"]["name"]).returncode != 0,
        60,
    )


def test_kueue_admits_plain_jobs_one_at_a_time_by_quota(cluster: Cluster, bundle: Bundle, namespace: str) -> None:
    cluster.apply(QUOTA.replace("NAMESPACE", namespace))
    try:
        image = bundle.text("images/job.txt")
        names = ["one", "two", "three"]
        for name in names:
            made = cluster.kubectl(
                "create",
                "job",
                name,
                "-n",
                namespace,
                f"--image={image}",
                "--dry-run=client",
                "-o",
                "yaml",
                "--",
                "sleep",
                "2",
            )
            made = made.replace("resources: {}", "resources: {requests: {cpu: 100m}}")
            assert "requests" in made
            cluster.kubectl("create", "-f", "-", input=made)
        most = 0
        deadline = time.monotonic() + 90

        def finished() -> bool:
            nonlocal most
            jobs = cluster.json("get", "jobs", "-n", namespace)["items"]
            assert len(jobs) == len(names)
            done = [job for job in jobs if job["status"].get("succeeded")]
            most = max(most, sum(not job["spec"]["suspend"] for job in jobs) - len(done))
            return len(done) == len(names)

        until("all jobs to succeed", finished, deadline - time.monotonic(), every=0.3)
        assert most == 1, "the quota lets one run at a time"
        spans = sorted(
            (job["status"]["startTime"], job["status"]["completionTime"])
            for job in cluster.json("get", "jobs", "-n", namespace)["items"]
        )
        assert all(before[1] <= after[0] for before, after in pairwise(spans)), spans
    finally:
        cluster.kubectl("delete", "clusterqueue/one-at-a-time", "resourceflavor/plain", "--wait=false")


def test_the_metrics_api_knows_the_nodes(cluster: Cluster) -> None:
    def known() -> set[str]:
        done = cluster.try_kubectl("top", "nodes", "--no-headers")
        return {line.split()[0] for line in done.stdout.splitlines() if "unknown" not in line}

    names = {machine.name for machine in cluster.machines}
    until("metrics of all nodes", lambda: known() == names, within=120, every=1)
