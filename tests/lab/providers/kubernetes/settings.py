"""The kubernetes provider's configuration, from its inputs, else from the environment, as the real one reads it."""

import json
import os
from dataclasses import dataclass
from typing import Any

from tests.lab.providers.kubernetes.api import Unreachable, active_context, parse_kubeconfig
from tests.lab.providers.provider import Change, Diff, Failure, PropertyChange
from tests.lab.providers.wire import UNKNOWN, Tree

RENDER = "renderYamlToDirectory"
NO_RENDERING = f"{RENDER} is not supported: pulumi-resource-kubernetes is stood in for here"


@dataclass(frozen=True)
class Settings:
    """What a provider resource, or the default provider, was told."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    server_side: bool = True
    mutable_config_maps: bool = False
    mutable_secrets: bool = False
    delete_unreachable: bool = False
    skip_update_unreachable: bool = False
    patch_force: bool | None = None
    render_to: str = ""


def read(variables: dict[str, str]) -> Settings:
    """The settings in `kubernetes:config:KEY` variables."""

    def text(key: str) -> str:
        return variables.get(f"kubernetes:config:{key}", "")

    def flag(key: str, environment: str, default: bool) -> bool:
        written = text(key) or os.environ.get(environment, "")
        return written == "true" if written else default

    force = os.environ.get("PULUMI_K8S_ENABLE_PATCH_FORCE")
    return Settings(
        kubeconfig=text("kubeconfig"),
        context=text("context"),
        namespace=text("namespace"),
        server_side=flag("enableServerSideApply", "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY", True),
        mutable_config_maps=flag("enableConfigMapMutable", "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE", False),
        mutable_secrets=flag("enableSecretMutable", "PULUMI_K8S_ENABLE_SECRET_MUTABLE", False),
        delete_unreachable=flag("deleteUnreachable", "PULUMI_K8S_DELETE_UNREACHABLE", False),
        skip_update_unreachable=flag("skipUpdateUnreachable", "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE", False),
        patch_force=None if force is None else force == "true",
        render_to=text(RENDER),
    )


def faults(news: Tree) -> list[Failure]:
    """What of the provider's inputs cannot be."""
    if news.get(RENDER) not in (None, "", UNKNOWN):
        return [Failure(RENDER, NO_RENDERING)]
    if str(news.get("strictMode", "")).lower() == "true":
        return [
            Failure(key, f'strict mode requires Provider "{key}" argument')
            for key in ("kubeconfig", "context")
            if not news.get(key)
        ]
    return []


def diff(olds: Tree, news: Tree) -> Diff:
    """What differs between two configurations: another cluster replaces the provider, and with it all it made.

    `clusterIdentifier`, once set, alone decides that.
    """
    changed = [key for key in sorted({*olds, *news}) if olds.get(key) != news.get(key) and key != "version"]
    before, after = olds.get("clusterIdentifier"), news.get("clusterIdentifier")
    if before and after:
        replacing = ["clusterIdentifier"] if before != after else []
    elif any(news.get(key) is UNKNOWN for key in ("kubeconfig", "context", "cluster")) or _moved(olds, news):
        replacing = [key for key in changed if key in ("kubeconfig", "context", "cluster")]
    else:
        replacing = []
    return Diff({key: PropertyChange(Change.UPDATE, key in replacing) for key in changed})


def _moved(olds: Tree, news: Tree) -> bool:
    old, new = _active_cluster(olds), _active_cluster(news)
    return old is not None and new is not None and old != new


def _active_cluster(bag: Tree) -> Any:
    """The server and its CA that a configuration leads to; None where that cannot be told."""
    written = bag.get("kubeconfig")
    try:
        kubeconfig = parse_kubeconfig(written if isinstance(written, str) else json.dumps(written) if written else "")
    except Unreachable:
        return None
    if kubeconfig is None:
        return None
    wanted = bag.get("cluster") or active_context(kubeconfig, str(bag.get("context") or "")).get("cluster")
    return next((each.get("cluster") for each in kubeconfig["clusters"] if each.get("name") == wanted), None)
