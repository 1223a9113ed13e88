"""The stand-in for pulumi-resource-kubernetes: the provider's operations, as version 4.24.0 does them."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from tests.lab.providers.kubernetes import check, checkpoint, decode, diff, immutable, settings
from tests.lab.providers.kubernetes.api import ApiError, Cluster, NoMatch, Unreachable, active_context, parse_kubeconfig
from tests.lab.providers.kubernetes.checkpoint import Checkpoint, manifest, properties
from tests.lab.providers.kubernetes.normal import is_built_in, normal, pruned
from tests.lab.providers.kubernetes.objects import (
    LAST_APPLIED,
    PATCH_FIELD_MANAGER,
    annotation,
    identity,
    is_patch,
    kind_of,
    kind_of_urn,
    metadata,
    name,
    namespace,
    parse_identity,
    set_metadata,
    timeout,
)
from tests.lab.providers.kubernetes.readiness import READ_KINDS, REVISION, probe_of
from tests.lab.providers.kubernetes.waits import NotReady, skips_end, until_gone, until_ready
from tests.lab.providers.kubernetes.write import Writer
from tests.lab.providers.provider import Diff, Failure, InitFailed, Log, Naming, Provider, Refused, Urn, unique
from tests.lab.providers.wire import Secret, Tree, has_unknown

NOT_OBJECTS: Final = ("kubernetes:helm.sh/", "kubernetes:yaml/", "kubernetes:kustomize/", "kubernetes:yaml:")
DELETE_HINT: Final = (
    "If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the operation with the "
    'PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"'
)


@dataclass(frozen=True)
class Connection:
    """The cluster a provider was configured for; None, with the reason, when it cannot be reached."""

    cluster: Cluster | None
    reason: str = ""


def connect(chosen: settings.Settings) -> tuple[Connection, str]:
    """A connection that has answered once, and the namespace for what names none."""
    try:
        kubeconfig = parse_kubeconfig(chosen.kubeconfig)
        where = chosen.namespace or str(active_context(kubeconfig, chosen.context).get("namespace") or "default")
        cluster = Cluster(kubeconfig, chosen.context)
        cluster.version()
    except (Unreachable, ApiError) as fault:
        return Connection(None, str(fault)), chosen.namespace or "default"
    return Connection(cluster), where


class Kubernetes(Provider):
    """One provider resource of a stack: a cluster, a default namespace, a way of writing."""

    package = "kubernetes"
    version = version("pulumi-kubernetes")

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._settings = settings.Settings()
        self._connection = Connection(None, "the provider is not configured")
        self._namespace = "default"

    def check_config(self, news: Tree) -> list[Failure]:
        """Refuses what this provider has not: rendering to files."""
        return settings.faults(news)

    def diff_config(self, olds: Tree, news: Tree) -> Diff:
        """Another cluster replaces everything; other settings change nothing that exists."""
        return settings.diff(olds, news)

    def configure(self, variables: dict[str, str]) -> None:
        """Connects; a cluster that cannot be reached is an error only of what needs it, as there."""
        self._settings = settings.read(variables)
        if self._settings.render_to:
            raise Refused(settings.NO_RENDERING)
        self._connection, self._namespace = connect(self._settings)

    def _cluster(self) -> Cluster:
        if self._connection.cluster is None:
            raise Refused(f"configured Kubernetes cluster is unreachable: {self._connection.reason}")
        return self._connection.cluster

    def _writer(self, urn: Urn) -> Writer:
        def say(line: str) -> None:
            self.log("INFO", line, urn.text, passing=True)

        chosen = self._settings
        return Writer(self._cluster(), self.cancelled, say, chosen.server_side, chosen.patch_force)

    def _objects_only(self, urn: Urn) -> None:
        if urn.type.startswith(NOT_OBJECTS):
            raise Refused(self.construct(urn.type))
        kind = kind_of_urn(urn)
        if kind.kind.endswith("List") and is_built_in(kind.api_version):
            raise Refused("list resources cannot be created directly. Use the underlying resource type instead")

    def check(self, urn: Urn, olds: Tree, news: Tree, naming: Naming) -> tuple[Tree, list[Failure]]:
        """Names and places the object; what is wrong with its fields the API server says, in the preview already."""
        self._objects_only(urn)
        plain = manifest(news)
        if failures := check.faults(plain):
            return news, failures
        patch = is_patch(urn, plain)
        if patch and not self._settings.server_side:
            raise Refused("patch resources require Server-Side Apply mode: `enableServerSideApply`")
        server_side = self._settings.server_side
        settled = check.settle(urn, olds, news, naming, server_side=server_side, patch=patch)
        if decode.is_namespaced(self._connection.cluster, settled):
            settled = check.place(settled, True, self._namespace)
        return properties(settled, news), []

    def diff(self, urn: Urn, state: Tree, news: Tree, ignore: list[str]) -> Diff:
        """Compares what was last seen of the object, as far as the program asked for it, with what it asks for now."""
        was = checkpoint.read(state)
        old, new, live = normal(was.inputs), normal(manifest(news)), was.live
        placed = decode.is_namespaced(self._connection.cluster, new)
        old, new, live = (self._in_namespace(obj, placed) for obj in (old, new, live))
        chosen = self._settings
        fixed = (
            immutable.identity_fields()
            if is_patch(urn, new)
            else immutable.fields(new, chosen.mutable_config_maps, chosen.mutable_secrets)
        )
        return diff.compare(live, old, new, fixed, ignore)

    def _in_namespace(self, obj: Tree, placed: bool) -> Tree:
        copy = {**obj, "metadata": {**metadata(obj)}}
        if not placed:
            set_metadata(copy, "namespace", "")
        elif "namespace" not in metadata(obj):
            set_metadata(copy, "namespace", "default")
        return copy

    def _manager(self, state: Checkpoint | None, obj: Tree) -> str:
        if not self._settings.server_side:
            return "pulumi-kubernetes"
        kept = state.manager if state else ""
        return annotation(obj, PATCH_FIELD_MANAGER) or kept or unique("pulumi-kubernetes-")

    def create(self, urn: Urn, inputs: Tree, timeout: float, preview: bool) -> tuple[str, Tree]:
        """Applies the object and waits until it is ready. A preview is a dry run, where the server can tell at all."""
        obj = manifest(inputs)
        if preview and (has_unknown(obj) or not self._can_preview(urn, obj)):
            return "", inputs
        manager = self._manager(None, obj)
        writer = self._writer(urn)
        try:
            made = writer.create(obj, manager, preview)
        except NoMatch as unknown:
            raise Refused(
                f'creation of resource "{urn.text}" with kind {kind_of(obj)} failed because the Kubernetes API server '
                "reported that the apiVersion for this resource does not exist. "
                f"Verify that any required CRDs have been created: {unknown}"
            ) from unknown
        except (ApiError, Unreachable) as fault:
            if preview and isinstance(fault, ApiError) and (fault.status == 403 or fault.missing_namespace):
                return "", inputs
            raise Refused(
                f'resource "{urn.text}" was not successfully created by the Kubernetes API server: {fault}'
            ) from fault
        if preview:
            dry = {key: value for key, value in made.items() if key != "status"}
            return "", checkpoint.write(dry, obj, inputs, kind_of(obj).api_version, manager)
        message = (
            f'resource "{urn.text}" was successfully created, but the Kubernetes API server '
            "reported that it failed to fully initialize or become live"
        )
        return identity(made), self._awaited(urn, writer, inputs, made, manager, timeout, message)

    def _can_preview(self, urn: Urn, obj: Tree) -> bool:
        cluster = self._connection.cluster
        known = cluster is not None and cluster.knows(kind_of(obj))
        return known and self._settings.server_side and not is_patch(urn, obj)

    def _awaited(
        self, urn: Urn, writer: Writer, inputs: Tree, made: Tree, manager: str, asked: float, message: str
    ) -> Tree:
        obj = manifest(inputs)
        api_version = kind_of(obj).api_version
        within = timeout(obj, asked)
        if is_patch(urn, obj):
            return checkpoint.write(made, obj, inputs, api_version, manager)
        try:
            live = until_ready(writer.cluster, obj, made, within, self.cancelled, writer.say)
        except NotReady as fault:
            state = checkpoint.write(fault.live, obj, inputs, api_version, manager)
            text = f"{message}: {fault}"
            raise InitFailed(text, identity(fault.live), state, [text, *fault.reasons]) from fault
        except (ApiError, Unreachable) as fault:
            state = checkpoint.write(made, obj, inputs, api_version, manager)
            text = f"{message}: {fault}"
            raise InitFailed(text, identity(made), state, [text]) from fault
        writer.say("")
        if kind_of(obj).kind == "CustomResourceDefinition":
            writer.cluster.forget()
        return checkpoint.write(live, obj, inputs, api_version, manager)

    def update(
        self, urn: Urn, identity: str, state: Tree, news: Tree, ignore: list[str], timeout: float, preview: bool
    ) -> Tree:
        """Applies the changes and waits as after a create; what failed half-way is recorded as it is."""
        was, obj = checkpoint.read(state), manifest(news)
        if preview and (has_unknown(obj) or not self._can_preview(urn, obj)):
            return news
        writer = self._writer(urn)
        manager = self._manager(was, obj)
        message = f'the Kubernetes API server reported that "{identity}" failed to fully initialize or become live'
        try:
            made = writer.update(was, obj, manager, ignore, preview)
        except NoMatch as unknown:
            raise Refused(
                f'update of resource "{urn.text}" failed because the Kubernetes API server reported that the apiVersion '
                f"for this resource does not exist. Verify that any required CRDs have been created: {unknown}"
            ) from unknown
        except Unreachable as fault:
            raise Refused(f'update of resource "{urn.text}" failed: {fault}') from fault
        except ApiError as fault:
            if preview and fault.status == 403:
                return news
            raise self._half_updated(urn, identity, was, news, manager, f"{message}: {fault}") from fault
        if preview:
            return checkpoint.write(made, obj, news, was.api_version, manager)
        result = self._awaited(urn, writer, news, made, manager, timeout, message)
        if self._settings.server_side and was.manager and was.manager != manager:
            writer.relinquish(made, was.manager)
        return result

    def _half_updated(
        self, urn: Urn, identity: str, was: Checkpoint, news: Tree, manager: str, message: str
    ) -> Exception:
        live = self._cluster().get(kind_of(was.live), namespace(was.live), name(was.live))
        if live is None:
            return Refused(f'update of resource "{urn.text}" failed: {message}')
        state = checkpoint.write(live, manifest(news), news, was.api_version, manager)
        return InitFailed(message, identity, state, [message])

    def read(self, urn: Urn, identity: str, inputs: Tree, state: Tree) -> tuple[Tree, Tree] | None:
        """The object as it is, with the inputs it would be asked for with; None when it, or its kind, is gone."""
        self._objects_only(urn)
        if self._connection.cluster is None:
            return self._read_unreachable(inputs, state)
        where, what = parse_identity(identity)
        was, asked = checkpoint.read(state), normal(manifest(inputs))
        kind = next((found for found in (kind_of(asked), kind_of(was.live)) if found.kind), kind_of_urn(urn))
        try:
            live = self._connection.cluster.get(kind, where, what)
        except NoMatch:
            return None
        except (ApiError, Unreachable) as fault:
            raise Refused(f'cannot read "{identity}": {fault}') from fault
        if live is None:
            return None
        adopted = not kind_of(asked).kind
        found = _as_inputs(live) if adopted else pruned(live, asked)
        manager = self._manager(was if was.manager else None, found)
        seen = checkpoint.write(live, found, inputs, was.api_version or kind.api_version, manager)
        if not adopted and not is_patch(urn, asked):
            self._complain(identity, live, seen, properties(found, inputs))
        return properties(found, inputs), seen

    def _read_unreachable(self, inputs: Tree, state: Tree) -> tuple[Tree, Tree] | None:
        if self._settings.delete_unreachable:
            return None
        if self._settings.skip_update_unreachable:
            return inputs, state
        raise Refused(f"failed to read resource state due to unreachable cluster. {DELETE_HINT}")

    def _complain(self, identity: str, live: Tree, state: Tree, inputs: Tree) -> None:
        probe = probe_of(kind_of(live)) if live.get("kind") in READ_KINDS else None
        progress = probe(self._cluster(), live) if probe else None
        if progress and not progress.ready:
            message = f"Resource '{name(live)}' was created but failed to initialize"
            raise InitFailed(message, identity, state, [message, *progress.reasons], inputs)

    def delete(self, urn: Urn, identity: str, state: Tree, timeout: float) -> None:
        """Deletes the object and waits until it is gone; a patch only gives its fields up."""
        if self._connection.cluster is None:
            if self._settings.delete_unreachable:
                return
            raise Refused(f"configured Kubernetes cluster is unreachable. {DELETE_HINT}")
        was, writer = checkpoint.read(state), self._writer(urn)
        try:
            if self._settings.server_side and is_patch(urn, was.live):
                writer.relinquish(was.live, was.manager)
            elif writer.delete(was) and not skips_end(was.inputs):
                self._until_gone(writer, was, timeout)
        except NotReady as fault:
            for reason in fault.reasons:  # of a failed delete the engine shows the first line only
                self.log("WARNING", reason, urn.text)
            kept = checkpoint.write(fault.live, was.inputs, state, was.api_version, was.manager)
            raise InitFailed(str(fault), identity, kept, [str(fault), *fault.reasons]) from fault
        except (ApiError, NoMatch, Unreachable) as fault:
            raise Refused(f'cannot delete "{identity}": {fault}') from fault
        if kind_of(was.live).kind == "CustomResourceDefinition":
            writer.cluster.forget()

    def _until_gone(self, writer: Writer, was: Checkpoint, asked: float) -> None:
        until_gone(writer.cluster, was.live, timeout(was.inputs, asked), self.cancelled)

    def invoke(self, token: str, args: Tree) -> tuple[Tree, list[Failure]]:
        """`kubernetes:yaml:decode`, on which ConfigFile and ConfigGroup of the SDK stand."""
        if token != "kubernetes:yaml:decode":
            raise Refused(self.construct(token))
        text, where = args.get("text"), args.get("defaultNamespace")
        secret = isinstance(text, Secret)
        plain = text.value if isinstance(text, Secret) else text
        if not isinstance(plain, str):
            raise Refused("missing required field 'text' of type string")
        objects = decode.decode(plain, where if isinstance(where, str) else "", self._connection.cluster)
        return {"result": Secret(objects) if secret else objects}, []


def _as_inputs(live: Tree) -> Tree:
    """What one would have to write to get an object that was found in the cluster."""
    found = normal({key: value for key, value in live.items() if key != "status"})
    annotations = metadata(found).get("annotations")
    if isinstance(annotations, dict):
        own = {key: value for key, value in annotations.items() if key not in (LAST_APPLIED, REVISION)}
        rest = {key: value for key, value in metadata(found).items() if key != "annotations"}
        found["metadata"] = {**rest, "annotations": own} if own else rest
    return found
