"""A bakery that is busy with itself, and its live page. Run it, and open the address in a browser::

    python examples/live_page.py
    python examples/live_page.py 0 --many

With 0 the page has any free port, and 8080 otherwise; with ``--many`` there are some 50 followers
and identifiers. The page may send and call.
"""

import asyncio
import contextlib
import itertools
import math
import sys

from berrymq_rpc import Bus, FollowerBase, Message, Node, Queue, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

bus = Bus()

ROOMS = ("bakehouse", "store", "shop", "cellar", "office", "yard")
PARTS = ("door", "light", "heating", "scale", "alarm")


class Thermostat(FollowerBase):
    """Switches an oven by its heat."""

    @bus.following("oven:heat")
    def regulate(self, message: Message) -> None:
        if message.args[0] > 240:
            bus.twitter("oven:hot", *message.args)


class Display(FollowerBase):
    """Shows what there is to see."""

    @bus.following("oven:*")
    def show(self, message: Message) -> None: ...

    @bus.following("order:*")
    def list_orders(self, message: Message) -> None: ...


class Baker(FollowerBase):
    """Bakes what is ordered."""

    @bus.following("order:placed", lambda message: message.args[0] != "tea")
    def bake(self, message: Message) -> None:
        bus.twitter("order:baked", *message.args)


@bus.following_function("oven:hot")
def ring(message: Message) -> None:
    """Ring a bell."""


@bus.following_function("order:baked")
def write_bill(message: Message) -> None:
    """Write a bill."""


@bus.auto_twitter("order:entry", entry=True)
def place(what: str) -> None:
    """Place an order."""
    bus.twitter("order:placed", what)


@bus.auto_twitter("oven:exit", exit=True)
def measure(heat: float) -> None:
    """Tell the heat of the oven."""
    bus.twitter("oven:heat", heat)


class Till(rpc.AttrHandler):
    @rpc.method
    def price(self, what: str, number: int = 1) -> float:
        """The price of some pieces of what is baked."""
        prices = {"roll": 0.6, "pretzel": 1.1, "cake": 24.0}
        if what not in prices:
            raise ValueError(f"we do not bake {what!r}")
        return round(prices[what] * number, 2)


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.till = Till()

    @rpc.method
    async def bake(self, what: str, minutes: float = 0.01) -> str:
        """Bake something; it takes its time."""
        await asyncio.sleep(minutes)
        return f"{what} is ready"


def furnish() -> list[object]:
    """Have each part of each room follow something."""

    def follower(room: str, part: str) -> object:
        def follow(message: Message) -> None: ...

        follow.__qualname__ = f"{room}.{part}"
        bus.regist_function(f"{room}:{part}", follow)
        return follow

    made = [follower(room, part) for room, part in itertools.product(ROOMS[:5], PARTS[:4])]
    for room in ROOMS[:3]:
        made.append(follower(room, "*"))
    return made


async def work(client: rpc.Client) -> None:
    """Send messages and make calls for ever."""
    for number in itertools.count():
        measure(round(235 + 12 * math.sin(number / 9), 1))
        if number % 3 == 0:
            place(("roll", "pretzel", "tea")[number // 3 % 3])
        with contextlib.suppress(ValueError):
            await client.rpc.till.price("cake" if number % 40 else "moon", number % 7)
        if number % 5 == 0:
            await client.rpc.bake("roll", 0.02)
        await asyncio.sleep(0.05 + 0.04 * math.sin(number / 40))


async def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    followers = [Thermostat(), Display(), Baker(), furnish() if "--many" in sys.argv else None]
    async with (
        Node("tcp://127.0.0.1:0", bus, handler=Handler(), name="bakery") as node,
        Node(None, Bus(), name="shop") as shop,
        await rpc.open_client(connect=node.endpoints[0]) as client,
        Bridge(node, title="bakery") as bridge,
    ):
        await shop.interconnect(node.endpoints[0])
        orders = await shop.connect_via_queue("order:*", node.endpoints[0])
        print(await bridge.serve_http(port=(*numbers, 8080)[0], page=True, page_write=True))
        print("Ctrl-C ends it.", flush=True)
        with Queue("oven:*", bus=bus, maxsize=200), Queue("order:baked", bus=bus, maxsize=5000):
            await work(client)
        await orders.close()
        followers.clear()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
