import asyncio
import contextlib
import sys

from oven import Oven

from berrymq_rpc import rpc


class SafeOven(Oven):
    @rpc.method
    def whoami(self) -> str:
        return rpc.context().peer.user


async def main(address):
    security = rpc.CurveServer("keys/oven.key_secret", authorized="authorized")
    async with await rpc.start_server(SafeOven(), bind=address, security=security) as server:
        print("the oven is at", *server.endpoints, flush=True)
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(sys.argv[1]))
