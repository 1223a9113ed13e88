"""The kubernetes provider against a small API server in memory: what it asks of the server, and what it makes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from tests.lab.providers.kubernetes.provider import Kubernetes
from tests.lab.providers.provider import InitFailed, Naming, Refused, Urn
from tests.lab.providers.wire import UNKNOWN, Secret, Tree, has_secret, reveal

CONFIG_MAP = Urn("urn:pulumi:s::p::kubernetes:core/v1:ConfigMap::settings")
SECRET = Urn("urn:pulumi:s::p::kubernetes:core/v1:Secret::word")
POD = Urn("urn:pulumi:s::p::kubernetes:core/v1:Pod::pod")
PATCH = Urn("urn:pulumi:s::p::kubernetes:core/v1:ConfigMapPatch::settings")

KINDS = {"ConfigMap": "configmaps", "Secret": "secrets", "Pod": "pods"}


class Api:
    """Objects by path, refusals that a test wants, and all requests that came."""

    def __init__(self) -> None:
        self.objects: dict[str, Tree] = {}
        self.refuse: Callable[[str, str], tuple[int, Tree] | None] = lambda method, path: None
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.kinds = dict(KINDS)
        api = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                where = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                query = {key: values[0] for key, values in parse_qs(where.query).items()}
                api.asked.append((self.command, where.path, query, body))
                status, found = api.handle(self.command, where.path, query, body)
                text = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: object) -> None:
                """Nothing: the requests are kept."""

        for method in ("GET", "PATCH", "POST", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        """Stops listening."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def handle(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Tree]:
        """An answer as an API server would give it."""
        if refusal := self.refuse(method, path):
            return refusal
        if path == "/version":
            return 200, {"gitVersion": "v1.34.1"}
        if path == "/api/v1":
            return 200, {"resources": [{"kind": k, "name": n, "namespaced": True} for k, n in self.kinds.items()]}
        if path.startswith("/apis/"):
            return 404, {"message": "the server could not find the requested resource"}
        if method == "GET":
            return (200, self.objects[path]) if path in self.objects else missing()
        if method == "DELETE":
            return (200, self.objects.pop(path)) if path in self.objects else missing()
        if method == "PATCH":
            made = {**body, "metadata": {**body["metadata"], "uid": f"uid-of-{path}", "resourceVersion": "1"}}
            if query.get("dryRun") != "All":
                self.objects[path] = made
            return 200, made
        return 405, {"message": f"no {method} here"}

    def changed(self) -> list[tuple[str, str]]:
        """The requests that were more than a look or a dry run."""
        return [(method, path) for method, path, query, _ in self.asked if method != "GET" and "dryRun" not in query]


def missing(kind: str = "configmaps") -> tuple[int, Tree]:
    return 404, {"reason": "NotFound", "message": f"{kind} not found", "details": {"kind": kind}}


@pytest.fixture
def api() -> Iterator[Api]:
    """An empty API server."""
    made = Api()
    yield made
    made.close()


def configured(api: Api, **settings: str) -> Kubernetes:
    """A provider that is configured for it."""
    provider = Kubernetes(lambda severity, message, urn="", passing=False: None)
    kubeconfig = yaml.safe_dump(
        {
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": {"server": api.url}}],
            "users": [{"name": "x", "user": {"token": "t"}}],
        }
    )
    given = {"kubeconfig": kubeconfig, **settings}
    provider.configure({f"kubernetes:config:{key}": value for key, value in given.items()})
    return provider


@pytest.fixture
def provider(api: Api) -> Kubernetes:
    """A provider with nothing set but its cluster."""
    return configured(api)


def config_map(**data: Any) -> Tree:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}, "data": data}


PATH = "/api/v1/namespaces/ns/configmaps/a"


def made(provider: Kubernetes, inputs: Tree, urn: Urn = CONFIG_MAP) -> tuple[str, Tree]:
    """Checked and created, as the engine does."""
    checked, failures = provider.check(urn, {}, inputs, Naming(b"12345678"))
    assert failures == []
    return provider.create(urn, checked, 0, preview=False)


