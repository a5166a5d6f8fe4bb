"""Retained messages: who comes late hears the last message of each identifier at once."""

import asyncio
import copy
import gc
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import berrymq_rpc as berrymq
from berrymq_rpc.bus import AsyncQueue, Bus, Follower, FollowerBase, Message, Queue, cond, following
from berrymq_rpc.bus.fresh_state import fresh_state
from berrymq_rpc.identifier import Identifier

BOUND = 30.0

Heard = list[tuple[str, Any, bool]]


def seen(message: Message) -> tuple[str, Any, bool]:
    return message.id, message.args[0] if message.args else None, message.retained


def listen(bus: Bus, identifier: str, **options: Any) -> Heard:
    heard: Heard = []
    bus.regist_function(identifier, lambda message: heard.append(seen(message)), **options)
    return heard


class TestLateReceivers:
    def test_last_of_each_identifier(self, bus: Bus) -> None:
        early = listen(bus, "oven:*")
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)
        bus.twitter("oven:door", "open")
        assert bus.twitter("oven:heat", 2) == 1
        bus.twitter("light:on", 1)
        late = listen(bus, "oven:*")
        assert late == [("oven:door", "open", True), ("oven:heat", 2, True)]
        bus.twitter("oven:heat", 3)
        assert late[2:] == [("oven:heat", 3, False)]
        assert early == [
            ("oven:heat", 1, False),
            ("oven:door", "open", False),
            ("oven:heat", 2, False),
            ("oven:heat", 3, False),
        ]
        assert listen(bus, "*:door") == [("oven:door", "open", True)]
        assert listen(bus, "light:*") == []

    def test_without_retain_nothing_is_kept(self, bus: Bus) -> None:
        bus.twitter("oven:heat", 1)
        assert listen(bus, "oven:*") == []
        assert bus.retained() == []
        bus.retain("oven:*")
        assert listen(bus, "oven:*") == [], "what was sent before"

    def test_wildcards_of_the_sender(self, bus: Bus) -> None:
        """What reaches more than was wanted is not kept: it would be heard by others as well."""
        bus.retain("oven:log")
        bus.retain("light:*")
        bus.twitter("oven", 1)
        bus.twitter("*:log", 2)
        bus.twitter("light", 3)
        assert [seen(message) for message in bus.retained()] == [("light:*", 3, True)]
        assert listen(bus, "light:on") == [("light:*", 3, True)]

    @pytest.mark.parametrize(
        ("wanted", "sent", "is_kept"),
        [
            ("a:b", "a:b", True),
            ("a:b", "a:c", False),
            ("a", "a:b", True),
            ("a", "a@n:b", False),
            ("a@*:b", "a:b", True),
            ("a@*:b", "a@n:b", True),
            ("a@n:b", "a:b", False),
            ("*:b", "x:b", True),
            ("*", "a", True),
            ("*@*", "a@n:b", True),
            ("a:b", "a", False),
            ("*:b", "*:b", True),
            ("a:b", "*:b", False),
        ],
    )
    def test_what_is_covered(self, bus: Bus, wanted: str, sent: str, is_kept: bool) -> None:
        bus.retain(wanted)
        bus.twitter(sent, 1)
        assert [message.id for message in bus.retained()] == [str(Identifier(sent))] * is_kept

    def test_each_way_to_follow(self, bus: Bus) -> None:
        bus.retain("oven:heat")
        bus.twitter("oven:heat", 7)
        heard: Heard = []

        @bus.following_function("oven:*")
        def function(message: Message) -> None:
            heard.append(("function", *seen(message)[1:]))

        class Plain(metaclass=Follower):
            def __init__(self) -> None:
                self.name = "plain"

            @bus.following("oven:*")
            def hear(self, message: Message) -> None:
                heard.append((self.name, *seen(message)[1:]))

        class Based(FollowerBase):
            def __init__(self) -> None:
                self.name = "based"

            @bus.following("oven:heat")
            def hear(self, message: Message) -> None:
                heard.append((self.name, *seen(message)[1:]))

        class OfClass(metaclass=Follower):
            @bus.following("*:heat")
            @classmethod
            def hear(cls, message: Message) -> None:
                heard.append(("class", *seen(message)[1:]))

        objects = [Plain(), Based()]
        bus.regist_method("oven:*", objects[0].hear)
        assert heard == [
            ("function", 7, True),
            ("class", 7, True),
            ("plain", 7, True),
            ("based", 7, True),
        ], "and nothing for a registration that was there"

    def test_message_is_as_it_was(self, bus: Bus) -> None:
        bus.retain("oven:heat")
        bus.twitter("oven:heat", 1, 2, unit="C", retained="hidden")
        got: list[Message] = []
        bus.regist_function("oven:heat", got.append)
        (message,) = got
        assert (message.id, message.args, message.unit, message.retained) == (
            "oven:heat",
            (1, 2),
            "C",
            True,
        )
        assert message.kwargs == {"unit": "C", "retained": "hidden"}
        assert (message.origin, message.reply_to, message.error) == (None, None, None)
        assert message.apply(lambda *args, **kwargs: (args, kwargs)) == ((1, 2), message.kwargs)
        assert seen(copy.copy(message)) == ("oven:heat", 1, True)
        with pytest.raises(AttributeError, match="no argument 'missing'"):
            _ = message.missing
        assert repr(message) == repr(bus.retained("oven:heat")[0])

    def test_guards(self, bus: Bus) -> None:
        bus.retain("oven:*")
        bus.twitter("oven:heat", 20)
        bus.twitter("oven:cold", 3)
        assert listen(bus, "oven:*", guard=lambda message: message.args[0] > 10) == [
            ("oven:heat", 20, True)
        ]
        heard: Heard = []
        both = cond("oven:heat") & cond("oven:cold", lambda message: message.retained)
        bus.regist_function(both, lambda message: heard.append(seen(message)))
        assert heard == [("oven:cold", 3, True)]

    def test_errors_are_reported(
        self, bus: Bus, errors: list[tuple[BaseException, Message, Any]]
    ) -> None:
        bus.retain("oven:*")
        bus.twitter("oven:a", 1)
        bus.twitter("oven:b", 2)
        heard: Heard = []

        def receiver(message: Message) -> None:
            heard.append(seen(message))
            raise OSError(message.id)

        bus.regist_function("oven:*", receiver)
        bus.regist_function("oven:*", print, lambda message: 1 / 0)
        assert [type(error) for error, _, _ in errors] == [OSError, OSError] + [
            ZeroDivisionError
        ] * 2
        assert heard == [("oven:a", 1, True), ("oven:b", 2, True)]
        assert errors[0][2] is receiver
        bus.twitter("oven:a", 3)
        assert heard[2:] == [("oven:a", 3, False)]

    def test_interrupted(self, bus: Bus) -> None:
        """Ctrl-C in a receiver ends the call that follows; the receiver follows nevertheless."""
        bus.retain("oven:*")
        bus.twitter("oven:a", 1)
        bus.twitter("oven:b", 2)
        heard: Heard = []

        def receiver(message: Message) -> None:
            heard.append(seen(message))
            if message.retained:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bus.regist_function("oven:*", receiver)
        assert heard == [("oven:a", 1, True)]
        bus.twitter("oven:a", 3)
        assert heard[1:] == [("oven:a", 3, False)]

    def test_receiver_that_lets_receivers_follow(self, bus: Bus) -> None:
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)
        inner: list[Heard] = []

        def receiver(message: Message) -> None:
            inner.append(listen(bus, "oven:heat"))

        bus.regist_function("oven:*", receiver)
        assert inner == [[("oven:heat", 1, True)]]

    def test_receivers_that_follow_without_end(
        self, bus: Bus, errors: list[tuple[BaseException, Message, Any]]
    ) -> None:
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)

        def follow() -> None:
            bus.regist_function("oven:heat", lambda message: follow())

        follow()
        assert [type(error) for error, _, _ in errors] == [RecursionError]

    def test_receiver_that_sends(self, bus: Bus) -> None:
        """What a receiver sends itself it hears after what it is told first."""
        bus.retain("oven:*")
        bus.twitter("oven:a", 1)
        bus.twitter("oven:b", 2)
        heard: Heard = []

        def receiver(message: Message) -> None:
            heard.append(seen(message))
            if message.id == "oven:a" and message.retained:
                assert bus.twitter("oven:b", 3) == 1

        bus.regist_function("oven:*", receiver)
        assert heard == [("oven:a", 1, True), ("oven:b", 2, True), ("oven:b", 3, False)]

    async def test_async_receivers(self, bus: Bus) -> None:
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)
        heard: asyncio.Queue[Any] = asyncio.Queue()

        @bus.following_function("oven:*")
        async def receiver(message: Message) -> None:
            await heard.put(seen(message))

        async with asyncio.timeout(BOUND):
            assert await heard.get() == ("oven:heat", 1, True)

    def test_pool(self, bus: Bus) -> None:
        """In the thread that follows, so that all is heard when it has followed."""
        bus.set_multiplicity(3)
        try:
            bus.retain("oven:*")
            bus.twitter("oven:heat", 1)
            threads: list[int] = []
            bus.regist_function("oven:*", lambda message: threads.append(threading.get_ident()))
            assert threads == [threading.get_ident()]
        finally:
            bus.set_multiplicity(0)

    def test_unfollowed_and_followed_again(self, bus: Bus) -> None:
        bus.retain("oven:*")
        heard: Heard = []

        def receiver(message: Message) -> None:
            heard.append(seen(message))

        bus.twitter("oven:heat", 1)
        for _ in range(2):
            bus.regist_function("oven:*", receiver)
            bus.unfollow("oven:*", receiver)
        assert heard == [("oven:heat", 1, True)] * 2

    def test_local_names(self, bus: Bus) -> None:
        bus.retain("*:*")
        bus.twitter("_secret:key", 1)
        assert listen(bus, "_secret:*") == [("_secret:key", 1, True)]
        bus.gateway.relay("*:key", (2,), {}, "other")
        assert listen(bus, "_secret:*") == [("_secret:key", 1, True)]
        assert listen(bus, "open:key") == [("*:key", 2, True)]


