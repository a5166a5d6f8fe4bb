"""One peer of a listener never holds the event loop: others are served in between."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.bridge.listener import StreamPeer
from berrymq_rpc.rpc.turns import TURN

Until = Callable[..., Awaitable[None]]

#: More calls than one turn has time for, and than are started in one. A batch has no more.
MANY = 1000


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.ran = 0

    @rpc.method
    def hold(self) -> int:
        """Take a part of a turn."""
        end = time.monotonic() + TURN / 20
        while time.monotonic() < end:
            pass
        self.ran += 1
        return self.ran

    @rpc.method
    def add(self) -> None:
        pass

    @rpc.method
    async def step(self) -> int:
        return self.hold()


@pytest.fixture
def handler() -> Handler:
    return Handler()


def asked(number: int, method: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "id": number}


async def other_is_served(other: Any, handler: Handler, until: Until) -> None:
    await until(lambda: handler.ran, 10)
    answer = await other.ask({"jsonrpc": "2.0", "method": "add", "id": "other"})
    assert answer["id"] == "other"
    assert handler.ran < MANY


@pytest.mark.nodebug
@pytest.mark.parametrize("method", ["hold", "step"])
async def test_others_are_served_before_a_batch_is(
    handler: Handler, line_to: Any, listener: str, until: Until, method: str
) -> None:
    async with (
        Bridge(handler) as bridge,
        line_to(bridge, listener) as line,
        line_to(bridge, listener) as other,
    ):
        await other.ask(asked(0, "add"))
        batch = [asked(number, method) for number in range(MANY)]
        answers = asyncio.create_task(line.ask(batch))
        await other_is_served(other, handler, until)
        assert sorted(answer["result"] for answer in await answers) == list(range(1, MANY + 1))


@pytest.mark.nodebug
async def test_others_are_served_before_a_flood_is(
    handler: Handler, line_to: Any, pushing_listener: str, until: Until
) -> None:
    async with (
        Bridge(handler) as bridge,
        line_to(bridge, pushing_listener) as line,
        line_to(bridge, pushing_listener) as other,
    ):
        await other.ask(asked(0, "add"))
        for number in range(MANY):
            await line.send(json.dumps(asked(number, "hold")).encode())
        await other_is_served(other, handler, until)
        answers = [json.loads(await line.receive()) for _ in range(MANY)]
        assert [answer["result"] for answer in answers] == list(range(1, MANY + 1))


@pytest.mark.nodebug
async def test_a_reader_gives_way() -> None:
    """However much has arrived already, such as lines without anything in them."""
    place: Any = None
    peer = StreamPeer(None, "tcp", place)
    turns: list[None] = []
    asyncio.get_running_loop().call_soon(turns.append, None)
    end = time.monotonic() + 10
    while not turns:
        await peer.give_way()
        assert time.monotonic() < end
    # It goes on at once where that takes no time.
    asyncio.get_running_loop().call_soon(turns.append, None)
    await peer.give_way()
    assert len(turns) == 1
