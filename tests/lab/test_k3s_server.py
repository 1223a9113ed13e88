"""k3s's contract, the server's part (the contract file's Config, Tokens, Readiness): on the stand-in, or on a real k3s."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from tests.lab.bundle import Bundle
from tests.lab.cluster import KUBECONFIG, TOKEN, Cluster, active, configure, create, install, log, ready, start
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.waiting import until

pytestmark = pytest.mark.lab

CA = "/var/lib/rancher/k3s/server/tls/server-ca.crt"
SECRET = "a-value-that-must-not-be-readable"


@pytest.fixture(scope="module")
def own(lab: Lab, bundle: Bundle) -> Iterator[Cluster]:
    """One server that a test may restart and set up anew, started from `config.yaml` and drop-ins."""
    made = create(
        lab,
        bundle,
        agents=0,
        kueue=False,
        name="own-",
        config={
            "disable": ["traefik", "servicelb", "metrics-server"],
            "node-label": ["from=config"],
            "node-taint": ["lab/taint=yes:PreferNoSchedule"],
            "write-kubeconfig-mode": "600",
        },
        drop_ins={
            "20-last.yaml": {"write-kubeconfig-mode": "0640", "node-label+": ["also=this"]},
            "10-first.yaml": {
                "write-kubeconfig-mode": "0644",
                "tls-san+": ["k3s.lab.test", "192.0.2.7"],
                "secrets-encryption": True,
            },
        },
    )
    yield made
    made.close()


@pytest.fixture
def spare(machines: Callable[[int], list[Machine]]) -> Machine:
    return machines(1)[0]


def test_the_version_says_what_it_is(cluster: Cluster) -> None:
    said = cluster.servers[0].run("k3s", "--version").stdout.splitlines()
    assert re.fullmatch(r"k3s version v\d+\.\d+\.\d+\+k3s\d+ \([0-9a-f]+\)", said[0])
    if cluster.k3s.stands_in:
        assert "stands in" in "\n".join(said[1:])
        assert "stands in" in log(cluster.servers[0], "server")
    versions = {node["status"]["nodeInfo"]["kubeletVersion"] for node in cluster.json("get", "nodes")["items"]}
    assert versions == {said[0].split()[2]}


def test_the_kubeconfig_is_for_root_on_this_machine(cluster: Cluster) -> None:
    server = cluster.servers[0]
    assert server.run("stat", "-c", "%a %U", KUBECONFIG).stdout.split() == ["600", "root"]
    assert "server: https://127.0.0.1:6443" in server.read(KUBECONFIG)
    assert "Ready" in server.run("kubectl", "get", "nodes").stdout
    assert "Ready" in server.run("k3s", "kubectl", "get", "nodes").stdout


def test_tokens_pin_the_authority(cluster: Cluster) -> None:
    server = cluster.servers[0]
    authority = server.read(CA)
    digest = hashlib.sha256(authority.encode()).hexdigest()
    assert re.fullmatch(rf"K10{digest}::server:\S+\n", server.read(TOKEN))
    assert server.run("stat", "-c", "%a", TOKEN).stdout.strip() == "600"
    folder = TOKEN.rpartition("/")[0]
    for name in ("node-token", "agent-token"):
        assert server.read(f"{folder}/{name}") == server.read(TOKEN)
    assert server.run("readlink", "-f", f"{folder}/node-token").stdout.strip() == TOKEN
    assert server.run("curl", "-sk", "https://127.0.0.1:6443/cacerts").stdout == authority
    refused = server.run("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "https://127.0.0.1:6443/version")
    assert refused.stdout == "401", "nobody is let in without a name"


def test_roles_and_addresses_are_on_the_nodes(cluster: Cluster) -> None:
    for machine in cluster.machines:
        node = cluster.json("get", "node", machine.name)
        labels = node["metadata"]["labels"]
        addresses = {each["type"]: each["address"] for each in node["status"]["addresses"]}
        assert addresses["InternalIP"] == machine.address
        assert addresses["Hostname"] == machine.name
        assert node["spec"]["providerID"] == f"k3s://{machine.name}"
        assert labels["node.kubernetes.io/instance-type"] == "k3s"
        role = "node-role.kubernetes.io/control-plane"
        assert labels.get(role) == ("true" if machine in cluster.servers else None)
        assert "taints" not in node["spec"]


def test_drop_ins_are_merged_in_order(own: Cluster) -> None:
    server = own.servers[0]
    assert server.run("stat", "-c", "%a", KUBECONFIG).stdout.strip() == "640", "the last file wins"
    labels = own.json("get", "node", server.name)["metadata"]["labels"]
    assert (labels["from"], labels["also"]) == ("config", "this"), "`key+` appends"


def test_the_certificate_is_good_for_the_configured_names(own: Cluster) -> None:
    server = own.servers[0]
    trust = ssl.create_default_context(cadata=server.read(CA))

    def accepted(name: str) -> bool:
        with socket.create_connection((server.address, 6443), timeout=10) as plain:
            try:
                trust.wrap_socket(plain, server_hostname=name).close()
            except ssl.SSLCertVerificationError:
                return False
        return True

    for name in (
        "k3s.lab.test",
        "192.0.2.7",
        server.address,
        server.name,
        "kubernetes.default.svc",
        "10.43.0.1",
        "127.0.0.1",
    ):
        assert accepted(name), name
    assert not accepted("other.lab.test")


def test_disabled_components_are_not_there_and_removed_when_disabled_later(own: Cluster) -> None:
    names = own.kubectl("get", "deployments", "-n", "kube-system", "-o", "name")
    assert "coredns" in names
    assert "metrics-server" not in names
    server = own.servers[0]
    config = config_of(server)
    configure(server, {**config, "disable": [*config["disable"], "local-storage"]})
    restart(server)
    until("local storage to go", lambda: own.try_kubectl("get", "storageclass", "local-path").returncode != 0, 60)
    until(
        "its deployment to go",
        lambda: own.try_kubectl("get", "-n", "kube-system", "deployment", "local-path-provisioner").returncode != 0,
        60,
    )
    configure(server, config)
    restart(server)
    until("local storage to be back", lambda: own.try_kubectl("get", "storageclass", "local-path").returncode == 0, 60)


def test_labels_and_taints_of_the_configuration_count_at_registration_only(own: Cluster) -> None:
    server = own.servers[0]
    node = own.json("get", "node", server.name)
    assert {"key": "lab/taint", "value": "yes", "effect": "PreferNoSchedule"} in node["spec"]["taints"]
    own.kubectl("taint", "node", server.name, "lab/taint-")
    config = config_of(server)
    configure(server, {**config, "node-taint": ["lab/other=yes:NoSchedule"]})
    restart(server)
    until("the node to be Ready", lambda: server.name in own.nodes_ready(), 60)
    assert "lab/" not in str(own.json("get", "node", server.name)["spec"].get("taints", []))
    configure(server, config)
    restart(server)


def test_pods_survive_a_restart_of_the_service(own: Cluster, bundle: Bundle) -> None:
    server = own.servers[0]
    own.kubectl(
        "run", "lasting", f"--image={bundle.text('images/job.txt')}", "--image-pull-policy=Never", "--", "sleep", "9999"
    )
    own.kubectl("wait", "--for=condition=Ready", "pod/lasting", "--timeout=90s", timeout=100)
    before = server.run("pgrep", "-f", "^sleep 9999").stdout
    server.run("systemctl", "stop", "k3s")
    assert server.run("pgrep", "-f", "^sleep 9999").stdout == before, "a stopped service leaves its pods running"
    rest = server.run("pgrep", "-a", "-f", "^[^ ]*(k3s|containerd) ", check=False).stdout
    assert rest == "", "nothing else is left of it"
    restart(server)
    until("the node to be Ready", lambda: server.name in own.nodes_ready(), 60)
    found = own.json("get", "pod", "lasting")["status"]["containerStatuses"][0]
    assert (found["restartCount"], "running" in found["state"]) == (0, True)
    assert server.run("pgrep", "-f", "^sleep 9999").stdout == before
    own.kubectl("delete", "pod", "lasting", "--grace-period=1", "--timeout=60s", timeout=70)


def test_manifests_of_the_operator_are_applied(own: Cluster) -> None:
    server = own.servers[0]
    folder = "/var/lib/rancher/k3s/server/manifests"
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-a-file, namespace: default}\ndata: {a: b}\n"
    server.put(text, f"{folder}/mine.yaml")
    value = ("get", "configmap", "from-a-file", "-o", "jsonpath={.data.a}")
    until("it to be applied", lambda: own.try_kubectl(*value).stdout == "b", 40)
    server.put(text.replace(b"a: b", b"a: c"), f"{folder}/mine.yaml")
    until("the change to be applied", lambda: own.try_kubectl(*value).stdout == "c", 40)


def test_secrets_are_encrypted_and_snapshots_saved(own: Cluster) -> None:
    server = own.servers[0]
    own.kubectl("create", "secret", "generic", "hidden", f"--from-literal=value={SECRET}")
    own.kubectl("create", "configmap", "plain", "--from-literal=value=a-value-that-anyone-may-read")
    assert "Enabled" in server.run("k3s", "secrets-encrypt", "status").stdout
    server.run("k3s", "etcd-snapshot", "save", "--name", "lab")
    (line,) = [
        line for line in server.run("k3s", "etcd-snapshot", "list").stdout.splitlines() if line.startswith("lab-")
    ]
    path = line.split()[1].removeprefix("file://")
    assert server.run("grep", "-c", "a-value-that-anyone-may-read", path, check=False).returncode == 0
    assert server.run("grep", "-c", SECRET, path, check=False).returncode == 1


def test_readiness_is_polled(own: Cluster) -> None:
    server = own.servers[0]
    server.run("systemctl", "restart", "--no-block", "k3s")
    until("the restart to begin", lambda: not active(server, "server"), 10, every=0.05)
    ready(server, "server")
    assert server.run("kubectl", "get", "--raw", "/readyz").stdout == "ok"


def test_an_agent_with_a_bad_token_tries_every_two_seconds_until_it_is_right(cluster: Cluster, spare: Machine) -> None:
    authority, _, _ = cluster.token.partition("::")
    wrong = {"server": cluster.url, "token": f"{authority}::server:wrong"}
    install(spare, cluster.k3s, "agent", wrong)
    spare.run("systemctl", "start", "--no-block", "k3s-agent")
    until("three refusals", lambda: len(attempts(spare)) >= 3, 30)
    configure(spare, {**wrong, "token": f"K10{'0' * 64}::server:{cluster.token.rpartition(':')[2]}"})
    spare.run("systemctl", "restart", "--no-block", "k3s-agent")
    until("the other authority to be refused", lambda: "does not match" in log(spare, "agent"), 30)
    assert spare.run("systemctl", "show", "-p", "NRestarts", "--value", "k3s-agent").stdout.strip() == "0"
    assert not active(spare, "agent")
    assert spare.name not in cluster.nodes_ready()
    # A bootstrap token, which an operator makes for one agent, is right.
    server = cluster.servers[0]
    made = server.run("k3s", "token", "create", "--ttl", "10m", "--description", "lab").stdout.strip()
    assert made.startswith(authority)
    configure(spare, {**wrong, "token": made})
    spare.run("systemctl", "restart", "--no-block", "k3s-agent")
    try:
        ready(spare, "agent")
        until("the node to be Ready", lambda: spare.name in cluster.nodes_ready(), 60)
        secret = made.rpartition(":")[2]
        assert secret in server.run("k3s", "token", "list").stdout
        server.run("k3s", "token", "delete", secret)
        assert secret not in server.run("k3s", "token", "list").stdout
    finally:
        spare.run("systemctl", "stop", "k3s-agent")
        cluster.kubectl("delete", "node", spare.name, "--ignore-not-found")


def test_a_machine_made_anew_is_refused_under_its_old_name_until_the_node_is_deleted(
    cluster: Cluster, spare: Machine
) -> None:
    install(spare, cluster.k3s, "agent", {"server": cluster.url, "token": cluster.token})
    start(spare, "agent")
    spare.run("rm", "/etc/rancher/node/password")
    spare.run("systemctl", "restart", "--no-block", "k3s-agent")
    try:
        until("the refusal", lambda: "Node password rejected" in log(spare, "agent"), 60)
        cluster.kubectl("delete", "node", spare.name)
        ready(spare, "agent")
        until("the node to be Ready", lambda: spare.name in cluster.nodes_ready(), 60)
    finally:
        spare.run("systemctl", "stop", "k3s-agent")
        cluster.kubectl("delete", "node", spare.name, "--ignore-not-found")


def attempts(machine: Machine) -> list[str]:
    return [line for line in log(machine, "agent").splitlines() if "not authorized" in line.lower() or "401" in line]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["agent", "--nonsense"], "nonsense"),
        (["agent", "--server", "https://127.0.0.1:1"], "token"),
        (["agent", "--token", "x"], "server"),
        (["server", "--node-ip", "no-address"], "no-address"),
        (["server", "--flannel-backend", "unheard-of"], "unheard-of"),
    ],
)
def test_a_wrong_command_line_is_refused_at_once(cluster: Cluster, argv: list[str], complaint: str) -> None:
    agent = cluster.agents[0]
    done = agent.run("env", "K3S_CONFIG_FILE=/dev/null", "k3s", *argv, check=False, timeout=20)
    assert done.returncode == 1
    assert complaint in done.stderr + done.stdout


def test_what_the_stand_in_lacks_it_refuses_in_plain_words(cluster: Cluster) -> None:
    if not cluster.k3s.stands_in:
        pytest.skip("a real k3s has it")
    done = cluster.agents[0].run(
        "env", "K3S_CONFIG_FILE=/dev/null", "k3s", "agent", "--vpn-auth", "name=tailscale", check=False, timeout=20
    )
    assert done.returncode == 1
    assert "--vpn-auth: this k3s stands in for the real one and does not have" in done.stderr


def config_of(machine: Machine) -> dict[str, Any]:
    found = yaml.safe_load(machine.read("/etc/rancher/k3s/config.yaml"))
    assert isinstance(found, dict)
    return found


def restart(machine: Machine) -> None:
    machine.run("systemctl", "stop", "k3s")
    machine.run("systemctl", "start", "--no-block", "k3s")
    ready(machine, "server")
