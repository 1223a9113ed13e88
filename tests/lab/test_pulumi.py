"""The Pulumi providers' contract: run against the stand-ins always, and against the real plugins where they are installed.

Programs are inline, the engine is the real one, the cluster is the lab's.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pytest
from pulumi import automation as auto
from tests.lab.cluster import Cluster
from tests.lab.pulumi_programs import Program, Stack, Tree, changes, config_map, counts, deployment, engines, labelled
from tests.lab.pulumi_stack import PulumiEnv, environment, real_plugins
from tests.lab.waiting import until

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", params=["stand-in", "real"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulumiEnv]:
    """The engine with the stand-ins, and with the real plugins."""
    real = real_plugins() if request.param == "real" else {}
    if request.param == "real" and "kubernetes" not in real:
        pytest.skip("the real pulumi-resource-kubernetes is not installed under the Pulumi home")
    with environment(tmp_path_factory.mktemp("pulumi"), real) as made:
        yield made


@pytest.fixture
def stack(env: PulumiEnv, cluster: Cluster) -> Iterator[Stack]:
    """A stack of its own, destroyed afterwards."""
    made = Stack(env, cluster.kubeconfig.read_text(), f"t{secrets.token_hex(4)}")
    yield made
    made.destroy()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of its own, made and removed with kubectl."""
    name = f"pulumi-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def get(cluster: Cluster, kind: str, name: str, namespace: str) -> Tree:
    """An object as kubectl shows it."""
    return dict(cluster.json("get", kind, name, "-n", namespace))


def absent(cluster: Cluster, kind: str, name: str, namespace: str = "default") -> bool:
    """Is there no such object?"""
    return not cluster.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "name").strip()


def test_a_namespace_and_a_local_queue_are_made_changed_replaced_and_destroyed(stack: Stack, cluster: Cluster) -> None:
    first, second = (f"pulumi-{secrets.token_hex(4)}" for _ in range(2))

    def project(name: str, policy: str) -> Program:
        def program(opts: pulumi.ResourceOptions) -> None:
            made = k8s.core.v1.Namespace("project", metadata={"name": name, "labels": {"policy": policy}}, opts=opts)
            k8s.apiextensions.CustomResource(
                "queue",
                api_version="kueue.x-k8s.io/v1beta2",
                kind="LocalQueue",
                metadata={"name": "default", "namespace": name},
                spec={"clusterQueue": "all", "stopPolicy": policy},
                opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[made])),
            )

        return program

    assert changes(stack.up(project(first, "None"))) == {"create": 4}
    assert get(cluster, "localqueue", "default", first)["spec"] == {"clusterQueue": "all", "stopPolicy": "None"}
    assert changes(stack.up()) == {}
    assert changes(stack.up(project(first, "Hold"))) == {"update": 2}
    assert get(cluster, "localqueue", "default", first)["spec"]["stopPolicy"] == "Hold"
    stack.up(project(second, "Hold"))
    assert absent(cluster, "namespace", first)
    assert get(cluster, "localqueue", "default", second)["spec"]["clusterQueue"] == "all"
    stack.destroy()
    assert absent(cluster, "namespace", second)


def test_an_unnamed_object_gets_a_name_and_is_replaced_before_the_old_one_goes(
    stack: Stack, cluster: Cluster, namespace: str
) -> None:
    old = stack.up(config_map(namespace, {"a": "1"}, name=None)).outputs["name"].value
    assert old.startswith("settings-")
    assert get(cluster, "configmap", old, namespace)["metadata"]["annotations"] == {"pulumi.com/autonamed": "true"}
    new = stack.up(config_map(namespace, {"a": "2"}, name=None)).outputs["name"].value
    assert new != old
    assert absent(cluster, "configmap", old, namespace)
    assert [step for step, _ in stack.steps] == ["create-replacement", "replace", "delete-replaced"]


def test_a_named_object_is_removed_before_its_replacement_is_made(
    stack: Stack, cluster: Cluster, namespace: str
) -> None:
    stack.up(config_map(namespace, {"a": "1"}))
    uid = get(cluster, "configmap", "settings", namespace)["metadata"]["uid"]
    stack.up(config_map(namespace, {"a": "2"}))
    found = get(cluster, "configmap", "settings", namespace)
    assert (found["data"], found["metadata"]["uid"] != uid) == ({"a": "2"}, True)
    assert [step for step, _ in stack.steps] == ["delete-replaced", "replace", "create-replacement"]


