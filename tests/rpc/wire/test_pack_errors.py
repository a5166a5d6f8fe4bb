"""What `pack` says when it refuses, and that it says nothing else, whatever the value does."""

import asyncio
import collections
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest

from berrymq_rpc.rpc.wire.aiozmq_codec import AiozmqCodec
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.pack_errors import never_travels

CODEC = Codec()


class Thing:
    """Nothing packs it."""


NAME = f"{__name__}.Thing"
ADVICE = f"{NAME} cannot be packed: give translation_table an entry for its class"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (Thing(), "args"),
        ((1, Thing()), "args[1]"),
        ((1, {"x": Thing()}), "args[1]['x']"),
        ([[[0], [1, Thing()]]], "args[0][1][1]"),
        ({1: {(2, 3): Thing()}}, "args[1][(2, 3)]"),
        ({"a" * 100: Thing()}, "args['" + "a" * 56 + "...]"),
        ([{1, 2}, {"k": {3: [Thing()]}}], "args[1]['k'][3][0]"),
        (collections.OrderedDict(a=collections.deque()), "args['a']"),
    ],
)
def test_where_it_is(value: Any, where: str) -> None:
    with pytest.raises(TypeError) as caught:
        CODEC.pack(value, "args")
    text = str(caught.value)
    assert text.startswith(f"{where}: ")
    assert "cannot be packed" in text


def test_a_key() -> None:
    key = Thing()
    with pytest.raises(TypeError) as caught:
        CODEC.pack([{key: 1}])
    assert str(caught.value).startswith(f"key <{__name__}.Thing object at")
    assert str(caught.value).endswith(f"of value[0]: {ADVICE}")


def test_a_member_of_a_set() -> None:
    with pytest.raises(TypeError) as caught:
        CODEC.pack({"s": {Thing()}})
    assert str(caught.value) == f"value['s'][0]: {ADVICE}"


def test_the_path_is_bounded() -> None:
    value: Any = Thing()
    for _ in range(90):
        value = {"a rather long key": value}
    with pytest.raises(TypeError) as caught:
        CODEC.pack(value)
    assert len(str(caught.value)) < 700
    assert str(caught.value).endswith(ADVICE)


def cyclic_list() -> Any:
    value: list[Any] = [1]
    value.append(value)
    return value


def cyclic_dict() -> Any:
    value: dict[str, Any] = {}
    value["again"] = {"and": (value,)}
    return value


def nested(levels: int) -> Any:
    value: Any = ()
    for _ in range(levels - 1):
        value = (value,)
    return value


def nested_sets(levels: int) -> Any:
    value: Any = frozenset()
    for _ in range(levels - 1):
        value = frozenset([value])
    return value


