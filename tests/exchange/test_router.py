"""What a router does with messages, without links: into send_buffers, and out of hands."""

import gc
import logging
import threading
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.errors import ProtocolError, TooLargeError
from berrymq_rpc.exchange.batch import MAX_NUMBER, Batch
from berrymq_rpc.exchange.message_codec import LARGE, MessageCodec
from berrymq_rpc.exchange.router import BATCH_MESSAGES, MAX_ANSWERS, Router
from berrymq_rpc.exchange.send_buffer import SendBuffer
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.limits import Limits

CODEC = Codec()


class Place:
    """A bus and its router, with so many links."""

    def __init__(self, links: int = 1, epoch: int = 7, **options: Any) -> None:
        self.bus = Bus()
        self.woken = 0
        self.router = Router(self.bus.gateway, "here", epoch=epoch, wake=self.wake, **options)
        self.send_buffers = [SendBuffer() for _ in range(links)]
        for send_buffer in self.send_buffers:
            self.router.add(send_buffer)
        self.bus.gateway.add_forwarder(self.router.forward)
        self.heard: list[Message] = []
        self.bus.regist_function("*:*", self.heard.append)
        self.errors: list[BaseException] = []
        self.bus.on_error = lambda error, message, receiver: self.errors.append(error)

    def wake(self) -> None:
        self.woken += 1

    def sent(self, link: int = 0) -> list[Batch]:
        self.router.rest()
        self.router.collect()
        return self.send_buffers[link].take(10**9, 10**12)

    def messages(self, link: int = 0) -> list[Any]:
        return [m for batch in self.sent(link) for m in CODEC.unpack(batch.data, batch.frames)]


def batch(*messages: Any, first: int = 1, source: Any = ("there", 3), **more: Any) -> Batch:
    return Batch(source, first, len(messages), CODEC.pack(messages), **more)


def test_a_bus_s_messages_are_numbered_and_packed() -> None:
    place = Place()
    place.bus.twitter("job:new", 1, "two")
    place.bus.twitter("job", [3], key={"a": None})
    (made,) = place.sent()
    assert (made.source, made.first, made.count) == (("here", 7), 1, 2)
    assert CODEC.unpack(made.data) == (
        ("job:new", (1, "two")),
        ("job:*", ((3,),), {"key": {"a": None}}),
    )
    place.bus.twitter("job:new")
    (made,) = place.sent()
    assert (made.first, made.count) == (3, 1)


def test_a_name_of_its_own() -> None:
    assert Router(Bus().gateway).name != Router(Bus().gateway).name
    with pytest.raises(ValueError, match="the name of a node"):
        Router(Bus().gateway, "")


def test_it_wakes_once_until_it_rests() -> None:
    place = Place()
    for _ in range(3):
        place.bus.twitter("job:new")
    assert place.woken == 1
    place.sent()
    place.bus.twitter("job:new", {})
    assert place.woken == 2


def test_what_stays_here() -> None:
    place = Place()
    place.bus.twitter("_local:new")
    place.bus.gateway.relay("job:new", (), {}, "another")
    place.router.report("lost", endpoint="x")
    assert place.sent() == []
    assert [message.origin for message in place.heard] == [None, "another", "here"]


def test_what_is_sent_without_links_is_numbered_too() -> None:
    place = Place(0)
    for _ in range(5):
        place.bus.twitter("job:new")
    place.send_buffers.append(SendBuffer())
    place.router.add(place.send_buffers[0])
    place.bus.twitter("job:new")
    (made,) = place.sent()
    assert (made.first, made.count) == (6, 1)


@pytest.mark.parametrize("count", [15, 16, 17, 249])
@pytest.mark.parametrize("argument", [1, [1], "\ud800", 2**70])
def test_so_many_at_once(count: int, argument: Any) -> None:
    place = Place()
    for _ in range(count):
        place.bus.twitter("job:new", argument)
    expected = (1,) if argument == [1] else argument
    assert place.messages() == [("job:new", (expected,))] * count


def test_arguments_are_as_they_were_when_sent() -> None:
    place = Place()
    argument = [1]
    place.bus.twitter("job:new", argument)
    argument.append(2)
    assert place.messages() == [("job:new", ((1,),))]


def test_many_go_without_being_collected() -> None:
    place = Place()
    for number in range(3 * BATCH_MESSAGES):
        place.bus.twitter("job:new", number if number % 2 else [number])
    assert len(place.send_buffers[0]) >= 2 * BATCH_MESSAGES
    for _ in range(20):
        place.bus.twitter("job:new", "x" * (LARGE - 100))
    batches = place.sent()
    assert sum(made.count for made in batches) == 3 * BATCH_MESSAGES + 20
    assert max(len(made.data) for made in batches) < 100_000
    firsts = [made.first for made in batches]
    assert firsts == sorted(firsts)