def test_contents_may_be_changed_in_place(stack: Stack, cluster: Cluster, namespace: str) -> None:
    stack.settings = {"enable_config_map_mutable": True}
    stack.up(config_map(namespace, {"a": "1", "b": "1"}))
    uid = get(cluster, "configmap", "settings", namespace)["metadata"]["uid"]
    assert changes(stack.up(config_map(namespace, {"a": "2"}))) == {"update": 1}
    found = get(cluster, "configmap", "settings", namespace)
    assert (found["data"], found["metadata"]["uid"]) == ({"a": "2"}, uid)


def test_client_side_writing_makes_changes_and_leaves_others_fields(
    stack: Stack, cluster: Cluster, namespace: str
) -> None:
    stack.settings = {"enable_server_side_apply": False, "enable_config_map_mutable": True}
    stack.up(config_map(namespace, {"a": "1", "b": "1"}))
    cluster.kubectl("patch", "configmap", "settings", "-n", namespace, "-p", '{"data": {"theirs": "x"}}')
    stack.up(config_map(namespace, {"a": "2"}))
    found = get(cluster, "configmap", "settings", namespace)
    assert found["data"] == {"a": "2", "theirs": "x"}
    assert found["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "pulumi"}


def test_the_default_namespace_is_the_providers(stack: Stack, cluster: Cluster, namespace: str) -> None:
    stack.settings = {"namespace": namespace}

    def program(opts: pulumi.ResourceOptions) -> None:
        k8s.core.v1.ConfigMap("settings", metadata={"name": "settings"}, data={"a": "1"}, opts=opts)

    stack.up(program)
    assert get(cluster, "configmap", "settings", namespace)["data"] == {"a": "1"}
    assert changes(stack.up()) == {}


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    """An image that does nothing, which every node has."""
    node = cluster.json("get", "nodes")["items"][0]
    names = [name for each in node["status"]["images"] for name in each["names"]]
    return str(next(name for name in names if "pause" in name and "@" not in name))


def test_a_deployment_is_awaited(stack: Stack, cluster: Cluster, namespace: str, image: str) -> None:
    stack.up(deployment(namespace, image))
    assert get(cluster, "deployment", "quiet", namespace)["status"]["readyReplicas"] == 1
    assert changes(stack.up()) == {}


def test_a_deployment_that_fails_says_why_and_can_be_mended(
    stack: Stack, cluster: Cluster, namespace: str, image: str
) -> None:
    failure = stack.fails(stack.up, deployment(namespace, "lab.local/none:0", timeout=8))
    assert "was successfully created, but" in failure
    assert "timed out waiting to be Ready" in failure
    assert "ErrImageNeverPull" in failure
    stack.refresh()
    recorded = next(each for each in stack.recorded() if each["type"] == "kubernetes:apps/v1:Deployment")
    assert "ErrImageNeverPull" in "".join(recorded["initErrors"])
    stack.up(deployment(namespace, image))
    assert get(cluster, "deployment", "quiet", namespace)["status"]["readyReplicas"] == 1


def test_a_deployment_may_be_left_to_itself(stack: Stack, cluster: Cluster, namespace: str) -> None:
    stack.up(deployment(namespace, "lab.local/none:0", annotations={"pulumi.com/skipAwait": "true"}))
    assert not get(cluster, "deployment", "quiet", namespace)["status"].get("readyReplicas")


def test_cancelling_ends_the_wait_and_keeps_what_was_made(stack: Stack, cluster: Cluster, namespace: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stack.fails, stack.up, deployment(namespace, "lab.local/none:0", timeout=280))
        until("the deployment", lambda: not absent(cluster, "deployment", "quiet", namespace), 60)
        os.kill(until("the engine", lambda: engines(stack.auto), 10)[0], signal.SIGINT)
        failure = running.result(60)
    assert "cancelled" in failure
    assert any(each["type"] == "kubernetes:apps/v1:Deployment" for each in stack.recorded())


def repaint(cluster: Cluster, name: str, value: str) -> None:
    """Somebody else takes the label, by server-side apply."""
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"colour": value}}}
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=painter", "-f", "-")
    cluster.kubectl(*apply, input=json.dumps(manifest))


