"""Wills: what nodes publish when one of them is lost; with processes that are really killed."""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, ClassVar, Self

import pytest

from berrymq_rpc import Bus, Node, SyncNode, rpc
from berrymq_rpc.errors import ParametersError, TooLargeError
from berrymq_rpc.testing.tcp_proxy import TcpProxy

from .sensors import LIMITS, PATIENCE, Place, Sensor

Until = Callable[..., Any]


class Site:
    """Nodes of this process, and sensors in others."""

    def __init__(self, until: Until) -> None:
        self._stack = AsyncExitStack()
        self._until = until

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(asyncio.timeout(60))
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._stack.__aexit__(*exc)

    async def place(self, *peers: Place, **options: Any) -> Place:
        bus = Bus()
        node = Node("tcp://127.0.0.1:0", bus, limits=LIMITS, **options)
        await self._stack.enter_async_context(node)
        for peer in peers:
            await node.interconnect(peer.endpoint)
        return Place(node, bus)

    async def proxy(self, place: Place) -> TcpProxy:
        host, _, port = place.endpoint.removeprefix("tcp://").rpartition(":")
        proxy = TcpProxy(host, int(port))
        await proxy.start()
        self._stack.push_async_callback(proxy.aclose)
        return proxy

    async def sensor(
        self, style: str, delay: float, *places: Place | TcpProxy, name: str = "oven 3"
    ) -> Sensor:
        sensor = Sensor(style, delay, *(place.endpoint for place in places), name=name)
        self._stack.callback(sensor.end)
        await sensor.ready()
        return sensor

    async def until(self, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
        await self._until(condition, timeout)


@pytest.fixture
def site(until: Until) -> Site:
    return Site(until)


async def quiet(seconds: float) -> None:
    """Let the time pass in which nothing may be heard."""
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("style", ["01", "02"])
async def test_a_killed_node(site: Site, style: str) -> None:
    async with site:
        place = await site.place()
        sensor = await site.sensor(style, 1.0, place)
        await site.until(lambda: not _is_lost(place))
        began = time.monotonic()
        sensor.signal(signal.SIGKILL)
        await site.until(lambda: place.wills)
        assert place.times[-1] - began >= 1.0
        (will,) = [message for message in place.heard if message.action == "gone"]
        assert will.args == ("oven 3", b"1")
        assert will.origin == "oven 3"
        # After its last message.
        assert place.values == ([0, 1, 2, "gone"] if style == "01" else ["gone"])
        assert place.node.statistics()["wills_published"] == 1


async def test_each_node_of_a_ring_hears_it_once(site: Site) -> None:
    async with site:
        one = await site.place()
        two = await site.place(one)
        three = await site.place(one, two)
        # Two notice the loss.
        sensor = await site.sensor("01", 0.6, one, two)
        places = (one, two, three)
        await site.until(lambda: all(place.values == [0, 1, 2] for place in places))
        sensor.signal(signal.SIGKILL)
        await site.until(lambda: all(place.wills for place in places))
        for place in places:
            # What is sent now comes after any second will.
            place.bus.twitter("sensor:value", id(place))
        await site.until(lambda: all(len(place.values) == 7 for place in places))
        assert [place.wills for place in places] == [1, 1, 1]
        assert all(place.values[:4] == [0, 1, 2, "gone"] for place in places)


@pytest.mark.parametrize("style", ["01", "02"])
async def test_a_clean_close(site: Site, style: str) -> None:
    async with site:
        place = await site.place()
        sensor = await site.sensor(style, 0.0, place)
        assert place.node.statistics()["wills_held"] == 1
        await sensor.close()
        await site.until(lambda: place.node.statistics()["wills_held"] == 0)
        await quiet(1.0)
        assert place.wills == 0


async def test_a_server_that_closes_in_good_order(site: Site) -> None:
    """The node that was connected to leaves its will with who has connected."""
    async with site:
        place = await site.place()
        bus = Bus()
        async with Node("tcp://127.0.0.1:0", bus, will=("sensor:gone",), will_delay=0.0) as other:
            await place.node.interconnect(other.endpoints[0])
            assert place.node.statistics()["wills_held"] == 1
        await site.until(lambda: place.node.statistics()["wills_held"] == 0)
        await quiet(1.0)
        assert place.wills == 0


async def test_back_in_time(site: Site) -> None:
    async with site:
        place = await site.place()
        sensor = await site.sensor("01", 2.0, place)
        sensor.signal(signal.SIGSTOP)
        await site.until(lambda: place.node.statistics()["connections"] and _is_lost(place))
        sensor.signal(signal.SIGCONT)
        await site.until(lambda: not _is_lost(place))
        sensor.say("still here")
        await site.until(lambda: "still here" in place.values)
        await quiet(2.5)
        assert place.values == [0, 1, 2, "still here"]


async def test_a_frozen_node_that_thaws_too_late(site: Site) -> None:
    """Its will was published once; its messages are heard all the same; it may be lost again."""
    async with site:
        place = await site.place()
        other = await site.place(place)
        sensor = await site.sensor("01", 0.3, place)
        sensor.signal(signal.SIGSTOP)
        await site.until(lambda: place.wills and other.wills)
        sensor.signal(signal.SIGCONT)
        await site.until(lambda: not _is_lost(place))
        sensor.say("back")
        await site.until(lambda: place.values[-1] == other.values[-1] == "back")
        sensor.signal(signal.SIGKILL)
        await site.until(lambda: place.wills == 2 and other.wills == 2)
        expected = [0, 1, 2, "gone", "back", "gone"]
        assert place.values == other.values == expected
        assert place.node.statistics()["doubles"] == other.node.statistics()["doubles"] == 0
        assert place.node.statistics()["messages_missed"] == 0


async def test_a_new_run_is_back_in_time(site: Site) -> None:
    async with site:
        place = await site.place()
        sensor = await site.sensor("01", 2.5, place)
        sensor.signal(signal.SIGKILL)
        again = await site.sensor("01", 0.3, place)
        await quiet(2.5)
        assert place.values == [0, 1, 2, 0, 1, 2]
        again.signal(signal.SIGKILL)
        await site.until(lambda: place.wills == 1)


async def test_a_new_run_at_another_node_is_back_in_time(site: Site) -> None:
    async with site:
        place = await site.place()
        other = await site.place(place)
        sensor = await site.sensor("01", 2.5, place)
        sensor.signal(signal.SIGKILL)
        again = await site.sensor("01", 0.3, other)
        await quiet(2.5)
        assert place.wills == other.wills == 0
        again.signal(signal.SIGKILL)
        await site.until(lambda: place.wills == other.wills == 1)


@pytest.mark.parametrize("style", ["01", "02"])
async def test_another_way_still_carries_it(site: Site, style: str) -> None:
    async with site:
        place = await site.place()
        other = await site.place(place)
        proxy = await site.proxy(place)
        sensor = await site.sensor(style, 0.3, proxy, other)
        # The cable is cut: nothing is heard, and nothing is told.
        proxy.cut()
        await site.until(lambda: _is_lost(place))
        await quiet(2.0)
        assert place.wills == other.wills == 0
        sensor.signal(signal.SIGKILL)
        await site.until(lambda: place.wills and other.wills)
        await quiet(1.0)
        assert place.wills == other.wills == 1


async def test_a_cut_link_alone(site: Site) -> None:
    """It is lost to one side, and lives: it hears of its own will, and can be lost again."""
    async with site:
        place = await site.place()
        proxy = await site.proxy(place)
        sensor = await site.sensor("01", 0.3, proxy)
        proxy.cut()
        await site.until(lambda: place.wills == 1)
        sensor.say("while away")
        proxy.restore()
        await site.until(lambda: "while away" in place.values)
        sensor.signal(signal.SIGKILL)
        await site.until(lambda: place.wills == 2)
        assert place.values == [0, 1, 2, "gone", "while away", "gone"]


async def test_what_its_user_may_not_send_is_not_published(site: Site) -> None:
    async with site:
        place = await site.place(allow_send={"*": ["sensor:value"]})
        other = await site.place(place)
        sensor = await site.sensor("01", 0.0, place)
        sensor.signal(signal.SIGKILL)
        await site.until(lambda: place.node.statistics()["messages_denied"] == 1)
        await quiet(0.5)
        assert place.values == other.values == [0, 1, 2]


async def test_what_another_node_may_not_get_is_withheld(site: Site) -> None:
    async with site:
        place = await site.place(allow_receive={"*": ["sensor:value"]})
        other = await site.place(place)
        sensor = await site.sensor("01", 0.0, place)
        await site.until(lambda: other.values == [0, 1, 2])
        sensor.signal(signal.SIGKILL)
        await site.until(lambda: place.wills == 1)
        # From the lost node as well.
        assert place.node.statistics()["messages_withheld"] == 2
        assert other.wills == 0


async def test_a_peer_that_leaves_a_bad_will_is_told(site: Site) -> None:
    async with site:
        place = await site.place(will_bytes=1000)
        node = Node(None, Bus(), will=("sensor:gone", b"x" * 2000), limits=LIMITS)
        with pytest.raises(TooLargeError, match="will_bytes"):
            Node(None, Bus(), will=("sensor:gone", b"x" * 2000), will_bytes=1000)
        async with node:
            # The connection is made all the same.
            await node.interconnect(place.endpoint)
            assert place.node.statistics()["wills_held"] == 0


@pytest.mark.parametrize(
    ("will", "error"),
    [
        ("sensor:gone", TypeError),
        ((), TypeError),
        (("_local:x",), ValueError),
        (("a:b:c",), ValueError),
        (("sensor:gone", object()), TypeError),
    ],
)
def test_wills_that_are_none(will: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Node(None, Bus(), will=will)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "1", True, 86_401])
def test_delays_that_are_none(delay: Any) -> None:
    with pytest.raises(ValueError, match="will_delay"):
        Node(None, Bus(), will=("a:b",), will_delay=delay)


