"""Messages and calls between two hosts.

On the first, with the address by which the second reaches it:

    python examples/across_hosts.py serve 192.0.2.1 5555

On the second:

    python examples/across_hosts.py visit 192.0.2.1 5555

There is no authentication: every host that can reach the address can send and call. So a node
refuses to listen beyond its own host without insecure=True. Use that only on a network you trust.
"""

import asyncio
import signal
import sys

from berrymq_rpc import Bus, Message, Node, rpc


class Inventory(rpc.AttrHandler):
    """Methods that the node serves in addition to its own."""

    @rpc.method
    def stock(self, thing: str) -> int:
        return len(thing)


async def serve(host: str, port: int) -> None:
    bus = Bus()

    # Over an interconnection, what this bus sends reaches the followers on the other host.
    @bus.following_function("order:placed")
    def accept(message: Message) -> None:
        print("ordered:", *message.args, flush=True)
        bus.twitter("order:accepted", *message.args)

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Node((host, port), bus, Inventory(), insecure=True) as node:
        print("serving at", *node.endpoints, flush=True)
        await stop.wait()


async def visit(host: str, port: int) -> None:
    async with await rpc.open_client(connect=f"tcp://{host}:{port}", timeout=10) as client:
        print("in stock:", await client.rpc.stock("pears"))

    bus = Bus()
    accepted: asyncio.Queue[Message] = asyncio.Queue()
    bus.regist_function("order:accepted", accepted.put_nowait)
    async with Node(bus=bus) as node, await node.interconnect((host, port)):
        bus.twitter("order:placed", "pears", 5)
        message = await asyncio.wait_for(accepted.get(), 10)
        print("accepted:", *message.args)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", host, port] if port.isdecimal():
            asyncio.run(serve(host, int(port)))
        case ["visit", host, port] if port.isdecimal():
            try:
                asyncio.run(visit(host, int(port)))
            except rpc.ConnectionLostError as error:
                sys.exit(f"no server answers at {host}, port {port}: {error}")
        case _:
            sys.exit(__doc__)
