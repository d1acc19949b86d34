"""Messages of hosted methods from this side: their JSON schema, and a message made from a message or a mapping.

A schema says what protobuf's JSON form of a message looks like (https://protobuf.dev/programming-guides/json/). Both
the names of the .proto file and those in camel case are taken; bytes may be given as bytes instead of base64.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

__all__ = ["json_schema", "make_message"]

Made = TypeVar("Made", bound=Message)

_TEXT: Final = {"type": "string"}
_WIDE: Final = {"type": ["string", "integer"], "pattern": "^-?[0-9]+$"}
_NUMBER: Final = {"type": ["number", "string"]}
_INTEGER: Final = {"type": "integer"}
_SCALARS: Final[dict[int, dict[str, Any]]] = {
    FieldDescriptor.CPPTYPE_INT32: _INTEGER,
    FieldDescriptor.CPPTYPE_UINT32: {**_INTEGER, "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: _WIDE,
    FieldDescriptor.CPPTYPE_UINT64: _WIDE,
    FieldDescriptor.CPPTYPE_DOUBLE: _NUMBER,
    FieldDescriptor.CPPTYPE_FLOAT: _NUMBER,
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
}
#: Messages whose JSON form is a form of their own.
_WELL_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    "google.protobuf.FieldMask": _TEXT,
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": _TEXT}, "required": ["@type"]},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": {},
}


def json_schema(kind: type[Message]) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a message; messages inside of it are under ``$defs``."""
    descriptor: Any = kind.DESCRIPTOR
    definitions: dict[str, dict[str, Any]] = {}
    schema = dict(_object(descriptor, definitions))
    if definitions:
        schema["$defs"] = definitions
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": descriptor.full_name, **schema}


def _object(descriptor: Descriptor, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if (known := _WELL_KNOWN.get(descriptor.full_name)) is not None:
        return known
    properties = {field.name: _field(field, definitions) for field in descriptor.fields}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _field(field: FieldDescriptor, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _value(entry.fields_by_name["value"], definitions)}
    value = _value(field, definitions)
    # protobuf 5 has only ``label``, which later ones warn of.
    label = None if hasattr(field, "is_repeated") else getattr(field, "label", None)
    repeated = field.is_repeated if label is None else label == FieldDescriptor.LABEL_REPEATED
    return {"type": "array", "items": value} if repeated else value


def _value(field: FieldDescriptor, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if (enum := field.enum_type) is not None:
        return {"enum": [value.name for value in enum.values]}
    if (message := field.message_type) is not None:
        if message.full_name not in definitions:
            # Before what is in it, which may be the same again.
            definitions[message.full_name] = {}
            definitions[message.full_name] = _object(message, definitions)
        return {"$ref": f"#/$defs/{message.full_name}"}
    return _SCALARS.get(field.cpp_type, _TEXT)


def make_message(kind: type[Made], value: object) -> Made:
    """Return ``value`` as a message: one of ``kind``, its bytes, or a mapping of what its fields are.

    Raises:
        UsageError: it is none, or has fields that the message has not, or of another type; values are not shown.
    """
    if isinstance(value, kind):
        return value
    name = kind.DESCRIPTOR.full_name
    if value is None:
        return kind()
    if isinstance(value, bytes):
        try:
            return kind.FromString(value)
        except Exception as error:  # DecodeError, of whichever implementation
            raise UsageError(f"these bytes are no {name}") from error
    if not isinstance(value, Mapping):
        raise UsageError(f"the request is a {type(value).__name__}, not a {name} or a mapping")
    try:
        return ParseDict(_jsonable(value), kind())
    except ParseError as error:
        raise UsageError(f"the request is no {name}: {_shown(error)}", hint="See methods() for its schema.") from None


def _jsonable(value: object) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key: _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(inner) for inner in value]
    return value


def _shown(error: ParseError) -> str:
    """Return which field is wrong, without its value, which may be secret."""
    words = str(error)
    if "has no field named" in words:
        return words.partition(" at ")[0].splitlines()[0]
    field = ".".join(re.findall(r"Failed to parse (\w+) field", words))
    return f"the field {field} has a value of another kind" if field else "a value is of another kind"
