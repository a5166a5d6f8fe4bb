"""Calls as spans of OpenTelemetry: joined from client to server, ended whatever becomes of them."""

import asyncio
import importlib
import itertools
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from berrymq_rpc import rpc
from berrymq_rpc.common.tracing import installed
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client
from berrymq_rpc.opentelemetry import MAX_CARRIER, instrument, uninstrument
from berrymq_rpc.rpc.options import CallOptions
from berrymq_rpc.testing.nats_server import NatsServer

from ..spans import Spans

_numbers = itertools.count()

#: A trace that began elsewhere.
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class OwnError(Exception):
    """Not known to the client."""


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.began = asyncio.Event()

    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @rpc.method
    async def later(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        return dict(rpc.context().metadata)

    @rpc.method(thread=True)
    def on_thread(self) -> str:
        return format(trace.get_current_span().get_span_context().span_id, "016x")

    @rpc.method
    def returns_awaitable(self) -> Any:
        return self._slowly()

    async def _slowly(self) -> int:
        await asyncio.sleep(0)
        with trace.get_tracer("test").start_as_current_span("inner"):
            return 3

    @rpc.method
    async def ticks(self, count: int) -> AsyncIterator[int]:
        self.began.set()
        for number in range(count):
            yield number

    @rpc.method
    async def breaks(self) -> AsyncIterator[int]:
        yield 1
        raise LookupError("at the second")

    @rpc.method
    async def waits(self) -> None:
        self.began.set()
        await asyncio.Event().wait()

    @rpc.method
    def fails(self) -> None:
        raise LookupError("not here")

    @rpc.method
    async def fails_unknown(self) -> None:
        raise OwnError("bad")

    @rpc.method
    async def calls_back(self) -> Any:
        return await rpc.context().peer.rpc.add(1, 1)

    @rpc.method
    async def notifies_back(self) -> None:
        rpc.context().peer.notify.add(2, 2)


@asynccontextmanager
async def pair(
    bind: str = "mem://tracing", handler: Any = None, **options: Any
) -> AsyncIterator[rpc.Client]:
    async with (
        await rpc.start_server(handler or Handler(), bind=bind) as server,
        await rpc.open_client(
            connect=server.endpoints, **{"timeout": 10, "handler": Handler()} | options
        ) as client,
    ):
        yield client


async def settled(spans: Spans, count: int, until: Any) -> None:
    await until(lambda: len(spans.all) >= count)


# -- both sides ------------------------------------------------------------------------------


@pytest.mark.parametrize("bind", ["mem://tracing", "tcp://127.0.0.1:*"])
async def test_client_and_server_are_one_trace(bind: str, spans: Spans) -> None:
    async with pair(bind) as client:
        with spans.tracer.start_as_current_span("request") as root:
            assert await client.rpc.add(1, 2) == 3
            assert (await client.rpc.later())["traceparent"]
        endpoint = client.endpoints[0]
    at_client, at_server = spans.pair("add")
    spans.pair("later")
    assert at_client.parent is not None
    assert at_client.parent.span_id == root.get_span_context().span_id
    attributes = dict(at_client.attributes or {})
    assert attributes.pop("server.address") == (
        "127.0.0.1" if bind.startswith("tcp") else "tracing"
    )
    if bind.startswith("tcp"):
        assert attributes.pop("server.port") == int(endpoint.rpartition(":")[2])
    assert attributes == {"rpc.system.name": "berrymq_rpc", "rpc.method": "add"}
    assert (at_server.attributes or {})["rpc.method"] == "add"
    assert at_client.status.status_code is at_server.status.status_code is StatusCode.UNSET
    assert at_client.start_time <= at_server.start_time


async def test_a_call_without_a_span_around_it_is_a_trace(spans: Spans) -> None:
    async with pair() as client:
        await client.rpc.add(1, 2)
    assert spans.pair("add")[0].parent is None


async def test_what_a_server_was_started_in_is_no_parent(spans: Spans) -> None:
    with spans.tracer.start_as_current_span("program"):
        server = await rpc.start_server(Handler(), bind="mem://tracing")
    uninstrument()
    async with server, await rpc.open_client(connect="mem://tracing", timeout=10) as client:
        await client.rpc.add(1, 2)
    assert spans.one("add", SpanKind.SERVER).parent is None


async def test_each_kind_of_method(spans: Spans) -> None:
    async with pair() as client:
        on_thread = await client.rpc.on_thread()
        assert await client.rpc.returns_awaitable() == 3
        assert [item async for item in client.rpc.ticks(3)] == [0, 1, 2]
        client.notify.add(1, 2)
        # In its order: the notification is served.
        await client.rpc.later()
    assert format(spans.pair("on_thread")[1].context.span_id, "016x") == on_thread
    for name in ("returns_awaitable", "ticks", "add", "later"):
        spans.pair(name)
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}


