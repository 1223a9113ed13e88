"""What the real provider calls ready, kind by kind, and what it says stands in the way.

From `provider/pkg/await` of pulumi-kubernetes 4.24.0. One exception: it also waits for a Job to complete, the stand-in
does not. Other kinds, custom resources among them, are ready once they exist, unless `pulumi.com/waitFor` says more.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.lab.providers.kubernetes.api import Cluster
from tests.lab.providers.kubernetes.objects import (
    Kind,
    annotation,
    conditions,
    metadata,
    name,
    namespace,
    owned_by,
    pluck,
)
from tests.lab.providers.wire import Tree

SETTLED: Final = 10.0
"""Seconds for which a Service's endpoints must not change."""

REVISION: Final = "deployment.kubernetes.io/revision"

NO_ENDPOINTS: Final = (
    "Service does not target any Pods. Selected Pods may not be ready, or "
    "field '.spec.selector' may not match labels on any Pods"
)

PODS: Final = Kind("v1", "Pod")
REPLICA_SETS: Final = Kind("apps/v1", "ReplicaSet")


@dataclass(frozen=True)
class Progress:
    """How far an object has come: ready or not, a line for the status column, and what stands in the way."""

    ready: bool
    status: str = ""
    reasons: list[str] = field(default_factory=list)


Probe = Callable[[Cluster, Tree], Progress]


def deployment(cluster: Cluster, obj: Tree) -> Progress:
    """Available, with enough ready pods of the newest revision, and its volume claims bound."""
    if pluck(obj, "status", "observedGeneration") != metadata(obj).get("generation"):
        return Progress(False, "Waiting for the Deployment controller", ["The Deployment controller has not acted yet"])
    revision = annotation(obj, REVISION)
    states = conditions(obj)
    reasons = [_worded(states[kind]) for kind in ("Progressing", "Available") if _is(states, kind, "False")]
    claims = _unbound_claims(cluster, obj)
    if claims:
        reasons.append(f'Failed to bind PersistentVolumeClaim(s): "{",".join(claims)}"')
    current = _current_replica_set(cluster, obj, revision)
    wanted, ready = _replicas(current)
    rolled = revision == "1" or pluck(states.get("Progressing"), "reason") == "NewReplicaSetAvailable"
    if not _is(states, "Available", "True"):
        reasons.append("Minimum number of live Pods was not attained")
    elif not rolled or current is None:
        reasons.append("Minimum number of Pods to consider the application live was not attained")
    elif ready < wanted:
        reasons.append("Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live")
    if not reasons:
        return Progress(True, "Deployment initialization complete")
    pods = _pod_reasons(cluster, current) if current is not None else []
    return Progress(
        False, f"Waiting for app ReplicaSet to be available ({ready}/{wanted} Pods available)", [*reasons, *pods]
    )


def stateful_set(cluster: Cluster, obj: Tree) -> Progress:
    """All its pods ready, at one revision (or at any, where updates wait for somebody to delete pods)."""
    wanted = pluck(obj, "spec", "replicas") or 0
    status = pluck(obj, "status") or {}
    counts = [status.get(key) or 0 for key in ("replicas", "readyReplicas", "currentReplicas")]
    current, target = (status.get(key, "") for key in ("currentRevision", "updateRevision"))
    by_hand = pluck(obj, "spec", "updateStrategy", "type") == "OnDelete" and metadata(obj).get("generation", 0) > 1
    seen = status.get("observedGeneration") == metadata(obj).get("generation")
    reasons = []
    if not seen or any(count != wanted for count in (counts[:2] if by_hand else counts)):
        reasons.append(f"{counts[1]} out of {wanted} replicas succeeded readiness checks")
    if not by_hand and not (current and current == target):
        reasons.append(f'StatefulSet controller failed to advance from revision "{current}" to revision "{target}"')
    if not reasons:
        return Progress(True, "StatefulSet initialization complete")
    return Progress(
        False,
        f"Waiting for StatefulSet to create Pods ({counts[1]}/{wanted} Pods ready)",
        [*reasons, *_pod_reasons(cluster, obj)],
    )


