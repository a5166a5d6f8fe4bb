"""Handlers and filters of `logging` that raise break nothing."""

import asyncio
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.bus import Bus, Queue
from berrymq_rpc.exchange import Node, SyncNode
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client

PATIENCE = 10.0

LOGGER = logging.getLogger("berrymq_rpc")


class Raising(logging.Handler):
    def __init__(self, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.error = error
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        raise self.error()


class RaisingFilter(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.count += 1
        raise ValueError("the filter")


def run_out_of_stack() -> BaseException:
    return run_out_of_stack()


@pytest.fixture(
    params=["handler", "exit", "stack", "filter"],
)
def raising(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Log handlers that raise; the test has made them do so at least once."""
    kinds: dict[str, Callable[[], BaseException]] = {
        "handler": lambda: ValueError("the handler"),
        "exit": lambda: SystemExit(3),
        "stack": run_out_of_stack,
    }
    if request.param == "filter":
        # Filters of a logger see only what is logged by that very logger.
        handler: logging.Handler = logging.StreamHandler(io.StringIO())
        source: Any = RaisingFilter()
        handler.addFilter(source)
    else:
        handler = source = Raising(kinds[request.param])
    LOGGER.addHandler(handler)
    yield source
    LOGGER.removeHandler(handler)
    assert source.count


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.noted: list[Any] = []

    @rpc.method
    def work(self, number):
        if number % 2:
            raise ValueError(number)
        return number

    @rpc.method
    async def work_later(self, number):
        await asyncio.sleep(0)
        return self.work(number)

    @rpc.method(thread=True)
    def work_in_thread(self, number):
        return self.work(number)

    @rpc.method
    async def items(self, number):
        yield number
        raise ValueError(number)

    @rpc.method
    def note(self, value):
        self.noted.append(value)
        if value != "last":
            raise ValueError(value)


async def outcomes(calls: list[Any]) -> list[Any]:
    found = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE)
    return [outcome.args[0] if isinstance(outcome, ValueError) else outcome for outcome in found]


@pytest.mark.parametrize("method", ["work", "work_later", "work_in_thread"])
@pytest.mark.parametrize("endpoint", ["mem://raising-log", "tcp://127.0.0.1:*"])
async def test_answers_sent_together(raising: Any, method: str, endpoint: str) -> None:
    async with (
        await rpc.start_server(
            Handler(), bind=endpoint, log_exceptions=True, slow_handler=1e-9
        ) as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        assert await outcomes([client.call(method, n) for n in range(10)]) == [*range(10)]
        assert await outcomes([client.call(method, n) for n in range(10)]) == [*range(10)]


async def test_a_stream(raising: Any) -> None:
    async with (
        await rpc.start_server(Handler(), bind="mem://raising-log", log_exceptions=True) as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        stream = client.rpc.items(5)
        assert await anext(stream) == 5
        with pytest.raises(ValueError, match="5"):
            await asyncio.wait_for(anext(stream), PATIENCE)
        assert await client.rpc.work(2) == 2


async def test_notifications(raising: Any) -> None:
    handler = Handler()
    async with (
        await rpc.start_server(handler, bind="mem://raising-log") as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        for number in range(20):
            client.notify.note(number)
            client.notify.unknown(number)
        client.notify.note("last")
        assert await client.rpc.work(2) == 2
    assert handler.noted == [*range(20), "last"]


def fail(message: Any) -> None:
    raise ValueError(message.args[0])


def test_twitter(raising: Any) -> None:
    bus = Bus()
    heard: list[Any] = []
    bus.regist_function("job:*", fail)
    bus.regist_function("job:*", heard.append)
    bus.regist_function("job:*", lambda message: fail(message))
    bus.regist_function("job:*", lambda message: heard.append(message))
    with Queue("job:*", maxsize=1, bus=bus) as queue:
        for number in range(20):
            assert bus.twitter("job:done", number) == 5
        assert queue.dropped == 19
    assert len(heard) == 40


def test_an_on_error_that_raises_too(raising: Any) -> None:
    bus = Bus()
    heard: list[Any] = []
    bus.on_error = lambda *about: fail(about[1])
    bus.regist_function("job:*", fail)
    bus.regist_function("job:*", heard.append)
    assert bus.twitter("job:done", 1) == 2
    assert len(heard) == 1


def test_workers_of_the_pool(raising: Any) -> None:
    bus = Bus()
    bus.set_multiplicity(2)
    heard: list[Any] = []
    all_heard = threading.Event()

    def hear(message: Any) -> None:
        heard.append(message.args[0])
        if len(heard) == 50:
            all_heard.set()

    bus.regist_function("job:*", fail)
    bus.regist_function("job:*", hear)
    for number in range(50):
        bus.twitter("job:done", number)
    assert all_heard.wait(PATIENCE)
    bus.set_multiplicity(0)


@pytest.mark.parametrize("pool", [0, 2])
async def test_publish(raising: Any, pool: int) -> None:
    bus = Bus()
    if pool:
        bus.set_multiplicity(pool)
    heard: list[Any] = []

    async def fail_later(message: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError(message)

    bus.regist_function("job:*", fail)
    bus.regist_function("job:*", fail_later)
    bus.regist_function("job:*", heard.append)
    assert await asyncio.wait_for(bus.publish("job:done", 1), PATIENCE) == 3
    assert len(heard) == 1
    if pool:
        bus.set_multiplicity(0)


def test_the_thread_of_receivers(raising: Any) -> None:
    here, there = Bus(), Bus()
    heard: list[Any] = []
    ended = threading.Event()

    def hear(message: Any) -> None:
        heard.append(message.args[0])
        if message.args[0] == 19:
            ended.set()

    there.regist_function("job:*", fail)
    there.regist_function("job:*", hear)
    with SyncNode(there) as server, SyncNode(here) as client:
        client.connect_oneway(server.init_connection())
        for number in range(20):
            assert client.send_message("job:done", number) == "ok"
        assert ended.wait(PATIENCE)
    assert heard == [*range(20)]


async def test_nodes_that_drop_and_are_lost(raising: Any) -> None:
    bus, there = Bus(), Bus()
    server = await Node("mem://raising-log", there, queue_size=2).start()
    async with Node(None, bus) as node:
        queue = await node.connect_via_queue("job:*", "mem://raising-log")
        for number in range(50):
            there.twitter("job:done", number)
        assert (await queue.get(timeout=PATIENCE)).args == (48,)
        assert (await queue.get(timeout=PATIENCE)).args == (49,)
        await server.close()
        async with Node("mem://raising-log", there):
            # It is connected again, and the loss was logged.
            there_again = asyncio.get_running_loop().time() + PATIENCE
            while await queue.send_message("x:y") != "ok":
                assert asyncio.get_running_loop().time() < there_again


class Methods:
    def handle_work_method(self, number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number

    def handle_note_notification(self, number: int) -> None:
        raise ValueError(number)


class PlainServer(Methods, zeromq.RPCServer):
    pass


class NotificationServer(Methods, zeromq.RPCNotificationServer):
    pass


class NewsServer(Methods, zeromq.SubscriptionServer):
    pass


class Watcher(zeromq.NotificationReceiverClient):
    def __init__(self, *args: Any) -> None:
        self.heard: list[int] = []
        self.done = threading.Event()
        super().__init__(*args)

    def handle_news_notification(self, number: int) -> None:
        self.heard.append(number)
        if number == 19:
            self.done.set()
        raise ValueError(number)


@pytest.mark.parametrize(
    ("server_class", "client_class"),
    [
        (PlainServer, zeromq.RPCClient),
        (NotificationServer, zeromq.RPCNotifierClient),
        (NewsServer, zeromq.NotificationReceiverClient),
    ],
)
def test_servers_with_threads(raising: Any, server_class: Any, client_class: Any) -> None:
    with server_class("tcp://127.0.0.1:*") as server, client_class(server.endpoint) as client:
        for number in range(10):
            if number % 2:
                with pytest.raises(zeromq.ServerError):
                    client.work(number)
            else:
                assert client.work(number) == number
            if server_class is not PlainServer:
                client.notify.note(number)
        assert client.work(10) == 10


def test_the_thread_of_a_client_with_handlers(raising: Any) -> None:
    with NewsServer("tcp://127.0.0.1:*") as server, Watcher(server.endpoint) as watcher:
        assert watcher.subscribe()
        for number in range(20):
            server.publish("news", number)
        assert watcher.done.wait(PATIENCE)
        assert watcher.work(2) == 2
    assert watcher.heard == [*range(20)]


async def test_a_bridge(raising: Any) -> None:
    async with Bridge(Handler(), log_exceptions=True) as bridge:
        url = await bridge.serve_http("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"not HTTP\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        await writer.wait_closed()
        async with await open_http_client(url, timeout=PATIENCE) as client:
            for number in range(10):
                client.notify.note(number)
                client.notify.unknown(number)
            calls = [client.call("work", number) for number in range(10)]
            found = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE)
            assert [isinstance(outcome, Exception) for outcome in found] == [False, True] * 5


def test_a_handler_that_sends_what_it_gets(raising: Any) -> None:
    """A handler may send records on the bus, whose receivers fail, which is logged."""
    bus = Bus()
    heard: list[Any] = []

    class ToBus(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            bus.twitter("log:record", record.getMessage())

    handler = ToBus()
    LOGGER.addHandler(handler)
    try:
        bus.regist_function("log:*", fail)
        bus.regist_function("job:*", fail)
        bus.regist_function("job:*", heard.append)
        began = time.monotonic()
        for number in range(100):
            bus.twitter("job:done", number)
        assert time.monotonic() - began < PATIENCE
    finally:
        LOGGER.removeHandler(handler)
    assert len(heard) == 100