async def test_what_a_handler_does_is_within_its_span(spans: Spans) -> None:
    class Traces(rpc.AttrHandler):
        @rpc.method
        def plain(self) -> None:
            spans.tracer.start_span("of plain").end()

        @rpc.method
        async def coroutine(self) -> None:
            await asyncio.sleep(0)
            spans.tracer.start_span("of coroutine").end()

        @rpc.method
        async def stream(self) -> AsyncIterator[int]:
            yield 1
            spans.tracer.start_span("of stream").end()

    async with pair(handler=Traces()) as client:
        await client.rpc.plain()
        await client.rpc.coroutine()
        assert [item async for item in client.rpc.stream()] == [1]
        assert not trace.get_current_span().get_span_context().is_valid
    for name in ("plain", "coroutine", "stream"):
        inner = spans.one(f"of {name}", SpanKind.INTERNAL)
        assert inner.parent is not None
        assert inner.parent.span_id == spans.pair(name)[1].context.span_id


async def test_a_call_back(spans: Spans) -> None:
    async with pair() as client:
        assert await client.rpc.calls_back() == 2
        at_server = spans.pair("calls_back")[1]
        assert spans.pair("add")[0].parent is not None
        assert spans.pair("add")[0].parent.span_id == at_server.context.span_id  # type: ignore[union-attr]


async def test_a_client_of_threads(spans: Spans) -> None:
    def calls(endpoint: str) -> None:
        with (
            rpc.SyncClient(connect=endpoint, timeout=10) as client,
            spans.tracer.start_as_current_span("thread"),
        ):
            assert client.rpc.add(1, 2) == 3
            assert list(client.stream.ticks(2)) == [0, 1]

    async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
        await asyncio.to_thread(calls, server.endpoints[0])
    root = spans.one("thread", SpanKind.INTERNAL)
    for name in ("add", "ticks"):
        parent = spans.pair(name)[0].parent
        assert parent is not None
        assert parent.span_id == root.context.span_id


# -- how they end ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("fails", "LookupError"),
        ("breaks", "LookupError"),
        ("fails_unknown", f"{__name__}.OwnError"),
    ],
)
async def test_an_exception(method: str, kind: str, spans: Spans) -> None:
    async with pair() as client:
        with pytest.raises((LookupError, rpc.GenericError)):
            if method == "breaks":
                async for _ in client.rpc.breaks():
                    pass
            else:
                await client.call(method)
    for span in spans.pair(method):
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == kind
        (event,) = span.events
        assert event.name == "exception"


async def test_what_is_refused_has_no_span_at_the_server(spans: Spans) -> None:
    async with pair() as client:
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.missing()
        with pytest.raises(rpc.ParametersError):
            await client.rpc.add(1)
    assert {span.kind for span in spans.all} == {SpanKind.CLIENT}
    assert [span.status.status_code for span in spans.all] == [StatusCode.ERROR] * 2


async def test_a_timeout(spans: Spans, until: Any) -> None:
    async with pair() as client:
        with pytest.raises(rpc.RPCTimeoutError):
            await client.with_timeout(0.05).rpc.waits()
        await settled(spans, 2, until)
    for span in spans.pair("waits"):
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "berrymq_rpc.errors.RPCTimeoutError"


async def test_a_cancelled_call(spans: Spans, until: Any) -> None:
    handler = Handler()
    async with pair(handler=handler) as client:
        call = client.rpc.waits()
        await handler.began.wait()
        call.cancel()
        await settled(spans, 2, until)
    at_client, at_server = spans.pair("waits")
    assert at_client.status.status_code is StatusCode.ERROR
    assert (at_client.attributes or {})["error.type"] == "asyncio.exceptions.CancelledError"
    # Its caller does not want it any more: the server has not failed.
    assert at_server.status.status_code is StatusCode.UNSET
    assert [event.name for event in at_server.events] == ["cancelled"]


