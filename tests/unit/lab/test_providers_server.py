"""The providers over their protocol, as the engine speaks it: on loopback, without an engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.lab.providers import wire
from tests.lab.providers.protocol import empty_pb2, engine_pb2, grpc, message_factory, provider_pb2
from tests.lab.providers.server import Server, debug_providers
from tests.lab.pulumi_stack import REPOSITORY
from tests.lab.waiting import until

COMMAND = "urn:pulumi:s::p::command:local:Command::cmd"


class Client:
    """A connection of its own, as the engine has one for each provider resource."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])

    def __call__(self, method: str, /, **fields: Any) -> Any:
        found = provider_pb2.DESCRIPTOR.services_by_name["ResourceProvider"].methods_by_name[method]
        request, response = (message_factory.GetMessageClass(each) for each in (found.input_type, found.output_type))
        call = self.channel.unary_unary(
            f"/pulumirpc.ResourceProvider/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request(**fields), timeout=30)


@pytest.fixture(params=["command", "kubernetes"])
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each of the stand-ins."""
    with Server(request.param) as server:
        yield server


@pytest.fixture
def command() -> Iterator[Client]:
    """The command provider's stand-in."""
    with Server("command") as server:
        client = Client(server.port)
        yield client
        client.channel.close()


@pytest.fixture
def kubernetes() -> Iterator[Client]:
    """The kubernetes provider's stand-in."""
    with Server("kubernetes") as server:
        client = Client(server.port)
        yield client
        client.channel.close()


def test_it_says_the_version_that_it_stands_in_for(any_server: Server) -> None:
    client = Client(any_server.port)
    assert client("GetPluginInfo").version.count(".") == 2


def test_secrets_and_previews_are_supported(any_server: Server) -> None:
    client = Client(any_server.port)
    found = client("Configure", variables={"kubernetes:config:kubeconfig": "/no/such/file"})
    assert (found.acceptSecrets, found.supportsPreview) == (True, True)


def test_what_the_protocol_has_and_the_stand_in_has_not_is_unimplemented(any_server: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        Client(any_server.port)("GetSchema")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_component_of_the_plugin_is_refused_by_name(kubernetes: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        kubernetes("Construct", type="kubernetes:yaml/v2:ConfigGroup", name="x")
    assert "kubernetes:yaml/v2:ConfigGroup" in caught.value.details()
    assert "stood in for" in caught.value.details()


@pytest.mark.parametrize(
    "token", ["kubernetes:helm.sh/v3:Release", "kubernetes:kustomize/v2:Directory", "kubernetes:core/v1:ConfigMapList"]
)
def test_what_is_no_object_is_refused(kubernetes: Client, token: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        kubernetes("Check", urn=f"urn:pulumi:s::p::{token}::n", news=wire.encode({"kind": "x"}))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


def test_a_resource_lives_and_dies(command: Client) -> None:
    inputs = wire.encode({"create": "echo $A", "environment": {"A": wire.Secret("hush")}})
    checked = command("Check", urn=COMMAND, news=inputs, randomSeed=b"12345678")
    assert list(checked.failures) == []
    made = command("Create", urn=COMMAND, properties=checked.inputs)
    assert made.id.startswith("cmd")
    assert wire.decode(made.properties)["stdout"] == wire.Secret("hush")
    same = command("Diff", urn=COMMAND, id=made.id, olds=made.properties, news=inputs)
    assert same.changes == provider_pb2.DiffResponse.DIFF_NONE
    news = wire.encode({"create": "true", "triggers": [1]})
    other = command("Diff", urn=COMMAND, id=made.id, olds=made.properties, news=news)
    assert other.changes == provider_pb2.DiffResponse.DIFF_SOME
    kinds = {path: provider_pb2.PropertyDiff.Kind.Name(each.kind) for path, each in other.detailedDiff.items()}
    assert kinds == {"create": "UPDATE", "environment": "DELETE", "triggers": "ADD_REPLACE"}
    assert list(other.replaces) == ["triggers"]
    read = command("Read", urn=COMMAND, id=made.id, properties=made.properties, inputs=inputs)
    assert (read.id, read.properties) == (made.id, made.properties)
    command("Delete", urn=COMMAND, id=made.id, properties=made.properties)


def test_a_failure_is_the_engines_error_text(command: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        command("Create", urn=COMMAND, properties=wire.encode({"create": "echo why >&2; exit 7"}))
    assert caught.value.details() == 'exit status 7: running "echo why >&2; exit 7":\nwhy\n'


def test_what_is_said_goes_to_the_engine_that_attached(command: Client) -> None:
    heard: list[tuple[str, str, bool]] = []

    def log(request: Any, context: Any) -> Any:
        heard.append((request.urn, request.message, request.ephemeral))
        return empty_pb2.Empty()

    handler = grpc.unary_unary_rpc_method_handler(
        log, engine_pb2.LogRequest.FromString, empty_pb2.Empty.SerializeToString
    )
    engine = grpc.server(ThreadPoolExecutor(2))
    engine.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pulumirpc.Engine", {"Log": handler}),))
    port = engine.add_insecure_port("127.0.0.1:0")
    engine.start()
    try:
        command("Attach", address=f"127.0.0.1:{port}")
        command("Create", urn=COMMAND, properties=wire.encode({"create": "echo hi"}))
    finally:
        engine.stop(None).wait()
    assert heard == [(COMMAND, "hi", True)]


def test_two_connections_are_two_providers(any_server: Server) -> None:
    one, other = Client(any_server.port), Client(any_server.port)
    one("Attach", address="127.0.0.1:1")
    other("Attach", address="127.0.0.1:1")
    one("Cancel")
    sessions = list(any_server._servicer._sessions.values())
    assert sorted(session.cancelled.is_set() for session in sessions) == [False, True]


def test_cancel_ends_what_runs(command: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            command, "Create", urn=COMMAND, properties=wire.encode({"create": "echo up >&2; sleep 600"})
        )

        def cancelled() -> bool:
            command("Cancel")
            return running.done()

        until("the command's end", cancelled, 20)
        error = running.exception()
    assert isinstance(error, grpc.RpcError)


def test_a_process_serves_until_its_input_ends() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.providers"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdout:
        ports = json.loads(process.stdout.readline())
        assert set(ports) == {"command", "kubernetes"}
        assert Client(ports["command"])("GetPluginInfo").version
        process.stdin.close()
        assert process.wait(30) == 0


def test_an_unknown_package_names_the_known_ones() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.lab.providers", "aws"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr == "error: no stand-in for aws; there is kubernetes, command\n"


def test_the_engines_variable() -> None:
    assert debug_providers({"kubernetes": 2, "command": 1}) == "command:1,kubernetes:2"
