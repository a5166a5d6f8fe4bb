"""The user's own types: tables that are checked, enums and dataclasses by opt-in."""

import dataclasses
import enum
import gc
import weakref
from typing import Any, NamedTuple

import pytest

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.translation import (
    NestedTranslation,
    Untranslated,
    dataclass_translation,
    enum_translation,
    read_table,
    refuse_untranslated,
)


class Base:
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    __hash__ = None  # type: ignore[assignment]


class Derived(Base):
    pass


class Further(Derived):
    pass


def line(cls: type) -> tuple[Any, ...]:
    return cls, lambda value: b"", lambda data: cls()


# -- the table -----------------------------------------------------------------------------


def test_table_in_the_order_of_codes() -> None:
    table = {5: line(Derived), 0: line(Base), 122: dataclass_translation(Decorated)}
    entries = read_table(table)
    assert [(entry.code, entry.cls, entry.nested) for entry in entries] == [
        (0, Base, False),
        (5, Derived, False),
        (122, Decorated, True),
    ]
    assert read_table(None) == read_table({}) == []


class Codes(enum.IntEnum):
    FIRST = 1


def test_codes_may_be_names_for_numbers() -> None:
    assert read_table({Codes.FIRST: line(Base)})[0].code == 1


@pytest.mark.parametrize("code", [-1, 123, 126, 127, 128, True, "1", None, 1.0])
def test_codes_out_of_range(code: Any) -> None:
    with pytest.raises(ValueError, match="from 0 to 122"):
        Codec({code: line(Base)})


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (None, "must be"),
        (Base, "must be"),
        ((Base, bytes), "must be"),
        ("abc", "must be"),
        ((Base(), bytes, bytes), "begin with a class"),
        ((Base, None, bytes), "callable"),
        ((Base, bytes, b""), "callable"),
    ],
)
def test_malformed_entries(entry: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        Codec({1: entry})


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize("cls", [int, str, dict, Pair, Codes, bool])
def test_what_msgpack_packs_by_itself(cls: type) -> None:
    with pytest.raises(ValueError, match="packs by itself"):
        Codec({1: line(cls)})


# -- which entry packs an object -----------------------------------------------------------


def codes_of(codec: Codec, *values: Any) -> list[int]:
    return [codec.pack(value)[2] for value in values]


def test_own_class_then_lowest_code() -> None:
    codec = Codec({3: line(Base), 2: line(Derived), 7: line(Base)})
    # The last entry for a class is its own, as in aiozmq.rpc.
    assert codes_of(codec, Base(), Derived(), Further()) == [7, 2, 2]
    # And so again, once they are known.
    assert codes_of(codec, Base(), Derived(), Further()) == [7, 2, 2]
    codec = Codec({1: line(Base), 2: line(Derived)})
    assert codes_of(codec, Further(), Derived()) == [1, 2]


def test_user_types_before_builtin_ones() -> None:
    codec = Codec({4: (set, lambda value: b"abc", lambda data: "a set")})
    assert codec.unpack(codec.pack([{1}, frozenset()])) == ("a set", frozenset())


def test_no_class_is_remembered_that_nothing_packs() -> None:
    codec = Codec()
    for _ in range(2):
        with pytest.raises(TypeError):
            passing = type("Passing", (), {})
            seen = weakref.ref(passing)
            codec.pack(passing())
        del passing
        gc.collect()
        assert seen() is None


# -- packers and unpackers that fail -------------------------------------------------------


@pytest.mark.parametrize("made", [None, "text", bytearray(b"x"), 5])
def test_packers_must_give_bytes(made: Any) -> None:
    codec = Codec({1: (Base, lambda value: made, lambda data: None)})
    with pytest.raises(TypeError, match=r"value\[0\]: the packer of .*Base must return bytes"):
        codec.pack([Base()])


class Unusual(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def raising(error: BaseException) -> Any:
    def function(value: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no"), ValueError),
        (UnicodeError("no"), ValueError),
        (TypeError("no"), TypeError),
        (KeyError("no"), TypeError),
        (Unusual(), TypeError),
        (RecursionError(), TypeError),
        (StopIteration(), TypeError),
    ],
)
@pytest.mark.parametrize("kind", [tuple, NestedTranslation._make])
def test_packers_that_raise(error: Exception, expected: type, kind: Any) -> None:
    codec = Codec({1: kind((Base, raising(error), bytes))})
    with pytest.raises(expected, match=r"^args\[1\]\['x'\]: ") as caught:
        codec.pack((1, {"x": Base()}), "args")
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), MemoryError()])
def test_packers_that_are_interrupted(error: BaseException) -> None:
    codec = Codec({1: (Base, raising(error), bytes)})
    with pytest.raises(type(error)):
        codec.pack([Base()])
    # It works on.
    assert codec.unpack(codec.pack([{1}])) == ({1},)


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("no"), Unusual(), RecursionError(), StopIteration()]
)
@pytest.mark.parametrize("kind", [tuple, NestedTranslation._make])
def test_unpackers_that_raise(error: Exception, kind: Any) -> None:
    codec = Codec({1: kind((Base, bytes, raising(error)))})
    with pytest.raises(ProtocolError, match="an ext value of type 1: ") as caught:
        codec.unpack(b"\x91\xd4\x01\xc0")
    assert caught.value.__cause__ is error


