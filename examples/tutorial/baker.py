import asyncio

from berrymq_rpc import rpc


async def main():
    async with await rpc.open_client(connect="tcp://127.0.0.1:5571", timeout=5) as oven:
        await oven.rpc.heat(220)
        print("temperature:", await oven.rpc.temperature())
        try:
            await oven.rpc.heat(900)
        except ValueError as error:
            print("refused:", error)
        async for degrees in oven.rpc.cool(90):
            print("cooling:", degrees)


asyncio.run(main())
