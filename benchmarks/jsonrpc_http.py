"""The HTTP listener of the bridge beside aiohttp with a handler written by hand.

Each server runs in a process of its own and answers the same calls of the same client, which keeps
some connections open and sends the next request on each when the answer has come. The client
speaks just enough HTTP, so that it is not what is measured. The rounds of the two servers
alternate, and the best of each counts::

    python benchmarks/jsonrpc_http.py --seconds 3 --rounds 5
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

HOST = "127.0.0.1"
REQUEST = {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}
ANSWER = {"jsonrpc": "2.0", "result": 3, "id": 1}


# -- the servers ---------------------------------------------------------------------------


def by_hand(ready: Connection) -> None:
    """What one writes with aiohttp for one method, with no thought of anything that may fail."""
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        call = await request.json()
        result = call["params"][0] + call["params"][1]
        return web.json_response({"jsonrpc": "2.0", "result": result, "id": call["id"]})

    async def serve() -> None:
        application = web.Application()
        application.router.add_post("/", handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(serve())


def bridge(ready: Connection) -> None:
    """The bridge, before a handler of the same method."""
    from berrymq_rpc import rpc
    from berrymq_rpc.jsonrpc.bridge import Bridge

    class Handler(rpc.AttrHandler):
        @rpc.method
        def add(self, a: int, b: int) -> int:
            return a + b

    async def serve() -> None:
        async with Bridge(Handler()) as bridge:
            url = await bridge.serve_http(HOST)
            ready.send(int(url.rpartition(":")[2]))
            await asyncio.Event().wait()

    asyncio.run(serve())


SERVERS = {"by hand": by_hand, "bridge": bridge}


# -- the client ----------------------------------------------------------------------------


async def calls(port: int, seconds: float, connections: int) -> float:
    """Calls a second on so many connections."""
    body = json.dumps(REQUEST).encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    request = head + body
    counts = [0] * connections
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        first = True
        while loop.time() < end:
            writer.write(request)
            answer_head = await reader.readuntil(b"\r\n\r\n")
            length = int(answer_head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
            if first:
                assert json.loads(answer) == ANSWER, answer
                first = False
            counts[number] += 1
        writer.close()

    began = loop.time()
    await asyncio.gather(*map(one, range(connections)))
    return sum(counts) / (loop.time() - began)


def cpu_seconds(pid: int) -> float:
    """Seconds of the processor that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    running: dict[str, tuple[Any, int]] = {}
    best: dict[str, float] = {}
    cost: dict[str, float] = {}
    try:
        for name, serve in SERVERS.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs,), daemon=True)
            process.start()
            running[name] = process, ours.recv()
            asyncio.run(calls(running[name][1], 0.3, arguments.connections))
        for _ in range(arguments.rounds):
            for name, (process, port) in running.items():
                before = cpu_seconds(process.pid)
                rate = asyncio.run(calls(port, arguments.seconds, arguments.connections))
                spent = (cpu_seconds(process.pid) - before) / (rate * arguments.seconds)
                best[name] = max(best.get(name, 0.0), rate)
                cost[name] = min(cost.get(name, 1.0), spent)
                time.sleep(0.1)
    finally:
        for process, _ in running.values():
            process.kill()
    for name in running:
        print(f"{name:8}  {best[name]:8,.0f} calls/s  {cost[name] * 1e6:6.0f} us of the processor")
    print(
        f"bridge / by hand: {best['bridge'] / best['by hand']:.2f} in calls/s, "
        f"{cost['by hand'] / cost['bridge']:.2f} by the processor's time"
    )


if __name__ == "__main__":
    main()