def daemon_set(cluster: Cluster, obj: Tree) -> Progress:
    """Every node that should run it runs the newest revision, available."""
    status = pluck(obj, "status") or {}
    wanted = status.get("desiredNumberScheduled", 0)
    seen = status.get("observedGeneration") == metadata(obj).get("generation")
    counts = {
        key: status.get(key) or 0
        for key in ("currentNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady")
    }
    if seen and all(count == wanted for count in counts.values()):
        return Progress(True, f"All replicas scheduled as expected. Replicas: {wanted}")
    short = ", ".join(f"{key} {count}/{wanted}" for key, count in counts.items() if count != wanted)
    reason = short if seen else "The DaemonSet controller has not acted yet"
    return Progress(False, reason, [reason, *_pod_reasons(cluster, obj)])


def pod(cluster: Cluster, obj: Tree) -> Progress:
    """Ready, or run to its end with success."""
    if pluck(obj, "status", "phase") == "Succeeded" or _is(conditions(obj), "Ready", "True"):
        return Progress(True, "Pod ready")
    reasons = pod_reasons(obj)
    return Progress(False, reasons[0] if reasons else "Waiting for Pod", reasons)


def claim(cluster: Cluster, obj: Tree) -> Progress:
    """Bound, or waiting for its first consumer where its storage class binds only then."""
    phase = pluck(obj, "status", "phase")
    storage_class = pluck(obj, "spec", "storageClassName")
    found = cluster.get(Kind("storage.k8s.io/v1", "StorageClass"), "", storage_class) if storage_class else None
    expected = "Pending" if pluck(found, "volumeBindingMode") == "WaitForFirstConsumer" else "Bound"
    ready = phase == expected or phase == "Bound"
    return Progress(ready, f"PersistentVolumeClaim is {phase}", [] if ready else [f"it is {phase}, not {expected}"])


def volume(cluster: Cluster, obj: Tree) -> Progress:
    """Available or bound."""
    phase = pluck(obj, "status", "phase")
    ready = phase in ("Available", "Bound")
    return Progress(ready, f"PersistentVolume is {phase}", [] if ready else [f"it is {phase}"])


def quota(cluster: Cluster, obj: Tree) -> Progress:
    """Taken up by the quota controller."""
    ready = pluck(obj, "spec", "hard") == pluck(obj, "status", "hard")
    return Progress(ready, "", [] if ready else ["the quota controller has not taken it up"])


def secret(cluster: Cluster, obj: Tree) -> Progress:
    """A service account's token is filled in by a controller; any other Secret is ready as it is."""
    ready = obj.get("type") != "kubernetes.io/service-account-token" or bool(obj.get("data"))
    return Progress(ready, "", [] if ready else ["no token was issued"])


def ingress(cluster: Cluster, obj: Tree) -> Progress:
    """Given an address by an ingress controller."""
    ready = bool(pluck(obj, "status", "loadBalancer", "ingress"))
    message = "Ingress .status.loadBalancer field was not updated with a hostname/IP address."
    return Progress(ready, "", [] if ready else [message])


