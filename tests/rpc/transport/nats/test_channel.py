"""The sessions of the NATS transport, without I/O: numbers, credit, parts, and hostile bytes."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from hypothesis import given, settings
from hypothesis import strategies as st

from berrymq_rpc.rpc.transport.nats import channel as nats_channel
from berrymq_rpc.rpc.transport.nats.channel import Channel, ChannelError
from berrymq_rpc.rpc.transport.nats.records import (
    ACK,
    BYE,
    DATA,
    HEAD_SIZE,
    MAX_NUMBER,
    PART,
    Found,
    Head,
    pack_found,
    pack_head,
    parse_found,
    parse_head,
    parse_reason,
    parse_token,
)
from berrymq_rpc.rpc.transport.nats.search import AVOID, Search

WINDOW = 64 << 10


class End:
    """One end, and what it has received."""

    def __init__(self, **options: Any) -> None:
        given = {"window": WINDOW, "credit": WINDOW, "max_payload": 1 << 20, "max_frame": 1 << 20}
        self.channel = Channel(**{**given, **options})
        self.messages: list[list[bytes]] = []
        self.outgoing: list[bytes] = []

    def send(self, frames: Sequence[bytes | bytearray | memoryview]) -> None:
        pieces = self.channel.send(frames)
        if pieces is not None:
            self.outgoing.append(b"".join(pieces))
        self.release()

    def release(self) -> None:
        self.outgoing += [b"".join(pieces) for pieces in self.channel.release()]

    def receive(self, payload: bytes) -> None:
        head = parse_head(payload)
        assert head is not None
        frames = self.channel.receive(head, payload)
        if frames is not None:
            self.messages.append(frames)
        self.release()
        ack = self.channel.ack()
        if ack is not None:
            self.outgoing.append(ack)


def exchange(one: End, other: End) -> int:
    """Deliver all that is under way; the most bytes that were at one time, without ACKs."""
    most = 0
    while one.outgoing or other.outgoing:
        most = max(most, sum(len(p) for p in one.outgoing if p[0] != ACK))
        for sender, receiver in ((one, other), (other, one)):
            if sender.outgoing:
                receiver.receive(sender.outgoing.pop(0))
    return most


MESSAGES = st.lists(
    st.lists(st.sampled_from([0, 1, 9_000, 40_000]).map(bytes), min_size=1, max_size=3),
    min_size=1,
    max_size=10,
)


@settings(max_examples=50)
@given(MESSAGES, st.sampled_from([1_000, 20_000, 1 << 20]))
def test_all_arrives_in_order(messages: list[list[bytes]], max_payload: int) -> None:
    one, other = End(max_payload=max_payload), End(max_payload=max_payload)
    for frames in messages:
        one.send(frames)
        other.send(frames[::-1])
    assert exchange(one, other) <= WINDOW
    assert other.messages == messages
    assert one.messages == [frames[::-1] for frames in messages]
    for end in (one, other):
        assert end.channel.queued_bytes == 0
        assert not end.channel.has_queued


def test_no_payload_is_over_what_nats_takes() -> None:
    one, other = End(max_payload=500, credit=1 << 24), End(window=1 << 24)
    one.send([bytes(10_000), b"x"])
    assert max(map(len, one.outgoing)) == 500
    exchange(one, other)
    assert other.messages == [[bytes(10_000), b"x"]]


def test_what_exceeds_the_credit_waits() -> None:
    one, other = End(), End()
    for _ in range(100):
        one.send([bytes(10_000)])
    assert sum(map(len, one.outgoing)) <= WINDOW
    assert one.channel.queued_bytes >= 100 * 10_000 - WINDOW
    # A reader that takes nothing gets nothing more.
    one.release()
    assert sum(map(len, one.outgoing)) <= WINDOW
    exchange(one, other)
    assert len(other.messages) == 100


def test_a_window_that_becomes_smaller_takes_nothing_back() -> None:
    one, other = End(credit=1 << 20), End(window=1 << 20)
    other.channel.window = WINDOW
    for _ in range(200):
        one.send([bytes(10_000)])
    assert exchange(one, other) <= 1 << 20
    for _ in range(200):
        one.send([bytes(10_000)])
    assert exchange(one, other) <= WINDOW
    assert len(other.messages) == 400


def test_other_buffers_are_copied() -> None:
    one, other = End(), End()
    buffer = bytearray(b"abc")
    one.send([buffer, memoryview(b"-view-")[1:-1]])
    buffer[:] = b"xyz"
    exchange(one, other)
    assert other.messages == [[b"abc", b"view"]]


@pytest.mark.parametrize("lost", [0, 1, 5])
def test_a_gap_ends_the_session(lost: int) -> None:
    one, other = End(), End()
    for _ in range(7):
        one.send([b"x"])
    del one.outgoing[lost]
    with pytest.raises(ChannelError, match="1 messages were lost within NATS"):
        exchange(one, other)
    assert len(other.messages) == lost


def test_a_lost_last_message_is_seen_by_the_next_mark() -> None:
    one, other = End(), End()
    one.send([b"x"])
    one.outgoing.clear()
    mark = one.channel.mark()
    assert mark is not None
    with pytest.raises(ChannelError, match="1 messages were lost"):
        other.receive(mark)


def test_a_lost_ack_is_said_again_by_the_next_mark() -> None:
    one, other = End(), End()
    for _ in range(20):
        one.send([bytes(10_000)])
    for payload in one.outgoing:
        other.receive(payload)
    one.outgoing.clear()
    # All ACKs are lost: one waits.
    other.outgoing.clear()
    one.release()
    assert not one.outgoing
    # The first mark is lost as well.
    assert other.channel.mark() is not None
    mark = other.channel.mark()
    assert mark is not None
    assert other.channel.mark() is None
    one.receive(mark)
    assert one.outgoing


def test_doubles_are_dropped() -> None:
    one, other = End(), End()
    for number in range(5):
        one.send([b"%d" % number])
    for payload in one.outgoing:
        other.receive(payload)
        other.receive(one.outgoing[0])
        other.receive(payload)
    assert other.messages == [[b"%d" % number] for number in range(5)]


def test_numbers_begin_again() -> None:
    one, other = End(), End()
    one.channel._number = other.channel._last = MAX_NUMBER - 2
    for number in range(6):
        one.send([b"%d" % number])
    exchange(one, other)
    assert other.messages == [[b"%d" % number] for number in range(6)]
    mark = one.channel.mark()
    assert mark is not None
    other.receive(mark)


@pytest.mark.parametrize(
    ("kind", "frames", "body"),
    [
        (DATA, 0, b""),
        (DATA, 2, b""),
        (DATA, 2, b"\0\0\0\1\0\0\0\1x"),
        (DATA, 2, b"\0\0\0\1\0\0\0\0xy"),
        (DATA, 2, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        (DATA, 1, bytes(1001)),
        (DATA, 2, b"\0\0\0\0\0\0\x03\xe9" + bytes(1001)),
        (PART, 1, bytes(1001)),
        (PART, 2, bytes(16_009)),
    ],
)
def test_malformed_messages_end_the_session(kind: int, frames: int, body: bytes) -> None:
    end = End(max_frame=1000)
    with pytest.raises(ChannelError):
        end.receive(pack_head(kind, frames, 1) + body)


def test_a_peer_that_ignores_its_credit() -> None:
    end = End()
    end.receive(pack_head(DATA, 1, 1) + bytes(WINDOW - HEAD_SIZE))
    assert end.messages
    end = End(max_frame=1 << 30)
    with pytest.raises(ChannelError, match="more than it may"):
        for number in itertools.count(1):
            payload = pack_head(PART, 2, number) + bytes(10_000)
            head = parse_head(payload)
            assert head is not None
            end.channel.receive(head, payload)


@given(st.lists(st.binary(max_size=60), max_size=10), st.data())
def test_any_bytes(payloads: list[bytes], data: Any) -> None:
    """Nothing but `ChannelError` comes of what a peer sends, and memory stays bounded."""
    end = End(max_frame=50)
    for payload in payloads:
        if data.draw(st.booleans()):
            kind = data.draw(st.sampled_from([DATA, PART, ACK]))
            payload = (
                pack_head(kind, data.draw(st.integers(0, 3)), data.draw(st.integers(0, 4)))
                + payload
            )
        head = parse_head(payload)
        if head is None or head.kind not in (DATA, PART, ACK):
            continue
        try:
            end.receive(payload)
        except ChannelError:
            return
    assert all(len(frame) <= 50 for frames in end.messages for frame in frames)


@given(st.binary(max_size=100))
def test_any_record(payload: bytes) -> None:
    head = parse_head(payload)
    assert head is None or len(payload) >= HEAD_SIZE
    for token in (parse_token(payload), parse_found(payload)):
        assert token is None or str(token).isprintable()
    assert parse_reason(payload).isprintable()


def test_records() -> None:
    assert parse_head(pack_head(PART, 3, 4, 5) + b"x") == Head(PART, 3, 4, 5)
    assert parse_head(b"\0\2" + bytes(16)) is None
    assert parse_head(bytes(17)) is None
    found = Found("s1", 7)
    assert parse_found(pack_found(found)) == found
    assert parse_found(pack_found(Found("a b", 7))) is None
    assert parse_token(pack_head(BYE) + b"a.b") is None
    assert parse_token(pack_head(BYE) + b"ab\r\n") is None
    assert parse_reason(pack_head(BYE) + b"why") == "why"
    assert parse_reason(pack_head(BYE) + b"a\nb") == "it closed the connection"
    assert len(parse_reason(pack_head(BYE) + b"x" * 1000)) == 200


def test_too_many_frames() -> None:
    with pytest.raises(ChannelError, match="65,536 frames"):
        End().send([b""] * 65_536)
    one, other = End(credit=1 << 24), End(window=1 << 24)
    one.send([b""] * 65_535)
    exchange(one, other)
    assert other.messages == [[b""] * 65_535]


def test_constants_are_consistent() -> None:
    """With the smallest window, a part can always be sent once all was acknowledged."""
    from berrymq_rpc.rpc.transport.nats import port as nats_port

    assert nats_channel.MIN_PART + HEAD_SIZE < nats_port.MIN_WINDOW * 3 // 4


class TestSearch:
    def search(self, most: int = 2) -> Search:
        return Search(most, random.Random(1))

    def test_the_least_loaded_first(self) -> None:
        search = self.search()
        for server, load in (("a", 3), ("b", 1), ("c", 2)):
            search.found(Found(server, load))
        assert search.choose([], 0.0) == ["b", "c"]
        assert search.choose(["x"], 0.0) == ["b"]
        assert search.choose(["b"], 0.0) == ["c"]
        assert search.choose(["x", "y"], 0.0) == []

    def test_of_many_with_the_same_load_any(self) -> None:
        chosen = set()
        for seed in range(50):
            search = Search(1, random.Random(seed))
            for server in "abcd":
                search.found(Found(server, 0))
            chosen.update(search.choose([], 0.0))
        assert chosen == set("abcd")

    def test_one_that_failed_is_left_alone(self) -> None:
        search = self.search()
        search.found(Found("a", 0))
        search.failed("a", 10.0)
        assert search.choose([], 10.0) == []
        search.found(Found("a", 0))
        assert search.choose([], 10.0) == []
        assert search.choose([], 10.0 + AVOID) == ["a"]

    def test_one_that_leaves(self) -> None:
        search = self.search()
        search.found(Found("a", 0))
        search.gone("a")
        search.gone("b")
        assert search.choose([], 0.0) == []

    def test_nothing_is_known_of_another_link(self) -> None:
        search = self.search()
        search.found(Found("a", 0))
        search.failed("b", 0.0)
        search.forget()
        assert search.choose([], 0.0) == []
        search.found(Found("b", 0))
        assert search.choose([], 0.0) == ["b"]

    def test_memory_is_bounded(self) -> None:
        search = self.search()
        for number in range(20_000):
            search.found(Found(f"s{number}", 0))
            search.failed(f"x{number}", 0.0)
        assert len(search._known) == len(search._avoided) == 10_000
