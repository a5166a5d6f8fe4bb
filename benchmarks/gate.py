"""Compare the speed of this tree with that of a commit, and refuse what is slower.

    python benchmarks/gate.py COMMIT [--pairs 20] [--seconds 0.3] [--works TEXT]

In a pair, each work is done with both trees in turn, in an order that changes from pair to pair, by
processes that are new in each pair. The ratio of the two rates is taken in each pair; printed are
the geometric mean of the ratios (over 1: this tree is faster) and its 95 % interval (Student's t,
on the logarithms). A work whose interval lies wholly below 0.97 is slower: the exit status is 1.
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rpc import WORKS as CALLS
from rpc import unused_endpoint

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent

#: A ratio that is not told from 1 by chance is none: 3 % is what an unchanged tree shows here.
LEAST = 0.97

#: Of Student's t, the 97.5 % quantile for 1, 2, 3 ... degrees of freedom.
T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179),
    *(2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064),
)
NORMAL_QUANTILE = 1.960


# -- works of one process --------------------------------------------------------------------


async def twitter(seconds: float) -> float:
    """Messages a second to one receiver of the bus, with ten others that do not match."""
    from berrymq_rpc import Bus

    bus = Bus()
    received = 0

    def receive(_: Any) -> None:
        nonlocal received
        received += 1

    for name in ("oven:log", *(f"other{number}:*" for number in range(10))):
        bus.regist_function(name, receive)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for number in range(1000):
            bus.twitter("oven:log", number)
    return received / (time.perf_counter() - began)


async def node_to_node(seconds: float) -> float:
    """Messages a second from one node to another in the same process, over TCP."""
    from berrymq_rpc import Bus, Node

    here, there = Bus(), Bus()
    received = 0

    def receive(_: Any) -> None:
        nonlocal received
        received += 1

    there.regist_function("oven:log", receive)
    async with Node("tcp://127.0.0.1:*", there) as server, Node(None, here) as node:
        await node.interconnect(server.endpoints[0])
        sent = 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for number in range(2000):
                here.twitter("oven:log", number)
            sent += 2000
            while received < sent:
                await asyncio.sleep(0)
        return sent / (time.perf_counter() - began)


async def sync_calls(seconds: float) -> float:
    """Calls a second of a `SyncClient`, one after another, its server in the same process."""
    from berrymq_rpc import rpc

    class Handler(rpc.AttrHandler):
        @rpc.method
        def add(self, a: int, b: int) -> int:
            return a + b

    def work(endpoint: str) -> float:
        with rpc.SyncClient(connect=endpoint) as client:
            done = 0
            began = time.perf_counter()
            while time.perf_counter() - began < seconds:
                for _ in range(20):
                    client.rpc.add(1, 2)
                done += 20
            return done / (time.perf_counter() - began)

    async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
        return await asyncio.to_thread(work, server.endpoints[0])


async def posts(seconds: float) -> float:
    """Calls a second by HTTP's POST, eight connections, the bridge in the same process."""
    from berrymq_rpc import rpc
    from berrymq_rpc.jsonrpc.bridge import Bridge

    class Handler(rpc.AttrHandler):
        @rpc.method
        def add(self, a: int, b: int) -> int:
            return a + b

    body = b'{"jsonrpc":"2.0","method":"add","params":[1,2],"id":1}'
    head = (
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    async with Bridge(Handler()) as bridge:
        port = int((await bridge.serve_http("127.0.0.1", 0)).rpartition(":")[2])
        end = time.perf_counter() + seconds
        done = 0

        async def work() -> None:
            nonlocal done
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while time.perf_counter() < end:
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                done += 1
            writer.close()

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(8)))
        return done / (time.perf_counter() - began)


ALONE: dict[str, Callable[[float], Awaitable[float]]] = {
    "SyncClient, one after another, calls/s": sync_calls,
    "twitter, one receiver, messages/s": twitter,
    "node to node, messages/s": node_to_node,
    "POST, 8 connections, calls/s": posts,
}


# -- pairs -----------------------------------------------------------------------------------


class Side:
    """One tree's processes, in one pair."""

    def __init__(self, tree: Path) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(tree)}
        self._processes: list[subprocess.Popen[str]] = []
        endpoint = unused_endpoint()
        self._start("rpc.py", "server", "berrymq", endpoint)
        self._calls = self._start("rpc.py", "client", "berrymq", endpoint)
        self._alone = self._start("gate.py", "--child")

    def _start(self, script: str, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        self._processes.append(process)
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{script} {' '.join(arguments)} did not start")
        return process

    def rate(self, work: str, seconds: float) -> float:
        process = self._calls if work in CALLS else self._alone
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([work, seconds]) + "\n")
        process.stdin.flush()
        return float(json.loads(process.stdout.readline()))

    def close(self) -> None:
        for process in reversed(self._processes):
            process.communicate(timeout=20)


def child() -> None:
    """Read the names of works, answer with rates."""
    print("ready", flush=True)
    for line in sys.stdin:
        work, seconds = json.loads(line)
        asyncio.run(ALONE[work](seconds / 4))
        print(json.dumps(asyncio.run(ALONE[work](seconds))), flush=True)


def measure(before: Path, works: list[str], pairs: int, seconds: float) -> dict[str, list[float]]:
    ratios: dict[str, list[float]] = {work: [] for work in works}
    for pair in range(pairs):
        sides = {"before": Side(before), "now": Side(ROOT)}
        for number, work in enumerate(works):
            names = ["before", "now"]
            if (pair + number) % 2:
                names.reverse()
            rates = {name: sides[name].rate(work, seconds) for name in names}
            ratios[work].append(rates["now"] / rates["before"])
        for side in sides.values():
            side.close()
        print(f"pair {pair + 1} of {pairs} done", file=sys.stderr, flush=True)
    return ratios


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """The geometric mean, and the ends of its 95 % interval."""
    logarithms = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logarithms)
    freedom = len(logarithms) - 1
    quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else NORMAL_QUANTILE
    half = quantile * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def main() -> int:
    if sys.argv[1:] == ["--child"]:
        child()
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="what to compare with, such as HEAD~3 or main")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.3, help="measuring time of each work")
    parser.add_argument("--works", default="", help="only those whose name has this text")
    options = parser.parse_args()
    works = [work for work in (*CALLS, *ALONE) if options.works in work]
    if not works or options.pairs < 2:
        parser.error("there are no such works, or fewer than 2 pairs")
    with tempfile.TemporaryDirectory(prefix="berrymq_rpc-gate-") as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", before, options.commit], check=True)
        try:
            ratios = measure(before, works, options.pairs, options.seconds)
        finally:
            subprocess.run([*git, "remove", "--force", before], check=True)
    slower = 0
    print(f"this tree / {options.commit}, {options.pairs} pairs, 95 % interval")
    for work in works:
        mean, low, high = interval(ratios[work])
        verdict = ""
        if high < LEAST:
            slower += 1
            verdict = "  SLOWER"
        print(f"{work:40} {mean:6.3f}   {low:.3f} to {high:.3f}{verdict}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
