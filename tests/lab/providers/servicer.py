"""A provider behind the engine's gRPC protocol.

An attached process serves every provider resource of every run, all on one port; the protocol has no session id.
The engine dials one connection for each of them, so the connection's own address tells them apart.
"""

import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any

from tests.lab.providers import wire
from tests.lab.providers.protocol import (
    any_pb2,
    empty_pb2,
    engine_pb2,
    engine_pb2_grpc,
    grpc,
    message_factory,
    plugin_pb2,
    provider_pb2,
    status_pb2,
)
from tests.lab.providers.provider import (
    Change,
    Diff,
    Failure,
    InitFailed,
    Log,
    Naming,
    Provider,
    Refused,
    Severity,
    Urn,
)

UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
"""Custom resource definitions exceed gRPC's 4 MiB."""

SESSIONS_KEPT = 64
"""The engine does not say when it hangs up; the oldest sessions are let go beyond this many."""


class Host:
    """The engine that attached itself, as a sink of messages."""

    def __init__(self, address: str) -> None:
        self._stub = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address, options=UNBOUNDED))

    def log(self, severity: Severity, message: str, urn: str = "", passing: bool = False) -> None:
        """Shows a message; an engine that has gone away does not hear it."""
        try:
            self._stub.Log(
                engine_pb2.LogRequest(
                    severity=engine_pb2.LogSeverity.Value(severity), message=message, urn=urn, ephemeral=passing
                ),
                timeout=5,
            )
        except grpc.RpcError as gone:
            print(f"no engine to tell: {severity} {message} ({gone.code()})", file=sys.stderr)


def stderr_log(severity: Severity, message: str, urn: str = "", passing: bool = False) -> None:
    """The log of a provider that no engine has attached to yet."""
    print(f"{severity} {urn} {message}", file=sys.stderr)


def _status(error: InitFailed) -> bytes:
    """gRPC's `grpc-status-details-bin` for an object that was made but did not come up."""
    detail = provider_pb2.ErrorResourceInitFailed(
        id=error.identity, properties=wire.encode(error.state), reasons=error.reasons
    )
    if error.inputs is not None:
        detail.inputs.CopyFrom(wire.encode(error.inputs))
    packed = any_pb2.Any()
    packed.Pack(detail)
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error), details=[packed])
    return bytes(status.SerializeToString())


Method = Callable[[Any, Any, Any], Any]


def answered(method: Method) -> Method:
    """Turns the foreseen exceptions into gRPC errors; gRPC does so with any other, and logs its traceback."""

    @wraps(method)
    def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return method(self, request, context)
        except InitFailed as failed:
            context.set_trailing_metadata((("grpc-status-details-bin", _status(failed)),))
            context.abort(grpc.StatusCode.UNKNOWN, str(failed))
        except Refused as refused:
            context.abort(grpc.StatusCode.UNKNOWN, str(refused))

    return call


def _failures(failures: list[Failure]) -> list[Any]:
    return [provider_pb2.CheckFailure(property=failure.property, reason=failure.reason) for failure in failures]


_KINDS = {
    (Change.ADD, False): "ADD",
    (Change.ADD, True): "ADD_REPLACE",
    (Change.DELETE, False): "DELETE",
    (Change.DELETE, True): "DELETE_REPLACE",
    (Change.UPDATE, False): "UPDATE",
    (Change.UPDATE, True): "UPDATE_REPLACE",
}


def _diff(diff: Diff) -> Any:
    response = provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if diff.properties else provider_pb2.DiffResponse.DIFF_NONE,
        replaces=diff.replaces,
        diffs=list(diff.properties),
        deleteBeforeReplace=diff.delete_first,
        hasDetailedDiff=True,
    )
    for path, change in diff.properties.items():
        kind = _KINDS[change.change, change.replaces]
        response.detailedDiff[path].kind = provider_pb2.PropertyDiff.Kind.Value(kind)
        response.detailedDiff[path].inputDiff = change.change is Change.DELETE
    return response