async def test_a_node_that_knows_nothing_of_wills(site: Site) -> None:
    """It is connected with as before, and gets no word that it does not know."""
    async with site:

        class Old(rpc.AttrHandler):
            batches: ClassVar[list[Any]] = []

            @rpc.method
            def interconnect(self, addr: Any, token: str, ttl: float, node: Any = None) -> str:
                return token

            @rpc.method
            async def keep_alive(self, tokens: Any) -> Any:
                yield dict.fromkeys(tokens, "ok")
                await asyncio.sleep(PATIENCE)

            @rpc.method
            def send_messages(
                self, token: str, envelope: Any, messages: Any, frames: Any = ()
            ) -> str:
                self.batches.append(envelope)
                return "ok"

        place = await site.place()
        async with await rpc.start_server(Old(), bind="tcp://127.0.0.1:0") as server:
            async with await rpc.open_client(connect=place.endpoint) as client:
                token = await client.call("interconnect", None, None, 60, "old")
                assert await client.call("send_messages", token, None, b"") == "ok"
            connection = await place.node.interconnect(server.endpoints[0])
            sensor = await site.sensor("01", 0.0, place)
            sensor.signal(signal.SIGKILL)
            await site.until(lambda: place.wills == 1)
            assert await connection.drain(5)
            await connection.close()
        assert [envelope.get("presence") for envelope in Old.batches] == [None] * len(Old.batches)
        assert Old.batches


