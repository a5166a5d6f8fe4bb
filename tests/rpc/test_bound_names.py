"""A name in ``**kwargs`` that a parameter has its value of already is a `ParametersError`."""

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.errors import ParametersError
from berrymq_rpc.rpc.signature import Signature


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(me: Any, *args: Any, **kwargs: Any) -> Any:
        return function(me, *args, **kwargs)

    return wrapper


class Called:
    def __call__(this, **kwargs: Any) -> Any:
        return sorted(kwargs)


def partly(first: Any, second: Any, **kwargs: Any) -> Any:
    return sorted(kwargs)


class Handler(rpc.AttrHandler):
    @rpc.method
    def plain(self, **kwargs: Any) -> Any:
        return sorted(kwargs)

    @rpc.method
    async def coroutine(self, **kwargs: Any) -> Any:
        return sorted(kwargs)

    @rpc.method
    async def stream(self, **kwargs: Any) -> AsyncIterator[Any]:
        yield sorted(kwargs)

    @rpc.method(thread=True)
    def thread(self, **kwargs: Any) -> Any:
        return sorted(kwargs)

    @rpc.method
    @classmethod
    def of_class(cls, **kwargs: Any) -> Any:
        return sorted(kwargs)

    @rpc.method
    @staticmethod
    def static(**kwargs: Any) -> Any:
        return sorted(kwargs)

    @rpc.method
    def by_position(self, /, **kwargs: Any) -> Any:
        return sorted(kwargs)

    @rpc.method
    def another(this, **kwargs: Any) -> Any:
        return sorted(kwargs)

    @rpc.method
    @wrapped
    def decorated(self, **kwargs: Any) -> Any:
        return sorted(kwargs)


#: With each handler, the names that it refuses.
REFUSED = {
    "plain": {"self"},
    "coroutine": {"self"},
    "thread": {"self"},
    "of_class": {"cls"},
    "static": set(),
    "by_position": set(),
    "another": {"this"},
    "decorated": {"self", "me"},
    "called": {"this"},
    "partial": {"first", "second"},
    "nested.plain": {"self"},
    "asked": {"self"},
}
NAMES = ["self", "cls", "this", "me", "first", "second", "function", "args", "name", "method"]


class Asked:
    def __getitem__(self, name: str) -> Any:
        return Handler().plain


def handler() -> Any:
    return {
        **{name: getattr(Handler(), name) for name in REFUSED if hasattr(Handler, name)},
        "stream": Handler().stream,
        "called": rpc.method(Called()),
        "partial": rpc.method(functools.partial(functools.partial(partly, 1), 2)),
        "nested": Handler(),
    }


@pytest.mark.parametrize("dialect", ["native", "aiozmq", "jsonrpc"])
async def test_in_every_kind_of_handler(pair: Any, dialect: str) -> None:
    async with (
        pair(handler(), dialect=dialect) as (_, client),
        pair(Asked(), dialect=dialect) as (_, asked),
    ):
        for method, refused in REFUSED.items():
            peer = asked if method == "asked" else client
            for name in NAMES:
                call = peer.call(method, **{name: 1, "x": 2})
                if name in refused:
                    with pytest.raises(ParametersError, match=f"unexpected .*: '{name}'"):
                        await call
                else:
                    assert list(await call) == sorted([name, "x"])


async def test_a_stream(pair: Any) -> None:
    async with pair(Handler()) as (_, client):
        with pytest.raises(ParametersError, match="'self'"):
            async for _ in client.call("stream", self=1):
                pytest.fail("it ran")
        assert [item async for item in client.call("stream", this=1)] == [("this",)]


def test_wrappers_in_a_circle() -> None:
    def one(**kwargs: Any) -> None: ...

    def other(**kwargs: Any) -> None: ...

    one.__wrapped__, other.__wrapped__ = other, one  # type: ignore[attr-defined]
    Signature(one, "one").check((), {"self": 1})
