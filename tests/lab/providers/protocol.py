"""The one place that imports gRPC, protobuf and the messages that pulumi's SDK generated from its protocol.

grpc and protobuf ship no types, so they are `Any` here and typed where they are wrapped.
"""

from importlib import import_module
from typing import Any

grpc: Any = import_module("grpc")
struct_pb2: Any = import_module("google.protobuf.struct_pb2")
empty_pb2: Any = import_module("google.protobuf.empty_pb2")
message_factory: Any = import_module("google.protobuf.message_factory")
any_pb2: Any = import_module("google.protobuf.any_pb2")

engine_pb2: Any = import_module("pulumi.runtime.proto.engine_pb2")
engine_pb2_grpc: Any = import_module("pulumi.runtime.proto.engine_pb2_grpc")
plugin_pb2: Any = import_module("pulumi.runtime.proto.plugin_pb2")
provider_pb2: Any = import_module("pulumi.runtime.proto.provider_pb2")
status_pb2: Any = import_module("pulumi.runtime.proto.status_pb2")
