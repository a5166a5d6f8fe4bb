"""What makes the log grow, a peer or the program: 10 records, and then one a second."""

import asyncio
import io
import logging
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.bus import Bus
from berrymq_rpc.common.log_limiter import BURST
from berrymq_rpc.exchange import Node
from berrymq_rpc.jsonrpc.bridge import Bridge

FLOOD = 1000


class Log:
    """All that is logged, as a program without settings of its own would write it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.began = monotonic()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def holds_few_of(self, text: str) -> None:
        """Check that there are records with a text, and no more than there may be."""
        count = self.text.count(text)
        allowed = BURST + monotonic() - self.began
        assert 0 < count <= allowed, f"{count} records in {allowed - BURST:.1f} s"


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    handler = logging.StreamHandler(log.stream)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    yield log
    root.removeHandler(handler)


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.calls = 0

    @rpc.method
    def fails(self) -> None:
        self.calls += 1
        raise ValueError("on purpose")

    @rpc.method
    async def fails_later(self) -> None:
        self.calls += 1
        raise ValueError("on purpose")

    @rpc.method
    def ping(self) -> int:
        return self.calls


@pytest.mark.parametrize("method", ["fails", "fails_later"])
async def test_notifications_that_fail(log: Log, method: str) -> None:
    async with (
        await rpc.start_server(Handler(), bind="mem://log-floods") as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        for _ in range(FLOOD):
            getattr(client.notify, method)()
        while await client.rpc.ping() < FLOOD:
            await asyncio.sleep(0)
    log.holds_few_of(f"handler {method} failed")
    assert log.text.count("Traceback") == BURST


async def test_notifications_that_nothing_takes(log: Log) -> None:
    async with (
        await rpc.start_server(Handler(), bind="mem://log-floods") as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        for number in range(FLOOD):
            getattr(client.notify, f"unknown{number}")()
        await client.rpc.ping()
        assert server.statistics()["notifications_dropped"] == FLOOD
    log.holds_few_of("notification 'unknown")


async def test_calls_that_fail_where_the_server_logs_them(log: Log) -> None:
    async with (
        await rpc.start_server(Handler(), bind="mem://log-floods", log_exceptions=True) as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        calls = [client.rpc.fails() for _ in range(FLOOD)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ValueError}
        log.holds_few_of("handler fails failed")
        # Another method has a rate of its own.
        with pytest.raises(ValueError, match="on purpose"):
            await client.rpc.fails_later()
    assert "handler fails_later failed" in log.text


async def test_names_that_a_peer_chooses_share_one_rate(log: Log) -> None:
    class Names:
        def __getitem__(self, name: str) -> Callable[[], Any]:
            @rpc.method
            def fails() -> None:
                raise ValueError(name)

            return fails

    async with (
        await rpc.start_server(Names(), bind="mem://log-floods", log_exceptions=True) as server,
        await rpc.open_client(connect=server.endpoints) as client,
    ):
        calls = [client.call(f"name{number}") for number in range(FLOOD)]
        await asyncio.gather(*calls, return_exceptions=True)
    log.holds_few_of("failed")


async def test_malformed_messages(log: Log, raw: Any) -> None:
    async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
        with raw.dealer(server.endpoints[0]) as socket:
            for _ in range(FLOOD):
                socket.send([b"\x00", b"nothing"])
            while not server.statistics()["malformed_messages"] >= FLOOD:
                await asyncio.sleep(0.01)
    log.holds_few_of("malformed message")


async def test_requests_that_are_not_http(log: Log) -> None:
    async with Bridge(Handler()) as bridge:
        url = await bridge.serve_http("127.0.0.1", 0)
        port = int(url.rpartition(":")[2])
        request = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nBad Header\r\n\r\n"
        for _ in range(FLOOD // 4):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
            writer.close()
            await writer.wait_closed()
    log.holds_few_of("malformed HTTP request")
    assert len(log.text) < 50_000


def test_receivers_that_raise(log: Log) -> None:
    bus = Bus()

    def one(message: object) -> None:
        raise ValueError("on purpose")

    def other(message: object) -> None:
        raise ValueError("on purpose")

    errors: list[object] = []
    bus.on_error = lambda *about: errors.append(about)
    bus.regist_function("job:*", one)
    for number in range(FLOOD):
        bus.twitter("job:done", number)
    log.holds_few_of("one failed")
    assert log.text.count("Traceback") == BURST
    # The program itself hears of each.
    assert len(errors) == FLOOD
    # Another receiver has a rate of its own.
    bus.regist_function("other:*", other)
    bus.twitter("other:done")
    assert "other failed" in log.text


async def test_queues_that_overflow_do_not_report_their_own_reports(log: Log) -> None:
    bus = Bus()
    reports: list[Any] = []
    bus.regist_function("queue:dropped", reports.append)
    async with (
        Node("mem://log-floods", bus, queue_size=1) as node,
        await rpc.open_client(connect=node.endpoints) as client,
    ):
        for _ in range(200):
            await client.rpc.connect_via_queue("*:*", 10)
        for _ in range(4):
            bus.twitter("job:done")
    assert "RecursionError" not in log.text
    assert "queue:dropped ->" not in log.text
    log.holds_few_of("dropped so far")
    # Each queue reports the messages, not what it dropped for the reports of the others.
    assert 0 < len(reports) <= 200 * 4
