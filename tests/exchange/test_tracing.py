"""Messages between nodes as spans of OpenTelemetry: one trace from the sender to each receiver."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from berrymq_rpc import Bus, Node
from berrymq_rpc.exchange.batch import MAX_TRACE_FIELD, Batch, parse_batch
from berrymq_rpc.exchange.record import RecordCodec
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client
from berrymq_rpc.opentelemetry import instrument, uninstrument
from berrymq_rpc.testing.nats_server import NatsServer

from ..spans import Spans

SEND, PROCESS = SpanKind.PRODUCER, SpanKind.CONSUMER
_numbers = itertools.count()
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Place:
    """A node, and what its bus has heard."""

    def __init__(self, name: str, *bind: str, **options: Any) -> None:
        self.bus = Bus()
        self.heard: list[Any] = []
        self.node = Node(bind or None, self.bus, name=name, **options)
        self.bus.regist_function("oven:*", self._hear)

    def _hear(self, message: Any) -> Any:
        self.heard.append(message)
        return message.args


@asynccontextmanager
async def chain(count: int, scheme: str = "mem") -> AsyncIterator[list[Place]]:
    """Nodes that are connected one after another."""
    run = next(_numbers)
    places = [
        Place(f"n{k}", f"mem://tracing-{run}-{k}" if scheme == "mem" else "tcp://127.0.0.1:*")
        for k in range(count)
    ]
    for place in places:
        await place.node.start()
    try:
        for here, there in itertools.pairwise(places):
            await there.node.interconnect(here.node.endpoints[0])
        yield places
    finally:
        for place in places:
            await place.node.close()


def parents(spans: Spans, name: str) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The span of a message that is sent, and those of its receivers, its children."""
    sent, processed = spans.one(f"send {name}", SEND), spans.of(f"process {name}", PROCESS)
    for span in processed:
        assert span.context.trace_id == sent.context.trace_id
        assert span.parent is not None
        assert span.parent.span_id == sent.context.span_id
    return sent, processed


@pytest.mark.parametrize(("scheme", "count"), [("mem", 3), ("tcp", 2)])
async def test_each_node_goes_on(scheme: str, count: int, spans: Spans, until: Any) -> None:
    async with chain(count, scheme) as places:
        first, last = places[0], places[-1]
        for number in range(3):
            first.bus.twitter("oven:log", number)
        first.bus.twitter("oven:fire", "x" * 100_000, key={"a": [1]})
        await until(lambda: len(last.heard) == 4)
        # In their order, though each is a batch of its own.
        assert [message.args[0] for message in last.heard[:3]] == [0, 1, 2]
        assert last.heard[3].kwargs == {"key": {"a": (1,)}}
        _, processed = parents(spans, "oven:fire")
        assert len(processed) == count
        assert sum(span.parent.is_remote for span in processed if span.parent) == count - 1
    assert len(spans.of("process oven:log", PROCESS)) == 3 * count
    # The nodes' own calls to each other are none of the program's.
    assert {span.kind for span in spans.all} == {SEND, PROCESS}


async def test_talk(spans: Spans, until: Any) -> None:
    async with chain(2) as (here, there):
        here.bus.unfollow("oven:*", here._hear)
        answers: list[Any] = []
        here.bus.regist_function("answer:here", answers.append)
        here.bus.talk("oven:ask", "answer:here", 5)
        await until(lambda: answers)
        assert answers[0].args == ((5,),)
        assert there.heard
        _, (processed,) = parents(spans, "oven:ask")
        answered = spans.one("process answer:here", PROCESS)
    assert answered.parent is not None
    assert answered.parent.span_id == processed.context.span_id
    assert answered.parent.is_remote


async def test_what_is_retained(spans: Spans, until: Any) -> None:
    async with chain(3) as places:
        places[0].bus.retain("oven:*")
        places[0].bus.twitter("oven:log", 1)
        await until(lambda: places[2].heard)
        assert len(parents(spans, "oven:log")[1]) == 3