def test_a_field_that_somebody_else_took_is_a_conflict_unless_forced(stack: Stack, cluster: Cluster) -> None:
    name = f"pulumi-{secrets.token_hex(4)}"
    stack.up(labelled(name, "red"))
    repaint(cluster, name, "blue")
    failure = stack.fails(stack.up, labelled(name, "green"))
    assert "field conflict" in failure
    assert 'conflict with "painter"' in failure
    assert cluster.json("get", "namespace", name)["metadata"]["labels"]["colour"] == "blue"
    stack.up(labelled(name, "green", **{"pulumi.com/patchForce": "true"}))
    assert cluster.json("get", "namespace", name)["metadata"]["labels"]["colour"] == "green"


def test_drift_is_seen_by_a_refresh_and_mended_by_the_next_up(stack: Stack, cluster: Cluster) -> None:
    name = f"pulumi-{secrets.token_hex(4)}"
    stack.up(labelled(name, "red", **{"pulumi.com/patchForce": "true"}))
    repaint(cluster, name, "blue")
    assert changes(stack.refresh()) == {"update": 1}
    assert changes(stack.up()) == {"update": 1}
    assert cluster.json("get", "namespace", name)["metadata"]["labels"]["colour"] == "red"


def test_what_is_gone_is_dropped_by_a_refresh_and_made_again(stack: Stack, cluster: Cluster, namespace: str) -> None:
    stack.up(config_map(namespace, {"a": "1"}))
    cluster.kubectl("delete", "configmap", "settings", "-n", namespace)
    assert changes(stack.refresh()) == {"delete": 1}
    assert changes(stack.up()) == {"create": 1}


def test_what_is_gone_already_is_destroyed(stack: Stack, cluster: Cluster, namespace: str) -> None:
    stack.up(config_map(namespace, {"a": "1"}))
    cluster.kubectl("delete", "configmap", "settings", "-n", namespace)
    assert stack.destroy().summary.result == "succeeded"


def test_an_object_is_imported(stack: Stack, cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "settings", "-n", namespace, "--from-literal=a=1")
    uid = get(cluster, "configmap", "settings", namespace)["metadata"]["uid"]
    imported = pulumi.ResourceOptions(import_=f"{namespace}/settings")

    def program(opts: pulumi.ResourceOptions) -> None:
        config_map(namespace, {"a": "1"})(pulumi.ResourceOptions.merge(opts, imported))

    assert changes(stack.up(program)) == {"create": 2, "import": 1}
    assert changes(stack.up(config_map(namespace, {"a": "1"}))) == {}
    assert get(cluster, "configmap", "settings", namespace)["metadata"]["uid"] == uid


def test_a_namespace_that_is_ending_takes_nothing_and_nothing_is_recorded(
    stack: Stack, cluster: Cluster, namespace: str
) -> None:
    held = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": namespace, "finalizers": ["qwex.test/hold"]},
    }
    cluster.kubectl("apply", "-f", "-", input=json.dumps(held))
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    try:
        failure = stack.fails(stack.up, config_map(namespace, {"a": "1"}))
        assert "was not successfully created by the Kubernetes API server" in failure
        assert "is being terminated" in failure
        assert not [each for each in stack.recorded() if "ConfigMap" in each["type"]]
    finally:
        cluster.kubectl("patch", "configmap", "held", "-n", namespace, "-p", '{"metadata": {"finalizers": null}}')


def test_an_end_that_is_held_up_fails_with_its_finalizers(stack: Stack, cluster: Cluster, namespace: str) -> None:
    held = config_map(
        namespace, {"a": "1"}, finalizers=["qwex.test/hold"], annotations={"pulumi.com/timeoutSeconds": "3"}
    )
    stack.up(held)
    failure = stack.fails(stack.destroy)
    assert "qwex.test/hold" in failure + "".join(stack.output)
    cluster.kubectl(
        "patch", "configmap", "settings", "-n", namespace, "--type=merge", "-p", '{"metadata": {"finalizers": null}}'
    )
    stack.destroy()
    assert absent(cluster, "configmap", "settings", namespace)