HOSTILE = [
    {"kind": "node", "node": ["h", 1], "id": "", "round": 0},
    {"kind": "node", "node": ["h", 1], "id": "x" * 101, "round": 0},
    {"kind": "node", "node": ["h"], "id": "x", "round": 0},
    {"kind": "node", "node": ["other", 1], "id": "x", "round": 0},
    {"kind": "node", "node": ["h", 1], "id": "x", "round": -1},
    {"kind": "node", "node": ["h", 1], "id": "x", "round": 0, "delay": 1e9},
    {"kind": "node", "node": ["h", 1], "id": "x", "round": 0, "delay": float("nan")},
    {"kind": "will", "node": ["h", 1], "id": "x", "round": 0},
    {"kind": "more", "node": ["h", 1], "id": "x", "round": 0},
    {"kind": ["node"], "node": ["h", 1], "id": "x", "round": 0},
    "node",
    7,
]


@pytest.mark.parametrize("presence", HOSTILE)
async def test_what_a_hostile_peer_says_about_itself(site: Site, presence: Any) -> None:
    async with site:
        place = await site.place()
        async with await rpc.open_client(connect=place.endpoint) as client:
            token = await client.call("connect_oneway", 60)
            envelope = {"origin": "h", "epoch": 1, "seq": 1, "presence": presence}
            with pytest.raises((TypeError, ValueError, ParametersError)):
                await client.call("introduce", token, envelope, b"\x91\x92\xa3a:b\x90")
        assert place.node.statistics()["wills_held"] == 0


@pytest.mark.parametrize(
    "data", [b"\x91\x92\xa4_a:b\x90", b"\x92\x92\xa3a:b\x90\x92\xa3a:b\x90", b"\xc1", b"\x91\x01"]
)
async def test_wills_of_hostile_peers(site: Site, data: bytes) -> None:
    async with site:
        place = await site.place()
        async with await rpc.open_client(connect=place.endpoint) as client:
            token = await client.call("connect_oneway", 60)
            presence = {"kind": "node", "node": ["h", 1], "id": "x", "round": 0, "delay": 0}
            envelope = {"origin": "h", "epoch": 1, "seq": 1, "presence": presence}
            with pytest.raises(rpc.ProtocolError):
                await client.call("introduce", token, envelope, data)
        assert place.node.statistics()["wills_held"] == 0


async def test_a_hostile_peer_has_one_will_for_each_connection(site: Site) -> None:
    async with site:
        place = await site.place()
        place.bus.regist_function("a:b", place.heard.append)
        async with await rpc.open_client(connect=place.endpoint) as client:
            token = await client.call("connect_oneway", 60)
            for number in range(50):
                presence = {
                    "kind": "node",
                    "node": ["h", number],
                    "id": f"{number}",
                    "round": number,
                }
                envelope = {"origin": "h", "epoch": number, "seq": 1, "presence": presence}
                await client.call("introduce", token, envelope, b"\x91\x92\xa3a:b\x90")
            assert place.node.statistics()["wills_held"] == 1
            name = place.node.name
            presence = {"kind": "node", "node": [name, 1], "id": "me", "round": 0}
            with pytest.raises(ValueError, match="the name of another node"):
                await client.call(
                    "introduce", token, {"origin": name, "epoch": 1, "seq": 1, "presence": presence}
                )


def test_threads(until: Until) -> None:
    with SyncNode(Bus(), will=("sensor:gone", 1), will_delay=0.0) as node:
        node.init_connection(("127.0.0.1", 0))
        assert node.statistics()["wills_held"] == 0


def _is_lost(place: Place) -> bool:
    return any(
        served.is_lost or (served.link is None and not served.watchers)
        for served in place.node.handler.leases.values()
    )
