"""What ``metrics=True`` costs, and what it costs to be without it compared with a commit.

    python benchmarks/metrics.py [COMMIT] [--pairs 12] [--seconds 0.4]

All ends of a work are in one process, and what is measured is the processor time of that process
for each call or message. Other programs only add to it, so of many short runs the least counts.
Each work is done with the tree of the commit, with this one, and with this one and
``metrics=True``, in an order that changes from pair to pair. Printed are the time without metrics
and two ratios: of this tree to the commit (1.00: nothing to measure), and of with to without.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


async def calls(seconds: float, in_flight: int, **metrics: bool) -> float:
    from berrymq_rpc import rpc

    class Handler(rpc.AttrHandler):
        @rpc.method
        def add(self, a: int, b: int) -> int:
            return a + b

    async with (
        await rpc.start_server(Handler(), bind="mem://metrics", **metrics) as server,
        await rpc.open_client(connect=server.endpoints, **metrics) as client,
    ):
        await client.rpc.add(1, 2)
        done = 0
        end, began = time.perf_counter() + seconds, time.process_time()
        while time.perf_counter() < end:
            if in_flight == 1:
                await client.rpc.add(1, 2)
            else:
                await asyncio.gather(*[client.rpc.add(1, 2) for _ in range(in_flight)])
            done += in_flight
        return (time.process_time() - began) / done


async def twitter(seconds: float, **metrics: bool) -> float:
    from berrymq_rpc import Bus

    bus = Bus(**metrics)
    bus.regist_function("oven:log", lambda message: None)
    done = 0
    end, began = time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < end:
        for number in range(1000):
            bus.twitter("oven:log", number)
        done += 1000
    return (time.process_time() - began) / done


async def node_to_node(seconds: float, **metrics: bool) -> float:
    from berrymq_rpc import Bus, Node

    here, there = Bus(), Bus()
    received = 0

    def receive(_: Any) -> None:
        nonlocal received
        received += 1

    there.regist_function("oven:log", receive)
    async with (
        Node("tcp://127.0.0.1:*", there, **metrics) as server,
        Node(None, here, **metrics) as node,
    ):
        await node.interconnect(server.endpoints[0])
        sent = 0
        end, began = time.perf_counter() + seconds, time.process_time()
        while time.perf_counter() < end:
            for number in range(2000):
                here.twitter("oven:log", number)
            sent += 2000
            while received < sent:
                await asyncio.sleep(0)
        return (time.process_time() - began) / sent


WORKS: dict[str, Callable[..., Awaitable[float]]] = {
    "call, 100 in flight": lambda seconds, **metrics: calls(seconds, 100, **metrics),
    "call, one after another": lambda seconds, **metrics: calls(seconds, 1, **metrics),
    "twitter, one receiver": twitter,
    "message, node to node": node_to_node,
}


#: Runs of each work in a pair.
RUNS = 10


def child() -> None:
    """Read works, answer with the seconds that each call or message took."""
    for line in sys.stdin:
        work, seconds, metrics = json.loads(line)
        asyncio.run(WORKS[work](seconds / 4, **metrics))
        costs = [asyncio.run(WORKS[work](seconds / RUNS, **metrics)) for _ in range(RUNS)]
        print(json.dumps(min(costs)), flush=True)


class Tree:
    """The process of one tree."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )

    def cost(self, work: str, seconds: float, **metrics: bool) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([work, seconds, metrics]) + "\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate(timeout=20)


def measure(
    trees: dict[str, Path], pairs: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    costs: dict[str, dict[str, list[float]]] = {work: {} for work in WORKS}
    for pair in range(pairs):
        processes = {name: Tree(root) for name, root in trees.items()}
        for number, (work, found) in enumerate(costs.items()):
            names = [*trees, "on"]
            turn = (pair + number) % len(names)
            for name in names[turn:] + names[:turn]:
                tree = processes["now" if name == "on" else name]
                metrics = {"metrics": True} if name == "on" else {}
                found.setdefault(name, []).append(tree.cost(work, seconds, **metrics))
        for process in processes.values():
            process.close()
        print(f"pair {pair + 1} of {pairs} done", file=sys.stderr, flush=True)
    return costs


def main() -> None:
    if sys.argv[1:] == ["--child"]:
        child()
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", nargs="?", help="what to compare with; none: only on and off")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.4, help="measuring time of each work")
    options = parser.parse_args()
    if options.pairs < 2:
        parser.error("there have to be 2 pairs or more")
    trees = {"now": ROOT}
    with tempfile.TemporaryDirectory(prefix="berrymq_rpc-metrics-") as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        if options.commit is not None:
            subprocess.run([*git, "add", "--detach", "--quiet", before, options.commit], check=True)
            trees["before"] = before
        try:
            costs = measure(trees, options.pairs, options.seconds)
        finally:
            if options.commit is not None:
                subprocess.run([*git, "remove", "--force", before], check=True)
    for work, found in costs.items():
        least = {name: min(times) for name, times in found.items()}
        print(f"{work:26} {least['now'] * 1e6:7.2f} us", end="")
        for name, new, old in (("off", "now", "before"), ("on", "on", "now")):
            if old in least:
                print(f"   {name} {least[new] / least[old]:.3f}", end="")
        print()


if __name__ == "__main__":
    main()
