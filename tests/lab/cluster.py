"""A k3s cluster on machines of the lab, set up as an operator would: the file, the installer's layout, `config.yaml`, systemd.

`QWEX_LAB_K3S` names a real k3s binary to use instead of the stand-in; air-gap images that lie beside it (under their
release's name) are used with it.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from tests.lab.bundle import Bundle
from tests.lab.bundle.layout import architecture
from tests.lab.bundle.pins import LAB
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.network import Network
from tests.lab.waiting import until

__all__ = ["Cluster", "ClusterError", "K3s", "create", "install", "k3s", "start"]

T = TypeVar("T")
Config = Mapping[str, Any]

SCRIPTS = LAB / "go" / "k3s" / "scripts"
CONFIG = "/etc/rancher/k3s/config.yaml"
IMAGES = "/var/lib/rancher/k3s/agent/images"
KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"
TOKEN = "/var/lib/rancher/k3s/server/token"
START = 180.0  # seconds for a server or an agent to be ready on a busy machine
QUEUE = "default"  # the LocalQueue that jobs without a queue name go to

# Nothing here must survive a loss of the host, and a disk that syncs is what a small machine lacks most.
LAB_ONLY: Config = {"etcd-arg": ["unsafe-no-fsync=true"]}

PROBE = """
apiVersion: kueue.x-k8s.io/v1beta1
kind: ResourceFlavor
metadata: {name: lab-probe}
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata: {name: lab-probe}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [cpu]
    flavors:
    - name: lab-probe
      resources: [{name: cpu, nominalQuota: 1}]
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: LocalQueue
metadata: {name: default, namespace: default}
spec: {clusterQueue: lab-probe}
---
apiVersion: batch/v1
kind: Job
metadata: {name: lab-probe, namespace: default, labels: {kueue.x-k8s.io/queue-name: default}}
spec:
  suspend: true
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: none}]
"""


class ClusterError(Exception):
    """A k3s did not do what was asked of it; the message holds what it said."""


@dataclass(frozen=True)
class K3s:
    """The binary and the image archives that come with it."""

    binary: Path
    archives: tuple[Path, ...]
    stands_in: bool


def k3s(bundle: Bundle) -> K3s:
    """The real one that `QWEX_LAB_K3S` names (ClusterError when it is not there), else the stand-in of the bundle."""
    if given := os.environ.get("QWEX_LAB_K3S"):
        binary = Path(given)
        if not binary.is_file():
            raise ClusterError(f"QWEX_LAB_K3S names {given}, which is no file")
        beside = binary.parent.glob(f"k3s-airgap-images-{architecture()}.*")
        return K3s(binary, tuple(beside), stands_in=False)
    archive = bundle.path(f"k3s/k3s-airgap-images-{architecture()}.tar")
    return K3s(bundle.path("k3s/k3s"), (archive,), stands_in=True)


def install(machine: Machine, chosen: K3s, role: str, config: Config) -> None:
    """Put there what the installer and an operator leave: program, links, scripts, unit, settings, images. Starts nothing."""
    machine.put(chosen.binary, "/usr/local/bin/k3s", 0o755)
    add_images(machine, chosen.archives)
    scripts = f"/run/k3s-install-{secrets.token_hex(3)}"
    for script in SCRIPTS.iterdir():
        machine.put(script, f"{scripts}/{script.name}", 0o755)
    configure(machine, config)
    machine.run("env", f"INSTALL_K3S_EXEC={role}", "INSTALL_K3S_SKIP_START=true", f"{scripts}/install.sh")
    machine.run("rm", "-r", scripts)


def add_images(machine: Machine, archives: Iterable[Path]) -> None:
    """Into the folder that k3s watches: those there at its start are taken before pods run, later ones as they come."""
    for archive in archives:
        machine.put(archive, f"{IMAGES}/{archive.parent.name}-{archive.name}")


def has_images(machine: Machine, names: Iterable[str]) -> bool:
    """Whether the node's containerd knows all of them, by the names that pods use."""
    listed = machine.run("k3s", "ctr", "--namespace=k8s.io", "images", "list", "--quiet", check=False).stdout.split()
    return all(name in listed or f"docker.io/{name}" in listed for name in names)


def configure(machine: Machine, config: Config) -> None:
    """Write `config.yaml`; nothing takes notice before a restart."""
    machine.put(yaml.safe_dump(dict(config), sort_keys=False).encode(), CONFIG, 0o600)


