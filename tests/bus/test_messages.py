"""``async for message in bus.messages(...)``."""

import asyncio
import contextlib
import gc
import logging
import threading
from typing import Any

import pytest

import berrymq_rpc
from berrymq_rpc.bus import Bus, Messages, Queue

BOUND = 20.0


async def collect(messages: Messages, count: int) -> list[tuple[str, Any]]:
    """What the first `count` messages are about, and their first argument."""
    found: list[tuple[str, Any]] = []
    async with asyncio.timeout(BOUND):
        async for message in messages:
            found.append((message.id, message.args[0]))
            if len(found) == count:
                break
    return found


async def test_nothing_that_is_sent_after_the_call_is_lost(bus: Bus) -> None:
    messages = bus.messages("oven:*")
    for number in range(3):
        assert bus.twitter("oven:hot", number) == 1
    assert messages.qsize() == 3
    assert await collect(messages, 3) == [("oven:hot", number) for number in range(3)]


async def test_the_default_bus() -> None:
    with berrymq_rpc.messages("oven:*") as messages:
        berrymq_rpc.twitter("oven:hot", 1)
        assert await collect(messages, 1) == [("oven:hot", 1)]


async def test_leaving_the_loop_ends_it(bus: Bus) -> None:
    task = asyncio.ensure_future(collect(bus.messages("oven:*"), 1))
    assert bus.twitter("oven:hot", 1) == 1
    await task
    del task
    gc.collect()
    assert bus.registrations() == []
    assert bus.twitter("oven:hot", 2) == 0


async def test_an_exception_in_the_loop_ends_it(bus: Bus) -> None:
    async def fail() -> None:
        with bus.messages("oven:*") as messages:
            async for _ in messages:
                raise LookupError

    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    bus.twitter("oven:hot", 1)
    with pytest.raises(LookupError):
        await task
    assert bus.registrations() == []


async def test_cancellation_ends_it(bus: Bus) -> None:
    messages = bus.messages("oven:*")
    task = asyncio.ensure_future(collect(messages, 1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert messages.closed
    assert bus.registrations() == []


async def test_close_ends_a_loop_that_waits_and_leaves_what_is_there(bus: Bus) -> None:
    messages = bus.messages("oven:*")
    task = asyncio.ensure_future(collect(messages, 2))
    await asyncio.sleep(0)
    bus.twitter("oven:hot", 1)
    threading.Thread(target=messages.close).start()
    assert await task == [("oven:hot", 1)]
    assert messages.closed
    assert bus.twitter("oven:hot", 2) == 0
    messages.close()
    assert await collect(messages, 1) == []


async def test_aclose_and_context_managers(bus: Bus) -> None:
    async with contextlib.aclosing(bus.messages("oven:*")) as closing, bus.messages("a") as entered:
        assert len(bus.registrations()) == 2
    assert (closing.closed, entered.closed) == (True, True)
    assert bus.registrations() == []
    await closing.aclose()


async def test_each_message_comes_once_whatever_it_matches(bus: Bus) -> None:
    messages = bus.messages("oven:*", "*:hot", "lamp:off", "oven:*")
    assert [str(identifier) for identifier in messages.identifiers] == [
        "oven:*",
        "*:hot",
        "lamp:off",
    ]
    for number, identifier in enumerate(["oven:hot", "oven:off", "stove:hot", "lamp:off", "*:off"]):
        assert bus.twitter(identifier, number) >= 1
    assert bus.twitter("lamp:on") == 0
    assert await collect(messages, 5) == [
        ("oven:hot", 0),
        ("oven:off", 1),
        ("stove:hot", 2),
        ("lamp:off", 3),
        ("*:off", 4),
    ]
    assert messages.qsize() == 0
    messages.close()
    assert bus.registrations() == []


async def test_what_is_retained_comes_first_and_once(bus: Bus) -> None:
    bus.retain("oven:*")
    bus.twitter("oven:hot", 1)
    with bus.messages("oven:*", "*:hot") as messages:
        bus.twitter("oven:off", 2)
        first, second = [await anext(messages) for _ in range(2)]
        assert (first.id, first.retained) == ("oven:hot", True)
        assert (second.id, second.retained) == ("oven:off", False)
        assert messages.qsize() == 0


async def test_what_is_over_the_bound_is_dropped_counted_and_logged(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    messages = bus.messages("oven:*", maxsize=2)
    with caplog.at_level(logging.WARNING, "berrymq_rpc.bus"):
        for number in range(5):
            bus.twitter("oven:hot", number)
    assert (messages.maxsize, messages.dropped, messages.qsize()) == (2, 3, 2)
    assert "dropped so far" in caplog.text
    assert await collect(messages, 2) == [("oven:hot", 3), ("oven:hot", 4)]


async def test_sent_from_other_threads_and_read_by_several_tasks(bus: Bus) -> None:
    messages = bus.messages("oven:*")
    tasks = [asyncio.ensure_future(collect(messages, 50)) for _ in range(4)]

    def send(first: int) -> None:
        for number in range(100):
            bus.twitter("oven:hot", first + number)

    threads = [threading.Thread(target=send, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    found = [number for task in tasks for _, number in await task]
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(200))


def test_a_program_without_a_loop_may_make_it(bus: Bus) -> None:
    messages = bus.messages("oven:*")
    bus.twitter("oven:hot", 1)
    assert asyncio.run(collect(messages, 1)) == [("oven:hot", 1)]


def test_how_it_looks(bus: Bus) -> None:
    with bus.messages("oven", "lamp:off") as messages, Queue("oven", bus=bus):
        bus.twitter("oven:hot", 1)
        assert repr(messages) == "<Messages oven:* lamp:off 1 waiting>"
        assert bus.show_followers() == {"lamp:off": ["Queue"], "oven:*": ["Queue", "Queue"]}
    assert repr(messages) == "<Messages oven:* lamp:off closed>"


@pytest.mark.parametrize(
    ("identifiers", "maxsize", "error"),
    [
        ((), 0, TypeError),
        (("",), 0, ValueError),
        (("oven", "a:b:c"), 0, ValueError),
        ((3,), 0, TypeError),
        (("oven",), -1, ValueError),
        (("oven",), 1.5, TypeError),
    ],
)
def test_bad_arguments_leave_nothing(
    bus: Bus, identifiers: tuple[Any, ...], maxsize: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        bus.messages(*identifiers, maxsize=maxsize)
    assert bus.registrations() == []