class TestKinds:
    def test_talk(self, bus: Bus, answers: Queue) -> None:
        """A late receiver does not answer, and answers are not kept."""
        bus.retain("*:*")
        bus.regist_function("ask:it", lambda message: 42)
        bus.talk("ask:it", "answer:it", 1)
        assert answers.get_nowait().args == (42,)
        late: list[Message] = []
        bus.regist_function("ask:it", lambda message: late.append(message) or 43)
        assert [(message.retained, message.reply_to) for message in late] == [(True, None)]
        assert answers.empty()
        assert bus.retained("answer:*") == []

    def test_talk_answers_while_the_receiver_catches_up(self, bus: Bus, answers: Queue) -> None:
        bus.retain("ask:it")
        bus.twitter("ask:it", 1)
        heard: list[Any] = []

        def receiver(message: Message) -> int:
            heard.append(message.args[0])
            if message.retained:
                bus.talk("ask:it", "answer:it", 2)
            return message.args[0] * 10

        bus.regist_function("ask:it", receiver)
        assert heard == [1, 2]
        assert [answers.get_nowait().args for _ in range(answers.qsize())] == [(20,)]

    async def test_publish_waits_for_one_that_catches_up(self, bus: Bus) -> None:
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)
        inside, go = threading.Event(), threading.Event()
        heard: list[Any] = []

        def receiver(message: Message) -> None:
            if message.retained:
                inside.set()
                assert go.wait(BOUND)
            heard.append(message.args[0])

        following = threading.Thread(target=bus.regist_function, args=("oven:*", receiver))
        following.start()
        assert await asyncio.to_thread(inside.wait, BOUND)
        publishing = asyncio.ensure_future(bus.publish("oven:heat", 2))
        await asyncio.sleep(0)
        assert not publishing.done()
        go.set()
        async with asyncio.timeout(BOUND):
            assert await publishing == 1
        following.join(BOUND)
        assert heard == [1, 2]

    async def test_publish_is_kept(self, bus: Bus) -> None:
        bus.retain("oven:*")
        assert await bus.publish("oven:heat", 1) == 0
        assert listen(bus, "oven:heat") == [("oven:heat", 1, True)]

    def test_exceptions_are_kept_as_text(self, bus: Bus) -> None:
        bus.retain("failed:*")

        @bus.twitter_exception("failed:it")
        def fail() -> None:
            raise OSError("no disk")

        fail()
        (message,) = bus.retained()
        assert message.kwargs == {
            "type": "builtins.OSError",
            "value": "OSError: no disk",
            "traceback": None,
        }

    def test_dead_letters(self, bus: Bus) -> None:
        bus.retain("dead:*")
        bus.gateway.relay("dead:jobs", (1,), {}, "there", None, {"tries": 5})
        (message,) = bus.retained()
        assert (message.dead, message.origin, message.retained) == ({"tries": 5}, "there", True)

    def test_events_of_connections_are_not_kept(self, bus: Bus) -> None:
        bus.retain("*:*")
        heard = listen(bus, "connection:*")
        forwarded: list[Message] = []
        bus.gateway.add_forwarder(forwarded.append)
        assert bus.gateway.announce("connection:lost", {"endpoint": "x"}, "here") == 1
        assert heard == [("connection:lost", None, False)]
        assert bus.retained() == forwarded == []

    def test_auto_twitter(self, bus: Bus) -> None:
        bus.retain("work:*")

        @bus.auto_twitter("work")
        def work(number: int) -> None: ...

        work(3)
        assert [message.id for message in bus.retained()] == ["work:entry", "work:exit"]


