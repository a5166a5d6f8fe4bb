"""What a filter leaves of batches, and what a receiver makes of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc import rpc
from berrymq_rpc.exchange import message_filter
from berrymq_rpc.exchange.batch import Batch, parse_batch
from berrymq_rpc.exchange.message_codec import MessageCodec
from berrymq_rpc.exchange.message_filter import FilteredSendBuffer, MessageFilter
from berrymq_rpc.exchange.policy import Grants
from berrymq_rpc.exchange.reorder import InOrder, ReorderBuffer
from berrymq_rpc.identifier import Identifier

CODEC = MessageCodec(rpc.Limits())
ANY = 10**9


def made_filter(*identifiers: str) -> MessageFilter:
    return MessageFilter(Grants(map(Identifier, identifiers)), CODEC)


def batch_of(first: int, *identifiers: str, size: int = 0, **more: Any) -> Batch:
    messages = [(each, (first + place, b"x" * size)) for place, each in enumerate(identifiers)]
    if size:
        # Long byte strings travel apart, as in a batch that another node has made.
        codec = CODEC.new_codec()
        data, frames = codec.pack_with_frames(messages, 100, "the messages")
        return Batch(("a", 1), first, len(messages), data, list(map(bytes, frames)), **more)
    return Batch(("a", 1), first, len(messages), CODEC.pack_all(messages), **more)


def numbers(batches: list[Batch]) -> list[list[int]]:
    """The numbers of messages, as the messages themselves have them."""
    found = [[message[1][0] for message in CODEC.unpack(batch)] for batch in batches]
    for batch, of_batch in zip(batches, found, strict=True):
        assert of_batch == list(range(batch.first, batch.last + 1))
    return found


def test_what_passes_whole_is_passed_on_as_it_is() -> None:
    batch = batch_of(5, "job:a", "job:b")
    assert made_filter("job:*").filter(batch) == ([batch], 0, "")


@pytest.mark.parametrize("size", [0, 500])
def test_the_parts_of_a_batch(size: int) -> None:
    job = made_filter("job:*")
    batch = batch_of(5, "no:a", "job:a", "job:b", "no:b", "no:c", "job:c", "no:d", size=size)
    parts, left_out, example = job.filter(batch)
    assert (left_out, example) == (4, "no:a")
    assert [each for part in numbers(parts) for each in part] == [6, 7, 10]
    assert [part.withheld for part in parts if part.withheld] == [1, 2]
    # What was left out at the end counts for the next one that passes.
    assert job.filter(batch_of(12, "no:e", size=size)) == ([], 1, "no:e")
    (part,) = job.filter(batch_of(13, "job:d", size=size)).parts
    assert (numbers([part]), part.withheld) == ([[13]], 2)
    (part,) = job.filter(batch_of(14, "job:e", size=size)).parts
    assert part.withheld == 0


def test_what_another_node_withholds() -> None:
    job = made_filter("job:*")
    assert job.filter(batch_of(5, "no:a", withheld=2)).parts == []
    (part,) = job.filter(batch_of(8, "job:a", withheld=2)).parts
    # From 3 on, which was withheld before it came here.
    assert part.withheld == 5
    # After a real gap, only what is next to the message.
    assert job.filter(batch_of(9, "no:a")).parts == []
    (part,) = job.filter(batch_of(12, "job:a", withheld=1)).parts
    assert part.withheld == 1


def test_answers_pass_or_do_not() -> None:
    job = made_filter("job:*")
    answer = batch_of(5, "job:a", target=("b", 1))
    assert job.filter(answer).parts == [answer]
    assert job.filter(batch_of(6, "no:a", target=("b", 1))) == ([], 1, "no:a")


def test_what_is_malformed() -> None:
    malformed = Batch(("a", 1), 1, 3, b"\x90")
    with pytest.raises(rpc.ProtocolError):
        made_filter("*@*:*").filter(malformed)
    buffer = FilteredSendBuffer(ANY, ANY, made_filter("*@*:*"))
    buffer.put(malformed)
    assert (len(buffer), buffer.withheld) == (0, 3)


def test_a_send_buffer_counts_what_it_leaves_out() -> None:
    buffer = FilteredSendBuffer(ANY, ANY, made_filter("job:*"))
    buffer.put(batch_of(1, "no:a", "job:a", "no:b"))
    buffer.put(batch_of(4, "job:b"))
    assert (len(buffer), buffer.withheld) == (2, 2)
    first, second = buffer.take(ANY, ANY)
    assert (first.first, first.withheld, second.first, second.withheld) == (2, 1, 4, 1)


def test_sources_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node may speak for any others, and send in their names what it may not."""
    monkeypatch.setattr(message_filter, "MAX_SOURCES", 3)
    job = made_filter("job:*")
    data = CODEC.pack_all([("no:a", ())])
    for number in range(10):
        assert job.filter(Batch((f"node {number}", 1), 1, 1, data)).left_out == 1
    data = CODEC.pack_all([("job:a", ())])
    known = [job.filter(Batch((f"node {n}", 1), 2, 1, data)).parts[0].withheld for n in range(10)]
    assert known == [0] * 7 + [1] * 3


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=6), max_size=10),
    st.data(),
)
def test_a_receiver_gets_what_it_may_in_order_and_misses_nothing(
    batches: list[list[bool]], data: st.DataObject
) -> None:
    """By one link, two filters one after another, batches that are sent again included."""
    filters = [made_filter("job:*"), made_filter("*:*")]
    reorder = ReorderBuffer()
    reorder.add_link("link")
    taken: list[int] = []
    expected: list[int] = []
    first = 1
    sent: list[Batch] = []
    for passes in batches:
        identifiers = ["job:a" if each else "no:a" for each in passes]
        size = data.draw(st.sampled_from([0, 200]))
        expected += [first + place for place, each in enumerate(passes) if each]
        parts = [batch_of(first, *identifiers, size=size)]
        first += len(passes)
        for each in filters:
            parts = [part for batch in parts for part in each.filter(batch).parts]
        again = data.draw(st.integers(0, min(3, len(sent))))
        to_send = [*sent[len(sent) - again :], *parts]
        sent += parts
        for batch in to_send:
            travelled = parse_batch(batch.envelope(), batch.data, batch.frames)
            for outcome in reorder.receive("link", travelled, 0.0):
                assert isinstance(outcome, InOrder)
                messages = CODEC.unpack(outcome.batch)[outcome.skip :]
                taken += [message[1][0] for message in messages]
    assert taken == expected
    assert reorder.missed == 0
