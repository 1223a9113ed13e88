"""Old object, new inputs → which properties change, and which of them replace the object."""

from __future__ import annotations

from typing import Any

import pytest
from tests.lab.providers.kubernetes import immutable
from tests.lab.providers.kubernetes.diff import compare
from tests.lab.providers.kubernetes.normal import amount, is_built_in, normal, pruned
from tests.lab.providers.provider import Change, Refused, covers, parse_path, path_text
from tests.lab.providers.wire import UNKNOWN

Tree = dict[str, Any]


def made(kind: str, api_version: str = "v1", *, where: str = "ns", called: str = "x", **rest: Any) -> Tree:
    metadata = {"name": called, **({"namespace": where} if where else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def difference(old: Tree, new: Tree, live: Tree | None = None, chosen: dict[str, bool] | None = None) -> dict[str, str]:
    """Path to what happens there, `!` for a replacement; `live` as last seen, by default exactly what was asked for."""
    found = compare(normal(live or old), normal(old), normal(new), immutable.fields(new, **(chosen or {})))
    return {path: change.change.value + ("!" if change.replaces else "") for path, change in found.properties.items()}


POD = {"containers": [{"name": "c", "image": "a"}], "nodeSelector": {"disk": "ssd"}}
APP = {"selector": {"matchLabels": {"a": "b"}}, "replicas": 1, "template": {"spec": POD}}


def other(tree: Tree, path: str, value: Any) -> Tree:
    """A copy with another value at a path; None removes it."""
    steps = parse_path(path)

    def at(part: Any, rest: tuple[str | int, ...]) -> Any:
        if not rest:
            return value
        if isinstance(part, list):
            return [at(item, rest[1:]) if index == rest[0] else item for index, item in enumerate(part)]
        step = str(rest[0])
        changed = at((part or {}).get(step), rest[1:])
        return {key: item for key, item in {**(part or {}), step: changed}.items() if item is not None}

    return dict(at(tree, steps))


@pytest.mark.parametrize(
    ("old", "path", "value", "expected"),
    [
        (made("Namespace", where=""), "metadata.name", "y", {"metadata.name": "UPDATE!"}),
        (made("Namespace", where=""), "metadata.labels", {"a": "b"}, {"metadata.labels": "ADD"}),
        (made("ConfigMap", data={"a": "1"}), "metadata.namespace", "other", {"metadata.namespace": "UPDATE!"}),
        (made("ConfigMap", data={"a": "1"}), "data.a", "2", {"data.a": "UPDATE!"}),
        (made("ConfigMap", data={"a": "1"}), "data.b", "2", {"data.b": "ADD!"}),
        (made("ConfigMap", data={"a": "1", "b": "2"}), "data.b", None, {"data.b": "DELETE!"}),
        (made("ConfigMap", binaryData={"a": "MQ=="}), "binaryData.a", "Mg==", {"binaryData.a": "UPDATE!"}),
        (made("ConfigMap"), "data", {"a": "1"}, {"data": "ADD!"}),
        (made("ConfigMap", data={"a": "1"}), "metadata.labels", {"a": "b"}, {"metadata.labels": "ADD"}),
        (made("Secret", data={"a": "MQ=="}), "data.a", "Mg==", {"data.a": "UPDATE!"}),
        (made("Secret", type="Opaque"), "type", "kubernetes.io/tls", {"type": "UPDATE!"}),
        (made("Service", spec={"clusterIP": "10.0.0.1"}), "spec.clusterIP", "None", {"spec.clusterIP": "UPDATE!"}),
        (made("Service", spec={"ports": [{"port": 1}]}), "spec.ports[0].port", 2, {"spec.ports[0].port": "UPDATE"}),
        (made("Service"), "spec", {"clusterIP": "None"}, {"spec": "ADD!"}),
        (made("Service"), "spec", {"type": "NodePort"}, {"spec": "ADD"}),
        (made("Job", "batch/v1", spec={"template": {"spec": POD}}), "spec.template.spec.containers[0].image", "b",
         {"spec.template.spec.containers[0].image": "UPDATE!"}),
        (made("Job", "batch/v1", spec={"parallelism": 1}), "spec.parallelism", 2, {"spec.parallelism": "UPDATE!"}),
        (made("Job", "batch/v1", spec={"suspend": True}), "spec.suspend", False, {"spec.suspend": "UPDATE"}),
        (made("Deployment", "apps/v1", spec=APP), "spec.selector.matchLabels.a", "c",
         {"spec.selector.matchLabels.a": "UPDATE!"}),
        (made("Deployment", "apps/v1", spec=APP), "spec.replicas", 2, {"spec.replicas": "UPDATE"}),
        (made("Deployment", "apps/v1", spec=APP), "spec.template.spec.containers[0].image", "b",
         {"spec.template.spec.containers[0].image": "UPDATE"}),
        (made("StatefulSet", "apps/v1", spec={**APP, "serviceName": "s"}), "spec.serviceName", "t",
         {"spec.serviceName": "UPDATE!"}),
        (made("StatefulSet", "apps/v1", spec=APP), "spec.volumeClaimTemplates", [{}], {"spec.volumeClaimTemplates": "ADD!"}),
        (made("StatefulSet", "apps/v1", spec=APP), "spec.replicas", 2, {"spec.replicas": "UPDATE"}),
        (made("Pod", spec=POD), "spec.containers[0].image", "b", {"spec.containers[0].image": "UPDATE!"}),
        (made("Pod", spec=POD), "spec.nodeSelector.disk", "hdd", {"spec.nodeSelector.disk": "UPDATE!"}),
        (made("PersistentVolumeClaim", spec={"accessModes": ["ReadWriteOnce"]}), "spec.accessModes[0]", "ReadWriteMany",
         {"spec.accessModes[0]": "UPDATE!"}),
        (made("PersistentVolumeClaim", spec={"resources": {"requests": {"storage": "1Gi"}}}),
         "spec.resources.requests.storage", "2Gi", {"spec.resources.requests.storage": "UPDATE"}),
        (made("StorageClass", "storage.k8s.io/v1", where="", parameters={"a": "b"}), "parameters.a", "c",
         {"parameters.a": "UPDATE!"}),
        (made("StorageClass", "storage.k8s.io/v1", where="", reclaimPolicy="Delete"), "reclaimPolicy", "Retain",
         {"reclaimPolicy": "UPDATE"}),
        (made("RoleBinding", "rbac.authorization.k8s.io/v1", roleRef={"name": "a"}), "roleRef.name", "b",
         {"roleRef.name": "UPDATE!"}),
        (made("PersistentVolume", where="", spec={"hostPath": {"path": "/a"}}), "spec.hostPath.path", "/b",
         {"spec.hostPath.path": "UPDATE!"}),
        (made("LocalQueue", "kueue.x-k8s.io/v1beta2", spec={"clusterQueue": "a"}), "spec.clusterQueue", "b",
         {"spec.clusterQueue": "UPDATE"}),
        (made("ConfigMap", data={"a": "1"}), "data.a", UNKNOWN, {"data.a": "UPDATE!"}),
        (made("Deployment", "apps/v1", spec=APP), "spec.replicas", UNKNOWN, {"spec.replicas": "UPDATE"}),
        (made("Deployment", "apps/v1", spec=APP), "spec.paused", True, {"spec.paused": "ADD"}),
        (made("Deployment", "apps/v1", spec={**APP, "minReadySeconds": 1}), "spec.minReadySeconds", True,
         {"spec.minReadySeconds": "UPDATE"}),
    ],
)  # fmt: skip
def test_what_a_change_does(old: Tree, path: str, value: Any, expected: dict[str, str]) -> None:
    assert difference(old, other(old, path, value)) == expected


@pytest.mark.parametrize(("kind", "flag"), [("ConfigMap", "mutable_config_maps"), ("Secret", "mutable_secrets")])
def test_contents_change_in_place_where_the_provider_says_so_unless_the_object_is_immutable(
    kind: str, flag: str
) -> None:
    old = made(kind, data={"a": "MQ=="})
    new = made(kind, data={"a": "Mg=="})
    assert difference(old, new, chosen={flag: True}) == {"data.a": "UPDATE"}
    fixed = {"immutable": True}
    assert difference({**old, **fixed}, {**new, **fixed}, chosen={flag: True}) == {"data.a": "UPDATE!"}


@pytest.mark.parametrize(
    ("live", "new", "expected"),
    [
        ({"replicas": 1, "revisionHistoryLimit": 10}, {"replicas": 1}, {}),
        ({"replicas": 5}, {"replicas": 1}, {"spec.replicas": "UPDATE"}),
        ({}, {"replicas": 1}, {"spec.replicas": "ADD"}),
        ({"replicas": 1}, {}, {"spec.replicas": "DELETE"}),
    ],
)
def test_drift_counts_where_the_program_asked_and_nowhere_else(live: Tree, new: Tree, expected: dict[str, str]) -> None:
    asked = made("Deployment", "apps/v1", spec={"replicas": 1})
    seen = made("Deployment", "apps/v1", spec=live, status={"readyReplicas": 1})
    assert difference(asked, made("Deployment", "apps/v1", spec=new), seen) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"limits": {"cpu": "500m"}}, {"limits": {"cpu": "0.5"}}),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"memory": "1024Mi"}}),
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": 1}}),
        ({"requests": {"cpu": "1"}, "limits": {}}, {"requests": {"cpu": "1"}}),
    ],
)
def test_spellings_of_one_amount_are_no_change(old: Tree, new: Tree) -> None:
    before, after = ({"containers": [{"name": "c", "resources": each}]} for each in (old, new))
    assert difference(made("Pod", spec=before), made("Pod", spec=after)) == {}


