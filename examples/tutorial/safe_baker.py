import asyncio
import sys

from berrymq_rpc import rpc


async def main(address):
    security = rpc.CurveClient("keys/shop.key_secret", server="oven.key")
    async with await rpc.open_client(connect=address, timeout=5, security=security) as oven:
        try:
            print("the oven knows me as", await oven.rpc.whoami())
        except rpc.AuthenticationError as error:
            print("refused:", error.reason)


asyncio.run(main(sys.argv[1]))
