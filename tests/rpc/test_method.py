import functools
import inspect
from typing import assert_type

import pytest

from berrymq_rpc.rpc.method import Kind, Method, marking, method


@method
def plain(a: int, b: int = 0) -> int:
    """Add.

    Twice.
    """
    return a + b


async def coroutine(): ...


async def stream():
    yield 1


def generator():
    yield 1


def blocking(a): ...


class Callable:
    """Of the class."""

    def __call__(self, a): ...


class AsyncCallable:
    async def __call__(self, a):
        """Of the call."""


class UndocumentedCallable:
    def __call__(self, a): ...


def test_bare_and_with_arguments_mark_the_same_way():
    def bare(): ...

    def called(): ...

    assert method(bare) is bare
    assert method()(called) is called
    assert marking(bare) == marking(called) == {"thread": False, "waits": False, "allow": None}
    assert bare.__rpc__ is not called.__rpc__


def test_the_decorated_function_keeps_its_type():
    @method
    def bare(a: int) -> str:
        return str(a)

    @method(thread=True)
    def threaded(a: int) -> str:
        return str(a)

    assert_type(bare(1), str)
    assert_type(threaded(1), str)
    assert bare(1) == threaded(1) == "1"


@pytest.mark.parametrize(
    ("function", "options", "kind"),
    [
        (lambda: None, {}, Kind.SYNC),
        (functools.partial(blocking, 1), {}, Kind.SYNC),
        (functools.partial(max), {}, Kind.SYNC),
        (functools.lru_cache(lambda: None), {}, Kind.SYNC),
        (Callable(), {}, Kind.SYNC),
        (functools.partial(blocking, 1), {"thread": True}, Kind.THREAD),
        (functools.partial(blocking, 1), {"thread": True, "waits": True}, Kind.THREAD),
        (functools.partial(coroutine), {}, Kind.COROUTINE),
        (functools.partial(coroutine), {"waits": True}, Kind.COROUTINE),
        (AsyncCallable(), {}, Kind.COROUTINE),
        (functools.partial(AsyncCallable()), {}, Kind.COROUTINE),
        (functools.partial(stream), {}, Kind.STREAM),
        (functools.partial(stream), {"waits": True}, Kind.STREAM),
    ],
)
def test_kinds(function, options, kind):
    made = Method.of("name", method(function, **options))
    assert made.kind is kind
    assert made.waits is options.get("waits", False)
    assert made.function is function


@pytest.mark.skipif(not hasattr(inspect, "markcoroutinefunction"), reason="new in Python 3.12")
def test_a_function_told_to_be_a_coroutine_function():
    made = method(inspect.markcoroutinefunction(lambda: None))
    assert Method.of("name", made).kind is Kind.COROUTINE


def test_order_with_staticmethod_and_classmethod():
    class Handler:
        @method
        @staticmethod
        def above_static(a): ...

        @staticmethod
        @method
        def below_static(a): ...

        @method
        @classmethod
        async def above_class(cls, a): ...

        @classmethod
        @method
        async def below_class(cls, a): ...

    handler = Handler()
    for name in ("above_static", "below_static", "above_class", "below_class"):
        function = getattr(handler, name)
        assert marking(function) is not None
        assert [p.name for p in Method.of(name, function).signature.parameters] == ["a"]
    assert Method.of("x", handler.above_class).kind is Kind.COROUTINE


def test_wraps_keeps_the_mark():
    @functools.wraps(plain)
    def wrapper(*args, **kwargs):
        return plain(*args, **kwargs)

    made = Method.of("plain", wrapper)
    assert marking(wrapper) is not None
    assert str(made.signature) == "plain(a: int, b: int = 0)"


def test_a_partial_is_not_marked_by_what_it_holds():
    assert marking(functools.partial(plain)) is None


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (coroutine, {"thread": True}, "coroutine: thread=True is for plain functions"),
        (stream, {"thread": True}, "stream: thread=True is for plain functions"),
        (generator, {}, "generator is a generator function: write `async def`"),
        (generator, {"thread": True}, "generator is a generator function: write `async def`"),
        (functools.partial(generator), {}, "a partial object is a generator function"),
        (blocking, {"waits": True}, "blocking would hold the event loop while it waits"),
        (Callable, {}, "class Callable cannot be exported"),
        ("name", {}, "rpc.method marks a function, not a str"),
        (property(blocking), {}, "rpc.method marks a function, not a property"),
        (functools.partialmethod(blocking), {}, "not a partialmethod"),
        (max, {}, "max cannot be marked"),
        (Callable().__call__, {}, r"Callable.__call__ cannot be marked.*functools.partial"),
        (classmethod(max), {}, "max cannot be marked"),
    ],
)
def test_misuse(function, options, message):
    with pytest.raises(TypeError, match=message):
        method(function, **options)
    with pytest.raises(TypeError, match=message):
        method(**options)(function)


def test_a_refused_function_is_not_marked():
    with pytest.raises(TypeError):
        method(coroutine, thread=True)
    assert marking(coroutine) is None


def test_a_mark_that_a_decorator_made_wrong_is_refused():
    @method(thread=True)
    def inner(): ...

    @functools.wraps(inner)
    async def outer(): ...

    with pytest.raises(TypeError, match=r"^a\.name: thread=True is for plain functions"):
        Method.of("a.name", outer)


class Everything:
    """Has every attribute, as a proxy of a remote object has."""

    def __getattr__(self, name):
        return self

    def __call__(self): ...


class Broken:
    def __getattr__(self, name):
        raise RuntimeError("nothing behind this proxy")

    def __call__(self): ...


class Foreign:
    __rpc__ = {}  # noqa: RUF012

    def __call__(self): ...


class NotCallable:
    __rpc__ = {}  # noqa: RUF012


def test_marking():
    assert marking(Foreign()) == {}
    for value in (None, 1, "text", Everything(), Broken(), Foreign, NotCallable(), blocking, max):
        assert marking(value) is None


def test_method():
    made = Method.of("math.plain", plain)
    assert made.name == "math.plain"
    assert made.function is plain
    assert made.kind is Kind.SYNC
    assert made.waits is False
    assert str(made.signature) == "math.plain(a: int, b: int = 0)"
    assert made.doc == "Add.\n\nTwice."
    assert "Twice" not in repr(made)
    assert not hasattr(made, "__dict__")


def test_a_mark_of_aiozmq_has_no_options():
    def foreign(): ...

    foreign.__rpc__ = {}
    made = Method.of("foreign", foreign)
    assert (made.kind, made.waits) == (Kind.SYNC, False)


def test_docs():
    def documented():
        """Inner."""

    own = functools.partial(documented)
    own.__doc__ = "Own."
    docs = [
        Method.of("name", function).doc
        for function in (
            functools.partial(functools.partial(documented)),
            own,
            Callable(),
            AsyncCallable(),
            UndocumentedCallable(),
            blocking,
        )
    ]
    assert docs == ["Inner.", "Own.", "Of the class.", "Of the call.", "", ""]