class TestQueues:
    def test_new_backlog(self, bus: Bus) -> None:
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)
        queue = Queue("oven:*", bus=bus)
        bus.twitter("oven:heat", 2)
        assert [seen(queue.get_nowait()) for _ in range(2)] == [
            ("oven:heat", 1, True),
            ("oven:heat", 2, False),
        ]
        assert queue.empty()

    def test_shared_once(self, bus: Bus) -> None:
        bus.retain("oven:*")
        bus.twitter("oven:heat", 1)
        first = Queue("oven:*", shared=True, bus=bus)
        second = AsyncQueue("oven:*", shared=True, bus=bus)
        assert first.qsize() == second.qsize() == 1
        assert seen(second.get_nowait()) == ("oven:heat", 1, True)
        third = Queue("oven:*", shared=True, bus=bus)
        assert third.empty()

    def test_bounded(self, bus: Bus) -> None:
        bus.retain("oven:*")
        for number in range(5):
            bus.twitter(f"oven:n{number}", number)
        queue = Queue("oven:*", maxsize=2, bus=bus)
        assert [queue.get_nowait().args[0] for _ in range(2)] == [3, 4]
        assert queue.dropped == 3

    def test_not_an_answer(self, bus: Bus, answers: Queue) -> None:
        """A queue does not answer `talk` even in the moment in which it is filled."""
        bus.retain("ask:*")
        bus.twitter("ask:it", 1)
        queues: list[Queue] = []

        def talk(message: Message) -> None:
            queues.append(Queue("ask:it", bus=bus))
            bus.talk("ask:it", "answer:it", 2)

        bus.regist_function("ask:it", talk, lambda message: message.retained)
        assert [seen(queues[0].get_nowait())[1] for _ in range(2)] == [1, 2]
        assert answers.empty()