def test_each_is_packed_once_for_all_links(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(100)
    packed: list[Any] = []
    pack = MessageCodec.pack

    def counted(self: MessageCodec, item: tuple[Any, ...]) -> bytes:
        packed.append(item)
        return pack(self, item)

    monkeypatch.setattr(MessageCodec, "pack", counted)
    place.bus.twitter("job:new", {"a": 1})
    first = place.sent(0)
    assert len(packed) == 1
    for link in range(1, 100):
        assert place.sent(link)[0] is first[0]


def test_long_byte_strings_travel_beside() -> None:
    place = Place()
    place.bus.twitter("job:new", 1)
    place.bus.twitter("job:image", b"x" * LARGE, {"a": bytearray(LARGE)})
    place.bus.twitter("job:new", 2)
    batches = place.sent()
    assert [(made.first, made.count, len(made.frames)) for made in batches] == [
        (1, 1, 0),
        (2, 1, 2),
        (3, 1, 0),
    ]
    assert all(type(frame) is bytes for frame in batches[1].frames)
    other = Place(epoch=8)
    other.router.receive(other.send_buffers[0], batches[0], 0.0)
    other.router.receive(other.send_buffers[0], batches[1], 0.0)
    assert other.heard[1].args == (b"x" * LARGE, {"a": bytes(LARGE)})


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        (object(), TypeError),
        ("x" * (2 << 20), TooLargeError),
        (nested(98), ValueError),
        (nested(150), ValueError),
        ({"a": {1, object()}}, TypeError),
    ],
)
def test_what_cannot_travel_has_no_number(argument: Any, error: type[Exception]) -> None:
    place = Place()
    place.bus.twitter("job:new", 1)
    assert place.bus.twitter("job:new", argument) == 1
    place.bus.twitter("job:new", 2)
    assert [m[1] for m in place.messages()] == [(1,), (2,)]
    assert place.router.refused == 1
    assert [type(problem) for problem in place.errors] == [error]


def test_as_deep_as_calls_may_be() -> None:
    there, here = Place(), Place(epoch=8)
    there.bus.twitter("job:new", nested(97))
    (made,) = there.sent()
    here.router.receive(here.send_buffers[0], made, 0.0)
    assert len(here.heard) == 1


def test_an_object_that_is_collected_while_another_is_packed() -> None:
    class Zone(tzinfo):
        """Asked for while a time is packed, when an object may be collected as well."""

        def utcoffset(self, _: Any) -> timedelta:
            if not inner:
                inner.append("sent")
                place.bus.twitter("job:inner", [1])
            return timedelta(hours=1)

    place = Place()
    inner: list[str] = []
    moment = datetime(2026, 1, 2, tzinfo=Zone())
    place.bus.twitter("job:new", moment)
    place.bus.twitter("job:new", [2])
    assert inner == ["sent"]
    assert [m[1] for m in place.messages()] == [((1,),), (moment,), ((2,),)]


def test_an_object_that_is_collected_while_a_batch_is_made() -> None:
    place = Place()

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            place.bus.twitter("job:late", b"x" * LARGE)
            place.router.collect()

    class Collecting(SendBuffer):
        def put(self, batch: Batch) -> None:
            gc.collect()
            super().put(batch)

    place.send_buffers = [Collecting()]
    place.router.add(place.send_buffers[0])
    place.bus.twitter("job:new")
    Garbage()
    batches = place.sent()
    assert [made.first for made in batches] == [1, 2]


def test_from_many_threads() -> None:
    place = Place()

    def send(thread: int) -> None:
        for number in range(2000):
            place.bus.twitter("job:new", thread, number if number % 3 else [number])
            if number % 100 == 0:
                place.router.collect()

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batches = place.sent()
    assert [made.first for made in batches] == [
        1 + sum(made.count for made in batches[:n]) for n in range(len(batches))
    ]
    seen: dict[int, list[int]] = {n: [] for n in range(4)}
    for made in batches:
        for _, (thread, number) in CODEC.unpack(made.data):
            seen[thread].append(number[0] if isinstance(number, tuple) else number)
    assert all(numbers == [*range(2000)] for numbers in seen.values())