@pytest.mark.parametrize("how", ["aclose", "collected", "timeout"])
async def test_a_stream_that_is_left(how: str, spans: Spans, until: Any) -> None:
    async with pair() as client:
        stream = client.with_timeout(None).rpc.ticks(10_000)
        assert await anext(stream) == 0
        assert not spans.all
        if how == "aclose":
            await stream.aclose()
        elif how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    async for _ in stream:
                        await asyncio.sleep(0.01)
        del stream
        await settled(spans, 2, until)
    for span in spans.pair("ticks"):
        assert span.status.status_code is StatusCode.UNSET
        assert [event.name for event in span.events] == ["cancelled"]


async def test_a_lost_server(spans: Spans, until: Any) -> None:
    handler = Handler()
    server = await rpc.start_server(handler, bind="mem://tracing", grace=0)
    async with await rpc.open_client(connect="mem://tracing", timeout=10) as client:
        call = client.rpc.waits()
        await handler.began.wait()
        server.close()
        await server.wait_closed()
        with pytest.raises(rpc.Error):
            await call
        await settled(spans, 2, until)
    assert spans.pair("waits")[0].status.status_code is StatusCode.ERROR


async def test_what_cannot_be_sent(spans: Spans) -> None:
    async with pair() as client:
        with pytest.raises(TypeError):
            await client.rpc.add(object(), 1)
        with pytest.raises(TypeError):
            client.notify.add(object(), 1)
    client.close()
    with pytest.raises(rpc.ServiceClosedError):
        await client.rpc.add(1, 2)
    assert [span.status.status_code for span in spans.all] == [StatusCode.ERROR] * 3


async def test_an_exception_that_nobody_asks_for_is_still_reported(spans: Spans) -> None:
    seen: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: seen.append(what))
    async with pair() as client:
        call = client.rpc.fails()
        while not call.done():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        del call
        for _ in range(3):
            await asyncio.sleep(0)
    assert [type(what["exception"]) for what in seen] == [LookupError]


# -- other dialects and ways -----------------------------------------------------------------


async def test_aiozmq_carries_nothing(spans: Spans) -> None:
    async with pair("tcp://127.0.0.1:*", dialect="aiozmq", handler=None) as client:
        assert await client.rpc.add(1, 2) == 3
    client_span, server_span = (
        spans.one("add", kind) for kind in (SpanKind.CLIENT, SpanKind.SERVER)
    )
    assert client_span.parent is server_span.parent is None
    assert client_span.context.trace_id != server_span.context.trace_id
    assert (server_span.attributes or {})["rpc.system.name"] == "aiozmq"


async def test_json_rpc_over_http(spans: Spans) -> None:
    async with Bridge(Handler()) as bridge:
        url = await bridge.serve_http("127.0.0.1", 0)
        async with await open_http_client(url) as client:
            with spans.tracer.start_as_current_span("request") as root:
                assert await client.rpc.add(1, 2) == 3
                with pytest.raises(LookupError):
                    await client.rpc.fails()
    at_client, at_server = spans.pair("add")
    assert at_client.context.trace_id == root.get_span_context().trace_id
    assert (at_client.attributes or {})["rpc.system.name"] == "jsonrpc"
    assert (at_client.attributes or {})["server.port"] == int(url.rpartition(":")[2].strip("/"))
    assert (at_server.attributes or {})["rpc.system.name"] == "jsonrpc"
    assert [span.status.status_code for span in spans.pair("fails")] == [StatusCode.ERROR] * 2


async def test_a_bridge_passes_the_trace_on(spans: Spans) -> None:
    async with pair() as remote, Bridge(remote) as bridge:
        url = await bridge.serve_http("127.0.0.1", 0)
        async with await open_http_client(url) as client:
            assert await client.rpc.add(1, 2) == 3
    chain = [spans.of("add", kind) for kind in (SpanKind.CLIENT, SpanKind.SERVER)]
    assert list(map(len, chain)) == [2, 2]
    by_id = {span.context.span_id: span for kind in chain for span in kind}
    (leaf,) = by_id.keys() - {s.parent.span_id for s in by_id.values() if s.parent}
    depth = 0
    while (parent := by_id[leaf].parent) is not None:
        leaf, depth = parent.span_id, depth + 1
    assert depth == 3


