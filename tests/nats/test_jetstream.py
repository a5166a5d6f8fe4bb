"""JetStream: what its answers mean, the subjects of streams, and requests to a server."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.errors import ConnectionLostError, NotFoundError, OverloadedError, ProtocolError
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.nats import jetstream
from berrymq_rpc.nats.connection import Connection
from berrymq_rpc.nats.jetstream import (
    Delivery,
    JetStream,
    JetStreamError,
    PubAck,
    covers,
    is_usual_ack,
    parse_ack,
    parse_delivery,
    time_text,
    union,
)

TOKENS = st.sampled_from(["a", "b", "*"])
PATTERNS = st.lists(st.lists(TOKENS, min_size=2, max_size=3).map(".".join), max_size=8)


def subjects() -> list[str]:
    return [
        ".".join(tokens) for count in (2, 3) for tokens in itertools.product("abc", repeat=count)
    ]


@given(PATTERNS)
def test_a_union_matches_all_and_does_not_overlap(patterns: list[str]) -> None:
    made = union(patterns)
    for subject in subjects():
        matching = [pattern for pattern in made if covers(pattern, subject)]
        assert len(matching) <= 1
        if any(covers(pattern, subject) for pattern in patterns):
            assert matching
    assert union(made) == made


def test_the_narrowest_pattern_over_both() -> None:
    assert union(["job.*", "*.new"]) == ["*.*"]
    assert union(["job.new", "job.*"]) == ["job.*"]
    assert union(["job.new", "job.old", "a.b.c"]) == ["a.b.c", "job.new", "job.old"]


def test_delivery() -> None:
    expected = Delivery("S", "C", 2, 17)
    assert parse_delivery("$JS.ACK.S.C.2.17.3.1700000000000000000.5") == expected
    newer = "$JS.ACK._.hash.S.C.2.17.3.1700000000000000000.5.token"
    assert parse_delivery(newer) == expected


@pytest.mark.parametrize(
    "reply", ["", "a.b", "$JS.ACK.S.C.x.17.3.1.5", "$JS.ACK.S.C.1", "x.y.S.C.2.17.3.1.5"]
)
def test_malformed_delivery(reply: str) -> None:
    with pytest.raises(ProtocolError):
        parse_delivery(reply)


def test_acks() -> None:
    assert parse_ack(b'{"stream":"S","seq":3}') == PubAck("S", 3, False)
    assert parse_ack(b'{"stream":"S","seq":3,"duplicate":true}').duplicate
    with pytest.raises(OverloadedError, match="full"):
        parse_ack(b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}')
    with pytest.raises(OverloadedError, match="full"):
        parse_ack(b'{"error":{"code":500,"err_code":10047,"description":"insufficient storage"}}')
    for passing in (
        b'{"code":409,"err_code":10158,"description":"duplicate message id is in process"}',
        b'{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}',
        b'{"code":503,"err_code":10077,"description":"store is closed"}',
    ):
        with pytest.raises(ConnectionLostError, match="cannot take publish now"):
            parse_ack(b'{"error":' + passing + b"}")
    with pytest.raises(JetStreamError, match="reason") as caught:
        parse_ack(b'{"error":{"code":400,"err_code":10000,"description":"a reason"}}')
    assert caught.value.code == 10000


@given(st.binary(max_size=30) | st.sampled_from([b"[]", b"{}", b'{"error":1}', b"[" * 10_000]))
def test_any_bytes(payload: bytes) -> None:
    with pytest.raises((ProtocolError, JetStreamError)):
        parse_ack(payload)


@pytest.mark.parametrize(
    ("answer", "is_usual"),
    [
        (b'{"stream":"BERRYMQ_plant","seq":3}', True),
        (b'{"stream":"S", "seq": 1234567890123456789}', True),
        (b'{"stream":"S","seq":3,"duplicate":true}', False),
        (b'{"stream":"S","domain":"hub","seq":3}', False),
        (b'{"stream":"S","seq":0}', False),
        (b'{"stream":"S","seq":3}\n', False),
        (b'{"stream":"S","seq":3}{"error":{"code":400}}', False),
        (b'{"error":{"code":400,"err_code":10000},"stream":"S","seq":0}', False),
        (b'{"stream":"","seq":3}', False),
        (b"", False),
    ],
)
def test_the_usual_answer_to_a_publish_is_known_at_sight(answer: bytes, is_usual: bool) -> None:
    assert is_usual_ack(answer) is is_usual
    if is_usual:
        assert not parse_ack(answer).duplicate


def test_times() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert time_text(when) == "2026-01-02T02:04:05Z"
    assert time_text(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00Z"
    with pytest.raises(ValueError, match="time zone"):
        time_text(datetime(2026, 1, 2))


async def opened(server: NatsServer) -> tuple[Connection, JetStream]:
    connection = Connection(Nats(server.url))
    await connection.connect(10.0)
    return connection, JetStream(connection, server.url)


async def test_a_list_that_lacks_consumers_is_none(start_nats: Callable[..., NatsServer]) -> None:
    """A cluster of servers says so while it elects who leads a consumer."""
    connection, js = await opened(start_nats())
    pages: list[dict[str, Any]] = [
        {"consumers": [], "missing": ["workers"]},
        {"consumers": [{"name": "workers"}], "missing": []},
    ]

    def answer(subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        connection.publish(reply, json.dumps(pages.pop(0)).encode())

    connection.subscribe("$JS.API.CONSUMER.LIST.S", answer)
    try:
        with pytest.raises(ConnectionLostError, match="'workers'"):
            await js.consumers("S")
        assert await js.consumers("S") == [{"name": "workers"}]
    finally:
        await connection.close()


async def test_a_question_without_an_answer_is_asked_again(
    start_nats: Callable[..., NatsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers that elect a leader answer nothing. What changes something is asked for once."""
    monkeypatch.setattr(jetstream, "TIMEOUT", 0.05)
    monkeypatch.setattr(jetstream, "ELECTIONS", 0.3)
    connection, js = await opened(start_nats())
    asked: list[str] = []

    def answer(subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        asked.append(subject.removeprefix("$JS.API."))
        if asked == ["STREAM.INFO.S"] * 3:
            connection.publish(reply, b'{"config": {}}')

    connection.subscribe("$JS.API.>", answer)
    try:
        assert await js.stream("S") == {"config": {}}
        assert asked == ["STREAM.INFO.S"] * 3
        questions = (
            lambda: js.keeps("S", "a"),
            lambda: js.consumer("S", "c"),
            lambda: js.consumers("S"),
            lambda: js.message("S", 1, "a"),
        )
        for question in questions:
            with pytest.raises(ConnectionLostError, match=r"did not answer .* within 0\.3"):
                await question()
        asked.clear()
        with pytest.raises(ConnectionLostError, match=r"did not answer .* within 0\.0"):
            await js.create_stream({"name": "S"})
        assert asked == ["STREAM.CREATE.S"]
    finally:
        await connection.close()


async def test_streams_and_consumers(nats_server: NatsServer) -> None:
    connection, js = await opened(nats_server)
    try:
        assert await js.stream("TJS") is None
        assert await js.consumers("TJS") == []
        assert await js.consumer("TJS", "c") is None
        config: dict[str, Any] = {"name": "TJS", "subjects": ["tjs.a"], "retention": "interest"}
        await js.create_stream(config)
        await js.update_stream({**config, "subjects": ["tjs.a", "tjs.b"]})
        info = await js.stream("TJS")
        assert info is not None
        assert info["config"]["subjects"] == ["tjs.a", "tjs.b"]
        assert await js.keeps("TJS", "tjs.b")
        assert not await js.keeps("TJS", "tjs.c")
        consumer = {"durable_name": "c", "ack_policy": "explicit", "filter_subjects": ["tjs.a"]}
        await js.create_consumer("TJS", consumer)
        await js.create_consumer("TJS", consumer)
        with pytest.raises(JetStreamError, match="already exists"):
            await js.create_consumer("TJS", {**consumer, "ack_wait": 1_000_000_000})
        assert [each["name"] for each in await js.consumers("TJS")] == ["c"]
        assert await js.delete_consumer("TJS", "c")
        assert not await js.delete_consumer("TJS", "c")
        with pytest.raises(JetStreamError, match="overlap"):
            await js.create_stream({"name": "TJS2", "subjects": ["tjs.*"]})
    finally:
        await connection.close()


async def test_jetstream_is_off(start_nats: Callable[..., NatsServer]) -> None:
    connection, js = await opened(start_nats())
    try:
        with pytest.raises(NotFoundError, match="-js"):
            await js.stream("S")
    finally:
        await connection.close()