class Service:
    """Has an address where it needs one, and endpoints that have been the same, and all ready, for ten seconds.

    One without a selector, headless or external has no endpoints to wait for.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen = ""
        self._since = clock()

    def __call__(self, cluster: Cluster, obj: Tree) -> Progress:
        """Looks at the Service and its Endpoints, and remembers when they last changed."""
        kind = pluck(obj, "spec", "type")
        reasons = []
        if kind == "LoadBalancer" and not pluck(obj, "status", "loadBalancer", "ingress"):
            reasons.append("Service was not allocated an IP address; does your cloud provider support this?")
        headless = pluck(obj, "spec", "clusterIP") == "None"
        if kind == "ExternalName" or headless or not pluck(obj, "spec", "selector"):
            return Progress(not reasons, "", reasons)
        endpoints = cluster.get(Kind("v1", "Endpoints"), namespace(obj), name(obj))
        version = str(pluck(endpoints, "metadata", "resourceVersion"))
        if version != self._seen:
            self._seen, self._since = version, self._clock()
        subsets = pluck(endpoints, "subsets") or []
        if not any(subset.get("addresses") for subset in subsets):
            reasons.append(NO_ENDPOINTS)
        pending = any(subset.get("notReadyAddresses") for subset in subsets)
        settled = endpoints is not None and self._clock() - self._since >= SETTLED
        addressed = not any(reason != NO_ENDPOINTS for reason in reasons)
        return Progress(addressed and settled and not pending, "[1/3] Finding Pods to direct traffic to", reasons)


PROBES: Final[dict[Kind, Probe]] = {
    Kind("apps/v1", "DaemonSet"): daemon_set,
    Kind("apps/v1", "Deployment"): deployment,
    Kind("apps/v1", "StatefulSet"): stateful_set,
    Kind("networking.k8s.io/v1", "Ingress"): ingress,
    Kind("v1", "PersistentVolume"): volume,
    Kind("v1", "PersistentVolumeClaim"): claim,
    Kind("v1", "Pod"): pod,
    Kind("v1", "ResourceQuota"): quota,
    Kind("v1", "Secret"): secret,
}

READ_KINDS: Final = frozenset({"DaemonSet", "Deployment", "Ingress", "Pod", "StatefulSet"})
"""Those that a refresh asks too, to record that an object has failed since."""


def probe_of(kind: Kind) -> Probe | None:
    """What tells whether an object of this kind is ready; None where to exist is enough."""
    return Service() if kind == Kind("v1", "Service") else PROBES.get(kind)


def _is(states: dict[str, Tree], kind: str, status: str) -> bool:
    return bool(pluck(states.get(kind), "status") == status)


def _worded(condition: Tree) -> str:
    return f"[{condition.get('reason', '')}] {condition.get('message', '')}"


def _current_replica_set(cluster: Cluster, obj: Tree, revision: str) -> Tree | None:
    sets = cluster.listed(REPLICA_SETS, namespace(obj)) if revision else []
    return next((each for each in sets if owned_by(each, obj) and annotation(each, REVISION) == revision), None)


def _replicas(replica_set: Tree | None) -> tuple[int, int]:
    wanted = pluck(replica_set, "spec", "replicas")
    return (1 if wanted is None else int(wanted)), int(pluck(replica_set, "status", "readyReplicas") or 0)


def _unbound_claims(cluster: Cluster, obj: Tree) -> list[str]:
    volumes = pluck(obj, "spec", "template", "spec", "volumes") or []
    names = [found for each in volumes if (found := pluck(each, "persistentVolumeClaim", "claimName"))]
    claims = {found: cluster.get(Kind("v1", "PersistentVolumeClaim"), namespace(obj), found) for found in names}
    return [found for found, state in claims.items() if state and pluck(state, "status", "phase") != "Bound"]


def _pod_reasons(cluster: Cluster, owner: Tree) -> list[str]:
    pods = [each for each in cluster.listed(PODS, namespace(owner)) if owned_by(each, owner)]
    return [f"[Pod {namespace(each)}/{name(each)}]: {reason}" for each in pods for reason in pod_reasons(each)]


def pod_reasons(obj: Tree) -> list[str]:
    """Why a pod is not ready: not scheduled, or the state its containers are in."""
    states = conditions(obj)
    reasons = []
    if _is(states, "PodScheduled", "False"):
        reasons.append(_worded(states["PodScheduled"]))
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in pluck(obj, "status", key) or []:
            state = container.get("state") or {}
            detail = state.get("waiting") or state.get("terminated") or {}
            if not container.get("ready") and detail.get("reason") not in (None, "Completed", "PodInitializing"):
                message = detail.get("message") or f"exit code {detail.get('exitCode', 'unknown')}"
                reasons.append(
                    f"containers with unready status: [{container['name']}] -- [{detail['reason']}] {message}"
                )
    return reasons