def test_an_object_lives_and_dies(provider: Kubernetes, api: Api) -> None:
    identity, state = made(provider, config_map(k="v"))
    assert identity == "ns/a"
    assert state["metadata"]["uid"] == f"uid-of-{PATH}"
    assert state["__inputs"] == config_map(k="v")
    assert not provider.diff(CONFIG_MAP, state, config_map(k="v"), []).properties
    assert provider.diff(CONFIG_MAP, state, config_map(k="w"), []).replaces == ["data.k"]
    inputs, seen = provider.read(CONFIG_MAP, identity, config_map(k="v"), state) or ({}, {})
    assert (inputs, seen) == (config_map(k="v"), state)
    changed = provider.update(CONFIG_MAP, identity, state, config_map(k="w"), [], 0, preview=False)
    assert changed["data"] == {"k": "w"}
    provider.delete(CONFIG_MAP, identity, changed, 0)
    assert api.objects == {}
    assert provider.read(CONFIG_MAP, identity, config_map(k="v"), state) is None
    provider.delete(CONFIG_MAP, identity, changed, 0)


def test_one_field_manager_writes_from_first_to_last(provider: Kubernetes, api: Api) -> None:
    identity, state = made(provider, config_map(k="v"))
    provider.update(CONFIG_MAP, identity, state, config_map(k="w"), [], 0, preview=False)
    queries = [query for method, _, query, _ in api.asked if method == "PATCH"]
    assert {query["fieldManager"] for query in queries} == {state["__fieldManager"]}
    assert state["__fieldManager"].startswith("pulumi-kubernetes-")
    assert queries[0]["force"] == "false"


def test_the_token_is_sent_and_nothing_else_is_told(provider: Kubernetes) -> None:
    assert provider._cluster()._headers == {"authorization": "Bearer t"}


def test_a_preview_is_a_dry_run(provider: Kubernetes, api: Api) -> None:
    identity, state = provider.create(CONFIG_MAP, config_map(k="v"), 0, preview=True)
    assert (identity, state["data"]) == ("", {"k": "v"})
    _, real = made(provider, config_map(k="v"))
    api.asked.clear()
    assert provider.update(CONFIG_MAP, "ns/a", real, config_map(k="w"), [], 0, preview=True)["data"] == {"k": "w"}
    assert api.changed() == []


@pytest.mark.parametrize("inputs", [config_map(k=UNKNOWN), {**config_map(), "apiVersion": "example.org/v1"}])
def test_a_preview_that_cannot_be_tried_answers_with_its_inputs(provider: Kubernetes, api: Api, inputs: Tree) -> None:
    assert provider.create(CONFIG_MAP, inputs, 0, preview=True) == ("", inputs)
    assert api.changed() == []


@pytest.mark.parametrize("refusal", [missing("namespaces"), (403, {"reason": "Forbidden", "message": "no"})])
def test_a_preview_that_the_server_refuses_for_now_answers_with_its_inputs(
    provider: Kubernetes, api: Api, refusal: tuple[int, Tree]
) -> None:
    api.refuse = lambda method, path: refusal if method == "PATCH" else None
    assert provider.create(CONFIG_MAP, config_map(k="v"), 0, preview=True) == ("", config_map(k="v"))


def test_a_refusal_is_in_the_servers_words(provider: Kubernetes, api: Api) -> None:
    ending = (403, {"reason": "Forbidden", "message": "namespace ns is being terminated"})
    api.refuse = lambda method, path: ending if method == "PATCH" else None
    with pytest.raises(
        Refused, match=r"was not successfully created by the Kubernetes API server: namespace ns is being"
    ):
        made(provider, config_map(k="v"))


def test_a_conflict_says_whose_fields_they_are_and_where_help_is(provider: Kubernetes, api: Api) -> None:
    _, state = made(provider, config_map(k="v"))
    conflict = (409, {"reason": "Conflict", "message": 'conflict with "painter": .data.k'})
    api.refuse = lambda method, path: conflict if method == "PATCH" else None
    with pytest.raises(
        InitFailed, match=r'(?s)field conflict detected.*had an apply conflict: conflict with "painter"'
    ):
        provider.update(CONFIG_MAP, "ns/a", state, config_map(k="w"), [], 0, preview=False)


