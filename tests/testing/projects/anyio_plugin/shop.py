"""The program: a server that takes payments, and a client that tries again."""

import asyncio

from berrymq_rpc import rpc


class Shop(rpc.AttrHandler):
    """What the server of a payment provider offers."""

    def __init__(self):
        self.total = 0

    @rpc.method
    async def charge(self, amount):
        self.total += amount
        return self.total

    @rpc.method
    async def watch(self, count):
        for number in range(count):
            yield number

    @rpc.method
    def log(self, text):
        pass


async def pay(client, amount, tries=5):
    """Pay, whatever the network does: at most so many times."""
    for _ in range(tries):
        try:
            return await client.rpc.charge(amount)
        except ConnectionError:
            await asyncio.sleep(0.01)
    raise RuntimeError("the payment was not possible")