class TestForget:
    def test_forget(self, bus: Bus) -> None:
        bus.retain("*:*")
        for identifier in ("oven:heat", "oven:door", "light:on"):
            bus.twitter(identifier, 1)
        assert bus.forget("oven:*") == 2
        assert bus.forget("oven:*") == 0
        assert [message.id for message in bus.retained()] == ["light:on"]
        assert listen(bus, "oven:*") == []
        bus.twitter("oven:heat", 2)
        assert listen(bus, "oven:*") == [("oven:heat", 2, True)]
        assert bus.forget("*@*:*") == 2
        assert bus.statistics()["retained_bytes"] == 0

    def test_what_others_hear_as_well(self, bus: Bus) -> None:
        bus.retain("*:*")
        bus.twitter("oven", 1)
        assert bus.forget("oven:heat") == 0
        assert [message.id for message in bus.retained("oven:heat")] == ["oven:*"]
        assert bus.forget("oven") == 1

    def test_arguments_are_freed(self, bus: Bus) -> None:
        class Big: ...

        import weakref

        bus.retain("big:it")
        big = Big()
        reference = weakref.ref(big)
        bus.twitter("big:it", big)
        del big
        gc.collect()
        assert reference() is not None
        bus.forget("big:it")
        gc.collect()
        assert reference() is None

    @pytest.mark.parametrize("call", ["retain", "retained", "forget"])
    def test_invalid(self, bus: Bus, call: str) -> None:
        with pytest.raises(ValueError, match="not an identifier"):
            getattr(bus, call)("a::b")
        with pytest.raises(TypeError, match="identifier is text"):
            getattr(bus, call)(1)


