"""One program at three sizes: only the address changes.

In one process, without a network:

    python examples/grow.py both mem://bakery

In two processes, on one host or two:

    python examples/grow.py serve tcp://127.0.0.1:5561
    python examples/grow.py call tcp://127.0.0.1:5561

In a cluster: any number of servers, on any hosts, which share the calls and may come and go. It
needs the extra nats, and a nats-server at the address (`make run CLUSTER=1` starts one):

    python examples/grow.py serve nats://127.0.0.1:4222/bakery
    python examples/grow.py serve nats://127.0.0.1:4222/bakery
    python examples/grow.py call nats://127.0.0.1:4222/bakery
"""

import asyncio
import os
import signal
import sys
from collections import Counter

from berrymq_rpc import rpc

#: Seconds for all calls together, that for a server to appear included.
PATIENCE = 20.0


class Bakery(rpc.AttrHandler):
    @rpc.method
    async def bake(self, what: str) -> tuple[str, int]:
        await asyncio.sleep(0.05)
        return f"{what}, baked", os.getpid()

    @rpc.method
    async def smell(self):
        for strength in range(3):
            yield strength


async def serve(address: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await rpc.start_server(Bakery(), bind=address) as server:
        print("serving at", *server.endpoints, flush=True)
        await stop.wait()
    print("the server has ended", flush=True)


async def call(address: str) -> None:
    async with await rpc.open_client(connect=address, timeout=PATIENCE) as client:
        what, _ = await client.rpc.bake("a loaf")
        print("one call:", what)
        print("a stream:", [strength async for strength in client.rpc.smell()])
        rolls = await asyncio.gather(*(client.rpc.bake(f"roll {n}") for n in range(100)))
        shares = Counter(process for _, process in rolls)
        print("100 calls at once, by process:", *sorted(shares.values()))


async def both(address: str) -> None:
    async with await rpc.start_server(Bakery(), bind=address):
        await call(address)


if __name__ == "__main__":
    programs = {"both": both, "call": call, "serve": serve}
    if len(sys.argv) != 3 or sys.argv[1] not in programs:
        sys.exit(__doc__)
    try:
        asyncio.run(programs[sys.argv[1]](sys.argv[2]))
    except (ModuleNotFoundError, OSError, ValueError, rpc.Error) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
