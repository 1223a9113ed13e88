"""What is waited for: objects as the API server shows them → ready or not, and the words for why."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from tests.lab.providers.kubernetes.api import Cluster
from tests.lab.providers.kubernetes.expressions import probe_for
from tests.lab.providers.kubernetes.objects import Kind, kind_of, name
from tests.lab.providers.kubernetes.readiness import Service, pod_reasons, probe_of
from tests.lab.providers.kubernetes.waits import NotReady, skips_end, until_gone, until_ready
from tests.lab.providers.provider import Refused

Tree = dict[str, Any]


class Shown(Cluster):
    """A cluster that shows given objects; a callable shows another one at each look."""

    def __init__(self, *objects: Tree, then: Callable[[], Tree | None] | None = None) -> None:
        self._objects, self._then = list(objects), then

    def get(self, kind: Kind, where: str, what: str) -> Tree | None:
        """The first shown object of that kind and name."""
        if self._then is not None:
            return self._then()
        return next((each for each in self._objects if kind_of(each) == kind and name(each) == what), None)

    def listed(self, kind: Kind, where: str) -> list[Tree]:
        """All shown objects of that kind."""
        return [each for each in self._objects if kind_of(each) == kind]


def obj(kind: str, api_version: str = "v1", called: str = "x", *, meta: Tree | None = None, **rest: Any) -> Tree:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": called, "namespace": "ns", "uid": f"{kind}-{called}", **(meta or {})},
        **rest,
    }


def condition(kind: str, status: str, reason: str = "Why", message: str = "so") -> Tree:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def owned(by: Tree) -> Tree:
    return {"ownerReferences": [{"uid": by["metadata"]["uid"]}]}


def deployment(revision: str = "1", observed: int = 1, volumes: list[Tree] | None = None, *conditions: Tree) -> Tree:
    return obj(
        "Deployment",
        "apps/v1",
        meta={"generation": 1, "annotations": {"deployment.kubernetes.io/revision": revision}},
        spec={"template": {"spec": {"volumes": volumes or []}}},
        status={"observedGeneration": observed, "conditions": list(conditions)},
    )


AVAILABLE = condition("Available", "True")
UNAVAILABLE = condition(
    "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
)
ROLLED = condition("Progressing", "True", "NewReplicaSetAvailable")
STUCK = condition("Progressing", "False", "ProgressDeadlineExceeded", "it took too long")


def replica_set(by: Tree, ready: int, wanted: int = 1, revision: str = "1") -> Tree:
    meta = {**owned(by), "annotations": {"deployment.kubernetes.io/revision": revision}}
    return obj("ReplicaSet", "apps/v1", meta=meta, spec={"replicas": wanted}, status={"readyReplicas": ready})


@pytest.mark.parametrize(
    ("shown", "ready", "wanted", "reasons"),
    [
        (deployment("1", 1, None, AVAILABLE), 1, 1, []),
        (deployment("2", 1, None, AVAILABLE, ROLLED), 1, 1, []),
        (deployment("1", 1, None, AVAILABLE), 0, 0, []),
        (deployment("1", 0, None, AVAILABLE), 1, 1, ["controller has not acted"]),
        (deployment("1", 1, None, UNAVAILABLE), 0, 1, ["[MinimumReplicasUnavailable]", "Minimum number of live Pods"]),
        (
            deployment("2", 1, None, AVAILABLE, condition("Progressing", "True")),
            1,
            1,
            ["consider the application live"],
        ),
        (deployment("1", 1, None, AVAILABLE), 1, 2, ["Attempted to roll forward"]),
        (deployment("1", 1, None, UNAVAILABLE, STUCK), 0, 1, ["[ProgressDeadlineExceeded] it took too long"]),
    ],
)
def test_deployments(shown: Tree, ready: int, wanted: int, reasons: list[str]) -> None:
    revision = shown["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
    cluster = Shown(shown, replica_set(shown, ready, wanted, revision))
    probe = probe_of(kind_of(shown))
    assert probe is not None
    progress = probe(cluster, shown)
    assert progress.ready is (reasons == [])
    said = "\n".join(progress.reasons)
    assert all(reason in said for reason in reasons), said


def test_a_deployment_says_what_its_pods_and_claims_say() -> None:
    shown = deployment("1", 1, [{"persistentVolumeClaim": {"claimName": "data"}}], UNAVAILABLE)
    current = replica_set(shown, 0)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pods = [
        obj("Pod", called="p1", meta=owned(current), status={"containerStatuses": [{"name": "c", "state": waiting}]}),
        obj("Pod", called="other", status={"containerStatuses": [{"name": "c", "state": waiting}]}),
    ]
    claim = obj("PersistentVolumeClaim", called="data", status={"phase": "Pending"})
    probe = probe_of(kind_of(shown))
    assert probe is not None
    reasons = probe(Shown(shown, current, *pods, claim), shown).reasons
    assert 'Failed to bind PersistentVolumeClaim(s): "data"' in reasons
    assert "[Pod ns/p1]: containers with unready status: [c] -- [ImagePullBackOff] no such image" in reasons
    assert not any("other" in reason for reason in reasons)


def stateful(generation: int = 1, strategy: str = "RollingUpdate", **status: Any) -> Tree:
    return obj(
        "StatefulSet",
        "apps/v1",
        meta={"generation": generation},
        spec={"replicas": 1, "updateStrategy": {"type": strategy}},
        status={"observedGeneration": generation, "replicas": 1, **status},
    )


FULL: dict[str, Any] = {"readyReplicas": 1, "currentReplicas": 1, "currentRevision": "a", "updateRevision": "a"}


@pytest.mark.parametrize(
    ("shown", "ready"),
    [
        (stateful(**FULL), True),
        (stateful(**{**FULL, "readyReplicas": 0}), False),
        (stateful(**{**FULL, "updateRevision": "b"}), False),
        (stateful(**{**FULL, "observedGeneration": 0}), False),
        (stateful(2, "OnDelete", **{**FULL, "currentReplicas": 0, "updateRevision": "b"}), True),
        (obj("DaemonSet", "apps/v1", meta={"generation": 1}, status={"observedGeneration": 1}), True),
        (obj("DaemonSet", "apps/v1", meta={"generation": 1}, status={}), False),
        (obj("DaemonSet", "apps/v1", meta={"generation": 1},
             status={"observedGeneration": 1, "desiredNumberScheduled": 2, "numberReady": 2, "numberAvailable": 1,
                     "currentNumberScheduled": 2, "updatedNumberScheduled": 2}), False),
        (obj("Pod", status={"conditions": [condition("Ready", "True")]}), True),
        (obj("Pod", status={"phase": "Succeeded", "conditions": [condition("Ready", "False")]}), True),
        (obj("Pod", status={"phase": "Pending", "conditions": [condition("PodScheduled", "False")]}), False),
        (obj("PersistentVolume", status={"phase": "Available"}), True),
        (obj("PersistentVolume", status={"phase": "Failed"}), False),
        (obj("ResourceQuota", spec={"hard": {"cpu": "1"}}, status={"hard": {"cpu": "1"}}), True),
        (obj("ResourceQuota", spec={"hard": {"cpu": "1"}}), False),
        (obj("Secret", type="Opaque"), True),
        (obj("Secret", type="kubernetes.io/service-account-token"), False),
        (obj("Secret", type="kubernetes.io/service-account-token", data={"token": "x"}), True),
        (obj("Ingress", "networking.k8s.io/v1"), False),
        (obj("Ingress", "networking.k8s.io/v1", status={"loadBalancer": {"ingress": [{"ip": "x"}]}}), True),
    ],
)  # fmt: skip
def test_other_kinds(shown: Tree, ready: bool) -> None:
    probe = probe_of(kind_of(shown))
    assert probe is not None
    progress = probe(Shown(shown), shown)
    assert progress.ready is ready
    assert ready or progress.reasons or progress.status


@pytest.mark.parametrize(
    "kind",
    [
        Kind("batch/v1", "Job"),
        Kind("v1", "Namespace"),
        Kind("v1", "ServiceAccount"),
        Kind("kueue.x-k8s.io/v1beta2", "LocalQueue"),
    ],
)
def test_what_is_ready_once_it_exists(kind: Kind) -> None:
    assert probe_of(kind) is None


@pytest.mark.parametrize(
    ("mode", "phase", "ready"),
    [("WaitForFirstConsumer", "Pending", True), ("Immediate", "Pending", False), ("Immediate", "Bound", True)],
)
def test_claims(mode: str, phase: str, ready: bool) -> None:
    shown = obj("PersistentVolumeClaim", spec={"storageClassName": "fast"}, status={"phase": phase})
    storage_class = {**obj("StorageClass", "storage.k8s.io/v1", "fast"), "volumeBindingMode": mode}
    probe = probe_of(kind_of(shown))
    assert probe is not None
    assert probe(Shown(shown, storage_class), shown).ready is ready


@pytest.mark.parametrize(
    ("spec", "endpoints", "ready"),
    [
        ({"selector": {"a": "b"}}, [{"addresses": [{"ip": "x"}]}], True),
        ({"selector": {"a": "b"}}, [{"addresses": [{"ip": "x"}], "notReadyAddresses": [{"ip": "y"}]}], False),
        ({"selector": {"a": "b"}}, None, False),
        ({"selector": {"a": "b"}, "type": "LoadBalancer"}, [{"addresses": [{"ip": "x"}]}], False),
        ({"selector": {"a": "b"}, "clusterIP": "None"}, None, True),
        ({"type": "ExternalName"}, None, True),
        ({}, None, True),
    ],
)
def test_services(spec: Tree, endpoints: list[Tree] | None, ready: bool) -> None:
    now = [0.0]
    shown = obj("Service", spec=spec)
    cluster = Shown(
        *([] if endpoints is None else [obj("Endpoints", meta={"resourceVersion": "1"}, subsets=endpoints)])
    )
    probe = Service(lambda: now[0])
    early = probe(cluster, shown).ready
    now[0] = 10.0
    assert probe(cluster, shown).ready is ready
    assert early is ((ready and "selector" not in spec) or spec.get("clusterIP") == "None")


def test_a_service_whose_endpoints_change_is_not_settled() -> None:
    now = [0.0]
    probe = Service(lambda: now[0])
    shown = obj("Service", spec={"selector": {"a": "b"}})

    def at(time: float, version: str) -> bool:
        now[0] = time
        subsets = [{"addresses": [{"ip": "x"}]}]
        return probe(Shown(obj("Endpoints", meta={"resourceVersion": version}, subsets=subsets)), shown).ready

    assert [at(0, "1"), at(9, "2"), at(18, "2"), at(19, "2")] == [False, False, False, True]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"terminated": {"reason": "Error", "exitCode": 3}}, "[c] -- [Error] exit code 3"),
        ({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, "[c] -- [CrashLoopBackOff] back-off"),
        ({"terminated": {"reason": "Completed", "exitCode": 0}}, None),
        ({"running": {}}, None),
    ],
)
def test_why_a_pod_is_not_ready(state: Tree, reason: str | None) -> None:
    shown = obj("Pod", status={"containerStatuses": [{"name": "c", "ready": False, "state": state}]})
    assert pod_reasons(shown) == ([] if reason is None else [f"containers with unready status: {reason}"])


STATUS: Tree = {
    "phase": "Up",
    "conditions": [condition("Ready", "True"), condition("Old", "False")],
    "list": [{"a-b": "x"}],
}


@pytest.mark.parametrize(
    ("expression", "ready"),
    [
        ("condition=Ready", True),
        ("condition=ready=true", True),
        ("condition=Old", False),
        ("condition=Old=False", True),
        ("condition=None", False),
        ("jsonpath={.status.phase}", True),
        ("jsonpath={.status.phase}=Up", True),
        ("jsonpath={.status.phase}=Down", False),
        ("jsonpath={.status.list[0]['a-b']}=x", True),
        ("jsonpath={.status.list[1]}", False),
        ('["condition=Ready", "jsonpath={.status.phase}=Up"]', True),
        ('["condition=Ready", "jsonpath={.status.phase}=Down"]', False),
    ],
)
def test_what_a_program_waits_for(expression: str, ready: bool) -> None:
    progress = probe_for(expression)(Shown(), obj("Thing", "example.org/v1", status=STATUS))
    assert progress.ready is ready
    assert ready or progress.reasons


@pytest.mark.parametrize("expression", ["Ready", "[]", "jsonpath={.a[?(@.b)]}", "jsonpath={..a}", "jsonpath=.a"])
def test_an_expression_that_cannot_be_read_is_refused(expression: str) -> None:
    with pytest.raises(Refused):
        probe_for(expression)


def waited(cluster: Cluster, shown: Tree, within: float = 5.0, cancelled: Event | None = None, **meta: str) -> Tree:
    inputs = {**shown, "metadata": {**shown["metadata"], "annotations": meta}}
    return until_ready(cluster, inputs, shown, within, cancelled or Event(), lambda line: None)


def test_the_wait_ends_when_the_object_is_ready() -> None:
    looks = iter([obj("Pod"), obj("Pod", status={"phase": "Succeeded"})])
    assert waited(Shown(then=lambda: next(looks)), obj("Pod"))["status"] == {"phase": "Succeeded"}


def test_the_wait_ends_at_its_deadline_with_the_reasons() -> None:
    pending = obj("Pod", status={"conditions": [condition("PodScheduled", "False", "Unschedulable", "0/1 nodes")]})
    with pytest.raises(NotReady, match="'x' timed out waiting to be Ready") as caught:
        waited(Shown(pending), pending, within=0.0)
    assert caught.value.reasons == ["[Unschedulable] 0/1 nodes"]
    assert caught.value.live == pending


def test_a_cancelled_provider_waits_no_longer() -> None:
    cancelled = Event()
    cancelled.set()
    with pytest.raises(NotReady, match="cancelled"):
        waited(Shown(obj("Pod")), obj("Pod"), 60.0, cancelled)


def test_an_object_that_goes_away_meanwhile_is_not_ready() -> None:
    with pytest.raises(NotReady, match="deleted"):
        waited(Shown(), obj("Pod"))


def test_what_skips_the_wait_is_not_asked() -> None:
    until_ready(
        Shown(), obj("Pod", meta={"annotations": {"pulumi.com/skipAwait": "true"}}), obj("Pod"), 0, Event(), print
    )


def test_the_end_is_waited_for() -> None:
    looks = iter([obj("Pod"), None])
    until_gone(Shown(then=lambda: next(looks)), obj("Pod"), 5.0, Event())


def test_another_object_of_the_name_is_not_the_one() -> None:
    until_gone(Shown(obj("Pod", meta={"uid": "new"})), obj("Pod"), 0.0, Event())


def test_an_end_that_does_not_come_names_the_finalizers() -> None:
    held = obj("Pod", meta={"finalizers": ["example.org/hold"]})
    with pytest.raises(NotReady, match="timed out") as caught:
        until_gone(Shown(held), held, 0.0, Event())
    assert caught.value.reasons == ["finalizers might be preventing deletion (example.org/hold)"]


@pytest.mark.parametrize(("kind", "skips"), [("Namespace", True), ("ConfigMap", False)])
def test_only_older_kinds_skip_the_wait_for_their_end(kind: str, skips: bool) -> None:
    assert skips_end(obj(kind, meta={"annotations": {"pulumi.com/skipAwait": "true"}})) is skips
    assert not skips_end(obj(kind))