class Servicer:
    """The protocol's methods, each of one session's provider; the methods it lacks answer that they are not implemented."""

    def __init__(self, make: Callable[[Log], Provider]) -> None:
        self._make = make
        self._sessions: OrderedDict[str, Provider] = OrderedDict()
        self._lock = Lock()

    def _provider(self, context: Any) -> Provider:
        with self._lock:
            provider = self._sessions.get(context.peer())
            return provider or self._open(context.peer(), stderr_log)

    def _open(self, peer: str, log: Log) -> Provider:
        provider = self._sessions[peer] = self._make(log)
        while len(self._sessions) > SESSIONS_KEPT:
            self._sessions.popitem(last=False)[1].cancel()
        return provider

    def handlers(self) -> Any:
        """These methods under the protocol's names, for a gRPC server."""
        service = provider_pb2.DESCRIPTOR.services_by_name["ResourceProvider"]
        table = {}
        for method in service.methods:
            behaviour = getattr(self, re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower(), None)
            if behaviour is not None:
                table[method.name] = grpc.unary_unary_rpc_method_handler(
                    behaviour,
                    request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                    response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
                )
        return grpc.method_handlers_generic_handler(service.full_name, table)

    def close(self) -> None:
        """Ends every wait of every session."""
        with self._lock:
            for provider in self._sessions.values():
                provider.cancel()

    @answered
    def attach(self, request: Any, context: Any) -> Any:
        """The engine says where it listens: a new session."""
        with self._lock:
            self._open(context.peer(), Host(request.address).log)
        return empty_pb2.Empty()

    @answered
    def get_plugin_info(self, request: Any, context: Any) -> Any:
        """The version of the plugin that is stood in for."""
        return plugin_pb2.PluginInfo(version=self._provider(context).version)

    @answered
    def check_config(self, request: Any, context: Any) -> Any:
        """Validates the provider's configuration."""
        failures = self._provider(context).check_config(wire.reveal(wire.decode(request.news)))
        return provider_pb2.CheckResponse(inputs=request.news, failures=_failures(failures))

    @answered
    def diff_config(self, request: Any, context: Any) -> Any:
        """Compares two configurations of the provider."""
        olds, news = (wire.reveal(wire.decode(bag)) for bag in (request.olds, request.news))
        return _diff(self._provider(context).diff_config(olds, news))

    @answered
    def configure(self, request: Any, context: Any) -> Any:
        """Takes the configuration."""
        self._provider(context).configure(dict(request.variables))
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    @answered
    def check(self, request: Any, context: Any) -> Any:
        """Validates and completes a resource's inputs."""
        naming = Naming(request.randomSeed)
        if request.HasField("autonaming"):
            naming = Naming(
                request.randomSeed,
                request.autonaming.proposed_name,
                request.autonaming.mode == provider_pb2.CheckRequest.AutonamingOptions.DISABLE,
            )
        olds, news = wire.decode(request.olds), wire.decode(request.news)
        inputs, failures = self._provider(context).check(Urn(request.urn), olds, news, naming)
        return provider_pb2.CheckResponse(inputs=wire.encode(inputs), failures=_failures(failures))

    @answered
    def diff(self, request: Any, context: Any) -> Any:
        """Compares recorded state with new inputs."""
        state, news = wire.decode(request.olds), wire.decode(request.news)
        return _diff(self._provider(context).diff(Urn(request.urn), state, news, list(request.ignoreChanges)))

    @answered
    def create(self, request: Any, context: Any) -> Any:
        """Makes a resource."""
        identity, state = self._provider(context).create(
            Urn(request.urn), wire.decode(request.properties), request.timeout, request.preview
        )
        return provider_pb2.CreateResponse(id=identity, properties=wire.encode(state))

    @answered
    def read(self, request: Any, context: Any) -> Any:
        """Looks at a resource as it is now; an empty answer says that it is gone."""
        found = self._provider(context).read(
            Urn(request.urn), request.id, wire.decode(request.inputs), wire.decode(request.properties)
        )
        if found is None:
            return provider_pb2.ReadResponse()
        inputs, state = found
        return provider_pb2.ReadResponse(id=request.id, inputs=wire.encode(inputs), properties=wire.encode(state))

    @answered
    def update(self, request: Any, context: Any) -> Any:
        """Changes a resource in place."""
        state = self._provider(context).update(
            Urn(request.urn),
            request.id,
            wire.decode(request.olds),
            wire.decode(request.news),
            list(request.ignoreChanges),
            request.timeout,
            request.preview,
        )
        return provider_pb2.UpdateResponse(properties=wire.encode(state))

    @answered
    def delete(self, request: Any, context: Any) -> Any:
        """Removes a resource."""
        self._provider(context).delete(Urn(request.urn), request.id, wire.decode(request.properties), request.timeout)
        return empty_pb2.Empty()

    @answered
    def invoke(self, request: Any, context: Any) -> Any:
        """Runs a function."""
        result, failures = self._provider(context).invoke(request.tok, wire.decode(request.args))
        response = provider_pb2.InvokeResponse(failures=_failures(failures))
        getattr(response, "return").CopyFrom(wire.encode(result))  # the field's name is a Python keyword
        return response

    @answered
    def construct(self, request: Any, context: Any) -> Any:
        """Refuses a component that only the real plugin holds."""
        raise Refused(self._provider(context).construct(request.type))

    @answered
    def cancel(self, request: Any, context: Any) -> Any:
        """Ends the waits of this session."""
        self._provider(context).cancel()
        return empty_pb2.Empty()