async def test_a_receiver_elsewhere_that_raises(spans: Spans, until: Any) -> None:
    async with chain(2) as (here, there):
        there.bus.regist_function("oven:fire", lambda message: 1 / 0)
        here.bus.twitter("oven:fire")
        await until(lambda: len(spans.of("process oven:fire", PROCESS)) == 2)
    failed = [s for s in spans.all if s.status.status_code is StatusCode.ERROR]
    assert [span.kind for span in failed] == [PROCESS]


async def test_a_link_over_http(spans: Spans, until: Any) -> None:
    here, there = Place("here", "mem://tracing-http-0"), Place("there", "mem://tracing-http-1")
    async with here.node, there.node, Bridge(here.node) as one, Bridge(there.node) as other:
        url = await one.serve_http("127.0.0.1", 0)
        await other.serve_http("127.0.0.1", 0)
        await there.node.interconnect(url)
        for place, name in ((here, "oven:log"), (there, "oven:fire")):
            place.bus.twitter(name, b"bytes")
        await until(lambda: len(here.heard) == len(there.heard) == 2)
    for name in ("oven:log", "oven:fire"):
        assert len(parents(spans, name)[1]) == 2


async def test_a_node_without_tracing_passes_it_on(spans: Spans, until: Any) -> None:
    run = next(_numbers)
    first = Place("first", f"mem://tracing-{run}-0")
    uninstrument()
    middle = Place("middle", f"mem://tracing-{run}-1")
    instrument(spans.provider)
    last = Place("last", f"mem://tracing-{run}-2")
    async with first.node, middle.node, last.node:
        await first.node.interconnect(f"mem://tracing-{run}-1")
        await last.node.interconnect(f"mem://tracing-{run}-1")
        first.bus.twitter("oven:log", 1)
        await until(lambda: last.heard)
        assert middle.heard
        assert len(parents(spans, "oven:log")[1]) == 2


async def test_a_cluster(spans: Spans, until: Any, nats_server: NatsServer) -> None:
    namespace = f"tracing{os.getpid()}x{next(_numbers)}"
    options = {"cluster": nats_server.url, "namespace": namespace}
    here, there = Place("here", **options), Place("there", **options)
    async with here.node, there.node:
        answers: list[Any] = []
        here.bus.regist_function("answer:here", answers.append)
        await here.node.settle(10)
        await there.node.settle(10)
        here.bus.twitter("oven:log", 1)
        here.bus.talk("oven:ask", "answer:here", 5)
        await until(lambda: len(there.heard) == 2 and len(answers) == 2)
        assert len(parents(spans, "oven:log")[1]) == 2
        processed = {span.context.span_id for span in parents(spans, "oven:ask")[1]}
        answered = spans.of("process answer:here", PROCESS)
    # One of them was sent in this process.
    assert any(span.parent and span.parent.span_id in processed for span in answered)


async def test_user_methods_of_a_node_are_traced(spans: Spans) -> None:
    from berrymq_rpc import rpc

    class Handler(rpc.AttrHandler):
        @rpc.method
        def add(self, a: int, b: int) -> int:
            return a + b

    async with Node("mem://tracing-methods", Bus(), handler=Handler()) as node:
        uninstrument()
        async with await rpc.open_client(connect=node.endpoints, timeout=10) as client:
            assert await client.rpc.add(1, 2) == 3
            assert await client.rpc.connect_oneway(60)
    # The node's own functions are not.
    assert [span.name for span in spans.all if span.kind is SpanKind.SERVER] == ["add"]


# -- what peers send -------------------------------------------------------------------------

USELESS: list[Any] = [
    None,
    5,
    "text",
    ["traceparent"],
    {"traceparent": 5},
    {"traceparent": b"bytes"},
    {"traceparent": "x" * (MAX_TRACE_FIELD + 1)},
    {"other": "field"},
    {5: 6},
]


@pytest.mark.parametrize("trace", USELESS)
def test_what_cannot_be_used_is_left_out(trace: Any) -> None:
    envelope = {"origin": "n", "epoch": 1, "seq": 1, "count": 1, "trace": trace}
    batch = parse_batch(envelope, b"\x90")
    assert batch.trace is None
    assert "trace" not in batch.envelope()


