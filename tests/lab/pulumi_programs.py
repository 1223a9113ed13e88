"""Small Pulumi programs for tests, and a stack that runs one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pytest
from pulumi import automation as auto
from pulumi.automation.events import EngineEvent
from tests.lab.pulumi_stack import PulumiEnv

Tree = dict[str, Any]
Program = Callable[[pulumi.ResourceOptions], None]


class Stack:
    """One stack whose program may be another at every operation; its resources share a provider."""

    def __init__(self, env: PulumiEnv, kubeconfig: str, name: str) -> None:
        self._program: Program = lambda opts: None
        self.kubeconfig = kubeconfig
        self.settings: Tree = {}
        self.output: list[str] = []
        self.events: list[EngineEvent] = []
        self.auto = env.stack(name, self._run)

    def _run(self) -> None:
        provider = k8s.Provider("cluster", kubeconfig=self.kubeconfig, **self.settings)
        self._program(pulumi.ResourceOptions(provider=provider))

    def up(self, program: Program | None = None) -> auto.UpResult:
        """Makes the cluster as the program says; without one, as the last one said."""
        self._program = program or self._program
        self.events = []
        return self.auto.up(on_output=self.output.append, on_event=self.events.append)

    def preview(self, program: Program) -> auto.PreviewResult:
        """What `up` would do."""
        self._program = program
        return self.auto.preview(on_output=self.output.append)

    def refresh(self) -> auto.RefreshResult:
        """Takes up what the cluster has become."""
        return self.auto.refresh(on_output=self.output.append, show_secrets=False)

    def destroy(self) -> auto.DestroyResult:
        """Removes everything."""
        return self.auto.destroy(on_output=self.output.append)

    def recorded(self) -> list[Tree]:
        """The resources in the state."""
        return list((self.auto.export_stack().deployment or {}).get("resources", []))

    def fails(self, operation: Callable[..., object], *args: Program) -> str:
        """The text of the engine's failure in an operation that has to fail."""
        with pytest.raises(auto.CommandError) as caught:
            operation(*args)
        return str(caught.value)

    @property
    def steps(self) -> list[tuple[str, str]]:
        """What the last `up` did to Kubernetes objects, in order: operation and logical name."""
        done = [event.res_outputs_event.metadata for event in self.events if event.res_outputs_event]
        ours = [each for each in done if each.type.startswith("kubernetes:")]
        return [(each.op.value, each.urn.rpartition("::")[2]) for each in ours if each.op.value != "same"]


def counts(summary: Mapping[Any, int] | None) -> dict[str, int]:
    """What an operation did, by kind, without what stayed the same."""
    named = {str(getattr(kind, "value", kind)): count for kind, count in (summary or {}).items()}
    return {kind: count for kind, count in named.items() if kind != "same"}


def changes(result: auto.UpResult | auto.RefreshResult) -> dict[str, int]:
    """What an update or a refresh did."""
    return counts(result.summary.resource_changes)


def engines(stack: auto.Stack) -> list[int]:
    """The engine processes that work in a stack's directory."""
    place = Path(stack.workspace.work_dir).resolve()
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if (each / "comm").read_text().strip() == "pulumi" and (each / "cwd").resolve() == place:
                found.append(int(each.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def config_map(namespace: str, data: dict[str, Any], name: str | None = "settings", **metadata: Any) -> Program:
    """A program with one ConfigMap; without a name, Pulumi names it."""

    def program(opts: pulumi.ResourceOptions) -> None:
        given = {"name": name, **metadata} if name else metadata
        made = k8s.core.v1.ConfigMap("settings", metadata={"namespace": namespace, **given}, data=data, opts=opts)
        pulumi.export("name", made.metadata["name"])

    return program


def deployment(namespace: str, image: str, timeout: int = 60, annotations: dict[str, str] | None = None) -> Program:
    """A program with one Deployment of one pod, with images only as the nodes have them."""

    def program(opts: pulumi.ResourceOptions) -> None:
        labels = {"app": "quiet"}
        k8s.apps.v1.Deployment(
            "quiet",
            metadata={
                "name": "quiet",
                "namespace": namespace,
                "annotations": {"pulumi.com/timeoutSeconds": str(timeout), **(annotations or {})},
            },
            spec={
                "selector": {"match_labels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "quiet", "image": image, "image_pull_policy": "Never"}]},
                },
            },
            opts=opts,
        )

    return program


def labelled(name: str, value: str, **annotations: str) -> Program:
    """A program with one Namespace and its label."""

    def program(opts: pulumi.ResourceOptions) -> None:
        metadata = {"name": name, "labels": {"colour": value}, "annotations": annotations}
        k8s.core.v1.Namespace("coloured", metadata=metadata, opts=opts)

    return program
