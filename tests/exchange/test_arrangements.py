"""Real nodes in every arrangement and over every carrier: each message is heard exactly once.

The links of an arrangement are pairs of numbers: the first node interconnects with the second.
"""

import asyncio
import itertools
import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import Bus, Message, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client

_numbers = itertools.count()

#: How the messages of a link travel. "back": the peer opens a connection of its own for them.
CARRIERS = ["tcp", "tcp back", "ipc", "mem", "mem back", "http", "mixed"]
MIXED = ["http", "tcp", "mem back", "http", "tcp back", "mem"]

ARRANGEMENTS = {
    "pair": [(0, 1)],
    "both ways": [(0, 1), (1, 0)],
    "chain": [(0, 1), (1, 2), (2, 3)],
    "ring of three": [(0, 1), (1, 2), (2, 0)],
    "ring": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "ring with a chord": [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3)],
    "full": [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3), (0, 2)],
    "ring, each way": [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)],
}


#: Quick: each arrangement by "mixed", and the one with most links by each kind.
EACH = [
    pytest.param(
        arrangement,
        carrier,
        marks=[] if carrier == "mixed" or arrangement == "full" else [pytest.mark.slow],
    )
    for arrangement in ARRANGEMENTS
    for carrier in CARRIERS
]


class Place:
    """A node with an address of each kind, and what is heard on its bus."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self.folder = folder
        self.bus = Bus()
        self.heard: Counter[Any] = Counter()
        self.missed: list[dict[str, Any]] = []
        self.changed = asyncio.Event()
        self.addresses = {
            "tcp": "tcp://127.0.0.1:0",
            "ipc": f"ipc://{folder}/{number}",
            "mem": f"mem://arranged-{next(_numbers)}",
        }
        self.port = 0
        self.bus.regist_function("job:*", self.take)
        self.bus.regist_function("connection:missed", lambda m: self.missed.append(m.kwargs))

    def take(self, message: Message) -> None:
        self.heard[message.args] += 1
        self.changed.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Place"]:
        """Run the node; another time, at the same addresses."""
        async with (
            Node(self.bound(), self.bus, name=f"node {self.number}") as self.node,
            Bridge(self.node) as bridge,
        ):
            self.addresses["tcp"] = next(e for e in self.node.endpoints if e.startswith("tcp"))
            self.addresses["http"] = await bridge.serve_http("127.0.0.1", self.port)
            self.port = int(self.addresses["http"].rpartition(":")[2])
            yield self

    def bound(self) -> list[str]:
        return [address for scheme, address in self.addresses.items() if scheme != "http"]

    async def interconnect(self, other: "Place", carrier: str) -> None:
        scheme, _, back = carrier.partition(" ")
        callback = self.addresses[scheme] if back else None
        await self.node.interconnect(other.addresses[scheme], callback=callback)

    async def hears(self, messages: set[Any]) -> None:
        while not messages <= self.heard.keys():
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def places(count: int, folder: Path) -> AsyncIterator[list[Place]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Place(number, folder).running())
            for number in range(count)
        ]


async def connect(made: list[Place], links: list[tuple[int, int]], carrier: str) -> None:
    kinds = itertools.cycle(MIXED if carrier == "mixed" else [carrier])
    for (one, other), kind in zip(links, kinds, strict=False):
        await made[one].interconnect(made[other], kind)


async def send(made: list[Place], count: int, name: str) -> None:
    """Have all send, and wait until all have heard all of it."""
    sent = {(name, place.number, number) for place in made for number in range(count)}
    for place in made:
        for number in range(count):
            place.bus.twitter("job:new", name, place.number, number)
    for place in made:
        await place.hears(sent)


def assert_once(made: list[Place]) -> None:
    for place in made:
        assert {m: heard for m, heard in place.heard.items() if heard != 1} == {}


async def once(made: list[Place], count: int, name: str) -> None:
    """Have all send, and check that all hear all of it once."""
    await send(made, count, name)
    for place in made:
        for connection in place.node.connections:
            assert await connection.drain()  # type: ignore[attr-defined]
        assert place.missed == []
    assert_once(made)


async def client_of(address: str) -> Any:
    if address.startswith("http"):
        return await open_http_client(address)
    return await rpc.open_client(connect=address)


@pytest.mark.parametrize(("arrangement", "carrier"), EACH)
async def test_each_message_once(arrangement: str, carrier: str, tmp_path: Path) -> None:
    links = ARRANGEMENTS[arrangement]
    async with places(max(map(max, links)) + 1, tmp_path) as made:
        await connect(made, links, carrier)
        # What went round would come between the first ones and the last.
        for name in ("first", "second", "last"):
            await once(made, 20, name)


async def test_links_side_by_side(tmp_path: Path) -> None:
    """One of each kind, between the same two nodes."""
    async with places(2, tmp_path) as made:
        for kind in ("tcp", "ipc back", "mem", "http"):
            await made[0].interconnect(made[1], kind)
            await once(made, 10, kind)
        for scheme in ("tcp", "ipc", "mem", "http"):
            await made[1].interconnect(made[0], scheme)
            await once(made, 10, f"{scheme} from the other")


@pytest.mark.parametrize("carrier", ["tcp", "tcp back", "ipc", "mem", "mem back", "http"])
async def test_a_node_is_restarted_within_a_ring(carrier: str, tmp_path: Path) -> None:
    links = ARRANGEMENTS["ring with a chord"]
    victim = Place(3, tmp_path)
    async with places(3, tmp_path) as others:
        ring = [*others, victim]
        async with victim.running():
            await connect(ring, links, carrier)
            await once(ring, 20, "before")
        await send(others, 20, "while it is away")
        assert_once(others)
        async with victim.running():
            await victim.interconnect(ring[0], carrier)
            for name in ("after", "later", "last"):
                await send(ring, 20, name)
                assert_once(ring)
            for place in others:
                assert [missed for missed in place.missed if missed["origin"] != "node 3"] == []


@pytest.mark.parametrize("is_noticed", [False, True])
async def test_one_that_is_called_by_url_ends_without_a_word(
    is_noticed: bool, tmp_path: Path
) -> None:
    """Its next life takes the place of the former one, and gets what was kept for it."""
    async with places(1, tmp_path) as (place,), AsyncExitStack() as stack:
        former, later = Place(5, tmp_path), Place(5, tmp_path)
        node = await stack.enter_async_context(Node(None, former.bus, name="node 5"))
        async with Bridge(node) as bridge:
            url = await bridge.serve_http()
            await node.interconnect(place.addresses["http"])
            place.bus.twitter("job:new", "before")
            await former.hears({("before",)})
        # From here on the former life cannot be reached any more.
        if is_noticed:
            place.bus.twitter("job:new", "kept")
        again = await stack.enter_async_context(Node(None, later.bus, name="node 5"))
        bridge = await stack.enter_async_context(Bridge(again))
        await bridge.serve_http("127.0.0.1", int(url.rpartition(":")[2]))
        await again.interconnect(place.addresses["http"])
        place.bus.twitter("job:new", "after")
        await later.hears({("after",), ("kept",)} if is_noticed else {("after",)})
        assert set(later.heard.values()) == {1}
        # Nothing is kept for the former one.
        async with asyncio.timeout(5):
            while place.node.statistics()["messages_waiting"]:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("carrier", CARRIERS[:-1])
async def test_talk_is_answered_over_every_carrier(carrier: str, tmp_path: Path) -> None:
    answers: asyncio.Queue[Message] = asyncio.Queue()

    def answer(message: Message) -> str:
        if message.args[0] == 2:
            raise ValueError("no", 2)
        return f"to {message.args[0]}"

    async with places(3, tmp_path) as (asks, middle, end):
        await asks.interconnect(middle, carrier)
        await end.interconnect(middle, carrier)
        end.bus.regist_function("question:*", answer)
        asks.bus.regist_function("answer:*", answers.put_nowait)
        for number in (1, 2):
            asks.bus.talk("question:new", "answer:new", number)
        first, second = [await answers.get() for _ in range(2)]
        assert (first.args, first.origin) == (("to 1",), "node 2")
        assert repr(second.error) == "ValueError('no', 2)"


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_what_is_retained_by_each_carrier(
    tmp_path: Path, carrier: str, until: Callable[..., Any]
) -> None:
    """All come to know it, old and new, and hear nothing twice."""
    values = [b"x" * 50_000, {1, 2}, 2**80]
    async with places(3, tmp_path) as made:
        heard: list[Counter[str]] = []
        for place, value in zip(made, values, strict=True):
            heard.append(Counter())
            place.bus.retain("state:*")
            place.bus.twitter(f"state:of {place.number}", value)
            place.bus.regist_function(
                "state:*", lambda message, counter=heard[-1]: counter.update([message.id])
            )
        await connect(made, [(0, 1), (1, 2), (2, 0)], carrier)
        expected = {f"state:of {number}": value for number, value in enumerate(values)}

        def agree() -> bool:
            return all(
                {message.id: message.args[0] for message in place.bus.retained()} == expected
                for place in made
            )

        await until(agree)
        made[0].bus.twitter("state:of 1", "new")
        expected["state:of 1"] = "new"
        await until(agree)
        assert made[1].bus.forget("state:of 2") == 1
        del expected["state:of 2"]
        await until(agree)
        for counter in heard:
            assert counter == {"state:of 0": 1, "state:of 1": 2, "state:of 2": 1}


async def test_all_kinds_of_values_travel_over_http(tmp_path: Path) -> None:
    values = (b"bytes", b"x" * 50_000, {1, 2}, 2**80, "é", {"a": (1, None)})
    heard: asyncio.Queue[Message] = asyncio.Queue()
    async with places(2, tmp_path) as (here, there):
        await here.interconnect(there, "http")
        there.bus.regist_function("values:*", heard.put_nowait)
        here.bus.twitter("values:new", *values, k=b"v")
        message = await heard.get()
        assert message.args == values
        assert message.kwargs == {"k": b"v"}
        assert message.origin == "node 0"


@pytest.mark.parametrize("scheme", ["tcp", "ipc", "mem", "http"])
@pytest.mark.parametrize("back", ["", "tcp"])
async def test_not_itself_by_its_own_addresses(scheme: str, back: str, tmp_path: Path) -> None:
    async with places(1, tmp_path) as (place,):
        callback = None if not back or scheme == "http" else place.addresses[back]
        with pytest.raises(ValueError, match="itself"):
            await place.node.interconnect(place.addresses[scheme], callback=callback)
        assert place.node.connections == ()
        assert place.node.statistics()["connections"] == 0
        await once([place], 5, "alone")


async def test_not_itself_by_another_name_of_its_host(tmp_path: Path) -> None:
    async with places(1, tmp_path) as (place,):
        for scheme in ("tcp", "http"):
            address = place.addresses[scheme].replace("127.0.0.1", "localhost")
            with pytest.raises(ValueError, match="itself"):
                await place.node.interconnect(address)
        await once([place], 5, "alone")


async def test_not_itself_through_another_process(tmp_path: Path) -> None:
    """A bridge before the node forwards its calls."""
    async with places(1, tmp_path) as (place,):
        client = await rpc.open_client(connect=place.addresses["tcp"])
        async with client, Bridge(client) as bridge:
            url = await bridge.serve_http()
            with pytest.raises(ValueError, match="itself"):
                await place.node.interconnect(url)
        await once([place], 5, "alone")


async def test_none_of_the_same_name(tmp_path: Path) -> None:
    async with places(1, tmp_path) as (place,), Node(None, Bus(), name="node 0") as other:
        with pytest.raises(ValueError, match="of the same name"):
            await other.interconnect(place.addresses["tcp"])


@pytest.mark.parametrize("name", [None, "a lie"])
@pytest.mark.parametrize("scheme", ["tcp", "mem", "http"])
async def test_not_itself_for_a_stranger(scheme: str, name: str | None, tmp_path: Path) -> None:
    """Who gives the node's own address as the one to call back."""
    async with places(1, tmp_path) as (place,):
        address = place.addresses[scheme]
        async with await client_of(address) as client:
            for token in ("one", "two"):
                await client.rpc.interconnect(address, token, 100, name)
            # The node calls back, finds itself there, and ends the connection.
            while place.node.statistics()["connections"]:
                await client.rpc.close_connection("unknown")
            assert await client.rpc.send_message("one", "job:new", [0]) == "invalid token"
        await once([place], 20, "alone")


