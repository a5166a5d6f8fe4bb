"""What a handler may return or raise: one answer each, the client and the process go on."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = [pytest.mark.keys, pytest.mark.slow]

Until = Callable[..., Awaitable[None]]

#: Seconds within which each answer comes.
PROMPT = 1.0


#: Results that travel as they are.
FINE = {"big", "huge", "int_keys", "none", "nan", "surrogate"}

#: Exceptions that are raised as the same class, with the same arguments.
SAME = {
    "file": FileNotFoundError(2, "No such file", "/a/b"),
    "key": KeyError("key"),
    "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    "recursion": RecursionError("as raised by Python"),
    "memory": MemoryError(),
    "assertion": AssertionError(),
    "timeout": TimeoutError("the handler's own"),
    "ours": TimeoutError("of a call of the handler's"),
    "lost": ConnectionError("of a call of the handler's"),
}

#: Those of which only the name is known here, or that would end more than the call.
GENERIC = {
    "system_exit": "builtins.SystemExit",
    "cancelled": "asyncio.exceptions.CancelledError",
    "generator_exit": "builtins.GeneratorExit",
    "stop_iteration": "builtins.StopIteration",
    "stop_async_iteration": "builtins.StopAsyncIteration",
    "base": "builtins.BaseException",
    "base_group": "builtins.BaseExceptionGroup",
    "odd": "__main__.Odd",
    "unshown": "__main__.Unshown",
    "unequal": "__main__.Unequal",
}

KINDS = ["sync", "coroutine", "thread"]


@pytest.fixture
def answering(program: Any) -> Any:
    """The endpoint of a server that answers all these, in a process of its own."""
    return program("answers_server.py")


async def answer(call: Any) -> Any:
    began = time.monotonic()
    try:
        async with asyncio.timeout(10):
            return await call
    except Exception as error:
        return error
    finally:
        assert time.monotonic() - began < PROMPT + 1


@pytest.mark.nodebug
@pytest.mark.parametrize("dialect", ["native", "aiozmq"])
async def test_every_result(answering: Any, dialect: str) -> None:
    async with await rpc.open_client(connect=answering.endpoint, dialect=dialect) as client:
        names, _ = await client.rpc.names()
        for kind in KINDS:
            for name in names:
                value = await answer(client.call(f"results.{kind}_{name}"))
                assert isinstance(value, Exception) is (name not in expected(dialect)), (kind, name)
                # The next call on the same client, and the process.
                assert await client.rpc.add(1) == 2
        assert client.statistics()["calls_in_flight"] == 0
    assert answering.process.poll() is None


def expected(dialect: str) -> set[str]:
    """Results that travel."""
    return FINE if dialect == "native" else {"none", "nan", "large"}


@pytest.mark.nodebug
@pytest.mark.parametrize("dialect", ["native", "aiozmq"])
async def test_every_exception(answering: Any, dialect: str) -> None:
    async with await rpc.open_client(connect=answering.endpoint, dialect=dialect) as client:
        _, names = await client.rpc.names()
        for kind in KINDS:
            for name in names:
                if (kind, name) == ("coroutine", "stop_iteration"):
                    # Python makes a RuntimeError of it.
                    continue
                error = await answer(client.call(f"errors.{kind}_{name}"))
                assert isinstance(error, Exception), (kind, name, error)
                assert len(str(error)) < 200_000
                if dialect == "native" and name in SAME:
                    assert type(error) is type(SAME[name]), (kind, name)
                    assert (error.args, str(error)) == (SAME[name].args, str(SAME[name]))
                if dialect == "native" and name in GENERIC:
                    assert isinstance(error, rpc.GenericError), (kind, name, error)
                    assert error.exc_type == GENERIC[name]
                assert await client.rpc.add(1) == 2
        assert client.statistics()["calls_in_flight"] == 0
    assert answering.process.poll() is None


@pytest.mark.nodebug
async def test_every_end_of_a_stream(answering: Any) -> None:
    async with await rpc.open_client(connect=answering.endpoint) as client:
        results, errors = await client.rpc.names()
        for method in [f"results.stream_{name}" for name in results if name not in FINE] + [
            f"errors.stream_{name}" for name in errors
        ]:
            items = client.call(method)
            assert await anext(items) == 1
            error = await answer(anext(items))
            assert isinstance(error, Exception), method
            with pytest.raises(StopAsyncIteration):
                await anext(items)
            assert await client.rpc.add(1) == 2
        assert client.statistics()["calls_in_flight"] == 0
    assert answering.process.poll() is None


@pytest.mark.slow
@pytest.mark.nodebug
async def test_exactly_one_answer_each(answering: Any, raw: Any) -> None:
    """All at once, and then one call more, which comes last: counted on the wire."""
    async with await rpc.open_client(connect=answering.endpoint) as client:
        results, errors = await client.rpc.names()
    methods = [f"results.{kind}_{name}" for kind in KINDS for name in results if name != "bytes"]
    methods += [f"errors.{kind}_{name}" for kind in KINDS for name in errors]

    def ask() -> tuple[list[int], list[int]]:
        with raw.dealer(answering.endpoint) as peer:
            calls = [raw.record(raw.CALL, i, name, []) for i, name in enumerate(methods)]
            peer.send(raw.native_message(*calls))
            native = [fields[1] for fields in peer.native_answers(len(methods))]
            peer.send(raw.native_message(raw.record(raw.CALL, len(methods), "add", [1])))
            native += [fields[1] for fields in peer.native_answers(1)]
        with raw.dealer(answering.endpoint) as peer:
            for number, name in enumerate(methods):
                peer.send(raw.plain_call(number, name))
            plain = [call_id for call_id, *_ in peer.plain_answers(len(methods))]
            peer.send(raw.plain_call(len(methods), "add", 1))
            plain += [call_id for call_id, *_ in peer.plain_answers(1)]
        return native, plain

    native, plain = await asyncio.to_thread(ask)
    every = list(range(len(methods) + 1))
    assert sorted(native) == every
    assert sorted(plain) == every
    assert native[-1] == plain[-1] == len(methods)
