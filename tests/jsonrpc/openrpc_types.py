"""Types of all kinds, for the tests of schemas and of OpenRPC documents."""

import dataclasses
import decimal
import enum
import typing
from typing import Any, NamedTuple, NewType, TypedDict, TypeVar


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"
    ALSO_RED = "red"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Odd(enum.Enum):
    ONE = object()


class Point(NamedTuple):
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Item:
    name: str
    price: decimal.Decimal
    tags: list[str] = dataclasses.field(default_factory=list)
    color: Color | None = None


class Order(TypedDict):
    items: list[Item]
    note: typing.NotRequired[str]


@dataclasses.dataclass
class Tree:
    value: int
    children: "list[Tree]"


@dataclasses.dataclass
class Own:
    value: int

    def to_dict(self) -> Any:
        return [self.value]


class Raises(type):
    def __subclasscheck__(cls, other: Any) -> bool:
        raise RuntimeError("not asked")

    @property
    def __value__(cls) -> Any:
        raise RuntimeError("not asked")


class Hostile(metaclass=Raises):
    pass


UserId = NewType("UserId", int)
T = TypeVar("T")
B = TypeVar("B", bound=int)

ITEM = {
    "title": "Item",
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "price": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "color": {"anyOf": [{"title": "Color", "enum": ["red", "green"]}, {"type": "null"}]},
    },
    "required": ["name", "price"],
}