@pytest.mark.parametrize("carrier", ["tcp", "mem", "http"])
@pytest.mark.parametrize("origin", ["node 0", "another"])
async def test_a_peer_without_a_name_speaks_for_no_node(
    carrier: str, origin: str, tmp_path: Path
) -> None:
    """Its messages are those of the node that takes them, and it sends no envelopes."""
    envelope = {"origin": origin, "epoch": 5, "seq": 1}
    origins: list[Any] = []
    async with places(2, tmp_path) as (place, other):
        await place.interconnect(other, "tcp")
        other.bus.regist_function("job:*", lambda m: origins.append((m.origin, *m.args)))
        async with AsyncExitStack() as stack:
            addr = other.addresses["http"] if carrier == "http" else None
            client = await stack.enter_async_context(await client_of(place.addresses[carrier]))
            token = await client.rpc.interconnect(addr, "token", 100)
            with pytest.raises(ValueError, match="leave the envelope out"):
                await client.rpc.send_message(token, "job:new", ["forged"], {}, envelope)
            assert await client.rpc.send_message(token, "job:new", ["own"]) == "ok"
            await other.hears({("own",)})
        assert origins == [("node 0", "own")]
        assert place.heard == Counter({("own",): 1})


async def test_a_link_over_http_is_restored(tmp_path: Path) -> None:
    """What is sent while the peer cannot be reached comes once, and in order."""
    news: asyncio.Queue[Message] = asyncio.Queue()
    order: list[Any] = []
    async with places(1, tmp_path) as (here,), Node(None, Bus(), name="far") as far:
        here.bus.regist_function("connection:*", news.put_nowait)
        far_bus = far.bus
        far_bus.regist_function("job:*", lambda m: order.append(m.args[0]))
        async with Bridge(far) as bridge:
            url = await bridge.serve_http()
            connection = await here.node.interconnect(url)
            here.bus.twitter("job:new", 0)
            assert await connection.drain()
        for number in range(1, 400):
            here.bus.twitter("job:new", number)
        lost = await news.get()
        assert (lost.action, lost.kwargs["endpoint"], lost.kwargs["style"]) == ("lost", url, "01")
        async with Bridge(far) as bridge:
            await bridge.serve_http("127.0.0.1", int(url.rpartition(":")[2]))
            assert (await news.get()).action == "restored"
            here.bus.twitter("job:new", 400)
            assert await connection.drain()
            assert order == [*range(401)]
            # And the other way.
            far_bus.twitter("job:new", "back")
            await here.hears({("back",)})
            assert here.heard[("back",)] == 1
            assert connection.dropped == 0


