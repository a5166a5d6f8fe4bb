"""A shop that takes money by a server of its bank, and says on the bus what it has sold."""

import asyncio

import berrymq_rpc as berrymq
from berrymq_rpc import rpc


class Bank(rpc.AttrHandler):
    def __init__(self):
        self.balance = 0

    @rpc.method
    async def charge(self, amount):
        self.balance += amount
        return self.balance

    @rpc.method
    def log(self, text):
        print(text)


async def pay(bank, amount):
    """Charge a customer; try again while the bank cannot be reached."""
    for _ in range(5):
        try:
            balance = await bank.rpc.charge(amount)
        except rpc.RPCTimeoutError:
            # The bank may have charged already.
            berrymq.twitter("shop:unclear", amount)
            raise
        except ConnectionError:
            await asyncio.sleep(0.02)
        else:
            berrymq.twitter("shop:sold", amount)
            bank.notify.log(f"sold for {amount}")
            return balance
    raise RuntimeError("the bank cannot be reached")
