"""Contract messages as JSON Schema, with ``buf.validate`` rules as constraints."""

from typing import Any

from amarre.mesh.v1 import policy_pb2 as pb
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from mesh.contract import policy, sensitivity

_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
}
_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.CPPTYPE_INT32: {
        "type": "integer",
        "format": "int32",
        "minimum": -(2**31),
        "maximum": 2**31 - 1,
    },
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
}
_NUMBER_RULES = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_DOUBLE: "double",
    FieldDescriptor.CPPTYPE_FLOAT: "float",
}


class Schemas:
    """Builds schemas and collects referenced ones."""

    def __init__(self) -> None:
        self._components: dict[str, dict[str, Any]] = {}

    def components(self) -> dict[str, dict[str, Any]]:
        """Return the collected schemas by name."""
        return dict(sorted(self._components.items()))

    def request(self, descriptor: Descriptor) -> dict[str, Any]:
        """Return the schema of a JSON body, without fields that headers set; it is closed."""
        fields = [f for f in descriptor.fields if not header_of(f)]
        schema: dict[str, Any] = {
            "type": "object",
            "description": policy.comment(descriptor.full_name),
            "properties": {f.json_name: self.field(f, asked=True) for f in fields},
            "additionalProperties": False,
        }
        required = [f.json_name for f in fields if is_required(f)]
        if required:
            schema["required"] = required
        self._components[descriptor.name] = schema
        return _reference(descriptor.name)

    def response(self, descriptor: Descriptor) -> dict[str, Any]:
        """Return the schema of a response, with defaults and without secrets."""
        if descriptor.name not in self._components:
            self._components[descriptor.name] = {}  # Terminates recursion.
            fields = [f for f in descriptor.fields if sensitivity.of(f) < pb.SENSITIVITY_SECRET]
            schema: dict[str, Any] = {
                "type": "object",
                "description": policy.comment(descriptor.full_name),
                "properties": {f.json_name: self.field(f) for f in fields},
            }
            required = [f.json_name for f in fields if not f.has_presence or is_required(f)]
            if required:
                schema["required"] = required
            self._components[descriptor.name] = schema
        return _reference(descriptor.name)

    def field(self, field: FieldDescriptor, *, asked: bool = False) -> dict[str, Any]:
        """Return the schema of *field*; its rules apply only in requests (*asked*)."""
        schema = self._value(field, asked=asked)
        text = policy.comment(field.full_name)
        return schema | ({"description": text} if text else {})

    def _value(self, field: FieldDescriptor, *, asked: bool) -> dict[str, Any]:
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            value = self._value(message.fields_by_name["value"], asked=asked)
            return {"type": "object", "additionalProperties": value}
        one = self._one(field, asked=asked)
        return {"type": "array", "items": one} if field.is_repeated else one

    def _one(self, field: FieldDescriptor, *, asked: bool) -> dict[str, Any]:
        if field.message_type is not None:
            known = _WELL_KNOWN.get(field.message_type.full_name)
            return dict(known) if known else self.response(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return {"type": "string", "contentEncoding": "base64"}
            return {"type": "string"} | (_text_rules(field) if asked else {})
        return _SCALARS[field.cpp_type] | (_number_rules(field) if asked else {})

    def _enum(self, enum: EnumDescriptor) -> dict[str, Any]:
        lines = [f"- `{v.name}`: {_value_comment(enum, v.name)}" for v in enum.values]
        text = policy.comment(enum.full_name)
        self._components[enum.name] = {
            "type": "string",
            "description": "\n".join([text, "", *lines]),
            "enum": [value.name for value in enum.values],
        }
        return _reference(enum.name)


def header_of(field: FieldDescriptor) -> str:
    """Return the HTTP header that sets *field*; empty if there is none."""
    return str(field.GetOptions().Extensions[pb.header])


def is_required(field: FieldDescriptor) -> bool:
    """Return whether *field* is required and must not be empty."""
    return bool(rules(field).required)


def rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """Return the ``buf.validate`` rules of *field*."""
    found: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    return found


def _text_rules(field: FieldDescriptor) -> dict[str, Any]:
    rule = rules(field).string
    found: dict[str, Any] = {}
    shortest = rule.min_len or (1 if is_required(field) else 0)
    if shortest:
        found["minLength"] = shortest
    if rule.max_len:
        found["maxLength"] = rule.max_len
    if rule.pattern:
        found["pattern"] = rule.pattern
    if rule.email:
        found["format"] = "email"
    if rule.uuid:
        found["format"] = "uuid"
    choices = list(getattr(rule, "in"))
    if choices:
        found["enum"] = choices
    return found


def _number_rules(field: FieldDescriptor) -> dict[str, Any]:
    group = _NUMBER_RULES.get(field.cpp_type)
    if group is None:
        return {}
    rule = getattr(rules(field), group)
    names = {
        "gte": "minimum",
        "lte": "maximum",
        "gt": "exclusiveMinimum",
        "lt": "exclusiveMaximum",
        "const": "const",
    }
    return {names[f.name]: value for f, value in rule.ListFields() if f.name in names}


def _value_comment(enum: EnumDescriptor, value: str) -> str:
    return policy.comment(f"{enum.full_name}.{value}").replace("\n", " ")


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
