"""The plant's host: a node that other hosts call, follow and take jobs from.

Make its keys, and authorize those who may connect (docs/howto/deploy.rst has all steps):

    berrymq keygen plant --folder keys
    berrymq authorize authorized office.key

    python plant.py tcp://192.0.2.1:5555 authorized keys/plant.key_secret

Without the last argument the secret key is taken from the environment variable PLANT_KEY.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

from berrymq_rpc import Bus, Message, Node, rpc


class Oven(rpc.AttrHandler):
    """Methods that the node serves in addition to its own."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._degrees = 200.0

    @rpc.method
    def temperature(self) -> float:
        return self._degrees

    @rpc.method
    async def readings(self, count: int) -> AsyncIterator[float]:
        for number in range(count):
            yield self._degrees + number
            await asyncio.sleep(0.01)

    @rpc.method(allow={"office"})
    def heat(self, degrees: float) -> float:
        """Only the user whose key is in office.key may."""
        self._degrees = degrees
        # One by one: whoever follows it hears each of them, in this order.
        self._bus.twitter("oven:set", degrees)
        return degrees

    @rpc.method
    def bake(self, loaves: int) -> None:
        """Jobs wait in the queues of those that pull them."""
        for number in range(loaves):
            self._bus.twitter("job:bake", number)


async def main(endpoint: str, authorized: str, keys: rpc.KeyPair) -> None:
    bus = Bus()

    @bus.following_function("order:placed")
    def accept(message: Message) -> None:
        print("ordered:", *message.args, flush=True)
        bus.twitter("order:accepted", *message.args)

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    security = rpc.CurveServer(keys, authorized)
    async with Node(endpoint, bus, Oven(bus), security=security) as node:
        print("the plant is at", *node.endpoints, flush=True)
        await stop.wait()


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case [endpoint, authorized]:
                asyncio.run(main(endpoint, authorized, rpc.KeyPair.from_environment("PLANT_KEY")))
            case [endpoint, authorized, file]:
                asyncio.run(main(endpoint, authorized, rpc.KeyPair.load(file)))
            case _:
                sys.exit(__doc__)
    except (OSError, ValueError) as error:
        sys.exit(f"the plant cannot start: {error}")
