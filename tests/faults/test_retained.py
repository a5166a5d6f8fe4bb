"""What is retained, when links are cut, nodes die, and a peer is hostile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import Bus, Message, Node, rpc
from berrymq_rpc.rpc.wire.codec import Codec

Until = Callable[..., Awaitable[None]]

HEARTBEAT = 0.4
LIMITS = rpc.Limits(heartbeat=HEARTBEAT)


def state(bus: Bus) -> dict[str, Any]:
    return {message.id: message.args[0] for message in bus.retained("state:*")}


def listen(bus: Bus) -> list[tuple[str, Any]]:
    heard: list[tuple[str, Any]] = []

    def hear(message: Message) -> None:
        heard.append((message.id, message.args[0]))

    bus.regist_function("state:*", hear)
    return heard


async def test_a_cut_link(link: Any, until: Until) -> None:
    """Both sides go on meanwhile; afterwards both have the newest value, and heard none twice."""
    one, two = Bus(), Bus()
    one.retain("state:*")
    two.retain("state:*")
    async with (
        Node("tcp://127.0.0.1:0", one, limits=LIMITS, line_size=50) as server,
        link(server.endpoints[0]) as line,
        Node(None, two, limits=LIMITS) as client,
    ):
        heard_by_one, heard_by_two = listen(one), listen(two)
        connection = await client.interconnect(line.endpoint)
        one.twitter("state:of one", 0)
        two.twitter("state:of two", 0)
        one.twitter("state:both", "one, before")
        await until(lambda: len(state(one)) == len(state(two)) == 3)
        line.cut()
        await until(lambda: not connection.is_up)
        two.twitter("state:both", "two, older")
        for number in range(1, 200):
            # More than the send buffer of the server keeps.
            one.twitter("state:of one", number)
            two.twitter("state:of two", number)
            one.twitter(f"state:new {number % 30}", number)
        one.twitter("state:both", "one, newer")
        line.restore()
        await until(lambda: state(one) == state(two), 20)
        assert state(one)["state:both"] == "one, newer"
        assert state(one)["state:of one"] == state(one)["state:of two"] == 199
        assert len(state(two)) == 33
        for heard in (heard_by_one, heard_by_two):
            both = [value for name, value in heard if name == "state:both"]
            assert both[-1] == "one, newer", "an older value after a newer one"
            for name in ("state:of one", "state:of two"):
                values = [value for each, value in heard if each == name]
                assert values == sorted(set(values))
                assert values[-1] == 199
        assert "two, older" not in [value for _, value in heard_by_one]
        assert one.statistics()["retained_outdated"] == 1


async def test_a_restarted_node_gets_it_back(until: Until) -> None:
    """What it had sent lives with its peers, and its first new values are newer."""
    hub = Bus()
    async with Node("tcp://127.0.0.1:0", hub, limits=LIMITS) as server:
        for life in range(3):
            sensor = Bus()
            sensor.retain("state:*")
            async with Node(None, sensor, name="sensor", limits=LIMITS) as node:
                heard = listen(sensor)
                await node.interconnect(server.endpoints[0])
                if life:
                    await until(lambda own=sensor: state(own) == state(hub))
                    assert heard == [("state:a", life - 1)]
                sensor.twitter("state:a", life)
                await until(lambda expected=life: state(hub) == {"state:a": expected})


async def test_a_clock_that_is_behind(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without a clock of its own, at 1970, can change what others have sent."""
    one, two = Bus(), Bus()
    one.retain("state:*")
    one.twitter("state:a", 1)
    async with (
        Node("mem://retained-behind", one) as server,
        Node(None, two) as node,
    ):
        await node.interconnect(server.endpoints[0])
        await until(lambda: state(two) == {"state:a": 1})
        with monkeypatch.context() as early:
            early.setattr(time, "time_ns", lambda: 0)
            two.twitter("state:a", 2)
        await until(lambda: state(one) == {"state:a": 2})
        one.twitter("state:a", 3)
        await until(lambda: state(two) == {"state:a": 3})


async def test_a_peer_that_fills(until: Until) -> None:
    """It gets its share, in number and in bytes, and cannot take what others have there."""
    bus = Bus(max_retained=200, max_retained_bytes=1 << 20)
    bus.retain("own:*")
    for number in range(150):
        bus.twitter(f"own:n{number}", number)
    codec = Codec()
    async with (
        Node("tcp://127.0.0.1:0", bus, peer_share=0.1) as node,
        await rpc.open_client(connect=node.endpoints[0]) as client,
    ):
        token = await client.rpc.interconnect(None, None, 100, "hostile")
        ahead = time.time_ns() // 1000 + 10**9
        for start in range(0, 2000, 100):
            entries = [("hostile", ahead, number) for number in range(start, start + 100)]
            messages = [(f"flood:n{number}", (b"x" * 500,)) for _, _, number in entries]
            envelope = {"retained": entries}
            assert await client.rpc.send_retained(token, envelope, codec.pack(messages)) == "ok"
        assert len(bus.retained("flood:*")) == 20
        for number in range(1, 301):
            packed = codec.pack([(f"flood:n{number}", (b"x" * 30_000,))])
            envelope = {"origin": "hostile", "epoch": 1, "seq": number, "retained": [ahead, 9999]}
            assert await client.rpc.send_messages(token, envelope, packed) == "ok"
        kept = bus.retained("flood:*")
        assert 1 <= len(kept) <= 20
        assert sum(len(message.args[0]) for message in kept) < (1 << 20) / 10
        assert len(bus.retained("own:*")) == 150
        forgotten = {"forgotten": [(f"made up:n{n}", ahead, 1) for n in range(1000)]}
        for _ in range(3):
            assert await client.rpc.send_retained(token, forgotten, b"\x90") == "ok"
        assert bus.statistics()["messages_retained"] == 150 + len(kept)
        # What the peer has made so new can be replaced nevertheless.
        last = kept[-1].id
        bus.twitter(last, "mine")
        assert bus.retained(last)[0].args == ("mine",)
        async with asyncio.timeout(5):
            assert await client.rpc.close_connection(token) == "ok"