async def test_over_nats(spans: Spans, nats_server: NatsServer) -> None:
    service = f"tracing-{os.getpid()}-{next(_numbers)}"
    async with pair(f"{nats_server.url}/{service}") as client:
        assert await client.rpc.add(1, 2) == 3
        nats = pytest.importorskip("nats")
        plain = await nats.connect(nats_server.url)
        try:
            reply = await plain.request(
                f"{service}.add", b"[4, 5]", headers={"traceparent": TRACEPARENT}, timeout=10
            )
        finally:
            await plain.close()
        assert reply.data == b"9"
    at_client = spans.one("add", SpanKind.CLIENT)
    parents = {
        format(span.parent.span_id, "016x")
        for span in spans.of("add", SpanKind.SERVER)
        if span.parent is not None
    }
    assert parents == {format(at_client.context.span_id, "016x"), PARENT}


# -- what peers send -------------------------------------------------------------------------

HOSTILE: list[dict[str, Any]] = [
    {"traceparent": "00-zz-zz-01"},
    {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
    {"traceparent": "ff" + TRACEPARENT[2:]},
    {"traceparent": TRACEPARENT + "-more"},
    {"traceparent": "x" * 8000},
    {"traceparent": TRACEPARENT.encode()},
    {"traceparent": 5},
    {"traceparent": ""},
    {"tracestate": "a=b", "baggage": "a=b"},
]


@pytest.mark.parametrize("metadata", HOSTILE)
async def test_a_hostile_context_is_none(metadata: dict[str, Any], spans: Spans) -> None:
    async with await rpc.start_server(Handler(), bind="mem://tracing") as server:
        uninstrument()
        async with await rpc.open_client(connect=server.endpoints, timeout=10) as client:
            # What a peer may send: this package's clients have no other way yet.
            client.options = CallOptions(10, metadata)
            assert await client.rpc.add(1, 2) == 3
            assert await client.rpc.later() == metadata
    for name in ("add", "later"):
        assert spans.one(name, SpanKind.SERVER).parent is None


async def test_a_context_of_another_client(spans: Spans) -> None:
    import aiohttp

    body = {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "Baggage": "user=5"}
    async with Bridge(Handler()) as bridge, aiohttp.ClientSession() as session:
        url = await bridge.serve_http("127.0.0.1", 0)
        for sent in (headers, {"traceparent": "\xff" * 100}, {"tracestate": "b"}):
            async with session.post(url, json=body, headers=sent) as response:
                assert (await response.json())["result"] == 3
    first, *others = spans.of("add", SpanKind.SERVER)
    assert first.parent is not None
    assert format(first.parent.trace_id, "032x") == TRACE
    assert first.parent.trace_state.get("vendor") == "1"
    assert [span.parent for span in others] == [None, None]


async def test_what_is_too_large_to_travel(spans: Spans) -> None:
    """Baggage that fills the metadata is left out, and the trace is whole."""
    token = context.attach(baggage.set_baggage("big", "x" * MAX_CARRIER))
    try:
        async with pair() as client:
            assert set(await client.rpc.later()) == {"traceparent"}
            spans.pair("later")
            # The user's own metadata go first.
            client.options = CallOptions(10, {"mine": "x" * 8150})
            assert set(await client.rpc.later()) == {"mine"}
    finally:
        context.detach(token)
    assert [span.parent for span in spans.of("later", SpanKind.SERVER)][1] is None


async def test_what_is_not_sampled_travels_as_that(spans: Spans) -> None:
    instrument(TracerProvider(sampler=ALWAYS_OFF))
    async with pair() as client:
        flags = (await client.rpc.later())["traceparent"].rpartition("-")[2]
    assert not int(flags, 16) & 1
    assert spans.all == ()


# -- on and off ------------------------------------------------------------------------------


async def test_only_what_is_made_while_it_is_on(spans: Spans) -> None:
    uninstrument()
    async with pair() as client:
        instrument(spans.provider)
        await client.rpc.add(1, 2)
        async with await rpc.open_client(connect=client.endpoints, timeout=10) as later:
            await later.rpc.add(1, 2)
    assert [span.kind for span in spans.all] == [SpanKind.CLIENT]


async def test_off_is_the_way_it_was() -> None:
    assert installed() is None
    async with pair() as client:
        assert type(client) is rpc.Client
        assert await client.rpc.later() == {}
        assert rpc.Client._call is type(client)._call


def test_a_provider_is_asked_for() -> None:
    with pytest.raises(TypeError, match="TracerProvider"):
        instrument("jaeger")  # type: ignore[arg-type]
    assert installed() is None


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "berrymq_rpc.opentelemetry")
    with pytest.raises(ModuleNotFoundError, match=r"needs opentelemetry-api.*otel"):
        importlib.import_module("berrymq_rpc.opentelemetry")