def unit(role: str) -> str:
    return {"server": "k3s", "agent": "k3s-agent"}[role]


def start(machine: Machine, role: str, within: float = START) -> None:
    """Start the service and wait until it says that it is ready; ClusterError with its log's end after `within` seconds."""
    machine.run("systemctl", "start", "--no-block", unit(role))
    ready(machine, role, within)


def ready(machine: Machine, role: str, within: float = START) -> None:
    """Wait until a service that was told to start says that it is ready."""
    try:
        until(f"{machine.name}: {unit(role)} to be active", lambda: active(machine, role), within)
    except TimeoutError as error:
        raise ClusterError(f"{error}\n{log(machine, role, 40)}") from error


def active(machine: Machine, role: str) -> bool:
    return machine.run("systemctl", "is-active", unit(role), check=False).stdout.strip() == "active"


def log(machine: Machine, role: str, lines: int = 10000) -> str:
    """The end of a service's log."""
    return machine.run("journalctl", "-u", unit(role), "-o", "cat", "-n", str(lines), check=False).stdout


@dataclass(eq=False)
class Cluster:
    """A running one. `kubeconfig` is the administrator's, for use from the host, and leads to the first server."""

    lab: Lab
    k3s: K3s
    servers: list[Machine]
    agents: list[Machine]
    directory: Path
    images: tuple[Path, ...] = ()  # archives that every node gets; a .txt beside each names what is in it
    token: str = ""
    kubeconfig: Path = field(init=False)

    def __post_init__(self) -> None:
        self.kubeconfig = self.directory / "kubeconfig"

    @property
    def machines(self) -> list[Machine]:
        return [*self.servers, *self.agents]

    @property
    def url(self) -> str:
        """Of the first server."""
        return f"https://{self.servers[0].address}:6443"

    def try_kubectl(
        self,
        *argv: str,
        input: str | None = None,  # noqa: A002
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """`k3s kubectl …` on the host, however it ends."""
        command = [str(self.k3s.binary), "kubectl", f"--kubeconfig={self.kubeconfig}", *argv]
        return subprocess.run(command, input=input, capture_output=True, text=True, check=False, timeout=timeout)

    def kubectl(
        self,
        *argv: str,
        input: str | None = None,  # noqa: A002
        timeout: float = 60,
    ) -> str:
        """What it prints; ClusterError with what it complains of when it fails."""
        done = self.try_kubectl(*argv, input=input, timeout=timeout)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(argv)}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def json(self, *argv: str) -> Any:
        """What `kubectl … -o json` prints, decoded."""
        return json.loads(self.kubectl(*argv, "-o", "json"))

    def apply(self, text: str) -> None:
        """Objects in YAML."""
        self.kubectl("apply", "-f", "-", input=text)

    def nodes_ready(self) -> set[str]:
        """Names of the nodes that are."""
        return {
            node["metadata"]["name"]
            for node in self.json("get", "nodes")["items"]
            for condition in node["status"].get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def fetch_kubeconfig(self, server: Machine) -> None:
        """Point `kubeconfig` at this server."""
        text = server.read(KUBECONFIG).replace("https://127.0.0.1:", f"https://{server.address}:")
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(text)

    def add_agent(self, machine: Machine, config: Config | None = None) -> None:
        """Install and start one more agent; it is ready on return."""
        install(machine, self.k3s, "agent", {"server": self.url, "token": self.token, **(config or {})})
        self._add(machine, "agent")
        self.agents.append(machine)

    def add_server(self, machine: Machine, config: Config | None = None) -> None:
        """Install and start one more server, which joins the etcd cluster; it is ready on return."""
        joining = {"server": self.url, "token": self.token, "tls-san": [machine.address], **LAB_ONLY, **(config or {})}
        install(machine, self.k3s, "server", joining)
        self._add(machine, "server")
        self.servers.append(machine)

    def _add(self, machine: Machine, role: str) -> None:
        machine.run("systemctl", "start", "--no-block", unit(role))
        add_images(machine, self.images)
        ready(machine, role)
        self.wait_for_images(machine)

    def wait_for_images(self, machine: Machine) -> None:
        """Until a node has taken in all that was put there for it."""
        names = [name for archive in self.images for name in archive.with_suffix(".txt").read_text().split()]
        until(f"{machine.name} to have {', '.join(names)}", lambda: has_images(machine, names), START, every=0.5)

    def close(self) -> None:
        """Throw its machines away."""
        everyone(self.lab.discard, self.machines)


def everyone(do: Callable[[Machine], T], machines: Sequence[Machine]) -> list[T]:
    """On all machines at the same time; the first failure is raised once all are through."""
    with ThreadPoolExecutor(max(1, len(machines))) as workers:
        return list(workers.map(do, machines))


def create(
    lab: Lab,
    bundle: Bundle,
    servers: int = 1,
    agents: int = 1,
    network: Network | None = None,
    config: Config | None = None,
    agent_config: Config | None = None,
    kueue: bool = True,
    name: str = "",
    images: Iterable[Path] = (),
    drop_ins: Mapping[str, Config] | None = None,
) -> Cluster:
    """Boot machines (`<name>server-1`, `<name>agent-1`, …) and make them a cluster: all nodes Ready, Kueue able to admit.

    `config` goes to every server, `agent_config` to every agent, beside what joins them. Every node has the bundle's job
    image, and those of the archives in `images`. `drop_ins` are files of the first
    server's `config.yaml.d`. ClusterError, with what the service logged, when a part does not come up.
    """
    chosen = k3s(bundle)
    archives = [bundle.path("images/job.tar"), *images, *([bundle.path("kueue/images.tar")] if kueue else [])]
    names = [f"{name}server-{i + 1}" for i in range(servers)] + [f"{name}agent-{i + 1}" for i in range(agents)]
    booted = lab.machines(*names, network=network)
    directory = lab.directory / "clusters" / (name or "cluster")
    directory.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(lab, chosen, booted[:1], [], directory, tuple(archives))
    try:
        for file, values in (drop_ins or {}).items():
            booted[0].put(yaml.safe_dump(dict(values)).encode(), f"{CONFIG}.d/{file}", 0o600)
        _bring_up(cluster, booted[1:servers], booted[servers:], dict(config or {}), dict(agent_config or {}))
        if kueue:
            _add_kueue(cluster, bundle)
    except BaseException:
        everyone(lab.discard, [machine for machine in booted if machine.name in lab.all_machines])
        raise
    return cluster


def _bring_up(
    cluster: Cluster,
    more: Sequence[Machine],
    agents: Sequence[Machine],
    config: dict[str, Any],
    agent_config: dict[str, Any],
) -> None:
    first = cluster.servers[0]
    base = {"tls-san": [first.address], **LAB_ONLY, **({"cluster-init": True} if more else {}), **config}
    with ThreadPoolExecutor(max(1, len(agents))) as workers:
        # Agents are made ready while the server starts; their settings follow when there is a token.
        waiting = [workers.submit(install, each, cluster.k3s, "agent", {}) for each in agents]
        install(first, cluster.k3s, "server", base)
        first.run("systemctl", "start", "--no-block", unit("server"))
        add_images(first, cluster.images)
        until(f"{first.name}: a token", lambda: first.run("test", "-s", TOKEN, check=False).returncode == 0, START)
        cluster.token = first.read(TOKEN).strip()
        for each in waiting:
            each.result()

    def begin(machine: Machine) -> None:
        configure(machine, {"server": cluster.url, "token": cluster.token, **agent_config})
        machine.run("systemctl", "start", "--no-block", unit("agent"))
        add_images(machine, cluster.images)

    everyone(begin, agents)
    ready(first, "server")
    cluster.fetch_kubeconfig(first)
    for machine in more:
        cluster.add_server(machine, config)
    everyone(lambda machine: ready(machine, "agent"), agents)
    cluster.agents.extend(agents)
    names = {machine.name for machine in cluster.machines}
    until("all nodes to be Ready", lambda: cluster.nodes_ready() >= names, START)
    everyone(cluster.wait_for_images, cluster.machines)


def _add_kueue(cluster: Cluster, bundle: Bundle) -> None:
    """Apply the bundle's manifests and wait until a queue and a Job would be taken: definitions, controller and webhooks."""
    manifests = str(bundle.path("kueue/manifests.yaml"))
    cluster.kubectl("apply", "--server-side", "-f", manifests, timeout=120)

    def admits() -> bool:
        return cluster.try_kubectl("apply", "--dry-run=server", "-f", "-", input=PROBE).returncode == 0

    try:
        until("Kueue to admit", admits, START, every=0.5)
    except TimeoutError as error:
        last = cluster.try_kubectl("apply", "--dry-run=server", "-f", "-", input=PROBE).stderr
        pods = cluster.kubectl("get", "pods", "--all-namespaces", "-o", "wide")
        raise ClusterError(f"{error}: {last}\n{pods}") from error
