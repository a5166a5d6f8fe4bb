"""Calls beside aiozmq.rpc and bare pyzmq, over loopback TCP, as ratios within one run.

    python benchmarks/rpc.py [--repeats N] [--seconds S] [--systems a,b] [--reference a]

Server and client are processes of their own. In a repeat, all systems do a work in turn before
the next work, so that what else the machine does meets them alike. A ratio is the median of the
ratios within the repeats.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from systems import SYSTEMS, Calls, make_keys

DICT = {
    "id": 184467,
    "kind": "order",
    "profile": {f"field_{i:02d}": (i * 7919, i * 0.37, f"value {i:06d}")[i % 3] for i in range(20)},
    "items": [{"sku": f"A-{i:04d}", "qty": i, "price": i * 1.25, "ok": True} for i in range(10)],
}
# Random, so that nothing gains by compressing.
BLOB = random.Random(1).randbytes(1 << 20)
BIG = BLOB * 16

Work = Callable[[Calls, float], Awaitable[float]]


async def in_flight(call: Callable[[], Awaitable[Any]], count: int, seconds: float) -> float:
    """Calls a second with so many under way at any time."""
    done = 0
    end = time.perf_counter() + seconds

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(count)))
    return done / (time.perf_counter() - began)


async def burst(calls: Calls, seconds: float) -> float:
    began = time.perf_counter()
    sums = await asyncio.gather(*(calls.add(i, 2) for i in range(10_000)))
    took = time.perf_counter() - began
    assert sums == [i + 2 for i in range(10_000)]
    return 10_000 / took


async def notifications(calls: Calls, seconds: float) -> float:
    if calls.note is None:
        return float("nan")
    first, sent = await calls.count(), 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(20):
            for i in range(500):
                waiting = calls.note(i)
                if waiting is not None:
                    await waiting
            await asyncio.sleep(0)
        sent += 10_000
        # Those that arrived count, so wait for them all.
        while await calls.count() - first < sent:
            await asyncio.sleep(0.0002)
    return sent / (time.perf_counter() - began)


WORKS: dict[str, Work] = {
    "one after another, calls/s": lambda c, s: in_flight(lambda: c.add(1, 2), 1, s),
    "100 in flight, calls/s": lambda c, s: in_flight(lambda: c.add(1, 2), 100, s),
    "10,000 at once, calls/s": burst,
    "notifications/s": notifications,
    "1 KB dict, 100 in flight, calls/s": lambda c, s: in_flight(lambda: c.echo(DICT), 100, s),
    "1 MiB echo, calls/s": lambda c, s: in_flight(lambda: c.echo(BLOB), 1, s),
    "64 KiB echo, 16 in flight, calls/s": lambda c, s: in_flight(
        lambda: c.echo(BLOB[:65536]), 16, s
    ),
    "16 MiB echo, calls/s": lambda c, s: in_flight(lambda: c.echo(BIG), 1, s),
}


async def child(role: str, name: str, endpoint: str) -> None:
    """The server or client process: reads the names of works, answers with figures."""
    system = SYSTEMS[name]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    if role == "server":
        async with system.serve(endpoint):
            print("ready", flush=True)
            await reader.read()
        return
    async with system.connect(endpoint) as calls:
        await asyncio.wait_for(calls.add(1, 2), 10)
        print("ready", flush=True)
        while line := await reader.readline():
            work, seconds = json.loads(line)
            await WORKS[work](calls, seconds / 8)
            figure = await asyncio.wait_for(WORKS[work](calls, seconds), 60)
            print(json.dumps(figure), flush=True)


def start(role: str, name: str, endpoint: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, __file__, role, name, endpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise SystemExit(f"the {role} of {name} did not start")
    return process


def unused_endpoint() -> str:
    """An address whose next port is free as well: aiozmq.rpc takes one for notifications."""
    while True:
        with socket.socket() as probe, socket.socket() as next_probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                next_probe.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return f"tcp://127.0.0.1:{port}"


def measure(names: list[str], repeats: int, seconds: float) -> dict[tuple[str, str], list[float]]:
    figures: dict[tuple[str, str], list[float]] = {}
    for repeat in range(repeats):
        pairs = {}
        for name in names:
            endpoint = unused_endpoint()
            pairs[name] = (start("server", name, endpoint), start("client", name, endpoint))
        for work in WORKS:
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                client = pairs[name][1]
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write(json.dumps([work, seconds]) + "\n")
                client.stdin.flush()
                figures.setdefault((work, name), []).append(json.loads(client.stdout.readline()))
        for server, client in pairs.values():
            for process in (client, server):
                process.communicate(timeout=10)
        print(f"repeat {repeat + 1} of {repeats} done", file=sys.stderr)
    return figures


def show(names: list[str], figures: dict[tuple[str, str], list[float]], reference: str) -> None:
    print(f"\nPython {sys.version.split()[0]}, {os.cpu_count()} cores; xN: N times {reference}")
    print(f"{'':36}" + "".join(f"{SYSTEMS[name].title:>26}" for name in names))
    for work in WORKS:
        row = f"{work:36}"
        for name in names:
            values = figures[work, name]
            text = f"{statistics.median(values):,.0f}"
            if reference in names:
                ratios = [a / b for a, b in zip(values, figures[work, reference], strict=True)]
                text += f"  x{statistics.median(ratios):.2f}"
            row += f"{text:>26}"
        print(row)


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in ("server", "client"):
        role, name, endpoint = sys.argv[1:]
        if name.endswith("-uvloop"):
            import uvloop

            uvloop.run(child(role, name, endpoint))
        else:
            asyncio.run(child(role, name, endpoint))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="measuring time of each work")
    parser.add_argument("--systems", default="aiozmq,berrymq,berrymq-uvloop,raw")
    parser.add_argument("--reference", default="aiozmq", help="what the ratios are to")
    options = parser.parse_args()
    names = options.systems.split(",")
    make_keys()
    show(names, measure(names, options.repeats, options.seconds), options.reference)


if __name__ == "__main__":
    main()