def test_in_a_custom_resource_a_spelling_is_a_change() -> None:
    before, after = (made("Thing", "example.org/v1", spec={"limits": {"cpu": cpu}}) for cpu in ("500m", "0.5"))
    assert difference(before, after) == {"spec.limits.cpu": "UPDATE"}


def test_string_data_is_the_data_it_becomes() -> None:
    before = made("Secret", data={"a": "aGk="})
    assert difference(before, made("Secret", stringData={"a": "hi"})) == {}
    assert difference(before, made("Secret", stringData={"a": "ho"})) == {"data.a": "UPDATE!"}


def test_what_is_ignored_is_no_change() -> None:
    old = made("Deployment", "apps/v1", spec={"replicas": 1, "paused": False})
    new = made("Deployment", "apps/v1", spec={"replicas": 2, "paused": True})
    found = compare(old, old, new, [], ["spec.replicas"])
    assert list(found.properties) == ["spec.paused"]
    assert compare(old, old, new, [], ["spec"]).properties == {}


@pytest.mark.parametrize(
    ("new", "first"),
    [
        (made("ConfigMap", data={"a": "2"}), True),
        (made("ConfigMap", data={"a": "2"}, called="y"), False),
        (made("ConfigMap", data={"a": "2"}, where="other"), False),
        (made("ConfigMap", data={"a": "1"}), False),
    ],
)
def test_the_old_object_goes_first_only_when_the_new_one_takes_its_place(new: Tree, first: bool) -> None:
    old = made("ConfigMap", data={"a": "1"})
    assert compare(old, old, new, immutable.fields(new)).delete_first is first


