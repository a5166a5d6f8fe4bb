"""Records: what nodes of a cluster publish comes back equal, and nothing malformed raises else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.exchange.batch import MAX_COUNT, MAX_NUMBER, Batch, Presence, PresenceBatch
from berrymq_rpc.exchange.record import HEAD_BYTES, RecordCodec
from berrymq_rpc.rpc.wire.codec import Codec

CODEC = RecordCodec()
NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=100)
SOURCES = st.tuples(NAMES, st.integers(0, MAX_NUMBER))


def batches() -> st.SearchStrategy[Batch]:
    return st.builds(
        Batch,
        SOURCES,
        st.integers(1, MAX_NUMBER - MAX_COUNT),
        st.integers(1, MAX_COUNT),
        st.binary(max_size=100),
        st.lists(st.binary(max_size=20), max_size=3),
    )


def fields(batch: Batch) -> tuple[Any, ...]:
    return (*batch.source, batch.first, batch.count, batch.data, list(batch.frames), batch.withheld)


@given(batches(), st.none() | SOURCES)
def test_a_record_comes_back(batch: Batch, via: Any) -> None:
    previous = batch.first - 1
    payload = CODEC.pack(batch, previous, via)
    record = CODEC.parse(payload)
    assert fields(record.batch) == fields(batch)
    assert record.previous == previous
    assert record.via == (via or batch.source)
    size = len(batch.data) + sum(map(len, batch.frames))
    assert len(payload) - size <= HEAD_BYTES


def test_an_answer_comes_back() -> None:
    error = ("LookupError", ("gone", 1), "LookupError('gone', 1)")
    answer = Batch(("a", 1), 7, 1, b"\x90", (), ("b", 2), error)
    parsed = CODEC.parse(CODEC.pack(answer)).batch
    assert (parsed.target, parsed.error) == (("b", 2), error)


@pytest.mark.parametrize("will", [(b"", ()), (b"\x91\x92\xa3a:b\x90", (b"long", b"bytes"))])
def test_what_is_said_about_a_node_comes_back(will: tuple[bytes, tuple[bytes, ...]]) -> None:
    presence = Presence("here", ("lost", 3), "id", 4, 0.5, is_held=True)
    parsed = CODEC.parse(CODEC.pack(PresenceBatch(presence, ("a", 1), 7, *will))).batch
    assert parsed.presence == presence
    assert (parsed.source, parsed.first, parsed.data, tuple(parsed.frames)) == (("a", 1), 7, *will)


@given(st.binary(max_size=60))
def test_any_bytes(payload: bytes) -> None:
    for each in (payload, b"\x01\x00\x00\x00" + payload):
        with pytest.raises(ProtocolError):
            CODEC.parse(each)


@pytest.mark.parametrize(
    "head",
    [
        None,
        [],
        ["a", 1, 1],
        ["a", 1, 1, 1, 0, 0, None, None, None, None, None, None, None],
        ["a", 1, 1, 1, 0, 0, None, None, None, None, "here"],
        ["a", 1, 1, 1, 0, 0, None, None, None, None, {"kind": "here"}],
        ["", 1, 1, 1],
        ["a" * 101, 1, 1, 1],
        ["a", -1, 1, 1],
        ["a", True, 1, 1],
        ["a", 1, 0, 1],
        ["a", 1, 1, 0],
        ["a", 1, 1, MAX_COUNT + 1],
        ["a", 1, MAX_NUMBER, 2],
        ["a", 1, 5, 1, 5],
        ["a", 1, 5, 1, -1],
        ["a", 1, 5, 1, "4"],
        ["a", 1, 5, 1, 4, 5],
        ["a", 1, 5, 1, 4, 0, 3],
        ["a", 1, 5, 1, 4, 0, [-1]],
        ["a", 1, 5, 1, 4, 0, ["1"]],
        ["a", 1, 5, 1, 4, 0, [1 << 40]],
        ["a", 1, 5, 1, 4, 0, None, "b"],
        ["a", 1, 5, 1, 4, 0, None, ["b"]],
        ["a", 1, 5, 1, 4, 0, None, ["b", "c"]],
        ["a", 1, 5, 1, 4, 0, None, None, ["b"]],
        ["a", 1, 5, 1, 4, 0, None, None, ["b", 1], "no error"],
    ],
)
def test_malformed_heads(head: Any) -> None:
    packed = Codec().pack(head)
    with pytest.raises(ProtocolError):
        CODEC.parse(b"\x01" + len(packed).to_bytes(4, "big") + packed + b"\x90")
