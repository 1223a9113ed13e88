"""A node of k3s, whichever k3s it is: its unit and tools, the airgap folder, registries, pods that outlive it."""

from __future__ import annotations

import bz2
import gzip
import json
import secrets
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lab.bundle import images
from tests.lab.cluster import IMAGES, Cluster, ready, unit
from tests.lab.machine import Machine
from tests.lab.waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

JOB = "lab.local/job:1"
SOCKET = "/run/k3s/containerd/containerd.sock"


@pytest.fixture
def node(cluster: Cluster) -> Machine:
    """The cluster's agent."""
    return cluster.agents[0]


def crictl(machine: Machine, *argv: str) -> Any:
    return json.loads(machine.run("crictl", *argv, "-o", "json").stdout)


# -- the installation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["server", "agent"])
def test_the_unit_has_the_properties_of_the_contract(cluster: Cluster, role: str) -> None:
    machine = cluster.servers[0] if role == "server" else cluster.agents[0]
    wanted = {
        "Type": "notify",
        "KillMode": "process",
        "Delegate": "yes",
        "Restart": "always",
        "RestartUSec": "5s",
        "TimeoutStartUSec": "infinity",
        "LimitNOFILE": "1048576",
        "LimitNPROC": "infinity",
        "LimitCORE": "infinity",
        "TasksMax": "infinity",
        "UnitFileState": "enabled",
        "FragmentPath": f"/etc/systemd/system/{unit(role)}.service",
    }
    shown = machine.run("systemctl", "show", unit(role), f"--property={','.join(wanted)}").stdout
    assert dict(line.split("=", 1) for line in shown.splitlines()) == wanted
    assert "network-online.target" in machine.run("systemctl", "show", unit(role), "--property=After,Wants").stdout
    environment = f"/etc/systemd/system/{unit(role)}.service.env"
    assert machine.run("stat", "-c", "%a %U", environment).stdout == "600 root\n"
    assert machine.run("stat", "-c", "%A", "/usr/local/bin/k3s-killall.sh").stdout == "-rwxr-xr-x\n"


def test_the_links_run_the_tools_of_the_one_file(cluster: Cluster, node: Machine) -> None:
    for name in ("kubectl", "crictl", "ctr"):
        assert node.run("readlink", f"/usr/local/bin/{name}").stdout == "k3s\n"
    assert "RuntimeName:  containerd" in node.run("crictl", "version").stdout
    assert "k8s.io" in node.run("ctr", "namespaces", "ls").stdout
    assert "Client Version" in node.run("kubectl", "version", "--client").stdout
    assert node.run("test", "-S", SOCKET).returncode == 0
    assert "POD ID" in node.run("crictl", "ps").stdout
    for program in ("containerd", "runc", "containerd-shim-runc-v2"):
        assert node.run("which", program, check=False).returncode == 1, "it belongs inside the one file"


