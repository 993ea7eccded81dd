"""Makes protocol buffer classes from a few of a schema's fields, without its compiler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_Field = descriptor_pb2.FieldDescriptorProto

_SCALARS = {
    "bytes": _Field.TYPE_BYTES,
    "string": _Field.TYPE_STRING,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "bool": _Field.TYPE_BOOL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Messages by name, each with lines such as `repeated Node node = 1`, and enums.

    Fields that are not named are unknown ones to the classes, and skipped.
    """

    package: str
    messages: Mapping[str, Sequence[str]]
    enums: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def classes(self) -> dict[str, Any]:
        """Make a class for every message, in a pool of its own."""
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{self.package}.proto", package=self.package, syntax="proto2"
        )
        for name, values in self.enums.items():
            enum = file.enum_type.add(name=name)
            for label, number in values.items():
                enum.value.add(name=label, number=number)
        for name, lines in self.messages.items():
            message = file.message_type.add(name=name)
            for line in lines:
                self._add(message, line)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        return {
            name: message_factory.GetMessageClass(
                pool.FindMessageTypeByName(f"{self.package}.{name}")
            )
            for name in self.messages
        }

    def _add(self, message: descriptor_pb2.DescriptorProto, line: str) -> None:
        label, kind, name, _, number = line.split()
        made = message.field.add(
            name=name,
            number=int(number),
            label=_Field.LABEL_REPEATED if label == "repeated" else _Field.LABEL_OPTIONAL,
        )
        if kind in _SCALARS:
            made.type = _SCALARS[kind]
        else:
            made.type = _Field.TYPE_ENUM if kind in self.enums else _Field.TYPE_MESSAGE
            made.type_name = f".{self.package}.{kind}"
