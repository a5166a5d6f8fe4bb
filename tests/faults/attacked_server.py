"""A node and its bridge in a process of their own, with all the listeners that there are.

It prints the address of each as one line of JSON.
"""

import asyncio
import json
import logging
import sys

from berrymq_rpc import Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b=1):
        return a + b

    @rpc.method
    def take(self, *values):
        pass

    @rpc.method
    async def later(self, *values):
        await asyncio.sleep(0)


async def main() -> None:
    # What is logged takes the time that it takes.
    logging.basicConfig(stream=sys.stderr)
    async with Node("tcp://127.0.0.1:*", handler=Handler()) as node, Bridge(node) as bridge:
        addresses = {
            "node": node.endpoints[0],
            "http": await bridge.serve_http(),
            "tcp": await bridge.serve_tcp(),
            "zeromq": await bridge.serve_zeromq("tcp://127.0.0.1:*"),
        }
        print(json.dumps(addresses), flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
