"""What a test hears on a bus, and what the failures of its expectations say."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from berrymq_rpc import Bus
from berrymq_rpc.testing import Heard


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def heard(bus: Bus) -> Iterator[Heard]:
    heard = Heard(bus, "oven:*")
    yield heard
    heard.close()
    bus.twitter("oven:late")
    assert "oven:late" not in [message.id for message in heard]


def test_each_message_is_taken_once(bus: Bus, heard: Heard) -> None:
    bus.twitter("oven:log", 1)
    bus.twitter("oven:log", 1)
    bus.twitter("oven:log", 2, unit="C")
    assert heard.expect("oven:log", 1) is heard.messages[0]
    heard.expect("oven:log", 1)
    with pytest.raises(AssertionError):
        heard.expect("oven:log", 1, timeout=0)
    with pytest.raises(AssertionError):
        heard.expect("oven:log", 2, timeout=0)
    heard.expect("oven:log", 2, unit="C")
    assert len(heard) == 3


def test_without_arguments_they_do_not_matter(bus: Bus, heard: Heard) -> None:
    bus.twitter("oven:log", 1, unit="C")
    assert heard.expect("oven:*").kwargs == {"unit": "C"}


def test_what_was_heard_is_said(bus: Bus, heard: Heard) -> None:
    bus.twitter("oven:log", 41)
    bus.twitter("oven:log", 42, unit="C")
    heard.expect("oven:log", 41)
    with pytest.raises(AssertionError) as caught:
        heard.expect("oven:log", 43, timeout=0.01)
    first, second, *lines = str(caught.value).splitlines()
    assert first == "no oven:log(43) came within 0.01 s"
    assert second == "heard 2 on 'oven:*':"
    assert lines[0].startswith("  oven:log(41) after 0.")
    assert lines[0].endswith(", expected before")
    assert lines[1].startswith("  oven:log(42, unit='C') after 0.")


def test_nothing_was_heard(heard: Heard) -> None:
    with pytest.raises(AssertionError, match=r"^no oven:log came\nheard nothing on 'oven:\*'$"):
        heard.expect("oven:log", timeout=0)


def test_many_and_long_ones_are_cut(bus: Bus, heard: Heard) -> None:
    for _ in range(30):
        bus.twitter("oven:log", "x" * 1000)
    with pytest.raises(AssertionError) as caught:
        heard.expect("oven:fire", timeout=0)
    assert len(str(caught.value)) < 6000
    assert str(caught.value).endswith("and 10 more")


def test_expect_none(bus: Bus, heard: Heard) -> None:
    heard.expect_none()
    bus.twitter("oven:log", 1)
    heard.expect_none("oven:fire")
    heard.expect_none("oven:log", 2)
    text = r"^heard oven:log\(1\), and expected no oven:log\nheard 1 on"
    with pytest.raises(AssertionError, match=text):
        heard.expect_none("oven:log")
    heard.expect("oven:log")
    heard.expect_none("oven:log")


def test_clear(bus: Bus, heard: Heard) -> None:
    bus.twitter("oven:log")
    heard.expect("oven:log")
    heard.clear()
    bus.twitter("oven:log")
    heard.expect("oven:log")


@pytest.mark.parametrize("word", ["expect", "expect_none"])
def test_what_cannot_be_heard(heard: Heard, word: str) -> None:
    with pytest.raises(ValueError, match=r"^'pan:log' is never heard here: .*'oven:\*'$"):
        getattr(heard, word)("pan:log")


def test_it_waits_for_another_thread(bus: Bus, heard: Heard) -> None:
    thread = threading.Timer(0.01, bus.twitter, ["oven:done", 1])
    thread.start()
    assert heard.expect("oven:done", timeout=10).args == (1,)
    thread.join()


async def test_it_does_not_hold_the_event_loop(bus: Bus, heard: Heard) -> None:
    bus.twitter("oven:log")
    heard.expect("oven:log")
    with pytest.raises(RuntimeError, match=r"await heard\.wait"):
        heard.expect("oven:log", timeout=10)


async def test_wait(bus: Bus, heard: Heard) -> None:
    asyncio.get_running_loop().call_later(0.01, bus.twitter, "oven:done", 1)
    assert (await heard.wait("oven:done", 1, timeout=10)).id == "oven:done"
    await asyncio.to_thread(bus.twitter, "oven:done", 2)
    await heard.wait("oven:done", 2)
    with pytest.raises(AssertionError, match=r"no oven:done\(3\) came within 0\.01 s\nheard 2"):
        await heard.wait("oven:done", 3, timeout=0.01)


async def test_a_wait_that_is_cancelled_takes_none(bus: Bus, heard: Heard) -> None:
    task = asyncio.create_task(heard.wait("oven:done"))
    await asyncio.sleep(0)
    task.cancel()
    bus.twitter("oven:done")
    await asyncio.wait([task])
    assert task.cancelled()
    heard.expect("oven:done")
