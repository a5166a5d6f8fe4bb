import asyncio
import contextlib

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge


class Oven(rpc.AttrHandler):
    def __init__(self, bus):
        self.bus = bus

    @rpc.method
    def heat(self, degrees: float) -> str:
        self.bus.twitter("oven:hot", degrees)
        return f"heated to {degrees}"


async def main():
    bus = Bus()
    handler = Oven(bus)
    async with Node("tcp://127.0.0.1:5573", bus, handler=handler) as node, Bridge(node) as bridge:
        # Of pages, only those opened from a file may connect: their origin is "null".
        url = await bridge.serve_http("127.0.0.1", 8080, origins=["null", "file://"])
        print("the bridge is at", url, flush=True)
        await asyncio.Event().wait()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