class TestWhatComes:
    def test_is_published_and_passed_on(self) -> None:
        place = Place(3)
        made = batch(("a:b", (1,)), ("c", (), {"k": 2}))
        place.router.receive(place.send_buffers[0], made, 0.0)
        assert [(m.id, m.args, m.kwargs, m.origin) for m in place.heard] == [
            ("a:b", (1,), {}, "there"),
            ("c:*", (), {"k": 2}, "there"),
        ]
        assert place.sent(0) == []
        assert place.sent(1) == place.sent(2) == [made]
        place.router.receive(place.send_buffers[1], made, 0.0)
        assert len(place.heard) == 2
        assert place.sent(0) == []

    def test_goes_before_what_its_receivers_send(self) -> None:
        place = Place(2)
        place.bus.regist_function("a:b", lambda m: place.bus.twitter("answer:now"))
        place.router.receive(place.send_buffers[0], batch(("a:b", ())), 0.0)
        assert [made.source[0] for made in place.sent(1)] == ["there", "here"]

    def test_of_itself_is_dropped(self) -> None:
        place = Place(2)
        place.router.receive(
            place.send_buffers[0], batch(("a:b", ()), source=place.router.source), 0.0
        )
        assert place.heard == []
        # It was this node in its former life.
        place.router.receive(place.send_buffers[0], batch(("a:b", ()), source=("here", 6)), 0.0)
        assert len(place.heard) == 1

    def test_what_is_missed_is_reported_in_its_place(self) -> None:
        place = Place()
        place.router.receive(place.send_buffers[0], batch(("a:b", ()), first=6), 0.0)
        missed, message = place.heard
        assert missed.id == "connection:missed"
        assert missed.kwargs == {"origin": "there", "first": 1, "last": 5, "count": 5}
        assert missed.origin == "here"
        assert message.id == "a:b"
        assert place.sent() == []

    def test_in_time(self) -> None:
        place = Place(2)
        place.router.receive(place.send_buffers[0], batch(("a:b", ()), first=6), 0.0)
        assert place.heard == []
        place.router.expire(100.0)
        assert len(place.heard) == 2
        place.router.receive(place.send_buffers[0], batch(("a:b", ()), first=9), 0.0)
        place.router.remove(place.send_buffers[1], 0.0)
        assert len(place.heard) == 4

    def test_by_a_link_that_brings_nothing_that_is_numbered(self) -> None:
        place = Place()
        place.router.add(SendBuffer(), has_envelopes=False)
        place.router.receive(place.send_buffers[0], batch(("a:b", ()), first=6), 0.0)
        assert len(place.heard) == 2
        late = SendBuffer()
        place.router.add(late)
        place.router.receive(place.send_buffers[0], batch(("a:b", ()), first=9), 0.0)
        place.router.set_leaf(late, 0.0)
        assert len(place.heard) == 4

    @pytest.mark.parametrize(
        "messages",
        [
            5,
            {},
            ("a:b",),
            (("a:b",),),
            (("a:b", (), {}, None, 5),),
            ((5, ()),),
            (("a:b", "text"),),
            (("a:b", (), ()),),
            (("a:b", (), {5: 5}),),
            (("a:b", ()), ("a:b", ())),
            (),
        ],
    )
    def test_what_is_no_message(self, messages: Any) -> None:
        place = Place(2)
        made = Batch(("there", 0), 1, 1, CODEC.pack(messages))
        with pytest.raises(ProtocolError):
            place.router.receive(place.send_buffers[0], made, 0.0)
        assert place.heard == []
        assert place.sent(1) == []
        assert place.router.malformed == 1

    @pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91", b"\xdd\xff\xff\xff\xff", b"\x90\x90"])
    def test_what_is_no_msgpack(self, data: bytes) -> None:
        place = Place()
        with pytest.raises(ProtocolError):
            place.router.receive(place.send_buffers[0], Batch(("there", 0), 1, 1, data), 0.0)

    def test_what_is_too_large(self) -> None:
        place = Place(limits=Limits(max_message=1000))
        made = Batch(("there", 0), 1, 1, bytes(200_000))
        with pytest.raises(ProtocolError, match="too large"):
            place.router.receive(place.send_buffers[0], made, 0.0)
        assert place.router.reorder.held == 0

    def test_too_deep(self) -> None:
        place = Place()
        made = Batch(("there", 0), 1, 1, b"\x91" * 500 + b"\x90")
        with pytest.raises(ProtocolError, match="levels"):
            place.router.receive(place.send_buffers[0], made, 0.0)

    @pytest.mark.parametrize("identifier", ["_local:x", "a:b:c", ""])
    @pytest.mark.parametrize("place_of_it", [0, 3])
    def test_an_identifier_that_is_none_costs_itself_alone(
        self, identifier: str, place_of_it: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        place = Place()
        bad: list[Any] = ["a:b", (), {}, "c:d"]
        bad[place_of_it] = identifier
        place.router.receive(place.send_buffers[0], batch(bad, ("a:b", (2,))), 0.0)
        assert [m.args for m in place.heard] == [(2,)]
        assert place.router.malformed == 1
        with caplog.at_level(logging.WARNING):
            for first in range(3, 103):
                place.router.receive(place.send_buffers[0], batch(bad, first=first), 0.0)
        counts = [text.split("(")[1].split()[0] for text in caplog.messages[:10]]
        assert counts == [str(count) for count in range(1, 11)]
        assert len(caplog.messages) < 20

    def test_numbers_of_a_liar_spoil_that_source_alone(self) -> None:
        place = Place()
        (link,) = place.send_buffers
        place.router.receive(link, batch(("a:b", ()), first=MAX_NUMBER), 0.0)
        place.router.receive(link, batch(("a:b", ()), source=("other", 3)), 0.0)
        assert [m.origin for m in place.heard if m.id == "a:b"] == ["there", "other"]

    def test_of_one_bad_batch_among_those_that_were_held(self) -> None:
        place = Place(2)
        place.router.receive(place.send_buffers[0], batch(("a:b", (3,)), first=3), 0.0)
        place.router.receive(place.send_buffers[0], Batch(("there", 3), 2, 1, b"\xc1"), 0.0)
        # The error is not the sender's of what releases it.
        place.router.receive(place.send_buffers[1], batch(("a:b", (1,))), 0.0)
        assert [m.args for m in place.heard] == [(1,), (3,)]
        assert place.router.malformed == 1


class TestWithoutEnvelope:
    def test_this_node_is_its_origin(self) -> None:
        place = Place(3)
        place.bus.twitter("first:here")
        place.router.publish(place.send_buffers[0], "a", (1,), {"k": 2})
        assert [(m.id, m.origin) for m in place.heard] == [("first:here", None), ("a:*", "here")]
        assert [made.first for made in place.sent(0)] == [1]
        assert [made.first for made in place.sent(1)] == [1, 2]
        assert place.sent(2)[1].source == ("here", 7)

    def test_of_the_only_link_goes_nowhere(self) -> None:
        place = Place()
        place.router.publish(place.send_buffers[0], "a", (1,), {})
        assert place.sent() == []
        place.bus.twitter("a")
        (made,) = place.sent()
        assert made.first == 2

    @pytest.mark.parametrize("identifier", ["_local:x", "a:b:c", 5])
    def test_what_is_no_message_has_no_number(self, identifier: Any) -> None:
        place = Place(2)
        with pytest.raises((ValueError, TypeError)):
            place.router.publish(place.send_buffers[0], identifier, (), {})
        place.bus.twitter("a")
        assert place.sent(1)[0].first == 1

    def test_one_that_has_an_envelope(self) -> None:
        place = Place()
        envelope = {"origin": "there", "epoch": 3, "seq": 1, "reply_to": "c:d"}
        made = place.router.enclosed("a", (1,), {"k": 2}, envelope)
        assert CODEC.unpack(made.data) == (("a:*", (1,), {"k": 2}, "c:d"),)
        assert (made.source, made.first, made.count) == (("there", 3), 1, 1)
        with pytest.raises(ValueError, match="single message"):
            place.router.enclosed("a", (), {}, envelope | {"count": 2})
        with pytest.raises(ValueError, match="local"):
            place.router.enclosed("_a", (), {}, envelope)


def pair() -> tuple[Place, Place]:
    """One that asks, and one that answers."""
    asks, answers = Place(), Place()
    asks.router.source = ("here", 1)
    answers.router.source = ("there", 2)
    answers.router.name = "there"
    return asks, answers


class TestTalk:
    def carry(self, one: Place, other: Place) -> None:
        for made in one.sent():
            other.router.receive(other.send_buffers[0], made, 0.0)

    def test_is_answered(self) -> None:
        asks, answers = pair()
        answers.bus.regist_function("question:*", lambda m: m.args[0] + 1)
        asks.bus.talk("question:one", "answer:one", 1)
        self.carry(asks, answers)
        self.carry(answers, asks)
        # What keeps the messages of a place answers too.
        assert [(m.id, m.args, m.origin) for m in asks.heard[-2:]] == [
            ("answer:one", (None,), "there"),
            ("answer:one", (2,), "there"),
        ]
        # No other node gets it.
        assert asks.sent() == []

    @pytest.mark.parametrize(
        ("raised", "expected"),
        [
            (ValueError("no", 5), ValueError),
            (type("Special", (Exception,), {})("x"), Exception),
        ],
    )
    def test_with_an_error(self, raised: Exception, expected: type[Exception]) -> None:
        asks, answers = pair()

        def fail(_: Any) -> None:
            raise raised

        answers.bus.regist_function("question:*", fail)
        asks.bus.talk("question:one", "answer:one", 1)
        self.carry(asks, answers)
        self.carry(answers, asks)
        answer = asks.heard[-1]
        assert isinstance(answer.error, expected)
        if expected is ValueError:
            assert answer.error.args == ("no", 5)

    @pytest.mark.parametrize(
        ("result", "error"), [(object(), TypeError), ("x" * (2 << 20), TooLargeError)]
    )
    def test_with_what_cannot_travel(self, result: Any, error: type[Exception]) -> None:
        asks, answers = pair()
        answers.bus.regist_function("question:*", lambda m: result)
        asks.bus.talk("question:one", "answer:one", 1)
        self.carry(asks, answers)
        self.carry(answers, asks)
        assert isinstance(asks.heard[-1].error, error)

    def test_to_a_local_name_is_answered_here_alone(self) -> None:
        asks, answers = pair()
        answers.bus.regist_function("question:*", lambda m: 1)
        asks.bus.talk("question:one", "_answer:one", 1)
        self.carry(asks, answers)
        assert len(answers.heard) == 1
        assert answers.sent() == []

    def test_an_answer_is_passed_on_once(self) -> None:
        place = Place(2)
        place.router.receive(place.send_buffers[1], batch(("a", ()), source=("asks", 1)), 0.0)
        place.sent(0)
        answer = batch(("c:d", (1,)), target=("asks", 1))
        for _ in range(2):
            place.router.receive(place.send_buffers[0], answer, 0.0)
        assert place.sent(1) == [answer]
        assert place.sent(0) == []
        assert len(place.heard) == 1

    def test_an_answer_without_a_way(self) -> None:
        place = Place(2)
        for number in range(1, 6):
            answer = batch(("c:d", (1,)), first=number, target=("nobody", 1))
            place.router.receive(place.send_buffers[0], answer, 0.0)
        assert place.router.unanswered == 5
        # Nor back to where it came from.
        place.router.receive(place.send_buffers[0], batch(("a", ()), source=("asks", 1)), 0.0)
        answer = batch(("c:d", (1,)), first=9, target=("asks", 1))
        place.router.receive(place.send_buffers[0], answer, 0.0)
        assert place.router.unanswered == 6
        # The link is closed.
        place.router.remove(place.send_buffers[0], 0.0)
        answer = batch(("c:d", (1,)), first=10, target=("asks", 1))
        place.router.receive(place.send_buffers[1], answer, 0.0)
        assert place.router.unanswered == 7

    @pytest.mark.parametrize("message", [("_c:d", (1,)), ("a:b:c", (1,)), ("c:d", ())])
    def test_what_is_no_answer(self, message: Any) -> None:
        place = Place()
        answer = batch(message, target=place.router.source)
        place.router.receive(place.send_buffers[0], answer, 0.0)
        assert place.heard == []
        assert place.router.malformed == 1

    def test_duplicates_are_known_up_to_a_bound(self) -> None:
        place = Place()
        for number in range(MAX_ANSWERS + 10):
            answer = batch(("c:d", (1,)), first=number + 1, target=("nobody", 1))
            place.router.receive(place.send_buffers[0], answer, 0.0)
        assert place.router.unanswered == MAX_ANSWERS + 10
        # The first of those that are known, and the last of those that are not.
        for number, count in ((11, 0), (10, 1)):
            answer = batch(("c:d", (1,)), first=number, target=("nobody", 1))
            place.router.receive(place.send_buffers[0], answer, 0.0)
            assert place.router.unanswered == MAX_ANSWERS + 10 + count

    def test_ways_are_known_up_to_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("berrymq_rpc.exchange.router.MAX_SOURCES", 3)
        place = Place(2)
        for number in range(10):
            made = batch(("a", ()), source=(f"n{number}", 1))
            place.router.receive(place.send_buffers[0], made, 0.0)
        answers = [
            batch(("c:d", (1,)), first=number + 1, target=(f"n{number}", 1)) for number in range(10)
        ]
        for answer in answers:
            place.router.receive(place.send_buffers[1], answer, 0.0)
        assert place.sent(0) == answers[7:]
        assert place.router.unanswered == 7


def test_repr() -> None:
    assert repr(Place().router) == "<Router of node here>"
