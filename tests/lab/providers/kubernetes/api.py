"""The Kubernetes API over HTTPS, as far as the provider needs it: discovery, apply, get, list, delete."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes import client, config
from tests.lab.providers.kubernetes.objects import Kind, kind_of, name, namespace
from tests.lab.providers.wire import Tree

JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
OPERATIONS: Final = "application/json-patch+json"
IMMUTABLE: Final = "field is immutable"


class ApiError(Exception):
    """The API server's refusal: HTTP status, machine-readable reason and the server's own words."""

    def __init__(self, status: int, reason: str, message: str, details: Tree | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.details = details or {}

    @property
    def missing_namespace(self) -> bool:
        """Was it the namespace that is not there?"""
        return self.status == 404 and self.details.get("kind") == "namespaces"


class NoMatch(Exception):
    """The API server has no such kind (yet)."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(f'no matches for kind "{kind.kind}" in version "{kind.api_version}"')


class Unreachable(Exception):
    """No API server answers, or no kubeconfig says where one is."""


@dataclass(frozen=True)
class Resource:
    """Where objects of a kind live."""

    prefix: str
    plural: str
    namespaced: bool

    def path(self, where: str, what: str = "") -> str:
        """The URL path of one object, or of a namespace's collection."""
        parts = [self.prefix, *(["namespaces", where] if self.namespaced and where else []), self.plural]
        return "/".join([*parts, quote(what)] if what else parts)


def parse_kubeconfig(text: str) -> Tree | None:
    """A kubeconfig given as its contents or as a path; None for empty text. Raises Unreachable when it is neither."""
    if not text:
        return None
    try:
        found = yaml.safe_load(text)
        if not isinstance(found, dict):
            found = yaml.safe_load(Path(text).expanduser().read_text())
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise Unreachable(f"failed to parse kubeconfig data in `kubernetes:config:kubeconfig`- {fault}") from fault
    if not isinstance(found, dict) or "clusters" not in found:
        raise Unreachable("failed to parse kubeconfig data in `kubernetes:config:kubeconfig`- it names no clusters")
    return found


def active_context(kubeconfig: Tree | None, chosen: str) -> Tree:
    """The context that is used, as the kubeconfig writes it; empty when it has none."""
    if kubeconfig is None:
        return {}
    wanted = chosen or kubeconfig.get("current-context")
    contexts = kubeconfig.get("contexts") or []
    return next((each.get("context") or {} for each in contexts if each.get("name") == wanted), {})


