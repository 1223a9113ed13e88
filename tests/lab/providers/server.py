"""The stand-ins as gRPC servers on loopback, one port each."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from tests.lab.providers.command.provider import Command
from tests.lab.providers.kubernetes.provider import Kubernetes
from tests.lab.providers.protocol import grpc
from tests.lab.providers.provider import Log, Provider
from tests.lab.providers.servicer import UNBOUNDED, Servicer

PROVIDERS: Final[dict[str, Callable[[Log], Provider]]] = {"kubernetes": Kubernetes, "command": Command}

THREADS: Final = 64
"""Waits hold a thread each; the engine works on as many resources at once as it likes."""


class Server:
    """One stand-in, listening on 127.0.0.1 from its making until it is closed."""

    def __init__(self, package: str) -> None:
        self._servicer = Servicer(PROVIDERS[package])
        self._server = grpc.server(ThreadPoolExecutor(THREADS, thread_name_prefix=package), options=UNBOUNDED)
        self._server.add_generic_rpc_handlers((self._servicer.handlers(),))
        self.package = package
        self.port = int(self._server.add_insecure_port("127.0.0.1:0"))
        self._server.start()

    def close(self, within: float = 5.0) -> None:
        """Ends waits, lets what runs answer for `within` seconds, and stops listening."""
        self._servicer.close()
        self._server.stop(within).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def debug_providers(ports: dict[str, int]) -> str:
    """What to set PULUMI_DEBUG_PROVIDERS to, so that the engine attaches to these ports."""
    return ",".join(f"{package}:{port}" for package, port in sorted(ports.items()))
