"""What an idle client costs its server: KiB of memory, above that of a bare ROUTER.

    python benchmarks/memory.py [--clients 1000]

Each client has made one call and keeps its connection. The clients are in one process, the server
in another, whose resident memory is read before and after. The bare ROUTER is pyzmq's alone, and
answers each client once.
"""

import argparse
import asyncio
import gc
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).parents[1]))

from berrymq_rpc import rpc

#: Clients that connect before the first figure is taken: what they cause to be allocated once is
#: not the cost of those that follow.
WARM_UP = 100


def resident() -> int:
    """Bytes of this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def collected() -> int:
    gc.collect()
    return resident()


# -- servers ---------------------------------------------------------------------------------


def serve_router(parent: Connection) -> None:
    """Answer each message with itself, and each word of the parent's with the memory taken."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        context.set(zmq.MAX_SOCKETS, 65_535)
        parent.send(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(parent.fileno(), zmq.POLLIN)
        while True:
            events = dict(poller.poll())
            if router in events:
                router.send_multipart(router.recv_multipart())
            if parent.fileno() in events:
                if parent.recv() is None:
                    router.linger = 0
                    return
                parent.send(collected())


def serve_rpc(parent: Connection) -> None:
    """The same, with the method ``add``."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def heard() -> None:
            if parent.recv() is None:
                ended.set()
            else:
                parent.send(collected())

        handler = {"add": rpc.method(lambda a, b=1: a + b)}
        async with await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server:
            loop.add_reader(parent.fileno(), heard)
            parent.send(server.endpoints[0])
            await ended.wait()
            loop.remove_reader(parent.fileno())

    asyncio.run(serve())


# -- clients ---------------------------------------------------------------------------------


def connect_dealers(endpoint: str, parent: Connection) -> None:
    """Open as many sockets as the parent says, again and again; each speaks once."""
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, 65_535)
        sockets: list[zmq.Socket[bytes]] = []
        while (count := parent.recv()) is not None:
            for _ in range(count):
                sockets.append(context.socket(zmq.DEALER))
                sockets[-1].connect(endpoint)
                sockets[-1].send(b"add")
                sockets[-1].recv()
            parent.send(None)
        for socket in sockets:
            socket.close(0)


def connect_clients(endpoint: str, parent: Connection) -> None:
    """The same with clients of this package."""

    async def connect() -> None:
        clients = []
        while (count := await asyncio.to_thread(parent.recv)) is not None:
            for _ in range(count):
                clients.append(await rpc.open_client(connect=endpoint))
                assert await clients[-1].rpc.add(1) == 2
            parent.send(None)
        for client in clients:
            client.close()
        for client in clients:
            await client.wait_closed()

    asyncio.run(connect())


# -- the measurement -------------------------------------------------------------------------


def measure(
    serve: Callable[[Connection], None],
    connect: Callable[[str, Connection], None],
    count: int,
) -> float:
    """KiB of the server's memory for each of `count` clients."""
    context = multiprocessing.get_context("spawn")
    server, servers_end = context.Pipe()
    clients, clients_end = context.Pipe()
    serving = context.Process(target=serve, args=(servers_end,), daemon=True)
    serving.start()
    endpoint = server.recv()
    connecting = context.Process(target=connect, args=(endpoint, clients_end), daemon=True)
    connecting.start()
    # So that the end of a process that failed is noticed.
    servers_end.close()
    clients_end.close()

    def memory_with(more: int) -> int:
        clients.send(more)
        clients.recv()
        server.send("memory")
        return int(server.recv())

    before = memory_with(WARM_UP)
    after = memory_with(count)
    clients.send(None)
    connecting.join()
    server.send(None)
    serving.join()
    return (after - before) / count / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="What an idle client costs its server.")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    bare, ours = [], []
    for _ in range(options.repeats):
        bare.append(measure(serve_router, connect_dealers, options.clients))
        ours.append(measure(serve_rpc, connect_clients, options.clients))
    router, connection = statistics.median(bare), statistics.median(ours)
    print(f"KiB of memory at the server for each of {options.clients:,} idle clients:")
    print(f"{'bare ROUTER of pyzmq':24}{router:8.1f}")
    print(f"{'berrymq_rpc':24}{connection:8.1f}")
    print(f"{'more':24}{connection - router:8.1f}")


if __name__ == "__main__":
    main()
