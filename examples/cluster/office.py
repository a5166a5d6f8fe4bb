"""The office: a node of a cluster that calls the kitchen, orders, and hears of the oven.

    python examples/cluster/office.py nats://127.0.0.1:4222

Start a kitchen first. Neither of them knows where the other one is.
"""

import asyncio
import signal
import sys

from berrymq_rpc import Bus, Message, Node, rpc

#: Seconds for an answer, and for a message.
PATIENCE = 10.0


async def main(address: str) -> None:
    stop, heard = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bus = Bus()

    def hear(message: Message) -> None:
        print(f"hears {message.id}", *map(repr, message.args), flush=True)
        heard.set()

    bus.regist_function("oven:*", hear)
    async with Node(bus=bus, cluster=address, name="office"):
        print("has joined", flush=True)
        async with await rpc.open_client(connect=f"{address}/kitchen", timeout=PATIENCE) as kitchen:
            print("calls the kitchen:", await kitchen.rpc.heat(220), flush=True)
        await asyncio.wait_for(heard.wait(), PATIENCE)
        # Returns when NATS has the order in its file, whether a kitchen runs or not.
        await bus.publish("order:new", "bread", durable=True)
        print("has ordered 'bread'", flush=True)
        await stop.wait()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1]))
    except (ModuleNotFoundError, TimeoutError, ValueError, rpc.Error) as error:
        sys.exit(f"the office cannot work: {error}")