class TestBounds:
    def test_number(self, caplog: pytest.LogCaptureFixture) -> None:
        bus = Bus(max_retained=3)
        bus.retain("n:*")
        with caplog.at_level(logging.WARNING, "berrymq_rpc"):
            for number in range(5):
                bus.twitter(f"n:n{number}", number)
            bus.twitter("n:n2", 22)
            bus.twitter("n:n9", 9)
        assert [message.args[0] for message in bus.retained()] == [4, 22, 9]
        statistics = bus.statistics()
        assert (statistics["messages_retained"], statistics["retained_dropped"]) == (3, 3)
        assert "max_retained=3" in caplog.text

    def test_bytes(self) -> None:
        bus = Bus(max_retained_bytes=10_000)
        bus.retain("n:*")
        for number in range(10):
            bus.twitter(f"n:n{number}", bytes(3000))
        assert [message.id for message in bus.retained()] == ["n:n8", "n:n9"]
        assert 6000 < bus.statistics()["retained_bytes"] <= 10_000

    def test_too_large_goes_alone(self) -> None:
        bus = Bus(max_retained_bytes=10_000)
        bus.retain("n:*")
        bus.twitter("n:a", 1)
        bus.twitter("n:b", 1)
        heard = listen(bus, "n:b")
        bus.twitter("n:b", bytes(20_000))
        assert [message.id for message in bus.retained()] == ["n:a"]
        assert len(heard) == 2
        assert bus.statistics()["retained_dropped"] == 1

    def test_nothing_at_all(self) -> None:
        bus = Bus(max_retained=0)
        bus.retain("n:*")
        heard = listen(bus, "n:*")
        assert bus.twitter("n:a", 1) == 1
        assert (len(heard), bus.retained()) == (1, [])

    @pytest.mark.parametrize("name", ["max_retained", "max_retained_bytes"])
    def test_invalid(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} must not be negative"):
            Bus(**{name: -1})
        with pytest.raises(TypeError, match=f"{name} must be an integer"):
            Bus(**{name: 1.5})  # type: ignore[arg-type]


@given(
    sent=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000), st.booleans()), max_size=60
    ),
    max_retained=st.integers(0, 5),
    max_bytes=st.integers(0, 12_000),
)
@settings(max_examples=150, deadline=None)
def test_model(sent: list[tuple[str, int, bool]], max_retained: int, max_bytes: int) -> None:
    """It keeps what a plain dict in the order of changes does, bounds and `forget` included."""
    bus = Bus(max_retained, max_bytes)
    bus.retain("n:*")
    empty = Bus()
    empty.retain("n:*")
    empty.twitter("n:a", b"")
    overhead = empty.statistics()["retained_bytes"]
    model: OrderedDict[str, int] = OrderedDict()
    for name, size, is_forgotten in sent:
        if is_forgotten:
            assert bus.forget(f"n:{name}") == (model.pop(name, None) is not None)
            continue
        bus.twitter(f"n:{name}", bytes(size))
        model.pop(name, None)
        if size + overhead > max_bytes:
            continue
        model[name] = size
        while len(model) > max_retained or sum(model.values()) + len(model) * overhead > max_bytes:
            model.popitem(last=False)
    assert [(m.action, len(m.args[0])) for m in bus.retained()] == list(model.items())
    assert bus.statistics()["retained_bytes"] == sum(model.values()) + overhead * len(model)