def test_an_object_with_a_name_of_its_own_making_is_made_before_the_old_one_goes() -> None:
    old = made("ConfigMap", data={"a": "1"})
    for obj in (old, new := made("ConfigMap", data={"a": "2"})):
        obj["metadata"]["annotations"] = {"pulumi.com/autonamed": "true"}
    found = compare(old, old, new, immutable.fields(new))
    assert found.replaces == ["data.a"]
    assert not found.delete_first


def test_metadata_that_vanishes_replaces() -> None:
    old, new = made("ConfigMap"), {"apiVersion": "v1", "kind": "ConfigMap"}
    assert difference(old, new) == {"metadata": "DELETE!"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("spec", "ports", 0, "port"), "spec.ports[0].port"),
        (("metadata", "labels", "app.kubernetes.io/name"), 'metadata.labels["app.kubernetes.io/name"]'),
        (("a", 'b"c.d'), 'a["b\\"c.d"]'),
    ],
)
def test_paths_are_written_and_read(path: tuple[str | int, ...], text: str) -> None:
    assert path_text(path) == text
    assert parse_path(text) == path


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(Refused, match="character 2"):
        parse_path("a[")


def test_a_star_covers_any_item() -> None:
    assert covers(parse_path("a[*].b"), ("a", 3, "b", "c"))
    assert not covers(parse_path("a[*].b"), ("a", 3))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        ("500m", "0.5"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("2k", "2000"),
        ("1e3", "1000"),
        ("1E", "1e18"),
    ],
)
def test_amounts(text: str, value: str) -> None:
    assert amount(text) == amount(value)


