"""Checked inputs, recorded state, configuration, manifests: the kubernetes provider's pure parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.lab.providers.kubernetes import check, checkpoint, settings
from tests.lab.providers.kubernetes.api import Unreachable, active_context, parse_kubeconfig
from tests.lab.providers.kubernetes.decode import decode
from tests.lab.providers.kubernetes.managers import adoption
from tests.lab.providers.kubernetes.objects import (
    Kind,
    identity,
    is_patch,
    kind_of_urn,
    parse_identity,
    propagation,
    timeout,
)
from tests.lab.providers.kubernetes.write import merge_patch
from tests.lab.providers.provider import Naming, Refused, Urn, unique
from tests.lab.providers.wire import UNKNOWN, Secret

Tree = dict[str, Any]

URN = Urn("urn:pulumi:dev::lab::my:component$kubernetes:core/v1:ConfigMap::the::name")
SEED = bytes.fromhex("0123456789abcdef")
SEEDED = Naming(SEED)


def settle(news: Tree, olds: Tree | None = None, naming: Naming = SEEDED, **how: bool) -> Tree:
    return check.settle(URN, olds or {}, news, naming, **{"server_side": True, "patch": False, **how})


def named(obj: Tree) -> Tree:
    return {"apiVersion": "v1", "kind": "ConfigMap", **obj}


def test_a_urn_comes_apart() -> None:
    assert (URN.type, URN.name) == ("kubernetes:core/v1:ConfigMap", "the::name")


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("kubernetes:core/v1:Namespace", Kind("v1", "Namespace")),
        ("kubernetes:apps/v1:Deployment", Kind("apps/v1", "Deployment")),
        ("kubernetes:kueue.x-k8s.io/v1beta2:LocalQueue", Kind("kueue.x-k8s.io/v1beta2", "LocalQueue")),
    ],
)
def test_a_type_names_a_kind(token: str, kind: Kind) -> None:
    assert kind_of_urn(Urn(f"urn:pulumi:s::p::{token}::n")) == kind


def test_a_type_that_is_no_object_is_refused() -> None:
    with pytest.raises(Refused, match="kubernetes:odd"):
        kind_of_urn(Urn("urn:pulumi:s::p::kubernetes:odd::n"))


@pytest.mark.parametrize(
    ("token", "kind", "patch"),
    [("ConfigMapPatch", "ConfigMap", True), ("ConfigMap", "ConfigMap", False), ("AppPatch", "AppPatch", False)],
)
def test_patch_resources(token: str, kind: str, patch: bool) -> None:
    assert is_patch(Urn(f"urn:pulumi:s::p::kubernetes:core/v1:{token}::n"), {"kind": kind}) is patch


def test_without_a_name_an_object_gets_one_that_the_seed_decides() -> None:
    found = settle(named({}))
    assert found["metadata"] == {"name": "the::name-01234567", "annotations": {"pulumi.com/autonamed": "true"}}
    assert settle(named({})) == found


def test_the_engines_proposal_is_taken() -> None:
    assert settle(named({}), naming=Naming(SEED, "proposed"))["metadata"]["name"] == "proposed"


def test_without_autonaming_a_name_is_needed() -> None:
    with pytest.raises(Refused, match=r"metadata\.name"):
        settle(named({}), naming=Naming(SEED, disabled=True))


def test_an_autonamed_object_keeps_its_name() -> None:
    first = settle(named({}))
    again = settle(named({"data": {"a": "b"}}), first, Naming(b"another seed"))
    assert again["metadata"] == first["metadata"]


def test_an_object_that_had_a_name_of_the_program_gets_a_new_one_without_it() -> None:
    found = settle(named({}), named({"metadata": {"name": "given"}}))
    assert found["metadata"]["name"] == "the::name-01234567"


@pytest.mark.parametrize("name", ["given", UNKNOWN])
def test_a_given_name_stays(name: Any) -> None:
    found = settle(named({"metadata": {"name": name, "labels": {"a": "b"}}}))
    assert found["metadata"] == {"name": name, "labels": {"a": "b"}}


def test_generated_names_need_the_client_side() -> None:
    news = named({"metadata": {"generateName": "x-"}})
    with pytest.raises(Refused, match="generateName"):
        settle(news)
    assert settle(news, server_side=False)["metadata"] == {"generateName": "x-"}


def test_the_client_side_marks_what_it_makes() -> None:
    labels = {check.MANAGED_BY: "pulumi"}
    made = settle(named({"metadata": {"name": "a"}}), server_side=False)
    assert made["metadata"]["labels"] == labels
    assert "labels" not in settle(named({"metadata": {"name": "a"}}), named({}), server_side=False)["metadata"]
    assert settle(named({"metadata": {"name": "a"}}), made, server_side=False)["metadata"]["labels"] == labels


def test_a_patch_needs_a_name() -> None:
    with pytest.raises(Refused, match="patch resources"):
        settle(named({}), patch=True)


def test_the_inputs_are_not_touched() -> None:
    news = named({"metadata": {"labels": {"a": "b"}}})
    before = json.dumps(news)
    settle(news, server_side=False)
    assert json.dumps(news) == before


@pytest.mark.parametrize(
    ("inputs", "properties"),
    [
        (named({}), []),
        ({"kind": "ConfigMap"}, ["apiVersion"]),
        ({"apiVersion": "v1", "kind": ""}, ["kind"]),
        (named({"metadata": "x"}), ["metadata"]),
        (named({"metadata": {"name": 1}}), ["metadata.name"]),
        (named({"metadata": {"name": UNKNOWN, "labels": {"a": UNKNOWN}}}), []),
        (named({"metadata": {"labels": {"a.b": 1}}}), ['metadata.labels["a.b"]']),
        (named({"metadata": {"annotations": {"a": True}}}), ['metadata.annotations["a"]']),
    ],
)
def test_faults_name_their_property(inputs: Tree, properties: list[str]) -> None:
    assert [fault.property for fault in check.faults(inputs)] == properties


@pytest.mark.parametrize(
    ("meta", "namespaced", "expected"),
    [
        ({}, True, {"namespace": "default"}),
        ({"namespace": "own"}, True, {"namespace": "own"}),
        ({"namespace": UNKNOWN}, True, {"namespace": UNKNOWN}),
        ({}, False, {}),
    ],
)
def test_the_default_namespace(meta: Tree, namespaced: bool, expected: Tree) -> None:
    assert check.place({"metadata": meta}, namespaced, "default")["metadata"] == expected


def test_a_state_is_read_as_it_was_written() -> None:
    inputs = named({"metadata": {"name": "a"}, "data": {"k": "v"}})
    live = {**inputs, "metadata": {"name": "a", "uid": "u"}}
    state = checkpoint.write(live, inputs, inputs, "v1", "pulumi-kubernetes-1")
    assert checkpoint.read(state) == checkpoint.Checkpoint(live, inputs, "v1", "pulumi-kubernetes-1")


def test_in_a_state_what_the_program_kept_secret_stays_so() -> None:
    inputs = named({"metadata": {"name": "a"}, "data": {"k": Secret("v"), "open": "o"}})
    plain = checkpoint.manifest(inputs)
    state = checkpoint.write(plain, plain, inputs, "v1", "m")
    assert state["data"] == state["__inputs"]["data"] == {"k": Secret("v"), "open": "o"}


def test_what_a_secret_holds_is_secret_though_nobody_said_so() -> None:
    last = {"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"data":"hush"}'}}}
    live = {"apiVersion": "v1", "kind": "Secret", "data": {"k": "aHVzaA=="}, "stringData": {"k": "hush"}, **last}
    state = checkpoint.write(live, live, {}, "v1", "m")
    assert "hush" not in repr(state)
    assert "aHVzaA==" not in repr(state)
    assert checkpoint.read(state).live == live


def test_the_dashes_of_schema_extensions_are_underscores_in_properties() -> None:
    inputs = {"kind": "CustomResourceDefinition", "spec": [{"x_kubernetes_int_or_string": True, "other_key": 1}]}
    obj = checkpoint.manifest(inputs)
    assert obj["spec"] == [{"x-kubernetes-int-or-string": True, "other_key": 1}]
    assert checkpoint.properties(obj, {}) == inputs


@pytest.mark.parametrize(("text", "parts"), [("ns/name", ("ns", "name")), ("name", ("", "name"))])
def test_ids(text: str, parts: tuple[str, str]) -> None:
    where, what = parts
    assert parse_identity(text) == parts
    assert identity({"metadata": {"name": what, "namespace": where}}) == text


@pytest.mark.parametrize(("value", "asked", "seconds"), [("30", 0, 30), ("30", 5, 5), ("soon", 0, 600), ("", 0, 600)])
def test_timeouts(value: str, asked: float, seconds: float) -> None:
    assert timeout({"metadata": {"annotations": {"pulumi.com/timeoutSeconds": value}}}, asked) == seconds


@pytest.mark.parametrize(
    ("value", "policy"),
    [("", "Foreground"), ("background", "Background"), ("Orphan", "Orphan"), ("nonsense", "Foreground")],
)
def test_deletion_propagation(value: str, policy: str) -> None:
    assert propagation({"metadata": {"annotations": {"pulumi.com/deletionPropagationPolicy": value}}}) == policy


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1, "b": 2}, {"b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    ],
)
def test_merge_patches(old: Tree, new: Tree, patch: Tree) -> None:
    assert merge_patch(old, new) == patch


def entry(manager: str, operation: str, *fields: str, **more: str) -> Tree:
    return {"manager": manager, "operation": operation, "fieldsV1": {field: {} for field in fields}, **more}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], None),
        ([entry("mine", "Apply", "f:a"), entry("controller", "Update", "f:b")], None),
        ([entry("kubectl-edit", "Update", "f:a", subresource="status")], None),
        ([entry("kubectl-create", "Update", "f:a")], [entry("mine", "Apply", "f:a")]),
        (
            [entry("controller", "Update", "f:c"), entry("kubectl", "Apply", "f:a"), entry("mine", "Apply", "f:b")],
            [entry("mine", "Apply", "f:b", "f:a"), entry("controller", "Update", "f:c")],
        ),
    ],
)
def test_whose_fields_are_taken_over(entries: list[Tree], expected: list[Tree] | None) -> None:
    assert adoption({"metadata": {"managedFields": entries}}, "mine") == expected


def config(server: str, name: str = "one", namespace: str = "") -> str:
    return yaml.safe_dump(
        {
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": "c", "namespace": namespace}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}],
        }
    )


def test_a_kubeconfig_is_contents_or_a_path(tmp_path: Path) -> None:
    text = config("https://a", namespace="n")
    (tmp_path / "config").write_text(text)
    assert parse_kubeconfig(text) == parse_kubeconfig(str(tmp_path / "config")) == yaml.safe_load(text)
    assert parse_kubeconfig("") is None
    assert active_context(parse_kubeconfig(text), "")["namespace"] == "n"
    assert active_context(parse_kubeconfig(text), "other") == {}


@pytest.mark.parametrize("text", ["no such file", "{", "a: b"])
def test_a_kubeconfig_that_is_neither_reaches_no_cluster(text: str) -> None:
    with pytest.raises(Unreachable, match="kubeconfig"):
        parse_kubeconfig(text)


def test_the_environment_speaks_where_the_inputs_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.read({}) == settings.Settings()
    monkeypatch.setenv("PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY", "false")
    monkeypatch.setenv("PULUMI_K8S_DELETE_UNREACHABLE", "true")
    monkeypatch.setenv("PULUMI_K8S_ENABLE_PATCH_FORCE", "true")
    found = settings.read({"kubernetes:config:deleteUnreachable": "false", "kubernetes:config:namespace": "n"})
    assert found == settings.Settings(namespace="n", server_side=False, patch_force=True)


def test_rendering_to_files_is_refused_by_name() -> None:
    (fault,) = settings.faults({"renderYamlToDirectory": "/x"})
    assert fault.property == "renderYamlToDirectory"
    assert "pulumi-resource-kubernetes is stood in for" in fault.reason
    assert settings.faults({"kubeconfig": "x"}) == []
    assert [each.property for each in settings.faults({"strictMode": "true", "context": "c"})] == ["kubeconfig"]


@pytest.mark.parametrize(
    ("old", "new", "replaces"),
    [
        ({"kubeconfig": config("https://a")}, {"kubeconfig": config("https://b")}, ["kubeconfig"]),
        ({"kubeconfig": config("https://a")}, {"kubeconfig": config("https://a", "two")}, []),
        ({"kubeconfig": config("https://a")}, {"kubeconfig": UNKNOWN}, ["kubeconfig"]),
        (
            {"kubeconfig": config("https://a"), "clusterIdentifier": "x"},
            {"kubeconfig": config("https://b"), "clusterIdentifier": "x"},
            [],
        ),
        ({"clusterIdentifier": "x"}, {"clusterIdentifier": "y"}, ["clusterIdentifier"]),
        ({"kubeconfig": config("https://a")}, {"kubeconfig": config("https://a"), "clusterIdentifier": "y"}, []),
        ({"namespace": "a"}, {"namespace": "b"}, []),
    ],
)
def test_another_cluster_replaces_the_provider(old: Tree, new: Tree, replaces: list[str]) -> None:
    found = settings.diff(old, new)
    assert found.replaces == replaces
    assert set(found.properties) == {key for key in {*old, *new} if old.get(key) != new.get(key)}


def test_manifests_are_read_as_kubernetes_reads_them() -> None:
    text = "a: b\n---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {d: 2024-01-01}\n---\nnull\n"
    assert decode(text, "", None) == [named({"metadata": {"name": "x"}, "data": {"d": "2024-01-01"}})]
    assert decode(text, "ns", None)[0]["metadata"] == {"name": "x", "namespace": "ns"}


def test_broken_yaml_is_refused_with_its_place() -> None:
    with pytest.raises(Refused, match="line 1"):
        decode("a: [", "", None)


def test_names_are_unique_unless_a_seed_decides() -> None:
    assert unique("x-", SEED) == "x-01234567"
    assert unique("x-") != unique("x-")
    assert len(unique("")) == 8
