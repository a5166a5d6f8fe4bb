"""Sending that waits for the receivers."""

import asyncio
import threading
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message, Queue

Errors = list[tuple[BaseException, Message, Any]]
BOUND = 20.0


async def test_waits_for_all(bus: Bus) -> None:
    heard: list[Any] = []

    @bus.following_function("a:b")
    async def slow(message: Message) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        heard.append(("slow", message.args, message.kwargs))

    @bus.following_function("a:b")
    async def quick(message: Message) -> None:
        heard.append("quick")

    bus.regist_function("a:b", lambda message: heard.append("sync"))
    with Queue("a", bus=bus) as queue:
        assert await bus.publish("a:b", 1, x=2) == 4
        assert queue.qsize() == 1
    assert heard == ["sync", "quick", ("slow", (1,), {"x": 2})]
    assert await bus.publish("nobody:x") == 0


async def test_receivers_that_raise_or_are_skipped(bus: Bus, errors: Errors) -> None:
    @bus.following_function("a:b")
    async def bad(message: Message) -> None:
        await asyncio.sleep(0)
        raise ValueError

    @bus.following_function("a:b")
    async def cancelled(message: Message) -> None:
        raise asyncio.CancelledError

    def worse(message: Message) -> None:
        raise KeyError

    bus.regist_function("a:b", worse)
    bus.regist_function("a:b", lambda message: 1, lambda message: False)
    async with asyncio.timeout(BOUND):
        assert await bus.publish("a:b") == 3
    assert [type(error) for error, _, _ in errors] == [KeyError, ValueError]


async def test_on_the_pool(bus: Bus) -> None:
    """The event loop runs on while receivers on the pool block."""
    started, release = threading.Event(), threading.Event()

    def block(message: Message) -> None:
        started.set()
        assert release.wait(BOUND)

    async def coroutine(message: Message) -> None:
        assert asyncio.get_running_loop() is loop

    loop = asyncio.get_running_loop()
    bus.set_multiplicity(2)
    bus.regist_function("a:b", block)
    bus.regist_function("a:b", coroutine)
    # That it returns a coroutine cannot be known before: it runs elsewhere.
    bus.regist_function("a:b", lambda message: asyncio.sleep(0))
    publishing = asyncio.ensure_future(bus.publish("a:b"))
    async with asyncio.timeout(BOUND):
        while not started.is_set():
            await asyncio.sleep(0)
        assert not publishing.done()
        release.set()
        assert await publishing == 3
    bus.set_multiplicity(0)


async def test_cancelled(bus: Bus) -> None:
    """The receivers go on."""
    gate = asyncio.get_running_loop().create_future()
    heard: list[str] = []

    @bus.following_function("a:b")
    async def receive(message: Message) -> None:
        await gate
        heard.append(message.id)

    publishing = asyncio.ensure_future(bus.publish("a:b"))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    gate.set_result(None)
    async with asyncio.timeout(BOUND):
        while not heard:
            await asyncio.sleep(0)


async def test_within_a_receiver(bus: Bus) -> None:
    heard: list[str] = []

    @bus.following_function("outer:x")
    async def outer(message: Message) -> None:
        assert await bus.publish("inner:x") == 1
        heard.append("outer")

    @bus.following_function("inner:x")
    async def inner(message: Message) -> None:
        await asyncio.sleep(0)
        heard.append("inner")

    async with asyncio.timeout(BOUND):
        assert await bus.publish("outer:x") == 1
    assert heard == ["inner", "outer"]


async def test_no_identifier(bus: Bus) -> None:
    with pytest.raises(ValueError, match="not an identifier"):
        await bus.publish("a::b")


async def test_forwarders(bus: Bus) -> None:
    seen: list[str] = []
    bus.gateway.add_forwarder(lambda message: seen.append(message.id))
    assert await bus.publish("a:b") == 0
    assert seen == ["a:b"]
