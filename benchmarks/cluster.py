"""Calls, messages and durable queues over NATS beside plain nats-py, as ratios within one run.

    python benchmarks/cluster.py [--repeats N] [--seconds S] [--systems a,b] [--works text]

A NATS server of its own is started, with JetStream in a temporary folder. Server and client of each
system are processes of their own. In a repeat, all systems do a work in turn before the next work,
so that what else the machine does meets them alike. A ratio is the median of the ratios within the
repeats, and the range is that of them. Where a library has several ways, its best counts.

It is not named `nats.py`, which would hide the package of that name.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys

from cluster_systems import SYSTEMS, WORKS

from berrymq_rpc.testing.nats_server import NatsServer

REFERENCE = "nats-py"

#: By repeat: what each way of a system came to.
Figures = dict[tuple[str, str], list[dict[str, float]]]


async def child(role: str, name: str, url: str, where: str) -> None:
    """The server or client process: reads the names of works, answers with figures."""
    system = SYSTEMS[name]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    if role == "server":
        async with system.serve(url) as found_at:
            print(found_at, flush=True)
            await reader.read()
        return
    async with system.connect(url, where) as works:
        print("ready", flush=True)
        while line := await reader.readline():
            work, seconds = json.loads(line)
            figures = {}
            for name, way in works.get(work, {}).items():
                await asyncio.wait_for(way(seconds / 8), 60)
                figures[name] = await asyncio.wait_for(way(seconds), 60)
            print(json.dumps(figures), flush=True)


def start(*arguments: str) -> "tuple[subprocess.Popen[str], str]":
    """Start a process; return it with its first line."""
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise SystemExit(f"the {arguments[0]} of {arguments[1]} did not start")
    return process, line


def ask(client: "subprocess.Popen[str]", work: str, seconds: float) -> dict[str, float]:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps([work, seconds]) + "\n")
    client.stdin.flush()
    figures: dict[str, float] = json.loads(client.stdout.readline())
    return figures


def measure(names: list[str], works: list[str], repeats: int, seconds: float) -> Figures:
    figures: Figures = {}
    for repeat in range(repeats):
        with NatsServer(jetstream=True) as nats:
            pairs = {}
            for name in names:
                server, where = start("server", name, nats.url, "")
                pairs[name] = server, start("client", name, nats.url, where)[0]
            for work in works:
                turn = repeat % len(names)
                for name in names[turn:] + names[:turn]:
                    found = ask(pairs[name][1], work, seconds)
                    if found:
                        figures.setdefault((work, name), []).append(found)
            for server, client in pairs.values():
                for process in (client, server):
                    process.communicate(timeout=10)
        print(f"repeat {repeat + 1} of {repeats} done", file=sys.stderr)
    return figures


def cell(values: list[dict[str, float]], reference: list[dict[str, float]] | None) -> str:
    """The median, the median ratio and the range of ratios."""
    best = [max(each.values()) for each in values]
    text = f"{statistics.median(best):,.0f}"
    if reference is None:
        return text
    ratios = [mine / max(its.values()) for mine, its in zip(best, reference, strict=True)]
    return f"{text}  x{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def show(names: list[str], works: list[str], figures: Figures) -> None:
    print(
        f"\nPython {sys.version.split()[0]}, {os.cpu_count()} cores; a second; xN: N times nats-py"
    )
    print(f"{'':32}" + "".join(f"{SYSTEMS[name].title:>32}" for name in names))
    for work in works:
        reference = figures.get((work, REFERENCE))
        row = f"{work:32}"
        for name in names:
            best = figures.get((work, name))
            beside = None if name == REFERENCE else reference
            row += f"{'--' if best is None else cell(best, beside):>32}"
        print(row)
        for place, name in enumerate(names):
            values = figures.get((work, name), [])
            for way in values[0] if values and len(values[0]) > 1 else ():
                only = [{way: each[way]} for each in values]
                shown = cell(only, None if name == REFERENCE else reference)
                print(f"{'':8}{way:24}{'':{32 * place}}{shown:>32}")


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in ("server", "client"):
        asyncio.run(child(*sys.argv[1:]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time of each work")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--works", default="", help="only works whose name has this text")
    options = parser.parse_args()
    names = options.systems.split(",")
    works = [work for work in WORKS if options.works in work]
    show(names, works, measure(names, works, options.repeats, options.seconds))


if __name__ == "__main__":
    main()