def test_a_preview_touches_nothing(stack: Stack, cluster: Cluster, namespace: str) -> None:
    assert counts(stack.preview(config_map(namespace, {"a": "1"})).change_summary) == {"create": 3}
    assert absent(cluster, "configmap", "settings", namespace)
    stack.up(config_map(namespace, {"a": "1"}, labels={"x": "1"}))
    before = get(cluster, "configmap", "settings", namespace)
    result = stack.preview(config_map(namespace, {"a": "1"}, labels={"x": "2"}))
    assert counts(result.change_summary) == {"update": 1}
    result = stack.preview(config_map(namespace, {"a": "2"}))
    assert counts(result.change_summary) == {"replace": 1}
    assert get(cluster, "configmap", "settings", namespace) == before


def test_a_preview_does_not_know_what_only_the_cluster_will_say(stack: Stack, cluster: Cluster) -> None:
    name = f"pulumi-{secrets.token_hex(4)}"

    def program(opts: pulumi.ResourceOptions) -> None:
        made = k8s.core.v1.Namespace("ns", metadata={"name": name}, opts=opts)
        after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[made]))
        inside = {"namespace": name, "name": "inside", "labels": {"phase": made.status["phase"]}}
        k8s.core.v1.ConfigMap("inside", metadata=inside, opts=opts)
        k8s.core.v1.ConfigMap("beside", metadata={"namespace": name, "name": "beside"}, opts=after)

    assert counts(stack.preview(program).change_summary) == {"create": 5}
    assert absent(cluster, "namespace", name)
    stack.up(program)
    assert get(cluster, "configmap", "inside", name)["metadata"]["labels"] == {"phase": "Active"}


def test_an_object_that_cannot_be_is_refused_by_its_field_before_anything_is_made(
    stack: Stack, cluster: Cluster, namespace: str
) -> None:
    def program(opts: pulumi.ResourceOptions) -> None:
        k8s.apiextensions.CustomResource(
            "odd",
            api_version="apps/v1",
            kind="Deployment",
            metadata={"name": "odd", "namespace": namespace},
            spec={"replicas": "many", "selector": {"matchLabels": {"a": "b"}}},
            opts=opts,
        )

    with pytest.raises(auto.CommandError, match="replicas"):
        stack.preview(program)
    assert absent(cluster, "deployment", "odd", namespace)


def test_a_secret_is_in_no_state_and_no_output(stack: Stack, env: PulumiEnv, cluster: Cluster, namespace: str) -> None:
    words = [secrets.token_hex(16) for _ in range(3)]

    def program(opts: pulumi.ResourceOptions) -> None:
        at = {"namespace": namespace}
        open_words = k8s.core.v1.Secret(
            "plain", metadata={"name": "plain", **at}, string_data={"word": words[0]}, opts=opts
        )
        data = {"word": base64.b64encode(words[1].encode()).decode()}
        k8s.core.v1.Secret("coded", metadata={"name": "coded", **at}, data=data, opts=opts)
        hidden: dict[str, Any] = {"word": pulumi.Output.secret(words[2]), "open": "seen"}
        k8s.core.v1.ConfigMap("map", metadata={"name": "map", **at}, data=hidden, opts=opts)
        pulumi.export("data", open_words.data)

    result = stack.up(program)
    assert result.outputs["data"].secret
    stack.refresh()
    assert changes(stack.up()) == {}
    found = get(cluster, "secret", "plain", namespace)["data"]["word"]
    assert base64.b64decode(found).decode() == words[0]
    assert get(cluster, "configmap", "map", namespace)["data"]["word"] == words[2]
    stack.destroy()
    everything = env.written() + "".join(stack.output)
    assert "seen" in everything
    for word in words:
        assert word not in everything
        assert base64.b64encode(word.encode()).decode() not in everything