def test_a_node_is_known_as_k3s_knows_it(cluster: Cluster, node: Machine) -> None:
    found = cluster.json("get", "node", node.name)
    assert found["spec"]["providerID"] == f"k3s://{node.name}"
    addresses = {each["type"]: each["address"] for each in found["status"]["addresses"]}
    assert addresses == {"InternalIP": node.address, "Hostname": node.name}
    assert not found["spec"].get("taints")
    assert found["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] == node.address
    assert found["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "k3s"


# -- images ----------------------------------------------------------------------------------------------------------


def lz4(data: bytes) -> bytes:
    """A frame of uncompressed blocks of at most 64 KiB (LZ4 frame format 1.6)."""
    blocks = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    packed = b"".join(struct.pack("<I", len(block) | 1 << 31) + block for block in blocks)
    return b"\x04\x22\x4d\x18\x60\x40\x82" + packed + b"\0\0\0\0"


def zstd(data: bytes) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.lz4": lz4,
    ".tar.zst": zstd,
    ".tzst": zstd,
}


@pytest.mark.parametrize("end", PACKERS)
def test_an_archive_put_into_the_folder_is_imported_while_k3s_runs(node: Machine, tmp_path: Path, end: str) -> None:
    name = f"lab.local/late:{secrets.token_hex(4)}"
    layer = images.layer({"word": secrets.token_bytes(200_000)}, tmp_path / "layer.tar")
    images.save([images.Image(name, (layer,), command=("/none",))], tmp_path / "image.tar")
    content = PACKERS[end]((tmp_path / "image.tar").read_bytes())
    remote = f"{IMAGES}/late-{name.rpartition(':')[2]}{end}"
    node.put(content, remote)

    def found() -> list[dict[str, Any]]:
        return [each for each in crictl(node, "images")["images"] if name in each["repoTags"]]

    (image,) = until(f"{name} to be imported", found, within=60)
    assert image["pinned"], "the kubelet must not collect what it could not fetch again"
    node.run("rm", remote)
    node.run("crictl", "rmi", name)


def test_a_file_that_is_no_archive_stops_nothing(node: Machine, cluster: Cluster) -> None:
    node.put(b"not a tar archive", f"{IMAGES}/broken.tar")
    node.put(b"# names only\n", f"{IMAGES}/list.txt")

    def complains() -> bool:
        return "broken.tar" in node.run("journalctl", "-u", "k3s-agent", "-p", "info", "-o", "cat", "-n", "200").stdout

    until("the complaint", complains, within=30)
    assert node.name in cluster.nodes_ready()
    node.run("rm", f"{IMAGES}/broken.tar", f"{IMAGES}/list.txt")


REGISTRY = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open("/run/asked", "a").write(self.path + chr(10))
        self.send_error(404)
    do_HEAD = do_GET
http.server.HTTPServer(("127.0.0.1", 5055), Handler).serve_forever()
"""


def test_registries_are_taken_at_a_restart(node: Machine) -> None:
    file = "/etc/rancher/k3s/registries.yaml"
    node.put(b'mirrors: {"nowhere.lab": {endpoint: ["http://127.0.0.1:5055"]}}\n', file)
    node.put(REGISTRY.encode(), "/run/registry.py")
    node.run("systemd-run", "--quiet", "--collect", "--unit=registry", "python3", "/run/registry.py")
    try:
        restart(node)
        until("the mirror to listen", lambda: "5055" in node.run("ss", "-ltn").stdout, within=10)
        assert node.run("crictl", "pull", "nowhere.lab/a/b:1", check=False).returncode != 0
        assert "/v2/a/b/manifests/1" in node.read("/run/asked")
    finally:
        node.run("systemctl", "stop", "registry")
        node.run("rm", "-f", file, "/run/registry.py", "/run/asked")
        restart(node)


def restart(machine: Machine, role: str = "agent") -> None:
    machine.run("systemctl", "stop", unit(role))
    machine.run("systemctl", "start", "--no-block", unit(role))
    ready(machine, role)


# -- pods outlive the service ----------------------------------------------------------------------------------------


@pytest.fixture
def pod(cluster: Cluster, node: Machine) -> Iterator[str]:
    """One on the agent, that runs."""
    name = f"stays-{secrets.token_hex(3)}"
    spec = {"nodeName": node.name, "terminationGracePeriodSeconds": 0}
    overrides = json.dumps({"spec": spec})
    cluster.kubectl("run", name, f"--image={JOB}", "--overrides", overrides, "--command", "--", "sleep", "3600")
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s", timeout=100)
    yield name
    cluster.kubectl("delete", "pod", name, "--wait=true")


def state(cluster: Cluster, node: Machine, pod: str) -> tuple[str, str, int]:
    """The container's identifier, its restarts, and the clock tick at which its process started."""
    (found,) = cluster.json("get", "pod", pod)["status"]["containerStatuses"]
    identifier = found["containerID"].removeprefix("containerd://")
    pid = process(node, identifier)
    return identifier, str(found["restartCount"]), int(node.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19])


def process(node: Machine, identifier: str) -> str:
    tasks = node.run("ctr", "tasks", "ls").stdout.splitlines()
    return next(line.split()[1] for line in tasks if line.startswith(identifier))


def test_pods_run_on_while_the_service_is_stopped_and_are_taken_over(cluster: Cluster, node: Machine, pod: str) -> None:
    before = state(cluster, node, pod)
    pid = process(node, before[0])
    main = node.run("systemctl", "show", "k3s-agent", "--property=MainPID").stdout
    node.run("systemctl", "stop", "k3s-agent")
    assert node.run("pgrep", "-f", "[k]3s (agent|kubelet|kube-proxy)|[b]in/containerd -c", check=False).returncode == 1
    assert node.run("cat", f"/proc/{pid}/comm").stdout == "sleep\n"
    node.run("systemctl", "start", "--no-block", "k3s-agent")
    ready(node, "agent")
    assert node.run("systemctl", "show", "k3s-agent", "--property=MainPID").stdout != main
    until("the node to be Ready", lambda: node.name in cluster.nodes_ready(), within=60)
    assert state(cluster, node, pod) == before
    assert cluster.kubectl("exec", pod, "--", "echo", "there") == "there\n"


def test_pods_survive_when_the_service_is_killed(cluster: Cluster, node: Machine, pod: str) -> None:
    before = state(cluster, node, pod)
    started = int(node.run("systemctl", "show", "k3s-agent", "--property=NRestarts", "--value").stdout)
    node.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "k3s-agent")

    def again() -> bool:
        count = node.run("systemctl", "show", "k3s-agent", "--property=NRestarts", "--value").stdout
        return int(count) > started

    until("systemd to start it again", again, within=30)
    ready(node, "agent")
    until("its components to be there once", lambda: len(components(node)) == 3, within=30)
    assert state(cluster, node, pod) == before


def components(node: Machine) -> list[str]:
    return node.run("pgrep", "-f", "([k]3s (kubelet|kube-proxy) |[b]in/containerd -c)", check=False).stdout.split()
