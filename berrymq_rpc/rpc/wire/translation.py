"""A user's own types on the wire: the translation table, and entries for enums and dataclasses.

A table is ``{code: (class, packer, unpacker)}`` as in aiozmq.rpc: `packer` makes bytes of an object
of the class, `unpacker` an object of bytes. Codes are msgpack ext types from 0 to 122; both sides
need the same table. An object's own class is found before a base class; of two base classes, the
one with the lower code.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from msgpack import ExtType

from ...errors import ProtocolError
from .safe_repr import full_name

__all__ = [
    "MAX_USER_CODE",
    "Entry",
    "NestedTranslation",
    "Untranslated",
    "dataclass_translation",
    "enum_translation",
    "read_table",
    "refuse_untranslated",
]

#: Above it aiozmq.rpc has its dates, and 126 and 127 are ours.
MAX_USER_CODE = 122

#: What msgpack packs by itself, classes derived from it included.
NATIVE = (type(None), int, float, str, bytes, bytearray, memoryview, list, tuple, dict)


class NestedTranslation(NamedTuple):
    """An entry of a translation table whose packer gives a value, which the codec packs in turn.

    The value may hold anything that the codec packs, objects of other entries included. The
    unpacker gets it back.
    """

    cls: type[Any]
    packer: Callable[[Any], Any]
    unpacker: Callable[[Any], Any]


class Entry(NamedTuple):
    """One line of a translation table that was checked."""

    code: int
    cls: type[Any]
    packer: Callable[[Any], Any]
    unpacker: Callable[[Any], Any]
    nested: bool


def _advice(code: int) -> str:
    return (
        f"ext type {code} has no entry in the translation_table of the side that received it: add "
        f"{{{code}: (Class, packer, unpacker)}} there, as at the sender"
    )


def refuse_untranslated(code: int, data: bytes) -> NoReturn:
    """Raise the error for a value of the user's own for which this side has no entry."""
    raise ProtocolError(_advice(code))


class Untranslated(ExtType):  # type: ignore[misc]
    """A value of the user's own for which a node has no entry, as it may only pass it on.

    It can be sent again as it is. To use it raises an error that says what is missing.
    """

    __slots__ = ()

    @classmethod
    def of(cls, code: int, data: bytes) -> "Untranslated":
        """Make one of what arrived."""
        made: Untranslated = cls._make((code, data))
        return made

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name!r} is not known, as {_advice(self.code)}")


def read_table(table: Mapping[int, Any] | None) -> list[Entry]:
    """The entries of a translation table in the order of their codes.

    Raises:
        ValueError: a code is not a whole number from 0 to 122, or a class is derived from a type of
            msgpack's, which packs it as that.
        TypeError: an entry is not a class and two callables.
    """
    entries = []
    for code, line in (table or {}).items():
        if not _is_code(code):
            raise ValueError(
                f"a code of translation_table must be a whole number from 0 to {MAX_USER_CODE}, "
                f"not {code!r}"
            )
        if not isinstance(line, tuple | list) or len(line) != 3:
            raise TypeError(f"translation_table[{code}] must be (class, packer, unpacker)")
        cls, packer, unpacker = line
        if not isinstance(cls, type):
            raise TypeError(f"translation_table[{code}] must begin with a class, not {cls!r}")
        if not callable(packer) or not callable(unpacker):
            raise TypeError(f"packer and unpacker of translation_table[{code}] must be callable")
        if issubclass(cls, NATIVE):
            raise ValueError(
                f"{full_name(cls)} in translation_table[{code}] is derived from a type that "
                "msgpack packs by itself, and always travels as that"
            )
        nested = isinstance(line, NestedTranslation)
        entries.append(Entry(code, cls, packer, unpacker, nested))
    return sorted(entries)


def _is_code(code: object) -> bool:
    return isinstance(code, int) and type(code) is not bool and 0 <= code <= MAX_USER_CODE


def dataclass_translation(cls: Any) -> NestedTranslation:
    """An entry of a translation table that carries the objects of a dataclass.

    They travel as a map of field names and values, and the class makes a new object of them; fields
    that are not parameters are set afterwards. A field that is missing has its default. Objects of
    a subclass are refused, as they would lose what it adds: give it an entry too.

    Args:
        cls: the dataclass.

    Raises:
        TypeError: `cls` is not a dataclass.
    """
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise TypeError(f"{cls!r} is not a dataclass")
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    later = {field.name for field in fields if not field.init}

    def pack(value: Any) -> dict[str, Any]:
        if type(value) is not cls:
            raise TypeError(
                f"{full_name(type(value))} is derived from {full_name(cls)}: it needs an entry of "
                "its own in translation_table"
            )
        return {name: getattr(value, name) for name in names}

    def unpack(values: Any) -> Any:
        if type(values) is not dict:
            raise ValueError(f"{full_name(cls)} travels as a map")
        unknown = values.keys() - set(names)
        if unknown:
            raise ValueError(f"{full_name(cls)} has no such field")
        arguments = {name: value for name, value in values.items() if name not in later}
        made = cls(**arguments)
        for name in later & values.keys():
            # A frozen one refuses to be set in the usual way.
            object.__setattr__(made, name, values[name])
        return made

    return NestedTranslation(cls, pack, unpack)


def enum_translation(cls: Any) -> NestedTranslation:
    """An entry of a translation table that carries the members of an enum.

    A member travels as its name, one of a `enum.Flag` as its value.

    Args:
        cls: the enum.

    Raises:
        TypeError: `cls` is not an enum, or is one whose members are numbers or text, such as an
            `enum.IntEnum`: they travel as numbers or text without an entry.
    """
    if not (isinstance(cls, type) and issubclass(cls, enum.Enum)):
        raise TypeError(f"{cls!r} is not an enum")
    if issubclass(cls, NATIVE):
        raise TypeError(f"members of {full_name(cls)} travel as their plain values")
    if issubclass(cls, enum.Flag):
        return NestedTranslation(cls, lambda member: member.value, cls)
    return NestedTranslation(cls, lambda member: member.name, cls.__getitem__)