def test_only_single_messages_carry_it() -> None:
    envelope = {"origin": "n", "epoch": 1, "seq": 1, "trace": {"traceparent": TRACEPARENT, "x": 1}}
    single = parse_batch(envelope | {"count": 1}, b"\x90")
    assert single.envelope()["trace"] == {"traceparent": TRACEPARENT}
    assert single.size > parse_batch(envelope | {"count": 2}, b"\x90").size
    assert parse_batch(envelope | {"count": 2}, b"\x90").trace is None


@pytest.mark.parametrize("target", [None, ("other", 5)])
def test_a_record(target: Any) -> None:
    codec, trace = RecordCodec(), {"traceparent": TRACEPARENT}
    batch = Batch(("n", 1), 7, 1, b"\x90", (), target).set_trace(trace)
    parsed = codec.parse(codec.pack(batch, 3)).batch
    assert (parsed.trace, parsed.first, parsed.target) == (trace, 7, target)
    plain = Batch(("n", 1), 7, 1, b"\x90", (), target)
    assert codec.parse(codec.pack(plain)).batch.trace is None
    assert len(codec.pack(plain)) < len(codec.pack(batch)) - len(TRACEPARENT)


@pytest.mark.parametrize("function", ["connect_oneway", "interconnect"])
async def test_a_message_without_an_envelope(function: str, spans: Spans, until: Any) -> None:
    """Its context is that of the request which brought it."""
    place = Place("bridged", f"mem://tracing-{function}")
    other = Place("other", f"mem://tracing-other-{function}")
    async with place.node, other.node, Bridge(place.node) as bridge:
        await other.node.interconnect(place.node.endpoints[0])
        url = await bridge.serve_http("127.0.0.1", 0)
        async with await open_http_client(url) as client:
            token = await (
                client.rpc.connect_oneway(60)
                if function == "connect_oneway"
                else client.rpc.interconnect("http://127.0.0.1:1", "theirs", 60)
            )
            with spans.tracer.start_as_current_span("request") as root:
                assert await client.rpc.send_message(token, "oven:log", [1], {}) == "ok"
            await until(lambda: other.heard)
    processed = spans.of("process oven:log", PROCESS)
    assert len(processed) == 2
    assert {span.context.trace_id for span in processed} == {root.get_span_context().trace_id}


async def test_a_message_that_comes_by_json(spans: Spans, until: Any) -> None:
    place = Place("bridged", "mem://tracing-json")
    async with place.node, Bridge(place.node) as bridge:
        url = await bridge.serve_http("127.0.0.1", 0)
        async with await open_http_client(url) as client:
            token = await client.rpc.interconnect("http://127.0.0.1:1", "theirs", 60, "web")
            for number, trace in enumerate([{"traceparent": TRACEPARENT}, {"traceparent": "00-x"}]):
                envelope = {"origin": "web", "epoch": 1, "seq": number + 1, "trace": trace}
                answer = client.call("send_message", token, "oven:log", [number], {}, envelope)
                assert await answer == "ok"
            await until(lambda: len(spans.of("process oven:log", PROCESS)) == 2)
    first, second = spans.of("process oven:log", PROCESS)
    assert first.parent is not None
    assert format(first.parent.trace_id, "032x") == TRACE
    assert second.parent is None


async def test_what_a_node_was_started_in_is_no_parent(spans: Spans, until: Any) -> None:
    uninstrument()
    sender = Place("silent", "mem://tracing-silent")
    instrument(spans.provider)
    place = Place("within", "mem://tracing-within")
    async with sender.node:
        with spans.tracer.start_as_current_span("program"):
            await place.node.start()
        try:
            await place.node.interconnect("mem://tracing-silent")
            sender.bus.twitter("oven:log")
            await until(lambda: spans.of("process oven:log", PROCESS))
        finally:
            await place.node.close()
    assert spans.one("process oven:log", PROCESS).parent is None
    assert context.get_current() == {}
    await asyncio.sleep(0)
