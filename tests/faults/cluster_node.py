"""A node of a cluster in a process of its own, for tests that kill and freeze it.

    python cluster_node.py URL ROLE [HEARTBEAT]

It prints ``serving URL`` when it is ready, and then:

* ``speaker`` sends ``a:b`` with a running number every few milliseconds;
* ``hearer`` prints the number of each ``a:b``, and the actions of ``connection:*``;
* ``holder`` prints each message of the durable queue ``workers``, and is never done with it: it
  waits for `WAITS` at a time;
* ``victim`` dies of each;
* ``worker`` prints and acknowledges each.
"""

import asyncio
import os
import sys

from berrymq_rpc import AsyncQueue, Bus, Node
from berrymq_rpc.rpc import Limits

#: Seconds that the work on a message may take.
ACK_WAIT = 1.0

#: Messages that a holder waits for.
WAITS = 8


def say(*words: object) -> None:
    print(*words, flush=True)


async def hold(queue: AsyncQueue) -> None:
    while True:
        message = await queue.get()
        say(message.args[0], message.tries)


async def main(url: str, role: str, heartbeat: str = "0.5") -> None:
    bus = Bus()
    if role == "hearer":
        bus.regist_function("a:b", lambda message: say(message.args[0]))
        bus.regist_function("connection:*", lambda message: say(message.action))
    limits = Limits(heartbeat=float(heartbeat))
    async with Node(None, bus, cluster=url, name=role, limits=limits) as node:
        queue = None
        if role in ("holder", "victim", "worker"):
            queue = AsyncQueue("job:*", durable="workers", ack_wait=ACK_WAIT, tries=3, bus=bus)
            await queue.ready()
        await node.drain(10)
        say("serving", url)
        number = 0
        if role == "holder":
            await asyncio.gather(*(hold(queue) for _ in range(WAITS)))
        while True:
            if queue is not None:
                message = await queue.get()
                if role == "victim":
                    os._exit(1)
                say(message.args[0], message.tries)
                await message.ack()
            elif role == "speaker":
                bus.twitter("a:b", number)
                number += 1
                await asyncio.sleep(0.003)
            else:
                await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
