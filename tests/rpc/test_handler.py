import collections
import enum
import typing

import pytest

from berrymq_rpc.rpc.handler import (
    AbstractHandler,
    AttrHandler,
    is_attribute_handler,
    is_namespace,
    is_public,
)
from berrymq_rpc.rpc.method import method


class Asked:
    def __getitem__(self, key):
        raise KeyError(key)


class NotAsked:
    __getitem__ = None


class Colour(enum.Enum):
    RED = 1


class Math(AttrHandler):
    @method
    def add(self, a, b):
        return a + b


class Handler(AttrHandler):
    table: typing.ClassVar = {}
    number = 1

    def __init__(self):
        self.math = Math()
        self.ran = []

    @method
    def bound(self):
        return self

    @method
    @staticmethod
    def static():
        return "static"

    @classmethod
    @method
    def of_class(cls):
        return cls

    @method
    def _private(self): ...

    def unmarked(self): ...

    @property
    def running(self):
        self.ran.append("property")
        return self.math


@pytest.mark.parametrize("value", [Asked(), {}, collections.ChainMap(), Math()])
def test_handlers(value):
    assert isinstance(value, AbstractHandler)
    assert is_namespace(value)


@pytest.mark.parametrize(
    "value", ["text", b"bytes", bytearray(), [], (), range(3), None, 1, NotAsked(), Math, Asked]
)
def test_no_handlers(value):
    assert not isinstance(value, AbstractHandler)
    assert not is_namespace(value)


@pytest.mark.parametrize("value", [Colour, list[int], list[int] | None, typing.List[int]])  # noqa: UP006
def test_what_has_getitem_for_another_reason_is_no_namespace(value):
    assert not is_namespace(value)


def test_what_pretends_to_be_a_handler_is_none():
    class Pretender:
        @property
        def __class__(self):
            return Math

    assert isinstance(Pretender(), AbstractHandler)
    assert not is_namespace(Pretender())


def test_only_attribute_handlers_are_attribute_handlers():
    assert isinstance(Math(), AttrHandler)
    assert not isinstance(Asked(), AttrHandler)
    assert not isinstance({}, AttrHandler)
    assert is_attribute_handler(Math())
    for value in (Asked(), {}, None):
        assert not is_attribute_handler(value)


def test_an_abstract_handler_needs_getitem():
    class Incomplete(AbstractHandler):
        pass

    class Complete(AbstractHandler):
        def __getitem__(self, key):
            return super().__getitem__(key)

    with pytest.raises(TypeError, match="__getitem__"):
        Incomplete()
    with pytest.raises(KeyError, match="name"):
        Complete()["name"]


def test_attributes_by_name():
    handler = Handler()
    assert handler["bound"]() is handler
    assert handler["static"]() == "static"
    assert handler["of_class"]() is Handler
    assert handler["math"] is handler.math
    assert handler["table"] is Handler.table
    assert handler["math"]["add"](1, 2) == 3


@pytest.mark.parametrize(
    "key",
    ["unmarked", "_private", "number", "ran", "nothing", "__class__", "__dict__", "", "a.b", 1],
)
def test_other_names_are_key_errors(key):
    with pytest.raises(KeyError):
        Handler()[key]


def test_a_property_is_not_run():
    handler = Handler()
    with pytest.raises(KeyError):
        handler["running"]
    assert handler.ran == []


def test_slots():
    class Slotted(AttrHandler):
        __slots__ = ("math", "unset")

        def __init__(self):
            self.math = Math()

    handler = Slotted()
    assert not hasattr(handler, "__dict__")
    assert handler["math"] is handler.math
    with pytest.raises(KeyError):
        handler["unset"]


def test_public_parts():
    assert is_public("name")
    assert is_public("not an identifier")
    for part in ("", "_", "_name", "__class__", "a.b", ".", 1, None, b"name"):
        assert not is_public(part)
