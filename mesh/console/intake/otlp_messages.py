"""
Variants of the OTLP messages for spans and log records whose attributes are decoded lazily.

Most attributes repeat from one item to the next, and a cache lookup by bytes is cheaper than
decoding. `TRACES` and `LOGS` therefore declare attributes as bytes: on the wire, messages and
bytes have the same encoding.
"""

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

_ATTRIBUTE = ".opentelemetry.proto.common.v1.KeyValue"
_PREFIX = "amarre.console."


def _with_bytes(file: FileDescriptor, message: str) -> Any:
    """Return the class of *message* in *file* with every attribute declared as bytes."""
    copy = FileDescriptorProto()
    file.CopyToProto(copy)
    copy.name, copy.package = f"{_PREFIX}{file.name}", f"{_PREFIX}{file.package}"
    for each in copy.message_type:
        _change(each, file.package)
    descriptor_pool.Default().AddSerializedFile(copy.SerializeToString())
    name = f"{copy.package}.{message}"
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))


def _change(message: DescriptorProto, package: str) -> None:
    for field in message.field:
        if field.type_name == _ATTRIBUTE:
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
        elif field.type_name.startswith(f".{package}."):
            field.type_name = f".{_PREFIX}{field.type_name[1:]}"
    for nested in message.nested_type:
        _change(nested, package)


TRACES = _with_bytes(trace_pb2.DESCRIPTOR, "TracesData")
"""Wire-compatible with ExportTraceServiceRequest."""
LOGS = _with_bytes(logs_pb2.DESCRIPTOR, "LogsData")
"""Wire-compatible with ExportLogsServiceRequest."""