def test_unpackers_that_say_what_is_wrong_themselves() -> None:
    error = ProtocolError("too old")
    codec = Codec({1: (Base, bytes, raising(error))})
    with pytest.raises(ProtocolError) as caught:
        codec.unpack(b"\xd4\x01\xc0")
    assert caught.value is error


def test_packers_that_use_the_codec() -> None:
    codec = Codec(
        {1: (Base, lambda value: codec.pack({"a": {2}}), lambda data: codec.unpack(data))}
    )
    assert codec.unpack(codec.pack([Base(), "rest"])) == ({"a": {2}}, "rest")


# -- dataclasses ---------------------------------------------------------------------------


@dataclasses.dataclass
class Decorated:
    name: str
    parts: Any = ()
    size: int = dataclasses.field(default=0, kw_only=True)
    total: int = dataclasses.field(init=False, default=-1)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    value: Any
    later: Any = dataclasses.field(init=False)


@dataclasses.dataclass
class Child(Decorated):
    age: int = 0


DATACLASSES = Codec({1: dataclass_translation(Decorated), 2: dataclass_translation(Frozen)})


def test_dataclasses_with_anything_in_them() -> None:
    frozen = Frozen({1, 2})
    object.__setattr__(frozen, "later", {3: None})
    value = Decorated("x", (frozen, Decorated("y", size=2**70), "\ud800"), size=3)
    value.total = 9
    assert DATACLASSES.unpack(DATACLASSES.pack([value])) == (value,)


def test_dataclasses_as_keys() -> None:
    key = Frozen((1, 2))
    object.__setattr__(key, "later", None)
    assert DATACLASSES.unpack(DATACLASSES.pack({key: 1})) == {key: 1}


def test_subclass_of_a_dataclass() -> None:
    with pytest.raises(TypeError, match=r"value\[0\]: .*Child is derived from .*Decorated"):
        DATACLASSES.pack([Child("x")])
    codec = Codec({1: dataclass_translation(Decorated), 2: dataclass_translation(Child)})
    assert codec.unpack(codec.pack(Child("x", age=3))) == Child("x", age=3)


def test_fields_that_are_missing_have_their_defaults() -> None:
    assert DATACLASSES.unpack(b"\xc7\x08\x01\x81\xa4name\xa1x") == Decorated("x")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        b"\xc0",
        b"\x91\xa1x",
        b"\x82\xa4name\xa1x\xa3bad\x01",
        b"\x82\xa4name\xa1x\x01\x01",
        b"\x81\xa4name",
    ],
)
def test_malformed_dataclasses(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="an ext value of type 1"):
        DATACLASSES.unpack(bytes((0xC7, len(data), 1)) + data)


@pytest.mark.parametrize("cls", [int, Base, None, Decorated("x")])
def test_no_dataclass(cls: Any) -> None:
    with pytest.raises(TypeError, match="not a dataclass"):
        dataclass_translation(cls)


# -- enums ---------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = object()
    BLUE = 1
    AZURE = 1


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    ALL = READ | WRITE


ENUMS = Codec({1: enum_translation(Colour), 2: enum_translation(Rights)})


def test_members_come_back() -> None:
    value = (*Colour, *Rights, Rights(0), Rights.READ | Rights.WRITE)
    got = ENUMS.unpack(ENUMS.pack(value))
    assert all(ours is theirs for ours, theirs in zip(value, got, strict=True))


@pytest.mark.parametrize(
    ("code", "data"),
    [(1, b"\xa5GREEN"), (1, b"\x01"), (1, b"\x90"), (2, b"\xcd\x01\x00"), (2, b"\xa1x")],
)
def test_no_members(code: int, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="an ext value"):
        ENUMS.unpack(bytes((0xC7, len(data), code)) + data)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


def test_members_that_are_values_travel_as_such() -> None:
    value = ENUMS.unpack(ENUMS.pack([Level.LOW, Word.YES]))
    assert value == (1, "yes")
    assert [type(item) for item in value] == [int, str]


@pytest.mark.parametrize("cls", [Level, Word])
def test_no_entry_is_needed(cls: Any) -> None:
    with pytest.raises(TypeError, match="plain values"):
        enum_translation(cls)


@pytest.mark.parametrize("cls", [int, None, Colour.BLUE])
def test_no_enum(cls: Any) -> None:
    with pytest.raises(TypeError, match="not an enum"):
        enum_translation(cls)


def test_what_to_do_is_said() -> None:
    with pytest.raises(TypeError, match=r"put enum_translation\(Colour\) into translation_table"):
        Codec().pack(Colour.RED)
    with pytest.raises(TypeError, match=r"put dataclass_translation\(Frozen\) into transl"):
        Codec().pack(Frozen(1))


def test_a_value_without_an_entry_is_refused_or_kept_as_it_came() -> None:
    with pytest.raises(ProtocolError, match=r"ext type 7 has no entry .* add \{7: "):
        refuse_untranslated(7, b"data")
    kept = Untranslated.of(7, b"data")
    assert (kept.code, kept.data) == (7, b"data")
    with pytest.raises(AttributeError, match="'name' is not known, as ext type 7 has no entry"):
        _ = kept.name
