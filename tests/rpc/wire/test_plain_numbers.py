"""Numbers of other libraries travel as the builtin number that they equal, or not at all."""

import math
import numbers
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from berrymq_rpc.jsonrpc.protocols.json_codec import decode, encode
from berrymq_rpc.rpc.wire.aiozmq_codec import AiozmqCodec
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.plain_numbers import plain_number

NATIVE, AIOZMQ = Codec(), AiozmqCodec()


class Whole:
    """A whole number of another library."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return self.value == other

    def __hash__(self) -> int:
        return hash(self.value)


class Span(Whole):
    """One that has no index, as a span of time has none without its unit."""

    def __index__(self) -> int:
        raise TypeError("it has a unit")


class Real:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == other)

    def __hash__(self) -> int:
        return hash(self.value)


class Complex:
    def __complex__(self) -> complex:
        return 1 + 2j

    def __eq__(self, other: object) -> bool:
        return other == 1 + 2j

    def __hash__(self) -> int:
        return 1


class Odd:
    """One that raises whatever it is asked."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    __int__ = __index__ = __eq__ = __float__  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


numbers.Integral.register(Whole)
numbers.Real.register(Real)
numbers.Real.register(Odd)
numbers.Complex.register(Complex)

EQUAL = [
    (Whole(5), 5),
    (Whole(-(2**63)), -(2**63)),
    (Whole(2**64 - 1), 2**64 - 1),
    (Real(0.25), 0.25),
    (Real(Fraction(1, 4)), 0.25),
    (Real(3), 3.0),
    (Real(2**53 + 1), 2**53 + 1),
    (Fraction(1, 2), 0.5),
    (Fraction(-7), -7.0),
]
LARGE = [
    (Whole(2**64), 2**64),
    (Whole(-(2**63) - 1), -(2**63) - 1),
    (Fraction(2**80 + 1), 2**80 + 1),
]
UNEQUAL = [Fraction(1, 3), Real(Fraction(1, 3)), Real(Decimal("0.1")), Span(5), Odd()]


@pytest.mark.parametrize(("value", "plain"), [*EQUAL, *LARGE], ids=lambda value: str(value)[:30])
def test_the_equal_one(value: Any, plain: Any) -> None:
    found = plain_number(value)
    assert (type(found), found) == (type(plain), plain)
    assert NATIVE.unpack(NATIVE.pack([value, {"x": value}])) == (plain, {"x": plain})
    assert NATIVE.unpack(NATIVE.pack({value: 1})) == {plain: 1}
    assert decode(encode([value])) == [plain]


@pytest.mark.parametrize(("value", "plain"), EQUAL, ids=lambda value: str(value)[:30])
def test_an_aiozmq_peer_gets_it_too(value: Any, plain: Any) -> None:
    assert AIOZMQ.unpack(AIOZMQ.pack([value])) == (plain,)


@pytest.mark.parametrize(("value", "plain"), LARGE, ids=lambda value: str(value)[:30])
def test_an_aiozmq_peer_takes_64_bits(value: Any, plain: Any) -> None:
    with pytest.raises(TypeError, match="64 bits"):
        AIOZMQ.pack([value])


@pytest.mark.parametrize("value", UNEQUAL, ids=lambda value: type(value).__name__)
def test_no_digit_is_lost_in_silence(value: Any) -> None:
    assert plain_number(value) is None
    for pack in (NATIVE.pack, AIOZMQ.pack, encode):
        with pytest.raises(TypeError, match="equal to it: send it as text"):
            pack([value])


def test_complex_numbers() -> None:
    assert NATIVE.unpack(NATIVE.pack(Complex())) == 1 + 2j
    for pack in (AIOZMQ.pack, encode):
        for value in (Complex(), 1 + 2j):
            with pytest.raises(TypeError, match="equal to it: send it as text"):
                pack(value)


def test_not_a_number_stays_one() -> None:
    assert math.isnan(NATIVE.unpack(NATIVE.pack(Real(math.nan))))
    assert NATIVE.unpack(NATIVE.pack(Real(math.inf))) == math.inf
    assert encode([Real(math.nan), Real(math.inf)]) == b"[null,null]"


def test_keys_of_objects() -> None:
    assert encode({Whole(5): 1, Real(0.5): 2}) == b'{"5":1,"0.5":2}'


def test_an_entry_of_the_users_comes_first() -> None:
    codec = Codec({3: (Fraction, lambda value: str(value).encode(), lambda data: data.decode())})
    assert codec.unpack(codec.pack(Fraction(1, 2))) == "1/2"


def test_a_decimal_keeps_its_digits() -> None:
    assert NATIVE.unpack(NATIVE.pack(Decimal("1.50"))).as_tuple() == Decimal("1.50").as_tuple()


def test_numpy() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    cases = [
        (numpy.int8(-5), -5),
        (numpy.uint64(2**64 - 1), 2**64 - 1),
        (numpy.float16(1.5), 1.5),
        (numpy.float32(0.1), float(numpy.float32(0.1))),
        (numpy.float64(2.5), 2.5),
        (numpy.longdouble(0.5), 0.5),
        (numpy.bool_(True), True),
        (numpy.bool_(False), False),
        (numpy.str_("x"), "x"),
    ]
    for value, plain in cases:
        for codec in (NATIVE, AIOZMQ):
            found = codec.unpack(codec.pack([value]))[0]
            assert (type(found), found) == (type(plain), plain)
        assert decode(encode([value])) == [plain]
    assert NATIVE.unpack(NATIVE.pack(numpy.complex64(1 + 2j))) == 1 + 2j
    assert encode({numpy.int64(3): numpy.bool_(True)}) == b'{"3":true}'
    assert NATIVE.unpack(NATIVE.pack({numpy.int64(3): numpy.bool_(True)})) == {3: True}
    for value in (numpy.timedelta64(5, "s"), numpy.array([1])):
        for pack in (NATIVE.pack, AIOZMQ.pack, encode):
            with pytest.raises(TypeError):
                pack(value)


@pytest.mark.parametrize("name", ["bool", "bool_"])
@pytest.mark.parametrize("value", [True, False])
def test_truth_values_of_numpy(name: str, value: bool) -> None:
    truth = type(name, (), {"__module__": "numpy", "__bool__": lambda self: value})
    assert plain_number(truth()) is value