@pytest.mark.parametrize("other", [None, "tcp"])
async def test_with_a_node_behind_a_bridge(other: str | None, tmp_path: Path) -> None:
    """Whose calls another process passes on; alone, and beside a connection of their own."""
    async with (
        places(2, tmp_path) as made,
        await rpc.open_client(connect=made[1].addresses["tcp"]) as client,
        Bridge(client) as bridge,
    ):
        if other is not None:
            await made[0].interconnect(made[1], other)
        await made[0].node.interconnect(await bridge.serve_http())
        for name in ("first", "last"):
            await once(made, 20, name)


async def test_a_program_that_speaks_json_may_be_a_node(tmp_path: Path) -> None:
    """Over its own connection: what is bytes elsewhere is base64 in both directions."""
    async with places(2, tmp_path) as (place, other):
        await other.interconnect(place, "tcp")
        async with Bridge(place.node) as bridge:
            host, port = (await bridge.serve_tcp()).rpartition("//")[2].split(":")
            reader, writer = await asyncio.open_connection(host, int(port))

            async def received(*wanted: str) -> dict[str, Any]:
                parsed: dict[str, Any] = json.loads(await reader.readline())
                assert wanted[0] in parsed, parsed
                return parsed

            def send(**content: Any) -> None:
                writer.write(json.dumps({"jsonrpc": "2.0", **content}).encode() + b"\n")

            send(id=1, method="interconnect", params=[None, "token", 100, "of json"])
            assert (await received("result"))["result"] == "token"
            other.bus.twitter("job:new", b"bytes", "text")
            call = await received("method")
            token, envelope, data, *frames = call["params"]
            assert (call["method"], token, frames) == ("send_messages", "token", [[]])
            assert (envelope["origin"], envelope["seq"]) == ("node 1", 1)
            assert b64decode(data).endswith(b"\x92\xc4\x05bytes\xa4text")
            send(id=call["id"], result="ok")
            mine = {"origin": "of json", "epoch": 1, "seq": 1, "count": 1}
            packed = b"\x91\x92\xa7job:own\x91\x07"
            send(id=2, method="send_messages", params=["token", mine, b64encode(packed).decode()])
            assert (await received("result"))["result"] == "ok"
            await other.hears({(7,)})
            send(id=3, method="send_messages", params=["token", mine, b64encode(packed).decode()])
            assert (await received("result"))["result"] == "ok"
            writer.close()
            await writer.wait_closed()
        # The same one came twice.
        assert place.heard == Counter({(b"bytes", "text"): 1, (7,): 1})
        assert place.node.statistics()["doubles"] == 1