def test_what_force_was_asked_for_is_asked_of_the_server(provider: Kubernetes, api: Api) -> None:
    inputs = config_map(k="v")
    inputs["metadata"]["annotations"] = {"pulumi.com/patchForce": "true"}
    made(provider, inputs)
    assert next(query for method, _, query, _ in api.asked if method == "PATCH")["force"] == "true"


@pytest.mark.parametrize(("owner", "sent"), [("mine", {"k": "theirs"}), ("painter", {})])
def test_what_the_program_ignores_is_left_as_it_is(provider: Kubernetes, api: Api, owner: str, sent: Tree) -> None:
    _, state = made(provider, config_map(k="v"))
    entry = {"manager": owner, "operation": "Apply", "fieldsV1": {"f:data": {"f:k": {}}}}
    api.objects[PATH] = {**config_map(k="theirs"), "metadata": {**state["metadata"], "managedFields": [entry]}}
    state["__fieldManager"] = "mine"
    provider.update(CONFIG_MAP, "ns/a", state, config_map(k="w"), ["data.k"], 0, preview=False)
    assert next(body for method, _, _, body in reversed(api.asked) if method == "PATCH")["data"] == sent


def test_a_namespace_that_comes_later_is_waited_for(provider: Kubernetes, api: Api) -> None:
    refusals = [missing("namespaces")]
    api.refuse = lambda method, path: refusals.pop() if method == "PATCH" and refusals else None
    assert made(provider, config_map(k="v"))[0] == "ns/a"


def test_a_kind_that_comes_later_is_waited_for(provider: Kubernetes, api: Api) -> None:
    del api.kinds["ConfigMap"]

    def define(method: str, path: str) -> None:
        if sum(path == "/api/v1" for _, path, _, _ in api.asked) > 2:
            api.kinds["ConfigMap"] = "configmaps"

    api.refuse = define
    assert made(provider, config_map(k="v"))[0] == "ns/a"


def test_a_cancelled_provider_asks_no_more_for_what_is_missing(provider: Kubernetes, api: Api) -> None:
    api.kinds.clear()
    provider.cancel()
    with pytest.raises(Refused, match="cancelled"):
        made(provider, config_map(k="v"))


def test_an_object_that_does_not_come_up_is_recorded_with_its_reasons(provider: Kubernetes, api: Api) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns"}, "spec": {}}
    pod["metadata"] = {**config_map()["metadata"], "annotations": {"pulumi.com/timeoutSeconds": "0"}}
    with pytest.raises(InitFailed, match="failed to fully initialize or become live") as caught:
        made(provider, pod, POD)
    assert caught.value.identity == "ns/a"
    state = caught.value.state
    assert state["__inputs"]["kind"] == "Pod"
    with pytest.raises(InitFailed, match="failed to initialize") as caught:
        provider.read(POD, "ns/a", state["__inputs"], state)
    assert caught.value.inputs == state["__inputs"]
    (path,) = api.objects
    api.objects[path]["status"] = {"phase": "Succeeded"}
    assert provider.read(POD, "ns/a", state["__inputs"], state) is not None


def test_an_end_that_does_not_come_keeps_the_object_in_the_state(provider: Kubernetes, api: Api) -> None:
    inputs = config_map(k="v")
    inputs["metadata"].update(finalizers=["example.org/hold"])
    identity, state = made(provider, inputs)
    api.refuse = lambda method, path: (200, {}) if method == "DELETE" else None
    with pytest.raises(InitFailed, match="timed out") as caught:
        provider.delete(CONFIG_MAP, identity, state, 0.01)
    assert "example.org/hold" in "".join(caught.value.reasons)
    assert caught.value.state["metadata"]["uid"] == state["metadata"]["uid"]


