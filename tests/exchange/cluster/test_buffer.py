"""Batches as they are published: by subject, each message with the number before it there."""

from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.exchange.batch import Batch
from berrymq_rpc.exchange.cluster.buffer import ClusterBuffer, Publication
from berrymq_rpc.exchange.message_codec import MessageCodec
from berrymq_rpc.exchange.message_filter import MessageFilter
from berrymq_rpc.exchange.policy import Grants
from berrymq_rpc.exchange.record import RecordCodec
from berrymq_rpc.identifier import Identifier
from berrymq_rpc.rpc.wire.limits import Limits

HERE = ("here", 7)
CODEC = MessageCodec(Limits())


def buffer(**options: Any) -> ClusterBuffer:
    return ClusterBuffer("c", HERE, CODEC, **options)


def batch(first: int, *identifiers: str, source: Any = HERE) -> Batch:
    messages = [(identifier, (place,)) for place, identifier in enumerate(identifiers)]
    return Batch(source, first, len(messages), CODEC.pack_all(messages))


def published(made: ClusterBuffer) -> list[tuple[Any, ...]]:
    """Subject, first, count, the number before, and the identifiers of what it holds."""
    found = []
    for publication in made.take(10**6, 10**9):
        assert isinstance(publication, Publication)
        record = RecordCodec().parse(publication.payload)
        names = [message[0] for message in CODEC.unpack(record.batch)]
        assert record.batch.count == publication.count
        found.append(
            (publication.subject, record.batch.first, record.batch.count, record.previous, names)
        )
    return found


def test_messages_of_one_subject_that_follow_each_other_travel_together() -> None:
    made = buffer()
    made.put(batch(1, "a:b", "a:b", "x:y", "a:b"))
    made.put(batch(5, "a:b", "a:b"))
    assert published(made) == [
        ("berrymq.c.a.b", 1, 2, 0, ["a:b", "a:b"]),
        ("berrymq.c.x.y", 3, 1, 0, ["x:y"]),
        ("berrymq.c.a.b", 4, 1, 2, ["a:b"]),
        ("berrymq.c.a.b", 5, 2, 4, ["a:b", "a:b"]),
    ]
    assert made.messages == 6


def test_who_publishes_for_another_says_so() -> None:
    made = buffer()
    made.put(batch(4, "a:b", source=("there", 1)))
    (publication,) = made.take(1, 10**6)
    assert isinstance(publication, Publication)
    assert RecordCodec().parse(publication.payload).via == HERE


def test_an_answer_goes_to_the_node_that_asked_or_to_its_gateway() -> None:
    made = buffer()
    answer = Batch(HERE, 1, 1, b"\x90", (), ("asker", 3))
    made.put(answer)
    made.vias["asker", 3] = ("gate way", 4)
    made.put(answer)
    subjects = [p.subject for p in made.take(9, 10**6) if isinstance(p, Publication)]
    assert subjects == ["berrymq-node.c.asker.3.talk", "berrymq-node.c.gate%20way.4.talk"]


def test_a_batch_that_is_too_large_is_split() -> None:
    made = buffer()
    made.max_payload = 2000
    messages = [("a:b", ("x" * 500,))] * 4 + [("a:b", ("x" * 3000,))]
    made.put(Batch(HERE, 1, 5, CODEC.pack_all(list(messages))))
    assert [each[1:4] for each in published(made)] == [(1, 1, 0), (2, 1, 1), (3, 1, 2), (4, 1, 3)]
    assert made.refused == 1
    ((error, message),) = made.take_refused()
    assert "max_payload" in str(error)
    assert message.id == "a:b"
    assert made.take_refused() == []
    # The one that was refused is a gap to those who get the next one.
    made.put(batch(6, "a:b"))
    assert published(made)[0][3] == 5


def test_long_byte_strings_stay_with_their_message() -> None:
    made = buffer()
    blob = bytes(20_000)
    data, frames = CODEC.pack_large(("a:b", (blob,)))
    made.put(Batch(HERE, 1, 1, data, frames))
    (publication,) = made.take(1, 10**6)
    assert isinstance(publication, Publication)
    (message,) = CODEC.unpack(RecordCodec().parse(publication.payload).batch)
    assert message[1] == (blob,)


def test_what_others_may_not_get_is_withheld() -> None:
    message_filter = MessageFilter(Grants([Identifier("a:*")]), CODEC)
    made = buffer(message_filter=message_filter)
    made.put(batch(1, "secret:x", "a:b", "secret:x", "a:c"))
    assert [each[:2] for each in published(made)] == [("berrymq.c.a.b", 2), ("berrymq.c.a.c", 4)]
    assert made.withheld == 2


@pytest.mark.parametrize("identifier", ["", "_local:x", "a:b:c", "x" * 2000])
def test_what_has_no_subject_is_counted(identifier: str) -> None:
    made = buffer()
    made.put(batch(1, identifier, source=("there", 1)))
    assert published(made) == []
    assert made.refused == 1
