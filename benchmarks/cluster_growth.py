"""How a cluster grows: with 1, 2 and 4 servers of a service, with 1, 2 and 4 NATS servers.

    python benchmarks/cluster_growth.py [--repeats N] [--seconds S]

Each server, client and node is a process of its own, and so are the NATS servers, which have routes
to each other. Callers, services and nodes are spread over them. A ratio is the median of the ratios
within the repeats: to one server of the service, or to one NATS server. "hold" is a method that
keeps its process for a millisecond without using a core, as one does that asks a database.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from berrymq_rpc import AsyncQueue, Bus, Message, Node, rpc
from berrymq_rpc.testing.nats_server import NatsServer

COUNTS = (1, 2, 4)
BODY = b"8 bytes."

#: Calls that a caller has under way.
IN_FLIGHT = 100

#: Messages that a publisher sends before it is asked for more.
ROUND = 10_000

#: Rows that are compared with that before them, not with their own first column.
BESIDE = ("and on", "stored at three")

#: By row and column: a rate for each repeat.
Figures = dict[tuple[str, str], list[float]]


# -- the processes -------------------------------------------------------------------------------


class Handler(rpc.AttrHandler):
    @rpc.method
    def echo(self, body: bytes) -> bytes:
        return body

    @rpc.method
    def hold(self, body: bytes) -> bytes:
        time.sleep(0.001)
        return body


async def service(url: str, asked: asyncio.StreamReader) -> None:
    async with await rpc.start_server(Handler(), bind=f"{url}/growth"):
        print("ready", flush=True)
        await asked.read()


async def caller(url: str, asked: asyncio.StreamReader) -> None:
    async with await rpc.open_client(connect=f"{url}/growth", timeout=30) as client:
        await client.rpc.echo(BODY)
        print("ready", flush=True)
        while line := await asked.readline():
            method, seconds = json.loads(line)
            end, done = time.perf_counter() + seconds, 0

            async def work(method: str = method, end: float = end) -> None:
                nonlocal done
                while time.perf_counter() < end:
                    await getattr(client.rpc, method)(BODY)
                    done += 1

            began = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
            print(json.dumps(done / (time.perf_counter() - began)), flush=True)


async def receiver(url: str, asked: asyncio.StreamReader, name: str) -> None:
    bus, arrived = Bus(), 0

    def arrive(message: Message) -> None:
        nonlocal arrived
        arrived += 1

    bus.regist_function(f"{name}:new", arrive)
    async with Node(bus=bus, cluster=url, namespace="growth") as node:
        await node.drain()
        print("ready", flush=True)
        while await asked.readline():
            print(json.dumps(arrived), flush=True)


async def publisher(url: str, asked: asyncio.StreamReader, name: str) -> None:
    bus = Bus()
    async with Node(bus=bus, cluster=url, namespace="growth") as node:
        print("ready", flush=True)
        while line := await asked.readline():
            for number in range(json.loads(line)):
                bus.twitter(f"{name}:new", BODY)
                if number % 500 == 499:
                    await asyncio.sleep(0)
            await node.drain()
            print("null", flush=True)


async def storer(url: str, asked: asyncio.StreamReader, replicas: str) -> None:
    bus = Bus()
    durable = rpc.Durable(replicas=int(replicas))
    async with Node(bus=bus, cluster=url, namespace="stored", durable=durable):
        queue = AsyncQueue("job:new", durable="workers", bus=bus)
        await queue.ready()
        print("ready", flush=True)
        while line := await asked.readline():
            end, done = time.perf_counter() + json.loads(line), 0
            began = time.perf_counter()
            while time.perf_counter() < end:
                await asyncio.gather(*(bus.publish("job:new", BODY) for _ in range(IN_FLIGHT)))
                done += IN_FLIGHT
            print(json.dumps(done / (time.perf_counter() - began)), flush=True)


ROLES: dict[str, Any] = {
    role.__name__: role for role in (service, caller, receiver, publisher, storer)
}


async def child(role: str, *arguments: str) -> None:
    url, *more = arguments
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(asked), sys.stdin
    )
    await ROLES[role](url, asked, *more)


class Child:
    """A process of a role."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Child":
        assert self.answer() == "ready"
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.process.communicate(timeout=20)
        finally:
            self.process.kill()

    def ask(self, question: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        return line if line == "ready" else json.loads(line)


def ask_all(children: list[Child], question: object) -> list[Any]:
    for each in children:
        each.ask(question)
    return [each.answer() for each in children]


# -- the works -----------------------------------------------------------------------------------


@contextmanager
def nats_servers(count: int, jetstream: str = "") -> Iterator[list[str]]:
    """The addresses of NATS servers with routes to each other."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    with ExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            text = f"server_name: s{number}\n{jetstream}"
            if count > 1:
                text += f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{routes}] }}\n'
            server = stack.enter_context(NatsServer(text, jetstream=bool(jetstream)))
            servers.append(server)
        yield [server.url for server in servers]


@contextmanager
def processes(*children: Child) -> Iterator[list[Child]]:
    # All start before the first is waited for.
    with ExitStack() as stack:
        yield [stack.enter_context(each) for each in children]


def calls(urls: list[str], services: int, seconds: float) -> dict[str, float]:
    """Calls a second of two callers, for both methods."""
    found = {}
    with (
        processes(*(Child("service", urls[-1 - n % len(urls)]) for n in range(services))),
        processes(*(Child("caller", urls[n % len(urls)]) for n in range(2))) as callers,
    ):
        for method in ("echo", "hold"):
            ask_all(callers, [method, seconds / 4])
            found[method] = sum(ask_all(callers, [method, seconds]))
    return found


def messages(urls: list[str], seconds: float) -> float:
    """Messages a second from two nodes to two others, each at the next NATS server."""
    names = ("a", "b")
    with (
        processes(
            *(Child("receiver", urls[(n + 1) % len(urls)], name) for n, name in enumerate(names))
        ) as receivers,
        processes(
            *(Child("publisher", urls[n % len(urls)], name) for n, name in enumerate(names))
        ) as publishers,
    ):
        arrived = 0
        # A first round, until the NATS servers know from each other who wants what.
        while arrived < 2:
            ask_all(publishers, 1)
            arrived = min(ask_all(receivers, 0)) and 2
        first, sent = sum(ask_all(receivers, 0)), 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            ask_all(publishers, ROUND)
            sent += 2 * ROUND
            while sum(ask_all(receivers, 0)) - first < sent:
                time.sleep(0.001)
        return sent / (time.perf_counter() - began)


def stored(urls: list[str], replicas: int, seconds: float) -> float:
    with processes(Child("storer", urls[0], str(replicas))) as (storer,):
        ask_all([storer], seconds / 4)
        return float(ask_all([storer], seconds)[0])


def measure(repeats: int, seconds: float) -> Figures:
    figures: Figures = {}

    def note(row: str, column: object, rate: float) -> None:
        figures.setdefault((row, str(column)), []).append(rate)

    for repeat in range(repeats):
        with nats_servers(1) as urls:
            for services in COUNTS:
                for method, rate in calls(urls, services, seconds).items():
                    note(f"calls of {method}, servers", services, rate)
        for count in COUNTS:
            with nats_servers(count) as urls:
                note("calls of echo, NATS servers", count, calls(urls, 1, seconds)["echo"])
                note("messages, NATS servers", count, messages(urls, seconds))
        for row, count, replicas, jetstream in (
            ("stored at one NATS server", 1, 1, "jetstream {}\n"),
            ("and on its disk", 1, 1, "jetstream { sync_interval: always }\n"),
            ("stored at three", 3, 3, "jetstream {}\n"),
            ("and on their disks", 3, 3, "jetstream { sync_interval: always }\n"),
        ):
            with nats_servers(count, jetstream) as urls:
                note(row, 1, stored(urls, replicas, seconds))
        print(f"repeat {repeat + 1} of {repeats} done", file=sys.stderr)
    return figures


def show(figures: Figures) -> None:
    print(
        f"\nPython {sys.version.split()[0]}, {os.cpu_count()} cores; a second; xN: times the first"
    )
    rows = dict.fromkeys(row for row, _ in figures)
    reference: list[float] = []
    for row in rows:
        for (name, column), rates in figures.items():
            if name != row:
                continue
            if column == "1" and not row.startswith(BESIDE):
                reference = rates
            ratios = [mine / its for mine, its in zip(rates, reference, strict=True)]
            print(
                f"{row:32}{column:>3}{statistics.median(rates):>12,.0f}"
                f"  x{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            )


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] in ROLES:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(child(*sys.argv[1:]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time of each work")
    options = parser.parse_args()
    show(measure(options.repeats, options.seconds))


if __name__ == "__main__":
    main()
