"""The systems that `cluster.py` compares: each a server and a client, in processes of their own.

A client offers ways to do a work; `cluster.py` takes the best of them. Each is called with seconds,
and returns messages or calls a second.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

__all__ = ["SYSTEMS", "WORKS", "System"]

EIGHT = b"8 bytes."
KIBIBYTE = EIGHT * 128
LARGE = KIBIBYTE * 64

#: Messages that are sent before those that arrived are counted.
ROUND = 10_000

#: Messages that a consumer takes, for each second.
CONSUMED = 10_000

ONE = "one after another, 8 B"
ONE_LARGE = "one after another, 64 KiB"
MANY = "100 in flight, 8 B"
MANY_MEDIUM = "100 in flight, 1 KiB"
MANY_LARGE = "100 in flight, 64 KiB"
PUBLISH = "messages published, 8 B"
NOTIFY = "notifications, 8 B"
STORE = "stored, with JetStream's word"
CONSUME = "taken from a queue, with ack"

WORKS = (ONE, ONE_LARGE, MANY, MANY_MEDIUM, MANY_LARGE, PUBLISH, NOTIFY, STORE, CONSUME)

Way = Callable[[float], Awaitable[float]]
Ways = dict[str, dict[str, Way]]


class System(NamedTuple):
    """One library.

    Args:
        title: its name in the tables.
        serve: runs a server, given the address of NATS; yields where clients find it.
        connect: gives a client of such a server, as its ways to do each work.
    """

    title: str
    serve: Callable[[str], Any]
    connect: Callable[[str, str], Any]


async def calls(
    call: Callable[[bytes], Awaitable[Any]], count: int, body: bytes, seconds: float
) -> float:
    """Calls a second with so many under way at any time."""
    done = 0
    end = time.perf_counter() + seconds

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < end:
            answer = await call(body)
            assert len(answer) == len(body)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(count)))
    return done / (time.perf_counter() - began)


def ways_to_call(call: Callable[[bytes], Awaitable[Any]]) -> Ways:
    return {
        ONE: {"": lambda s: calls(call, 1, EIGHT, s)},
        ONE_LARGE: {"": lambda s: calls(call, 1, LARGE, s)},
        MANY: {"": lambda s: calls(call, 100, EIGHT, s)},
        MANY_MEDIUM: {"": lambda s: calls(call, 100, KIBIBYTE, s)},
        MANY_LARGE: {"": lambda s: calls(call, 100, LARGE, s)},
    }


async def counted(
    send: Callable[[], Awaitable[Any] | Any], count: Callable[[], Awaitable[int]], s: float
) -> float:
    """Messages a second, counted where they arrive."""
    first, sent = await count(), 0
    began = time.perf_counter()
    while time.perf_counter() - began < s:
        for _ in range(ROUND // 500):
            for _ in range(500):
                waiting = send()
                if asyncio.iscoroutine(waiting):
                    await waiting
            await asyncio.sleep(0)
        sent += ROUND
        while await count() - first < sent:
            await asyncio.sleep(0.0002)
    return sent / (time.perf_counter() - began)


async def rounds(send: Callable[[int], Awaitable[Any]], s: float) -> float:
    """Messages a second that are sent in rounds; `send` sends so many and waits for them."""
    sent = 0
    began = time.perf_counter()
    while time.perf_counter() - began < s:
        await send(ROUND // 2)
        sent += ROUND // 2
    return sent / (time.perf_counter() - began)


# -- nats-py -------------------------------------------------------------------------------------


@asynccontextmanager
async def _serve_nats(url: str) -> AsyncIterator[str]:
    import nats

    connection = await nats.connect(url)
    arrived = 0

    async def echo(message: Any) -> None:
        await message.respond(message.data)

    async def note(message: Any) -> None:
        nonlocal arrived
        arrived += 1

    async def count(message: Any) -> None:
        await message.respond(b"%d" % arrived)

    for subject, callback in (("echo", echo), ("note", note), ("count", count)):
        await connection.subscribe(f"plain.{subject}", cb=callback)
    await connection.flush()
    yield url
    await connection.close()


@asynccontextmanager
async def _connect_nats(url: str, where: str) -> AsyncIterator[Ways]:
    import nats
    from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType

    connection = await nats.connect(url)
    js = connection.jetstream()
    # As the library declares its own.
    await js.add_stream(
        name="PLAIN",
        subjects=["stored.*"],
        storage=StorageType.FILE,
        retention=RetentionPolicy.INTEREST,
        duplicate_window=120,
    )
    numbers = itertools.count(1)

    async def call(body: bytes) -> bytes:
        data: bytes = (await connection.request("plain.echo", body, timeout=10)).data
        return data

    async def count() -> int:
        return int((await connection.request("plain.count", timeout=10)).data)

    async def publish(s: float) -> float:
        return await counted(lambda: connection.publish("plain.note", EIGHT), count, s)

    @asynccontextmanager
    async def consumer(subject: str, **more: Any) -> AsyncIterator[str]:
        name = f"c{next(numbers)}"
        config = ConsumerConfig(
            durable_name=name,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=30,
            max_ack_pending=1000,
            filter_subjects=[subject],
            **more,
        )
        await js.add_consumer("PLAIN", config)
        try:
            yield name
        finally:
            await js.delete_consumer("PLAIN", name)

    async def send_async(number: int) -> None:
        for _ in range(number):
            await js.publish_async("stored.new", EIGHT)
        await js.publish_async_completed()

    async def send_gathered(number: int) -> None:
        await asyncio.gather(*(js.publish("stored.new", EIGHT, timeout=30) for _ in range(number)))

    async def send_by_hundreds(number: int) -> None:
        for _ in range(number // 100):
            await asyncio.gather(*(js.publish("stored.new", EIGHT, timeout=30) for _ in range(100)))

    def storing(send: Callable[[int], Awaitable[Any]]) -> Way:
        async def store(s: float) -> float:
            # Without a consumer nothing is kept.
            async with consumer("stored.new"):
                return await rounds(send, s)

        return store

    async def fetch(s: float) -> float:
        wanted = int(CONSUMED * s)
        async with consumer("stored.new") as name:
            await send_async(wanted)
            subscription = await js.pull_subscribe_bind(name, stream="PLAIN")
            began = time.perf_counter()
            taken = 0
            while taken < wanted:
                messages = await subscription.fetch(min(100, wanted - taken), timeout=10)
                taken += len(messages)
                last = messages.pop() if taken == wanted else None
                for message in messages:
                    await message.ack()
                if last is not None:
                    await last.ack_sync(timeout=10)
            took = time.perf_counter() - began
            await subscription.unsubscribe()
        return wanted / took

    async def push(s: float) -> float:
        wanted = int(CONSUMED * s)
        inbox = connection.new_inbox()
        async with consumer("stored.new", deliver_subject=inbox) as name:
            await send_async(wanted)
            taken = 0
            over = asyncio.Event()

            async def take(message: Any) -> None:
                nonlocal taken
                taken += 1
                if taken < wanted:
                    await message.ack()
                elif taken == wanted:
                    await message.ack_sync(timeout=10)
                    over.set()

            began = time.perf_counter()
            info = await js.consumer_info("PLAIN", name)
            subscription = await js.subscribe_bind(
                stream="PLAIN", config=info.config, consumer=name, cb=take, manual_ack=True
            )
            await over.wait()
            took = time.perf_counter() - began
            await subscription.unsubscribe()
        return wanted / took

    ways = ways_to_call(call)
    ways[PUBLISH] = {"": publish}
    ways[NOTIFY] = {"": publish}
    ways[STORE] = {
        "publish_async": storing(send_async),
        "publish, 5,000 gathered": storing(send_gathered),
        "publish, 100 gathered": storing(send_by_hundreds),
    }
    ways[CONSUME] = {"fetch(100)": fetch, "subscribe": push}
    yield ways
    await connection.close()


# -- the library ---------------------------------------------------------------------------------


@asynccontextmanager
async def _serve(calls_at: str, **node: Any) -> AsyncIterator[str]:
    from berrymq_rpc import Bus, Node, rpc

    bus = Bus()
    notes = arrived = 0

    class Handler(rpc.AttrHandler):
        @rpc.method
        def echo(self, x: bytes) -> bytes:
            return x

        @rpc.method
        def note(self, x: bytes) -> None:
            nonlocal notes
            notes += 1

        @rpc.method
        def count_notes(self) -> int:
            return notes

        @rpc.method
        def count_messages(self) -> int:
            return arrived

    def arrive(x: bytes) -> None:
        nonlocal arrived
        arrived += 1

    bus.regist_function("note:new", arrive)
    async with (
        Node(bus=bus, **node) as of_messages,
        await rpc.start_server(Handler(), bind=calls_at) as server,
    ):
        messages = of_messages.endpoints
        yield " ".join([server.endpoints[0], *messages])


def _over_nats(url: str) -> Any:
    return _serve(f"{url}/echo", cluster=url, namespace="bench")


def _over_zeromq(url: str) -> Any:
    return _serve("tcp://127.0.0.1:*", bind="tcp://127.0.0.1:*")


def _ways_of(client: Any, bus: Any) -> Ways:
    def published(s: float) -> Awaitable[float]:
        return counted(lambda: bus.twitter("note:new", EIGHT), client.rpc.count_messages, s)

    def notified(s: float) -> Awaitable[float]:
        return counted(lambda: client.notify.note(EIGHT), client.rpc.count_notes, s)

    ways = ways_to_call(lambda body: client.rpc.echo(body))
    ways[PUBLISH] = {"": published}
    ways[NOTIFY] = {"": notified}
    return ways


@asynccontextmanager
async def _connect_zeromq(url: str, where: str) -> AsyncIterator[Ways]:
    from berrymq_rpc import Bus, Node, rpc

    calls_at, messages_at = where.split()
    bus = Bus()
    async with Node(None, bus) as node, await rpc.open_client(connect=calls_at) as client:
        await node.interconnect(messages_at)
        yield _ways_of(client, bus)


@asynccontextmanager
async def _connect_cluster(url: str, where: str) -> AsyncIterator[Ways]:
    from berrymq_rpc import AsyncQueue, Bus, Node, rpc

    bus = Bus()
    numbers = itertools.count(1)

    async def send(number: int) -> None:
        await asyncio.gather(*(bus.publish("stored:new", EIGHT) for _ in range(number)))

    async def send_by_workers(number: int) -> None:
        async def work() -> None:
            for _ in range(number // 500):
                await bus.publish("stored:new", EIGHT)

        await asyncio.gather(*(work() for _ in range(500)))

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        queue = AsyncQueue("stored:new", durable=f"q{next(numbers)}", bus=bus)
        await queue.ready()
        try:
            yield queue
        finally:
            await queue.delete()
            queue.close()

    def storing(send: Callable[[int], Awaitable[Any]]) -> Way:
        async def store(s: float) -> float:
            async with opened():
                return await rounds(send, s)

        return store

    async def consume(s: float) -> float:
        wanted = int(CONSUMED * s)
        async with opened() as queue:
            await send(wanted)
            began = time.perf_counter()
            for _ in range(wanted - 1):
                async with queue.get():
                    pass
            async with queue.get() as message:
                await message.ack(confirm=True)
            return wanted / (time.perf_counter() - began)

    node = Node(None, bus, cluster=url, namespace="bench")
    async with node, await rpc.open_client(connect=where) as client:
        ways = _ways_of(client, bus)
        ways[STORE] = {
            "publish, 5,000 gathered": storing(send),
            "publish, 500 at a time": storing(send_by_workers),
        }
        ways[CONSUME] = {"": consume}
        yield ways


SYSTEMS = {
    "nats-py": System("nats-py", _serve_nats, _connect_nats),
    "cluster": System("berrymq_rpc", _over_nats, _connect_cluster),
    "zeromq": System("over ZeroMQ", _over_zeromq, _connect_zeromq),
}