class Mix:
    """Threads that send the numbers of their own identifiers, while others follow."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.senders = 3
        self.count = 400
        self.heard: list[list[tuple[str, int, bool]]] = []
        self._lock = threading.Lock()

    def send(self, sender: int) -> None:
        for number in range(self.count):
            self.bus.twitter(f"state:s{sender}", number)

    def follow(self) -> None:
        for _ in range(60):
            heard = listen(self.bus, "state:*")
            with self._lock:
                self.heard.append(heard)

    def open(self) -> None:
        for _ in range(60):
            queue = Queue("state:*", bus=self.bus)
            with self._lock:
                self.queues.append(queue)

    queues: list[Queue]

    def run(self) -> None:
        self.queues = []
        parts = [lambda sender=sender: self.send(sender) for sender in range(self.senders)]
        together(*parts, self.follow, self.open)
        for queue in self.queues:
            self.heard.append([seen(queue.get_nowait()) for _ in range(queue.qsize())])

    def check(self) -> None:
        for heard in self.heard:
            for sender in range(self.senders):
                own = [item for item in heard if item[0] == f"state:s{sender}"]
                numbers = [number for _, number, _ in own]
                assert numbers, "lost"
                assert numbers == list(range(numbers[0], self.count)), "older after newer, or lost"


def together(*functions: Any) -> None:
    barrier = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def run(function: Any) -> None:
        barrier.wait(BOUND)
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(each,), daemon=True) for each in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors, errors


@pytest.fixture
def switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_each_value_once_and_in_order(bus: Bus, switch_often: None) -> None:
    """Whoever follows at any moment hears a sender's values without a gap, from one on."""
    bus.retain("state:*")
    mix = Mix(bus)
    mix.run()
    mix.check()
    assert [message.args[0] for message in bus.retained()] == [mix.count - 1] * 3


def test_no_thread_waits_for_a_receiver(bus: Bus) -> None:
    """A receiver that is told what is retained may wait for a thread that sends the same."""
    bus.retain("oven:*")
    bus.twitter("oven:heat", 1)
    heard: list[Any] = []

    def receiver(message: Message) -> None:
        heard.append(seen(message))
        if message.retained:
            sender = threading.Thread(target=bus.twitter, args=("oven:heat", 2), daemon=True)
            sender.start()
            sender.join(BOUND)
            assert not sender.is_alive()

    bus.regist_function("oven:*", receiver)
    assert heard == [("oven:heat", 1, True), ("oven:heat", 2, False)]


def test_followed_between_lookup_and_keeping(bus: Bus) -> None:
    """The routes may change after a sender has its own: the new receiver is not left out."""
    bus.retain("oven:*")
    table = bus._routing_table
    route = table.find("oven:heat")
    late = listen(bus, "oven:heat")
    assert late == []
    bus._delivery.run(route, Message(Identifier("oven:heat"), (1,), {}))
    assert late == [("oven:heat", 1, True)]
    bus.twitter("oven:heat", 2)
    assert late[1:] == [("oven:heat", 2, False)]


def test_sent_by_garbage_collection_in_the_middle(bus: Bus) -> None:
    """Objects that die while a message is kept may send retained ones, and follow."""
    bus.retain("oven:*")
    heard: list[Heard] = []

    class Dying:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            bus.twitter("oven:last", 1)
            heard.append(listen(bus, "oven:last"))

    def make() -> None:
        for _ in range(300):
            Dying()

    before = gc.get_threshold()
    gc.set_threshold(2)
    try:
        make()
        for number in range(300):
            bus.twitter("oven:heat", number)
            bus.regist_function("oven:none", print)
            bus.unfollow("oven:none", print)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(heard) == 300
    assert all(each[0] == ("oven:last", 1, True) for each in heard)
    assert bus.statistics()["changes_waiting"] == 0
    assert {message.id for message in bus.retained()} == {"oven:last", "oven:heat"}


