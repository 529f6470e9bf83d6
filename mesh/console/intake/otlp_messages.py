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
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

_ATTRIBUTE = ".opentelemetry.proto.common.v1.KeyValue"
_LAZY, _BYTES = "amarre.console.", "amarre.console.unchecked."


def _copy(file: FileDescriptor, message: str, prefix: str) -> Any:
    """Return the class of *message* in a copy of *file*, with other types, see `_change`."""
    copy = FileDescriptorProto()
    file.CopyToProto(copy)
    copy.name, copy.package = f"{prefix}{file.name}", f"{prefix}{file.package}"
    for each in copy.message_type:
        _change(each, file.package, prefix)
    descriptor_pool.Default().AddSerializedFile(copy.SerializeToString())
    name = f"{copy.package}.{message}"
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))


def _change(message: DescriptorProto, package: str, prefix: str) -> None:
    """Declare attributes as bytes; without checks, also every text and message of other files."""
    for field in message.field:
        is_ours = field.type_name.startswith(f".{package}.")
        unchecked = field.type == FieldDescriptorProto.TYPE_STRING or (
            field.type_name and not is_ours
        )
        if field.type_name == _ATTRIBUTE or (prefix == _BYTES and unchecked):
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
        elif is_ours:
            field.type_name = f".{prefix}{field.type_name[1:]}"
    for nested in message.nested_type:
        _change(nested, package, prefix)


TRACES = _copy(trace_pb2.DESCRIPTOR, "TracesData", _LAZY)
"""Wire-compatible with ExportTraceServiceRequest."""
LOGS = _copy(logs_pb2.DESCRIPTOR, "LogsData", _LAZY)
"""Wire-compatible with ExportLogsServiceRequest."""
UNCHECKED = {
    signal: (_copy(file, message, _BYTES), file.message_types_by_name[message])
    for signal, file, message in (
        ("traces", trace_pb2.DESCRIPTOR, "TracesData"),
        ("logs", logs_pb2.DESCRIPTOR, "LogsData"),
        ("metrics", metrics_pb2.DESCRIPTOR, "MetricsData"),
    )
}
"""By signal, a message that accepts texts in any encoding, and the descriptor of the real one."""