@pytest.mark.parametrize("text", ["", "m", "1x", "one", True, None, "1 Gi"])
def test_what_is_no_amount(text: Any) -> None:
    assert amount(text) is None


@pytest.mark.parametrize(
    ("api_version", "built_in"),
    [("v1", True), ("apps/v1", True), ("storage.k8s.io/v1", True), ("kueue.x-k8s.io/v1beta2", False),
     ("gateway.networking.k8s.io/v1", False), ("example.org/v1", False)],
)  # fmt: skip
def test_which_kinds_the_server_itself_defines(api_version: str, built_in: bool) -> None:
    assert is_built_in(api_version) is built_in


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        (made("ConfigMap", data={}), made("ConfigMap")),
        (made("Pod", spec={"volumes": [{"name": "v", "emptyDir": {}}], "tolerations": []}),
         made("Pod", spec={"volumes": [{"name": "v", "emptyDir": {}}]})),
        (made("Role", "rbac.authorization.k8s.io/v1", rules=[]), made("Role", "rbac.authorization.k8s.io/v1", rules=[])),
        (made("NetworkPolicy", "networking.k8s.io/v1", spec={"podSelector": {}, "ingress": []}),
         made("NetworkPolicy", "networking.k8s.io/v1", spec={"podSelector": {}})),
        (made("Thing", "example.org/v1", spec={"list": []}), made("Thing", "example.org/v1", spec={"list": []})),
        (made("Secret", data={"a": "aGk\n="}, stringData={"b": "x"}), made("Secret", data={"a": "aGk=", "b": "eA=="})),
        (made("Secret", data={"a": "not base64!"}), made("Secret", data={"a": "not base64!"})),
        (made("CustomResourceDefinition", "apiextensions.k8s.io/v1", where="", spec={"preserveUnknownFields": False},
              status={"a": 1}),
         made("CustomResourceDefinition", "apiextensions.k8s.io/v1", where="", spec={})),
    ],
)  # fmt: skip
def test_the_one_shape(written: Tree, stored: Tree) -> None:
    assert normal(written) == stored
    assert normal(stored) == stored


def test_the_one_shape_leaves_out_what_only_the_server_writes() -> None:
    obj = made("ConfigMap")
    obj["metadata"].update(uid="u", resourceVersion="1", managedFields=[{}], creationTimestamp=None)
    assert normal(obj) == made("ConfigMap")


@pytest.mark.parametrize(
    ("live", "shape", "kept"),
    [
        ({"a": 1, "b": 2}, {"a": 9}, {"a": 1}),
        ([{"a": 1, "b": 2}, {"a": 3}], [{"a": 0}], [{"a": 1}]),
        ([1, 2], [{"a": 0}], [1, 2]),
        ({"a": {"b": 1}}, {"a": "text"}, {"a": {"b": 1}}),
        ({}, {"a": 1}, {}),
    ],
)
def test_pruning_keeps_what_the_shape_has(live: Any, shape: Any, kept: Any) -> None:
    assert pruned(live, shape) == kept


def test_every_change_has_its_name_in_the_protocol() -> None:
    from tests.lab.providers.protocol import provider_pb2

    for change in Change:
        assert provider_pb2.PropertyDiff.Kind.Value(change.value) is not None
        assert provider_pb2.PropertyDiff.Kind.Value(f"{change.value}_REPLACE") is not None