def take(bus: Bus, value: Any, when: int, is_late: bool = False) -> bool:
    return bus.gateway.take_retained("oven:heat", (value,), {}, "other", (when, 1), is_late=is_late)


class TestFromOtherBuses:
    def test_newest_stays(self, bus: Bus) -> None:
        heard = listen(bus, "oven:*")
        assert take(bus, 2, 20)
        assert not take(bus, 1, 10)
        assert not take(bus, 2, 20)
        assert take(bus, 3, 30, is_late=True)
        assert not take(bus, 3, 30, is_late=True), "a double, which is not counted"
        assert heard == [("oven:heat", 2, False), ("oven:heat", 3, True)]
        assert bus.statistics()["retained_outdated"] == 1
        (message,) = bus.retained()
        assert (message.origin, message.args) == ("other", (3,))

    def test_forgotten_does_not_come_back(self, bus: Bus) -> None:
        assert take(bus, 1, 10)
        assert bus.forget("oven:*") == 1
        assert not take(bus, 1, 10, is_late=True)
        assert take(bus, 2, 10**18)

    def test_forget_of_another_bus(self, bus: Bus) -> None:
        assert take(bus, 1, 10)
        assert bus.gateway.forget("oven:*", (10, 0)) == 0
        assert bus.gateway.forget("oven:*", (11, 0)) == 1
        assert bus.retained() == []

    def test_local(self, bus: Bus) -> None:
        with pytest.raises(ValueError, match="is local"):
            bus.gateway.take_retained("_a:b", (), {}, "other", (1, 1))
        with pytest.raises(ValueError, match="is local"):
            bus.gateway.forget("_a:b", (1, 1))

    def test_listener_hears_changes_in_order(self, bus: Bus) -> None:
        class Carrier:
            def __init__(self) -> None:
                self.noted: list[Any] = []
                self.sent: list[Any] = []

            def note(self, change: Any) -> None:
                self.noted.append(change)

            def forward_noted(self, message: Message | None = None) -> None:
                self.sent += self.noted
                self.noted.clear()

        carrier = Carrier()
        forwarded: list[Message] = []
        bus.gateway.add_forwarder(forwarded.append)
        bus.gateway.add_retention_listener(carrier, instead_of=forwarded.append)
        bus.retain("oven:*")
        order: list[str] = []
        bus.regist_function("oven:*", lambda message: order.append(f"{len(carrier.sent)}"))
        bus.twitter("oven:heat", 1)
        assert order == ["1"], "before receivers are called"
        bus.twitter("light:on", 2)
        take(bus, 3, 10**18)
        bus.forget("oven:*")
        bus.retain("_local:*")
        bus.twitter("_local:it", 4)
        assert [str(change.identifier) for change in carrier.sent] == [
            "oven:heat",
            "oven:heat",
            "oven:*",
        ]
        stamps = [change.stamp for change in carrier.sent]
        assert stamps == sorted(stamps)
        assert [message.id for message in forwarded] == ["light:on"]
        bus.gateway.remove_retention_listener(carrier)
        bus.twitter("oven:heat", 5)
        assert [message.id for message in forwarded] == ["light:on", "oven:heat"]


def test_own_message_replaces_it_whatever_the_clocks_say(bus: Bus) -> None:
    """And is kept though this bus was never asked to: all buses have the newest one."""
    ahead = 10**18
    assert take(bus, 1, ahead)
    bus.twitter("oven:heat", 2)
    (kept,) = bus.gateway.retained()
    assert kept.message.args == (2,)
    assert kept.stamp > (ahead, 2**62)


def test_default_bus() -> None:
    with fresh_state(berrymq.default_bus) as bus:
        berrymq.retain("oven:*")
        berrymq.twitter("oven:heat", 1)
        assert [message.args for message in berrymq.retained("oven:*")] == [(1,)]
        heard: Heard = []

        class Panel(metaclass=Follower):
            @following("oven:*")
            def hear(self, message: Message) -> None:
                heard.append(seen(message))

        panel = Panel()
        assert (heard, panel is not None) == ([("oven:heat", 1, True)], True)
        assert berrymq.forget("oven:*") == 1
        assert bus.retained() == []
    assert berrymq.retained() == []
