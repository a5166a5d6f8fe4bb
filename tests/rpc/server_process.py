"""A server in a process of its own, for tests that kill it, freeze it or press Ctrl-C.

It prints ``serving ENDPOINT`` when it is ready, and a line for each thing that happens to its
handlers.
"""

import argparse
import asyncio
import ctypes
import gc
import os
import signal
import sys
import time
from pathlib import Path

from berrymq_rpc import rpc


def say(*words: object) -> None:
    print(*words, flush=True)


class Handler(rpc.AttrHandler):
    server: rpc.Server

    def __init__(self) -> None:
        self.ran = 0
        self.held = 0.0
        self.watching = None

    @rpc.method
    def add(self, a, b=1):
        return a + b

    @rpc.method
    def echo(self, value):
        return value

    @rpc.method
    def give(self, size):
        # Zeros would take no memory before somebody writes to them.
        return b"*" * size

    @rpc.method
    def padded(self, number, size):
        return str(number).rjust(size)

    @rpc.method
    def take(self, *values):
        pass

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
    async def ask_back(self):
        return await rpc.context().peer.rpc.forever()

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
    async def sleep(self, seconds):
        say("started")
        await asyncio.sleep(seconds)
        return seconds

    @rpc.method
    async def numbers(self, count):
        for number in range(count):
            yield number

    @rpc.method
    def close(self, seconds):
        """Close the server, and hold it so that what comes meanwhile is read by a closing one."""
        self.server.close()
        time.sleep(seconds)

    @rpc.method
    def closed_elsewhere(self):
        self.ran += 1
        raise rpc.ServiceClosedError("another client is closed")

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

    @rpc.method
    def statistics(self):
        """Those of the server, and what this process takes of the machine's."""
        if self.watching is None:
            self.watching = asyncio.create_task(self.watch())
        memory, most = resident()
        files = Path("/proc/self/fd")
        held, self.held = self.held, 0.0
        return self.server.statistics() | {
            "memory": memory,
            "most_memory": most,
            "files": len(list(files.iterdir())) if files.exists() else 0,
            "tasks": len(asyncio.all_tasks()),
            # Seconds that the event loop was held at most since the last time.
            "held": held,
        }

    @rpc.method
    def collect(self):
        """Free what can be freed, so that the memory that is left is in use."""
        gc.collect()
        # Of the C library of GNU: without it, what is free may stay with the process.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    @rpc.method
    def _exported_and_private(self):
        say("reached")

    def _private(self):
        say("reached")

    def unmarked(self):
        say("reached")

    async def watch(self):
        """Note how long the event loop is held."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.002)
            self.held = max(self.held, time.monotonic() - began - 0.002)


def resident():
    """Bytes of memory now and at most, 0 where that is not known."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0, 0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return tuple(int(fields[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM"))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", default="tcp://127.0.0.1:*")
    parser.add_argument("--heartbeat", type=float, default=2.0)
    parser.add_argument("--grace", type=float, default=0.2)
    options = parser.parse_args()
    limits = rpc.Limits(heartbeat=options.heartbeat)
    handler = Handler()
    server = await rpc.start_server(handler, bind=options.bind, limits=limits, grace=options.grace)
    async with server:
        handler.server = server
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        say("serving", server.endpoints[0])
        await server.wait_closed()
    say("ran", handler.ran)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    say("interrupted")
    sys.exit(3)
