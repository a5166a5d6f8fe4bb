"""Messages of one process as spans of OpenTelemetry."""

import asyncio
import threading
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

import berrymq_rpc as berrymq
from berrymq_rpc import Bus, Queue
from berrymq_rpc.opentelemetry import instrument, uninstrument

from ..spans import Spans

SEND, PROCESS = SpanKind.PRODUCER, SpanKind.CONSUMER


def ignore(message: Any) -> None: ...


def test_sender_and_receivers(spans: Spans) -> None:
    bus = Bus()
    bus.regist_function("oven:*", lambda message: spans.tracer.start_span("inner").end())
    bus.regist_function("*:log", ignore)
    with spans.tracer.start_as_current_span("request") as root:
        assert bus.twitter("oven:log", 180) == 2
        assert trace.get_current_span() is root
    sent = spans.one("send oven:log", SEND)
    process = spans.one("process oven:log", PROCESS)
    inner = spans.one("inner", SpanKind.INTERNAL)
    assert sent.parent is not None
    assert sent.parent.span_id == root.get_span_context().span_id
    assert process.parent == sent.context
    assert inner.parent == process.context
    assert dict(sent.attributes or {}) == {
        "messaging.system": "berrymq_rpc",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "oven:log",
    }
    assert (process.attributes or {})["messaging.operation.type"] == "process"
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}


def test_what_nobody_follows_is_no_span(spans: Spans) -> None:
    assert Bus().twitter("oven:log") == 0
    assert spans.all == ()


def test_a_queue_receives_later(spans: Spans) -> None:
    bus = Bus()
    with Queue("oven:*", bus=bus) as queue:
        bus.twitter("oven:log", 1)
        assert queue.get(timeout=1).args == (1,)
    assert [span.kind for span in spans.all] == [SEND]


def test_a_receiver_that_raises(spans: Spans) -> None:
    bus = Bus()
    bus.regist_function("oven:*", ignore)
    bus.regist_function("oven:*", lambda message: 1 / 0)
    assert bus.twitter("oven:fire") == 2
    assert spans.one("send oven:fire", SEND).status.status_code is StatusCode.UNSET
    process = spans.one("process oven:fire", PROCESS)
    assert process.status.status_code is StatusCode.ERROR
    assert (process.attributes or {})["error.type"] == "ZeroDivisionError"


def test_a_guard_that_skips(spans: Spans) -> None:
    bus = Bus()
    bus.regist_function("oven:*", bus_guarded := ignore)
    bus.unfollow("oven:*", bus_guarded)
    bus.gateway.follow("oven:*", ignore, lambda message: False)
    assert bus.twitter("oven:log") == 0
    # It has ended, though no receiver has.
    spans.one("process oven:log", PROCESS)


async def test_coroutines_end_it(spans: Spans, until: Any) -> None:
    bus, go_on = Bus(), asyncio.Event()

    async def waits(message: Any) -> None:
        await go_on.wait()
        spans.tracer.start_span("inner").end()

    bus.regist_function("oven:*", waits)
    bus.regist_function("oven:log", lambda message: waits(message))
    assert bus.twitter("oven:log") == 2
    await asyncio.sleep(0)
    assert [span.kind for span in spans.all] == [SEND]
    go_on.set()
    await until(lambda: len(spans.all) == 4)
    process = spans.one("process oven:log", PROCESS)
    assert [span.parent for span in spans.of("inner", SpanKind.INTERNAL)] == [process.context] * 2


async def test_publish_waits_for_it(spans: Spans) -> None:
    bus = Bus()

    async def fails(message: Any) -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    bus.regist_function("oven:*", fails)
    assert await bus.publish("oven:log") == 1
    assert spans.one("process oven:log", PROCESS).status.status_code is StatusCode.ERROR


async def test_a_pool(spans: Spans, until: Any) -> None:
    bus, done = Bus(), threading.Event()
    bus.set_multiplicity(2)
    ended: list[Any] = []

    def receiver(message: Any) -> None:
        ended.append(trace.get_current_span().get_span_context())
        done.wait(10)

    bus.regist_function("oven:*", receiver)
    try:
        bus.twitter("oven:log")
        assert [span.kind for span in spans.all] == [SEND]
        done.set()
        await until(lambda: len(spans.all) == 2)
    finally:
        bus.set_multiplicity(0)
    process = spans.one("process oven:log", PROCESS)
    assert ended == [process.context]


def test_talk(spans: Spans) -> None:
    bus, answers = Bus(), []
    bus.regist_function("oven:*", lambda message: message.args[0] + 1)
    bus.regist_function("answer:*", lambda message: answers.append(message.args))
    bus.talk("oven:ask", "answer:here", 1)
    assert answers == [(2,)]
    chain = [
        spans.one("send oven:ask", SEND),
        spans.one("process oven:ask", PROCESS),
        spans.one("send answer:here", SEND),
        spans.one("process answer:here", PROCESS),
    ]
    assert [span.parent for span in chain] == [None, *(span.context for span in chain[:-1])]


def test_a_cycle_of_messages_ends_all_spans(spans: Spans) -> None:
    bus, errors = Bus(), []
    bus.regist_function("a:b", lambda message: bus.twitter("a:b"))
    bus.on_error = lambda error, message, receiver: errors.append(error)
    bus.twitter("a:b")
    (error,) = errors
    assert "a:b -> a:b" in str(error) or "the cycle is a:b" in str(error)
    sent, processed = spans.of("send a:b", SEND), spans.of("process a:b", PROCESS)
    assert len(sent) > 10
    assert len(sent) - len(processed) in (0, 1)
    assert not trace.get_current_span().get_span_context().is_valid


def test_the_default_bus(spans: Spans) -> None:
    """It is there before a program can switch tracing on."""
    berrymq.regist_function("oven:*", ignore)
    try:
        berrymq.twitter("oven:log")
        uninstrument()
        berrymq.twitter("oven:fire")
        instrument(spans.provider)
    finally:
        berrymq.unfollow("oven:*", ignore)
    assert {span.name for span in spans.all} == {"send oven:log", "process oven:log"}


def test_a_bus_that_was_made_before(spans: Spans) -> None:
    uninstrument()
    bus = Bus()
    instrument(spans.provider)
    bus.regist_function("oven:*", ignore)
    bus.twitter("oven:log")
    assert spans.all == ()


@pytest.mark.parametrize("decorator", ["auto_twitter", "twitter_exception"])
def test_decorators(decorator: str, spans: Spans) -> None:
    bus = Bus()
    bus.regist_function("step:*", ignore)
    function = getattr(bus, decorator)("step:error")(lambda: {}["missing"])
    if decorator == "auto_twitter":
        with pytest.raises(KeyError):
            function()
        assert {span.name for span in spans.all} == {"send step:entry", "process step:entry"}
    else:
        function()
        assert {span.name for span in spans.all} == {"send step:error", "process step:error"}