@contextmanager
def definition(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """The group and kind of a custom resource that nobody has defined yet; whatever is left of it is removed."""
    group = f"g{secrets.token_hex(4)}.qwex.test"
    yield group, "Thing"
    cluster.kubectl("delete", "crd", f"things.{group}", "--ignore-not-found")


def test_a_kind_and_an_object_of_it_are_made_by_one_program(stack: Stack, cluster: Cluster, namespace: str) -> None:
    with ExitStack() as left:
        group, kind = left.enter_context(definition(cluster))

        def program(opts: pulumi.ResourceOptions) -> None:
            schema = {
                "type": "object",
                "properties": {"spec": {"type": "object", "x_kubernetes_preserve_unknown_fields": True}},
            }
            k8s.apiextensions.v1.CustomResourceDefinition(
                "definition",
                metadata={"name": f"things.{group}"},
                spec={
                    "group": group,
                    "scope": "Namespaced",
                    "names": {"plural": "things", "kind": kind},
                    "versions": [
                        {"name": "v1", "served": True, "storage": True, "schema": {"open_apiv3_schema": schema}}
                    ],
                },
                opts=opts,
            )
            # Without depends_on: the object is asked for again until its kind is there.
            k8s.apiextensions.CustomResource(
                "thing",
                api_version=f"{group}/v1",
                kind=kind,
                metadata={"name": "one", "namespace": namespace},
                spec={"a": {"b": 1}},
                opts=opts,
            )

        stack.preview(program)
        stack.up(program)
        assert get(cluster, f"things.{group}", "one", namespace)["spec"] == {"a": {"b": 1}}
        assert changes(stack.up()) == {}
        stack.destroy()
        assert absent(cluster, "crd", f"things.{group}")


def test_manifests_are_deployed(stack: Stack, cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    names = ("one", "two")
    documents = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": {"a": name},
        }
        for name in names
    ]
    file = tmp_path / "manifests.yaml"
    file.write_text("---\n".join(json.dumps(document) + "\n" for document in documents))

    def program(opts: pulumi.ResourceOptions) -> None:
        component = pulumi.ResourceOptions(providers=[opts.provider] if opts.provider else None)
        k8s.yaml.ConfigFile("manifests", file=str(file), opts=component)

    stack.up(program)
    assert [get(cluster, "configmap", name, namespace)["data"]["a"] for name in names] == list(names)
    assert changes(stack.up()) == {}


def test_a_patch_owns_its_fields_and_nothing_else(stack: Stack, cluster: Cluster, namespace: str) -> None:
    def program(opts: pulumi.ResourceOptions) -> None:
        k8s.core.v1.NamespacePatch("patch", metadata={"name": namespace, "labels": {"mine": "yes"}}, opts=opts)

    stack.up(program)
    assert cluster.json("get", "namespace", namespace)["metadata"]["labels"]["mine"] == "yes"
    stack.destroy()
    found = cluster.json("get", "namespace", namespace)
    assert "mine" not in found["metadata"]["labels"]
    assert "deletionTimestamp" not in found["metadata"]


def test_a_program_waits_for_what_it_names(stack: Stack, cluster: Cluster, namespace: str) -> None:
    annotations = {"pulumi.com/waitFor": "jsonpath={.data.a}=2", "pulumi.com/timeoutSeconds": "3"}
    assert "timed out" in stack.fails(stack.up, config_map(namespace, {"a": "1"}, annotations=annotations))
    stack.up(config_map(namespace, {"a": "2"}, annotations=annotations))
    assert get(cluster, "configmap", "settings", namespace)["data"] == {"a": "2"}


def test_a_cluster_that_cannot_be_reached_is_named(stack: Stack, namespace: str) -> None:
    stack.kubeconfig = stack.kubeconfig.replace("https://", "https://127.0.0.1:1/")
    failure = stack.fails(stack.up, config_map(namespace, {"a": "1"}))
    assert "unreachable" in failure


def test_a_service_without_pods_settles(stack: Stack, cluster: Cluster, namespace: str) -> None:
    def program(opts: pulumi.ResourceOptions) -> None:
        spec = {"selector": {"app": "none"}, "ports": [{"port": 80}]}
        made = k8s.core.v1.Service(
            "service", metadata={"name": "service", "namespace": namespace}, spec=spec, opts=opts
        )
        pulumi.export("ip", made.spec.cluster_ip)

    result = stack.up(program)
    assert result.outputs["ip"].value == get(cluster, "service", "service", namespace)["spec"]["clusterIP"]
    assert changes(stack.up()) == {}
