import asyncio
import contextlib

from berrymq_rpc import rpc


class Oven(rpc.AttrHandler):
    def __init__(self):
        self.degrees = 20

    @rpc.method
    def temperature(self) -> int:
        return self.degrees

    @rpc.method
    def heat(self, degrees: int) -> None:
        if degrees > 300:
            raise ValueError("too hot")
        self.degrees = degrees

    @rpc.method
    async def cool(self, step: int):
        while self.degrees > 20:
            self.degrees = max(20, self.degrees - step)
            yield self.degrees
            await asyncio.sleep(0.1)


async def main():
    async with await rpc.start_server(Oven(), bind="tcp://127.0.0.1:5571") as server:
        print("the oven is at", *server.endpoints, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
