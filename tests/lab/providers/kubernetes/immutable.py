"""Which fields Kubernetes lets nobody change, so that a change replaces the object.

The list is the real provider's (`provider/pkg/provider/diff.go` of pulumi-kubernetes 4.24.0), taken as facts.
"""

from typing import Final

from tests.lab.providers.kubernetes.objects import Kind, kind_of
from tests.lab.providers.provider import parse_path
from tests.lab.providers.wire import Tree

Path = tuple[str | int, ...]

_CONTAINER: Final = (
    "args command env image imagePullPolicy lifecycle livenessProbe ports readinessProbe resources securityContext stdin "
    "stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir"
)
_POD: Final = (
    "affinity automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks hostAliases hostIPC hostNetwork hostPID "
    "hostname imagePullSecrets nodeName nodeSelector overhead preemptionPolicy priority priorityClassName readinessGates "
    "restartPolicy runtimeClassName schedulerName securityContext serviceAccount serviceAccountName shareProcessNamespace "
    "subdomain terminationGracePeriodSeconds volumes"
)
_VOLUME: Final = (
    "awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker gcePersistentDisk glusterfs hostPath "
    "iscsi local nfs photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume"
)


def _under(prefix: str, names: str) -> list[str]:
    return [f"{prefix}.{field}" for field in names.split()]


_STATEFUL_SET: Final = _under(
    "spec", "podManagementPolicy revisionHistoryLimit selector serviceName volumeClaimTemplates"
)
_JOB: Final = _under("spec", "completions parallelism selector template")

_FIELDS: Final[dict[Kind, list[str]]] = {
    **{Kind(f"apps/{version}", "StatefulSet"): _STATEFUL_SET for version in ("v1beta1", "v1beta2", "v1")},
    **{Kind(f"apps/{v}", kind): ["spec.selector"] for v in ("v1beta2", "v1") for kind in ("DaemonSet", "Deployment")},
    **{Kind(f"batch/{version}", "Job"): _JOB for version in ("v1beta1", "v1", "v2alpha1")},
    **{
        Kind(f"rbac.authorization.k8s.io/{version}", kind): ["roleRef"]
        for version in ("v1alpha1", "v1beta1", "v1")
        for kind in ("ClusterRoleBinding", "RoleBinding")
    },
    Kind("policy/v1beta1", "PodDisruptionBudget"): ["spec"],
    Kind("storage.k8s.io/v1", "StorageClass"): ["parameters", "provisioner"],
    Kind("v1", "PersistentVolume"): _under("spec", _VOLUME),
    Kind("v1", "PersistentVolumeClaim"): _under("spec", "accessModes selector storageClassName volumeName"),
    Kind("v1", "Pod"): [
        *_under("spec", _POD),
        *_under("spec.containers[*]", _CONTAINER),
        *_under("spec.initContainers[*]", _CONTAINER),
    ],
    Kind("v1", "ResourceQuota"): ["spec.scopes"],
    Kind("v1", "Secret"): ["type"],
    Kind("v1", "Service"): ["spec.clusterIP"],
}

_ALWAYS: Final = ["metadata.name", "metadata.namespace"]


def fields(obj: Tree, mutable_config_maps: bool = False, mutable_secrets: bool = False) -> list[Path]:
    """The paths of an object that cannot be changed in place; `*` stands for any item of a list.

    A ConfigMap's and a Secret's contents count among them unless the provider was told otherwise, so that what
    mounts them is rolled; one that is marked immutable is so in any case.
    """
    kind = kind_of(obj)
    names = [*_ALWAYS, *_FIELDS.get(kind, [])]
    fixed = obj.get("immutable") is True
    if kind == Kind("v1", "ConfigMap") and (fixed or not mutable_config_maps):
        names += ["binaryData", "data"]
    if kind == Kind("v1", "Secret") and (fixed or not mutable_secrets):
        names += ["stringData", "data"]
    return [parse_path(text) for text in names]


def identity_fields() -> list[Path]:
    """The paths that replace even a patch resource."""
    return [parse_path(text) for text in _ALWAYS]