class Cluster:
    """One API server, with the credentials of a kubeconfig. Safe for several threads."""

    def __init__(self, kubeconfig: Tree | None, context: str = "") -> None:
        settings = client.Configuration()
        settings.connection_pool_maxsize = 32
        load: Callable[..., Any] = config.load_kube_config
        if kubeconfig is not None:
            load = config.load_kube_config_from_dict
        given = () if kubeconfig is None else (kubeconfig,)
        try:
            load(*given, context=context or None, client_configuration=settings)
        except (config.ConfigException, OSError, TypeError) as fault:
            raise Unreachable(
                f"unable to load Kubernetes client configuration from kubeconfig file. {fault}"
            ) from fault
        self._host = str(settings.host).rstrip("/")
        self._headers = _headers(settings)
        self._pool: urllib3.PoolManager = client.ApiClient(settings).rest_client.pool_manager
        self._known: dict[str, dict[str, Resource]] = {}
        self._lock = Lock()

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Tree | list[Tree] | None = None,
        content: str = JSON,
    ) -> Tree:
        """One exchange, at most a minute long. Raises ApiError for any status above 399, Unreachable without an answer."""
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._pool.request(
                method,
                url,
                headers={**self._headers, "Accept": JSON, **({"Content-Type": content} if body is not None else {})},
                body=None if body is None else json.dumps(body).encode(),
                timeout=urllib3.Timeout(connect=5, read=60),
                retries=urllib3.Retry(connect=1, read=0, redirect=0, status=0, other=0),
            )
        except urllib3.exceptions.HTTPError as fault:
            raise Unreachable(f"{method} {self._host}: {fault}") from fault
        try:
            answer = json.loads(response.data or b"{}")
        except ValueError:
            answer = {"message": response.data.decode(errors="replace").strip()}
        if response.status >= 400:
            message = str(answer.get("message") or f"HTTP status {response.status}")
            raise ApiError(response.status, str(answer.get("reason", "")), message, answer.get("details"))
        return answer if isinstance(answer, dict) else {"value": answer}

    def version(self) -> str:
        """The server's version, such as `v1.34.1`."""
        return str(self.request("GET", "/version").get("gitVersion", ""))

    def resource(self, kind: Kind) -> Resource:
        """Where objects of a kind live; asked of the server until it is known. Raises NoMatch."""
        with self._lock:
            known = self._known.get(kind.api_version, {}).get(kind.kind)
        return known or self._discover(kind)

    def _discover(self, kind: Kind) -> Resource:
        prefix = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.api_version}"
        try:
            listed = self.request("GET", prefix).get("resources") or []
        except ApiError as refusal:
            if refusal.status == 404:
                raise NoMatch(kind) from refusal
            raise
        found = {
            str(each["kind"]): Resource(prefix, str(each["name"]), bool(each["namespaced"]))
            for each in listed
            if "/" not in each["name"]
        }
        with self._lock:
            self._known[kind.api_version] = found
        if kind.kind not in found:
            raise NoMatch(kind)
        return found[kind.kind]

    def forget(self) -> None:
        """Asks the server anew which kinds it has: a definition was made or removed."""
        with self._lock:
            self._known.clear()

    def knows(self, kind: Kind) -> bool:
        """Has the server this kind?"""
        try:
            self.resource(kind)
        except NoMatch:
            return False
        return True

    def get(self, kind: Kind, where: str, what: str) -> Tree | None:
        """The object, or None when there is none. Raises NoMatch when there is not even the kind."""
        try:
            return self.request("GET", self.resource(kind).path(where, what))
        except ApiError as refusal:
            if refusal.status == 404:
                return None
            raise

    def listed(self, kind: Kind, where: str) -> list[Tree]:
        """A namespace's objects of a kind."""
        items = self.request("GET", self.resource(kind).path(where)).get("items") or []
        return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in items]

    def _path(self, obj: Tree) -> str:
        return self.resource(kind_of(obj)).path(namespace(obj) or "default", name(obj))

    def apply(self, obj: Tree, manager: str, force: bool, dry_run: bool) -> Tree:
        """Server-side apply: makes the object, or makes the fields it names so."""
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Warn", **_dry(dry_run)}
        return self.request("PATCH", self._path(obj), query, obj, APPLY)

    def create(self, obj: Tree, manager: str, dry_run: bool) -> Tree:
        """Makes the object; one that exists is an error."""
        path = self.resource(kind_of(obj)).path(namespace(obj) or "default")
        return self.request("POST", path, {"fieldManager": manager, **_dry(dry_run)}, obj)

    def merge(self, obj: Tree, patch: Tree, manager: str, dry_run: bool) -> Tree:
        """Merges a patch (RFC 7386) into the object that `obj` names."""
        return self.request("PATCH", self._path(obj), {"fieldManager": manager, **_dry(dry_run)}, patch, MERGE)

    def set_managed_fields(self, live: Tree, entries: list[Tree]) -> Tree:
        """Rewrites who owns which fields, provided that the object is still the one given."""
        version = str(live["metadata"]["resourceVersion"])
        patch: list[Tree] = [
            {"op": "replace", "path": "/metadata/managedFields", "value": entries},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        ]
        return self.request("PATCH", self._path(live), None, patch, OPERATIONS)

    def replace(self, obj: Tree, manager: str, dry_run: bool) -> Tree:
        """Puts the object in place of the one with its name and resource version."""
        return self.request("PUT", self._path(obj), {"fieldManager": manager, **_dry(dry_run)}, obj)

    def delete(self, kind: Kind, where: str, what: str, propagation: str) -> None:
        """Asks for the object's end; raises ApiError 404 when there is none."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        self.request("DELETE", self.resource(kind).path(where, what), body=body)


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _headers(settings: client.Configuration) -> dict[str, str]:
    entries: list[Any] = list(settings.auth_settings().values())
    return {str(each["key"]): str(each["value"]) for each in entries}
