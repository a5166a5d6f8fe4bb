"""Context variables of receivers: the sender's for its own messages, new ones for others'."""

import asyncio
import decimal
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message

user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.fixture(autouse=True)
def own_context() -> Iterator[None]:
    """What a test sets is not there for the next one."""
    token = user.set("nobody")
    with decimal.localcontext(decimal.Context(prec=28)):
        yield
    user.reset(token)


class Visits:
    """A receiver that notes what the last one has left in its context, and leaves something."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def receive(self, message: Message) -> None:
        self.found.append((user.get(), decimal.getcontext().prec))
        user.set(message.args[0])
        decimal.getcontext().prec = 5

    async def receive_later(self, message: Message) -> None:
        await asyncio.sleep(0)
        self.receive(message)


def test_a_message_of_this_process_keeps_the_senders_context(bus: Bus) -> None:
    visits = Visits()
    bus.regist_method("visit", visits.receive)
    user.set("sender")
    bus.twitter("visit", "alice")
    assert visits.found[0][0] == "sender"
    assert user.get() == "alice"
    bus.twitter("visit", "bob")
    assert visits.found[1] == ("alice", 5)


def test_a_message_from_elsewhere_leaves_nothing_for_the_next(bus: Bus) -> None:
    visits, beside = Visits(), Visits()
    user.set("starter")
    bus.gateway.set_loop(None)
    user.set("later")
    bus.regist_method("visit", visits.receive)
    bus.regist_method("visit", beside.receive)
    for name in ("alice", "bob"):
        assert bus.gateway.relay("visit", (name,), {}, "elsewhere") == 2
        bus.gateway.answer("visit", name, origin="elsewhere")
    assert visits.found == [("starter", 28)] * 4
    # The receivers of one message share its context, as those of a message from here do.
    assert beside.found == [("alice", 5), ("alice", 5), ("bob", 5), ("bob", 5)]
    assert user.get() == "later"


def test_an_answer_of_this_process_keeps_its_context(bus: Bus) -> None:
    visits = Visits()
    bus.regist_method("visit", visits.receive)
    user.set("sender")
    bus.gateway.answer("visit", "alice")
    assert (visits.found[0][0], user.get()) == ("sender", "alice")


def test_receivers_on_the_pool_leave_nothing_in_its_threads(bus: Bus) -> None:
    visits = Visits()
    bus.regist_method("visit", visits.receive)
    bus.set_multiplicity(2)

    async def send() -> None:
        user.set("sender")
        for name in ("alice", "bob", "carol"):
            await bus.publish("visit", name)
            bus.gateway.relay("visit", (name,), {}, "elsewhere")

    try:
        asyncio.run(send())
    finally:
        bus.set_multiplicity(1)
    from_here = [found for found, _ in visits.found if found == "sender"]
    assert len(from_here) == 3
    assert {found for found, _ in visits.found} == {"sender", "nobody"}


async def test_async_receivers_of_a_message_from_elsewhere(bus: Bus) -> None:
    visits = Visits()
    bus.regist_method("visit", visits.receive_later)
    user.set("starter")
    bus.gateway.set_loop(asyncio.get_running_loop())
    user.set("later")
    for name in ("alice", "bob"):
        bus.gateway.relay("visit", (name,), {}, "elsewhere")
    async with asyncio.timeout(5):
        while len(visits.found) < 2:
            await asyncio.sleep(0)
    assert visits.found == [("starter", 28)] * 2
