import asyncio

from berrymq_rpc import AsyncQueue, Bus, Node


async def main():
    bus = Bus()
    async with Node(None, bus, cluster="nats://127.0.0.1:4222", namespace="tutorial"):
        queue = AsyncQueue("order:new", durable="bakers", bus=bus)
        await queue.ready()
        for what in ("bread", "rolls", "cake"):
            await bus.publish("order:new", what, durable=True)
        print("the cluster keeps", await queue.size(), "orders")


asyncio.run(main())
