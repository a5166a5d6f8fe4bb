"""The office's host: what it does with the plant.

    berrymq keygen office --folder keys
    python office.py visit tcp://192.0.2.1:5555 plant.key keys/office.key_secret tcp://192.0.2.2:5556
    python office.py watch tcp://192.0.2.1:5555 plant.key keys/office.key_secret

"visit" calls, reads a stream, orders, and takes jobs from a queue. The plant calls back at the last
address, which is this host's own. "watch" writes what the plant does, until Ctrl-C; what happens
while the network is down comes when it is back.
"""

import asyncio
import signal
import sys

from berrymq_rpc import Bus, Message, Node, rpc

#: Seconds for an answer of the plant.
PATIENCE = 20.0


async def visit(plant: str, server: str, keys: rpc.KeyPair, own: str) -> None:
    client = rpc.CurveClient(keys, server=server)
    async with await rpc.open_client(connect=plant, security=client, timeout=PATIENCE) as oven:
        print("heated to", await oven.rpc.heat(220.0))
        print("readings:", [degrees async for degrees in oven.rpc.readings(5)])

    # The plant's key opens the way there, and is the only one that may call back.
    plant_key = client.server
    security = rpc.CurveServer(keys, {plant_key}, servers={plant: plant_key})
    bus = Bus()
    accepted: asyncio.Queue[Message] = asyncio.Queue()
    bus.regist_function("order:accepted", accepted.put_nowait)
    async with Node(own, bus, security=security, connect_timeout=PATIENCE) as node:
        async with await node.interconnect(plant, callback=node.endpoints[0]):
            bus.twitter("order:placed", "rolls", 30)
            message = await asyncio.wait_for(accepted.get(), PATIENCE)
            print("accepted:", *message.args)
        # Jobs stay at the plant until this side has taken them.
        async with await node.connect_via_queue("job:bake", plant, ack_wait=60) as jobs:
            async with await rpc.open_client(connect=plant, security=client) as oven:
                await oven.with_timeout(PATIENCE).rpc.bake(3)
            for _ in range(3):
                async with await jobs.get(timeout=PATIENCE) as job:
                    print("baked:", *job.args)


async def watch(plant: str, server: str, keys: rpc.KeyPair) -> None:
    bus = Bus()
    bus.regist_function("oven:set", lambda message: print("set to", *message.args, flush=True))
    for event in ("lost", "restored"):
        bus.regist_function(
            f"connection:{event}", lambda message, event=event: print("network", event, flush=True)
        )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    security = rpc.CurveClient(keys, server=server)
    async with (
        Node(bus=bus, security=security, connect_timeout=PATIENCE) as node,
        await node.interconnect(plant),
    ):
        print("watching", flush=True)
        await stop.wait()


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["visit", plant, server, file, own]:
                asyncio.run(visit(plant, server, rpc.KeyPair.load(file), own))
            case ["watch", plant, server, file]:
                asyncio.run(watch(plant, server, rpc.KeyPair.load(file)))
            case _:
                sys.exit(__doc__)
    except (OSError, ValueError, rpc.Error) as error:
        sys.exit(f"the plant cannot be reached: {error}")