def test_a_secret_is_one_in_all_answers(provider: Kubernetes) -> None:
    inputs = {"apiVersion": "v1", "kind": "Secret", "metadata": config_map()["metadata"], "stringData": {"w": "hush"}}
    checked, _ = provider.check(SECRET, {}, inputs, Naming())
    assert isinstance(checked["data"], Secret)
    _, preview = provider.create(SECRET, checked, 0, preview=True)
    identity, state = provider.create(SECRET, checked, 0, preview=False)
    found = provider.read(SECRET, identity, checked, state)
    assert found is not None
    for answer in (checked, preview, state, *found):
        assert "aHVzaA==" not in repr(answer)
        assert "hush" not in repr(answer)
        assert has_secret(answer)
    assert reveal(state)["data"] == {"w": "aHVzaA=="}
    assert not provider.diff(SECRET, state, checked, []).properties


def test_an_object_that_is_found_gives_its_inputs(provider: Kubernetes, api: Api) -> None:
    api.objects[PATH] = {
        **config_map(k="v"),
        "metadata": {**config_map()["metadata"], "uid": "u", "managedFields": [{}], "annotations": {}},
        "status": {"x": 1},
    }
    assert (provider.read(CONFIG_MAP, "ns/a", {}, {}) or ({}, {}))[0] == config_map(k="v")


def test_a_patch_gives_up_its_fields_and_leaves_the_object(provider: Kubernetes, api: Api) -> None:
    identity, state = made(provider, config_map(k="v"), PATCH)
    provider.delete(PATCH, identity, state, 0)
    _, path, query, body = next(each for each in reversed(api.asked) if each[0] == "PATCH")
    assert (path, query["fieldManager"]) == (PATH, state["__fieldManager"])
    assert body == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}}
    assert all(method != "DELETE" for method, *_ in api.asked)


def test_the_default_namespace_is_the_providers(api: Api) -> None:
    provider = configured(api, namespace="mine")
    inputs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    assert provider.check(CONFIG_MAP, {}, inputs, Naming())[0]["metadata"] == {"name": "a", "namespace": "mine"}


def test_manifests_are_decoded_with_their_secrecy(provider: Kubernetes) -> None:
    text = yaml.safe_dump(config_map(k="v"))
    assert provider.invoke("kubernetes:yaml:decode", {"text": text})[0] == {"result": [config_map(k="v")]}
    assert provider.invoke("kubernetes:yaml:decode", {"text": Secret(text)})[0] == {
        "result": Secret([config_map(k="v")])
    }
    with pytest.raises(Refused, match="'text'"):
        provider.invoke("kubernetes:yaml:decode", {})
    with pytest.raises(Refused, match="stood in for"):
        provider.invoke("kubernetes:helm:template", {})


@pytest.fixture
def unreachable() -> Callable[..., Kubernetes]:
    """A provider whose cluster is not there."""

    def make(**settings: str) -> Kubernetes:
        gone = Api()
        gone.close()
        return configured(gone, **settings)

    return make


def test_a_cluster_that_is_not_there_is_an_error_of_what_needs_it(unreachable: Callable[..., Kubernetes]) -> None:
    provider = unreachable()
    assert provider.check(CONFIG_MAP, {}, config_map(k="v"), Naming())[1] == []
    assert provider.create(CONFIG_MAP, config_map(k="v"), 0, preview=True)[0] == ""
    with pytest.raises(Refused, match="unreachable"):
        provider.create(CONFIG_MAP, config_map(k="v"), 0, preview=False)
    with pytest.raises(Refused, match="unreachable"):
        provider.delete(CONFIG_MAP, "ns/a", config_map(k="v"), 0)
    with pytest.raises(Refused, match="PULUMI_K8S_DELETE_UNREACHABLE"):
        provider.read(CONFIG_MAP, "ns/a", config_map(k="v"), config_map(k="v"))


def test_what_a_lost_cluster_held_may_be_given_up(unreachable: Callable[..., Kubernetes]) -> None:
    provider = unreachable(deleteUnreachable="true")
    provider.delete(CONFIG_MAP, "ns/a", config_map(k="v"), 0)
    assert provider.read(CONFIG_MAP, "ns/a", config_map(k="v"), config_map(k="v")) is None
    kept = unreachable(skipUpdateUnreachable="true").read(CONFIG_MAP, "ns/a", {"a": 1}, {"b": 2})
    assert kept == ({"a": 1}, {"b": 2})


def test_rendering_to_files_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match="renderYamlToDirectory"):
        configured(api, renderYamlToDirectory="/x")
