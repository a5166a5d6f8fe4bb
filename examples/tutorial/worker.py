import asyncio
import contextlib

from berrymq_rpc import AsyncQueue, Bus, Node


async def main():
    bus = Bus()
    async with Node(None, bus, cluster="nats://127.0.0.1:4222", namespace="tutorial"):
        queue = AsyncQueue("order:new", durable="bakers", bus=bus)
        while True:
            async with queue.get() as message:
                print("baking", *message.args, flush=True)


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
