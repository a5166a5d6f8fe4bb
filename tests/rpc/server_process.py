"""A server in a process of its own, for tests that kill it, freeze it or press Ctrl-C.

It prints ``serving ENDPOINT`` when it is ready, and a line for each thing that happens to its
handlers.
"""

import argparse
import asyncio
import os
import signal
import sys
import time

from berrymq_rpc import rpc


def say(*words: object) -> None:
    print(*words, flush=True)


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.ran = 0

    @rpc.method
    def add(self, a, b=1):
        return a + b

    @rpc.method
    def echo(self, value):
        return value

    @rpc.method
    def count(self):
        self.ran += 1

    @rpc.method
    def counted(self):
        return self.ran

    @rpc.method
    def process(self):
        return os.getpid()

    @rpc.method
    async def forever(self):
        say("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("cancelled")
            raise

    @rpc.method(waits=True)
    async def wait(self):
        await self.forever()

    @rpc.method
    async def ticks(self):
        say("started")
        number = 0
        try:
            while True:
                yield number
                number += 1
                await asyncio.sleep(0)
        finally:
            say("cancelled")

    @rpc.method
    def hold(self, seconds):
        say("started")
        time.sleep(seconds)

    @rpc.method
    def interrupt(self):
        raise KeyboardInterrupt("in sync")

    @rpc.method
    async def interrupt_coroutine(self):
        await asyncio.sleep(0)
        raise KeyboardInterrupt("in coroutine")

    @rpc.method
    async def interrupt_stream(self):
        yield 1
        raise KeyboardInterrupt("in stream")

    @rpc.method(thread=True)
    def interrupt_thread(self):
        raise KeyboardInterrupt("in thread")

    @rpc.method
    def freeze(self):
        os.kill(os.getpid(), signal.SIGSTOP)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", default="tcp://127.0.0.1:*")
    parser.add_argument("--heartbeat", type=float, default=2.0)
    options = parser.parse_args()
    limits = rpc.Limits(heartbeat=options.heartbeat)
    server = await rpc.start_server(Handler(), bind=options.bind, limits=limits, grace=0.2)
    async with server:
        say("serving", server.endpoints[0])
        await server.wait_closed()


try:
    asyncio.run(main())
except KeyboardInterrupt:
    say("interrupted")
    sys.exit(3)