@pytest.mark.parametrize("value", [cyclic_list(), cyclic_dict(), nested(101), nested(5000)])
def test_too_deep(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^args contains itself, or is nested more than 100 lev"):
        CODEC.pack(value, "args")


def test_between_our_limit_and_msgpacks() -> None:
    with pytest.raises(ValueError, match=r"value contains itself|recursion"):
        CODEC.pack(nested(1060))


def test_just_deep_enough() -> None:
    for value in (nested(100), nested_sets(16), {nested_sets(15): nested_sets(16)}):
        assert CODEC.unpack(CODEC.pack(value)) == value
    codec = Codec(max_depth=3)
    assert codec.unpack(codec.pack(nested(3))) == nested(3)
    with pytest.raises(ValueError, match="more than 3 levels"):
        codec.pack([nested(3)])


def test_too_many_sets_in_sets() -> None:
    with pytest.raises(ValueError, match="nested more than 16 levels deep"):
        CODEC.pack([nested_sets(17)])


def test_too_deep_inside_of_a_set() -> None:
    assert CODEC.unpack(CODEC.pack({nested(99)})) == {nested(99)}
    with pytest.raises(ValueError, match=r"^value: what is inside contains itself, or is nested"):
        CODEC.pack({nested(100)})


# -- values that resist --------------------------------------------------------------------


class Failing:
    """Raises in whatever is asked of it."""

    def _fail(self, *args: Any) -> Any:
        raise RuntimeError("asked")

    __repr__ = __str__ = __len__ = __iter__ = __eq__ = __getitem__ = _fail
    __hash__ = _fail  # type: ignore[assignment]

    @property
    def __class__(self) -> Any:
        raise RuntimeError("asked")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise RuntimeError("asked")


class FailingList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise RuntimeError("asked")

    __repr__ = __len__ = __iter__  # type: ignore[assignment]


class FailingTuple(tuple):  # type: ignore[type-arg]
    __slots__ = ()

    def __iter__(self) -> Any:
        raise OverflowError("asked")


class FailingDict(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RecursionError("asked")


class NegativeDict(dict):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return -1


class FailingSet(set):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        raise LookupError("asked")


class FailingInt(int):
    def __gt__(self, other: object) -> bool:
        raise ZeroDivisionError("asked")


class FailingKey:
    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise SystemExit


class Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class FailingClass(metaclass=Meta):
    pass


def changing() -> Any:
    """A dict that grows while it is packed."""
    codec = Codec({1: (Thing, lambda thing: value.update({len(value): 0}) or b"", bytes)})
    value: dict[Any, Any] = {"a": Thing(), "b": 1}
    return codec, value


# Made in the test alone: pytest would look at them, and so fail.
RESISTING = {
    "object": Failing,
    "list": lambda: FailingList([1]),
    "tuple": lambda: FailingTuple([1]),
    "dict": lambda: FailingDict({"a": 1}),
    "dict of a negative length": lambda: NegativeDict({"a": 1}),
    "set": lambda: FailingSet([1]),
    "int": lambda: FailingInt(5),
    "key": lambda: {FailingKey(): 1},
    "instance": FailingClass,
    "class": lambda: FailingClass,
    "memoryview": lambda: memoryview(b"abcdef")[::2],
    "namespace": types.SimpleNamespace,
    "singleton": lambda: NotImplemented,
    "ellipsis": lambda: ...,
    "range": lambda: range(5),
    "generator": lambda: (number for number in range(5)),
    "function": lambda: print,
    "builtin class": lambda: int,
}


@pytest.mark.parametrize("codec", [CODEC, AiozmqCodec()], ids=["native", "aiozmq"])
@pytest.mark.parametrize("name", RESISTING)
def test_refused_in_words(codec: Codec, name: str) -> None:
    value = RESISTING[name]()
    for whole in (value, [value], {"k": [1, value]}):
        with pytest.raises((TypeError, ValueError)) as caught:
            codec.pack(whole)
        assert type(caught.value) in {TypeError, ValueError}
        assert str(caught.value).startswith(("value", "key"))
        with pytest.raises((TypeError, ValueError)):
            codec.pack_with_frames(whole, 10)


def test_a_dict_that_changes() -> None:
    codec, value = changing()
    with pytest.raises(TypeError, match="dictionary changed size"):
        codec.pack(value)


def test_a_value_that_fails_but_once() -> None:
    class Moody(list):  # type: ignore[type-arg]
        calls = 0

        def __iter__(self) -> Any:
            Moody.calls += 1
            if Moody.calls < 3:
                raise KeyError("not yet")
            return super().__iter__()

    # It is enough that it is refused or packed, and in the way that is promised.
    with pytest.raises(TypeError, match="not yet"):
        CODEC.pack([Moody([1])])
    assert CODEC.unpack(CODEC.pack([Moody([1])])) == ((1,),)


class Longer(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        yield "x" * 2000

    def __len__(self) -> int:
        return 5


class Shorter(dict):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 5


def test_lengths_that_are_lies() -> None:
    for value in (Longer([1, 2]), [1, {"x": Shorter(a="x" * 2000)}], {Lazy()}):
        with pytest.raises(TypeError, match="has another length than it says"):
            CODEC.pack(value)


class Lazy(tuple):  # type: ignore[type-arg]
    __slots__ = ()

    def __new__(cls) -> Any:
        return super().__new__(cls, "abc")

    def __iter__(self) -> Any:
        yield "x" * 2000


def test_memory_that_runs_out_the_second_time() -> None:
    errors: list[Exception] = [ValueError("first"), MemoryError()]

    def fail(value: Any) -> bytes:
        raise errors.pop(0)

    codec = Codec({1: (Thing, fail, bytes)})
    with pytest.raises(MemoryError):
        codec.pack([Thing()])


def test_a_released_buffer() -> None:
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(ValueError, match="released"):
        CODEC.pack([view])
    with pytest.raises(ValueError, match="released"):
        CODEC.pack_with_frames([view], 1)


async def items() -> AsyncIterator[int]:
    yield 1


def test_what_never_travels() -> None:
    assert "it is a stream" in str(never_travels(items()))
    assert "make a list of it" in str(never_travels(x for x in ()))
    coroutine = asyncio.sleep(0)
    assert "await it first" in str(never_travels(coroutine))
    coroutine.close()
    assert never_travels(Thing()) is None
