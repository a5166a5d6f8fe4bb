"""The kitchen: a node of a cluster that serves calls, sends messages and works on orders.

    python examples/cluster/kitchen.py nats://127.0.0.1:4222

Any number of kitchens may run: each order goes to one of them, and so does each call.
"""

import asyncio
import signal
import sys

from berrymq_rpc import AsyncQueue, Bus, Node, rpc


class Oven(rpc.AttrHandler):
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @rpc.method
    def heat(self, degrees: float) -> str:
        # Only nodes that follow "oven:hot" get it, on whatever host.
        self._bus.twitter("oven:hot", degrees)
        return f"heated to {degrees}"


async def bake(orders: AsyncQueue) -> None:
    while True:
        # Acknowledged at the end of the block; after an exception the order comes again.
        async with orders.get() as order:
            print(f"bakes {order.args[0]!r}, from the durable queue bakers", flush=True)


async def main(address: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bus = Bus()
    async with (
        Node(bus=bus, cluster=address, name="kitchen"),
        await rpc.start_server(Oven(bus), bind=f"{address}/kitchen"),
    ):
        orders = AsyncQueue("order:*", durable="bakers", bus=bus)
        await orders.ready()
        print("has joined", flush=True)
        baking = asyncio.create_task(bake(orders))
        await stop.wait()
        baking.cancel()
        await asyncio.wait([baking])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1]))
    except (ModuleNotFoundError, ValueError, rpc.Error) as error:
        sys.exit(f"the kitchen cannot join: {error}")
