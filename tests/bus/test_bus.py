"""Following, sending, guards, errors, and what ends with its object."""

import asyncio
import functools
import gc
import logging
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus, Message, routing_table
from berrymq_rpc.bus.registrations import Registration
from berrymq_rpc.bus.routing_table import SubscriptionIndex
from berrymq_rpc.identifier import Identifier

Errors = list[tuple[BaseException, Message, Any]]


class Listener:
    """An object with a method to follow with."""

    def __init__(self, heard: list[Any] | None = None) -> None:
        self.heard = [] if heard is None else heard

    def hear(self, message: Message) -> None:
        self.heard.append(message.args)


def recorder(heard: list[Any], label: Any) -> Callable[[Message], None]:
    def receive(message: Message) -> None:
        heard.append(label)

    return receive


class TestSending:
    def test_function(self, bus: Bus) -> None:
        heard: list[Message] = []

        @bus.following_function("job:done")
        def receive(message: Message) -> None:
            heard.append(message)

        assert bus.twitter("job:done", 1, "two", score=3) == 1
        assert bus.twitter("job:started") == 0
        (message,) = heard
        assert (message.id, message.args, message.kwargs) == ("job:done", (1, "two"), {"score": 3})
        assert receive.__name__ == "receive"

    @pytest.mark.parametrize(
        ("followed", "sent", "reached"),
        [
            ("job:done", "job:done", 1),
            ("job", "job:done", 1),
            ("*:done", "job:done", 1),
            ("*", "job:done", 1),
            ("job:done", "*:done", 1),
            ("start:engine", "start:*", 1),
            ("start:engine", "start", 1),
            ("_own:x", "*:x", 1),
            ("*:*", "_own:x", 1),
            ("job:done", "job:other", 0),
            ("*:done", "job@plant:done", 0),
            ("*@plant:done", "job@plant:done", 1),
            ("*@*:*", "job:done", 1),
            ("*@*:*", "job@plant:done", 1),
            ("job:done", "job@*:done", 1),
        ],
    )
    def test_wildcards(self, bus: Bus, followed: str, sent: str, reached: int) -> None:
        heard: list[str] = []
        bus.regist_function(followed, lambda message: heard.append(message.id))
        assert bus.twitter(sent) == reached
        assert heard == [str(Identifier(sent))] * reached

    def test_identifier_objects(self, bus: Bus) -> None:
        heard: list[str] = []
        bus.regist_function(Identifier("a:b"), recorder(heard, "x"))
        for _ in range(2):
            assert bus.twitter(Identifier("a:b")) == 1
        assert bus.unfollow(Identifier("a:b"), print) == 0
        assert heard == ["x", "x"]

    def test_registration_order(self, bus: Bus) -> None:
        heard: list[int] = []
        listeners = [Listener(heard) for _ in range(3)]
        for number, followed in enumerate(["a:b", "*:b", "*", "a@*:b", "a", "a:b"]):
            bus.regist_function(followed, recorder(heard, number))
        for listener in listeners:
            bus.regist_method("a:b", listener.hear)
        assert bus.twitter("a:b", 7) == 9
        assert heard == [0, 1, 2, 3, 4, 5, (7,), (7,), (7,)]

    def test_keyword_arguments_of_any_name(self, bus: Bus) -> None:
        heard: list[dict[str, Any]] = []
        bus.regist_function("a:b", lambda message: heard.append(message.kwargs))
        bus.twitter("a:b", self=1, identifier=2, guard=3)
        assert heard == [{"self": 1, "identifier": 2, "guard": 3}]

    def test_receivers_share_one_message(self, bus: Bus) -> None:
        heard: list[Message] = []
        bus.regist_function("a:b", lambda message: heard.append(message))
        bus.regist_function("*:b", lambda message: heard.append(message))
        bus.twitter("a:b")
        assert heard[0] is heard[1]

    @pytest.mark.parametrize("sent", ["", "a::b", " a", "a*:b"])
    def test_no_identifier(self, bus: Bus, sent: str) -> None:
        for use in (bus.twitter, bus.following, bus.following_function):
            with pytest.raises(ValueError, match="not an identifier"):
                use(sent)
        for regist in (bus.regist_function, bus.regist_method, bus.unfollow):
            with pytest.raises(ValueError, match="not an identifier"):
                regist(sent, print)

    @pytest.mark.parametrize("sent", [None, 1, b"a:b", ["a:b"], ("a:b",), {}])
    def test_no_text(self, bus: Bus, sent: Any) -> None:
        assert bus.gateway.relay("a:b", (), {}, "peer") == bus.twitter("a:b") == 0
        with pytest.raises(TypeError):
            bus.twitter(sent)
        with pytest.raises(TypeError):
            bus.regist_function(sent, print)

    def test_buses_are_apart(self, bus: Bus) -> None:
        heard: list[int] = []
        bus.regist_function("a:b", recorder(heard, 1))
        assert Bus().twitter("a:b") == 0
        assert heard == []

    def test_results_are_ignored(self, bus: Bus, errors: Errors) -> None:
        for value in (None, 0, False, "text", NotImplemented, [], Exception("no error")):
            bus.regist_function("a:b", lambda message, value=value: value)
        assert bus.twitter("a:b") == 7
        assert errors == []


class TestFollowing:
    def test_again_changes_nothing(self, bus: Bus) -> None:
        heard: list[int] = []
        receive = recorder(heard, 1)
        listener = Listener(heard)
        for _ in range(3):
            bus.regist_function("a:b", receive)
            bus.regist_method("a:b", listener.hear)
        assert bus.twitter("a:b") == 2
        bus.regist_function("a", receive)
        assert bus.twitter("a:b") == 3

    def test_unfollow_function(self, bus: Bus) -> None:
        heard: list[int] = []
        receive = recorder(heard, 1)
        bus.regist_function("a:b", receive)
        bus.regist_function("a:b", receive, lambda message: True)
        bus.regist_function("a:*", receive)
        assert bus.unfollow("b:a", receive) == 0
        assert bus.unfollow("a:b", recorder(heard, 1)) == 0
        assert bus.unfollow("a:b", receive) == 2
        assert bus.unfollow("a:b", receive) == 0
        assert bus.twitter("a:b") == 1
        assert bus.unfollow("a", receive) == 1
        assert bus.twitter("a:b") == 0

    def test_unfollow_method(self, bus: Bus) -> None:
        one, other = Listener(), Listener()
        for listener in (one, other):
            bus.regist_method("a:b", listener.hear)
        assert bus.unfollow("a:b", one.hear) == 1
        assert bus.twitter("a:b", 1) == 1
        assert (one.heard, other.heard) == ([], [(1,)])

    def test_builtin_method(self, bus: Bus) -> None:
        heard: list[Any] = []
        equal: list[Any] = []
        bus.regist_function("a:b", heard.append)
        bus.regist_function("a:b", heard.append)
        bus.regist_function("a:b", equal.append)
        assert bus.twitter("a:b") == 2
        assert len(heard) == len(equal) == 1
        assert bus.unfollow("a:b", heard.append) == 1
        assert bus.twitter("a:b") == 1
        assert (len(heard), len(equal)) == (1, 2)

    def test_any_callable(self, bus: Bus) -> None:
        heard: list[str] = []

        class Unhashable:
            __hash__ = None  # type: ignore[assignment]

            def __call__(self, message: Message) -> None:
                heard.append("object")

            def __eq__(self, other: object) -> bool:
                raise AssertionError("receivers are not compared")

        receiver, partial = Unhashable(), functools.partial(lambda text, _: heard.append(text), "p")
        bus.regist_function("a:b", receiver)
        bus.regist_function("a:b", Unhashable())
        bus.regist_function("a:b", partial)
        assert bus.twitter("a:b") == 3
        assert bus.unfollow("a:b", receiver) == 1
        assert bus.unfollow("a:b", partial) == 1
        assert bus.twitter("a:b") == 1
        assert heard == ["object", "object", "p", "object"]

    @pytest.mark.parametrize("receiver", [None, 1, "print", object()])
    def test_cannot_be_called(self, bus: Bus, receiver: Any) -> None:
        with pytest.raises(TypeError, match="a receiver must be callable"):
            bus.regist_function("a:b", receiver)
        with pytest.raises(TypeError, match="a receiver must be callable"):
            bus.following_function("a:b")(receiver)
        with pytest.raises(TypeError, match="a forwarder must be callable"):
            bus.gateway.add_forwarder(receiver)

    def test_from_within_a_receiver(self, bus: Bus) -> None:
        """A message on its way reaches those who followed when it was sent."""
        heard: list[str] = []

        def late(message: Message) -> None:
            heard.append("late")

        def early(message: Message) -> None:
            heard.append("early")
            bus.unfollow("a:b", early)
            bus.unfollow("a:b", last)
            bus.regist_function("a:b", late)

        def last(message: Message) -> None:
            heard.append("last")

        bus.regist_function("a:b", early)
        bus.regist_function("a:b", last)
        assert bus.twitter("a:b") == 2
        assert heard == ["early", "last"]
        assert bus.twitter("a:b") == 1
        assert heard == ["early", "last", "late"]

    def test_receivers_may_send(self, bus: Bus) -> None:
        heard: list[str] = []

        @bus.following_function("a:b")
        def first(message: Message) -> None:
            heard.append("before")
            assert bus.twitter("c:d", *message.args) == 1
            heard.append("after")

        @bus.following_function("c:d")
        def second(message: Message) -> None:
            heard.append(message.args[0])

        assert bus.twitter("a:b", "x") == 1
        assert heard == ["before", "x", "after"]


class TestGuards:
    def test_guard(self, bus: Bus, errors: Errors) -> None:
        heard: list[Any] = []
        listener = Listener(heard)

        def odd(message: Message) -> bool:
            return message.args[0] % 2 == 1

        bus.following_function("a:b", odd)(lambda message: heard.append("function"))
        bus.following_function("a:b", guard_condition=odd)(lambda message: heard.append("old"))
        bus.regist_method("a:b", listener.hear, odd)
        assert bus.twitter("a:b", 2) == 0
        assert bus.twitter("a:b", 3) == 3
        assert heard == ["function", "old", (3,)]
        assert errors == []

    def test_several_guards_are_several_followings(self, bus: Bus) -> None:
        heard: list[int] = []
        receive = recorder(heard, 1)
        bus.regist_function("a:b", receive, lambda message: True)
        bus.regist_function("a:b", receive, lambda message: False)
        bus.regist_function("a:b", receive, lambda message: 1)
        assert bus.twitter("a:b") == 2

    def test_guard_that_fails(self, bus: Bus, errors: Errors, caplog: Any) -> None:
        heard: list[Any] = []
        listener = Listener(heard)

        def fail(message: Message) -> bool:
            raise LookupError("guard")

        receive = recorder(heard, 1)
        bus.regist_function("a:b", receive, fail)
        bus.regist_method("a:b", listener.hear, fail)
        bus.regist_function("a:b", recorder(heard, 2))
        assert bus.twitter("a:b") == 1
        assert heard == [2]
        assert [str(error) for error, _, _ in errors] == ["guard", "guard"]
        assert [receiver for _, _, receiver in errors] == [receive, listener.hear]
        assert "has a guard that failed" in caplog.text

    def test_refused(self, bus: Bus) -> None:
        with pytest.raises(TypeError, match="a guard must be callable"):
            bus.following_function("a:b", guard=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a guard must be callable"):
            bus.regist_function("a:b", print, True)  # type: ignore[arg-type]
        for decorate in (bus.following, bus.following_function):
            with pytest.raises(TypeError, match="give only one"):
                decorate("a:b", lambda message: True, guard_condition=lambda message: True)


class TestErrors:
    def test_one_does_not_stop_the_others(self, bus: Bus, errors: Errors, caplog: Any) -> None:
        heard: list[int] = []

        @bus.following_function("a:b")
        def fail(message: Message) -> None:
            raise ValueError("broken")

        bus.regist_function("a:b", recorder(heard, 1))
        assert bus.twitter("a:b", 7) == 2
        assert heard == [1]
        ((error, message, receiver),) = errors
        assert isinstance(error, ValueError)
        assert message.args == (7,)
        assert receiver is fail
        (record,) = caplog.records
        assert record.name == "berrymq_rpc.bus"
        assert record.levelno == logging.ERROR
        assert "test_one_does_not_stop_the_others.<locals>.fail failed" in record.getMessage()
        assert "a:b" in record.getMessage()
        assert record.exc_info[1] is error

    def test_methods_and_objects(self, bus: Bus, errors: Errors, caplog: Any) -> None:
        class Failing:
            def receive(self, message: Message) -> None:
                raise KeyError(1)

            def __call__(self, message: Message) -> None:
                raise KeyError(2)

            def __repr__(self) -> str:
                return "<failing>"

        class Hostile(Failing):
            def __getattr__(self, name: str) -> Any:
                raise RuntimeError(name)

            def __repr__(self) -> str:
                raise RuntimeError("repr")

        failing = Failing()
        bus.regist_method("a:b", failing.receive)
        bus.regist_function("a:b", failing)
        bus.regist_function("a:b", Hostile())
        bus.regist_function("a:b", functools.partial(failing))
        assert bus.twitter("a:b") == 4
        assert [error.args for error, _, _ in errors] == [(1,), (2,), (2,), (2,)]
        assert errors[0][2] == failing.receive
        assert "Failing.receive failed" in caplog.text
        assert "receiver <failing> failed" in caplog.text

    def test_without_on_error(self, bus: Bus, caplog: Any) -> None:
        bus.regist_function("a:b", lambda message: 1 / 0)
        assert bus.twitter("a:b") == 1
        assert "ZeroDivisionError" in caplog.text

    def test_on_error_that_fails(self, bus: Bus, caplog: Any) -> None:
        def on_error(error: BaseException, message: Message, receiver: Any) -> None:
            raise RuntimeError("on_error")

        bus.on_error = on_error
        heard: list[int] = []
        bus.regist_function("a:b", lambda message: 1 / 0)
        bus.regist_function("a:b", recorder(heard, 1))
        assert bus.twitter("a:b") == 2
        assert heard == [1]
        assert "on_error failed" in caplog.text

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_what_is_no_exception_passes(self, bus: Bus, error: type[BaseException]) -> None:
        def receive(message: Message) -> None:
            raise error

        bus.regist_function("a:b", receive)
        with pytest.raises(error):
            bus.twitter("a:b")
        bus.unfollow("a:b", receive)
        assert bus.twitter("a:b") == 0


class TestLifetime:
    def test_method_ends_with_its_object(self, bus: Bus) -> None:
        listener = Listener()
        bus.regist_method("a:b", listener.hear)
        bus.regist_method("*:b", listener.hear, lambda message: True)
        assert bus.twitter("a:b") == 2
        reference = weakref.ref(listener)
        del listener
        assert reference() is None
        assert bus.registrations() == []
        assert bus.twitter("a:b") == 0

    def test_collected_while_the_message_is_on_its_way(self, bus: Bus, errors: Errors) -> None:
        listeners = [Listener()]
        bus.regist_function("a:b", lambda message: listeners.clear())
        bus.regist_method("a:b", listeners[0].hear)
        assert bus.twitter("a:b") == 1
        assert errors == []

    def test_nothing_keeps_an_object_that_failed(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # pytest keeps what is logged, and with it the traceback.
        monkeypatch.setattr(logging.getLogger("berrymq_rpc.bus"), "disabled", True)

        class Failing:
            def receive(self, message: Message) -> None:
                raise ValueError

        failing = Failing()
        bus.regist_method("a:b", failing.receive)
        assert bus.twitter("a:b") == 1
        reference = weakref.ref(failing)
        del failing
        assert reference() is None
        assert bus.registrations() == []

    def test_cycles(self, bus: Bus) -> None:
        listener = Listener()
        listener.itself = listener  # type: ignore[attr-defined]
        bus.regist_method("a:b", listener.hear)
        del listener
        gc.collect()
        assert bus.registrations() == []

    def test_functions_are_held(self, bus: Bus) -> None:
        heard: list[int] = []
        bus.regist_function("a:b", recorder(heard, 1))
        gc.collect()
        assert bus.twitter("a:b") == 1

    def test_class_method_is_held_weakly(self, bus: Bus) -> None:
        class Local:
            @classmethod
            def receive(cls, message: Message) -> None: ...

        bus.regist_method("a:b", Local.receive)
        assert bus.twitter("a:b") == 1
        del Local
        gc.collect()
        assert bus.twitter("a:b") == 0

    def test_class_method_that_refers_to_its_class_is_held_weakly(self, bus: Bus) -> None:
        """By ``super()``; by annotations it does so from Python 3.14 on."""

        class Local:
            @classmethod
            def receive(cls, message: Message) -> None:
                super().__init_subclass__()

            @staticmethod
            def is_wanted(message: Message) -> bool:
                return __class__ is not None  # type: ignore[name-defined]

        class Derived(Local): ...

        bus.regist_method("a:b", Local.receive)
        bus.regist_method("a:b", Local.receive, Local.is_wanted)
        bus.regist_method("a:b", Local.receive, Local.is_wanted)
        bus.regist_method("a:b", Local.receive, lambda message: True)
        bus.regist_method("a:b", Derived.receive)
        assert bus.twitter("a:b") == 4
        assert bus.unfollow("a:b", Derived.receive) == 1
        bus.regist_method("a:b", Derived.receive)
        reference = weakref.ref(Local)
        del Local, Derived
        gc.collect()
        assert reference() is None
        assert bus.twitter("a:b") == 0
        assert bus.registrations() == []

    def test_class_method_that_the_class_lets_go_of(self, bus: Bus) -> None:
        class Local:
            @classmethod
            def receive(cls, message: Message) -> None: ...

        method = Local.receive
        bus.regist_method("a:b", method)
        bus.regist_method("a:b", method, lambda message: False)
        Local.receive = None  # type: ignore[assignment, method-assign]
        assert bus.twitter("a:b") == 1
        del method
        gc.collect()
        assert bus.twitter("a:b") == 0
        assert bus.registrations() == []

    def test_function_that_was_bound_to_a_class_is_held(self, bus: Bus) -> None:
        class Local: ...

        heard: list[type] = []
        bus.regist_method("a:b", types.MethodType(lambda cls, message: heard.append(cls), Local))
        gc.collect()
        assert bus.twitter("a:b") == 1
        assert heard == [Local]

    def test_method_of_a_metaclass_is_held_weakly(self, bus: Bus) -> None:
        class Meta(type):
            def receive(cls, message: Message) -> None:
                super().mro()

        class Local(metaclass=Meta): ...

        bus.regist_method("a:b", Local.receive)
        assert bus.twitter("a:b") == 1
        reference = weakref.ref(Meta)
        del Local, Meta
        gc.collect()
        assert reference() is None
        assert bus.registrations() == []

    def test_class_methods_with_a_pool_and_as_coroutines(self, bus: Bus) -> None:
        class Local:
            @classmethod
            async def receive(cls, message: Message) -> str:
                super().__init_subclass__()
                return cls.__name__

        async def ask() -> None:
            answers = AsyncQueue("answer:b", bus=bus)
            bus.regist_method("a:b", Local.receive)
            assert bus.talk("a:b", "answer:b") == 1
            assert (await answers.get()).args == ("Local",)
            answers.close()

        asyncio.run(ask())

    def test_object_without_weak_references(self, bus: Bus) -> None:
        class Slots:
            __slots__ = ()

            def receive(self, message: Message) -> None: ...

        with pytest.raises(TypeError, match=r"Slots cannot follow.*'__weakref__'"):
            bus.regist_method("a:b", Slots().receive)

    def test_many_leave_nothing(self, bus: Bus) -> None:
        for number in range(1_000):
            listener = Listener()
            bus.regist_method(f"a{number}:b", listener.hear)
        del listener
        assert bus.registrations() == []
        assert bus.statistics()["changes_waiting"] == 0

    def test_bus_is_freed_while_its_objects_live(self) -> None:
        bus = Bus()
        listener = Listener()
        bus.regist_method("a:b", listener.hear)
        bus.twitter("a:b")
        reference = weakref.ref(bus)
        del bus
        assert reference() is None
        del listener

    def test_use_by_a_destructor_in_the_middle_of_a_change(self, bus: Bus) -> None:
        """`unfollow` frees the guard, and so the object, while it holds the bus's lock."""
        heard: list[Any] = []

        class Talkative:
            def __del__(self) -> None:
                heard.append(bus.twitter("x:deleted", "sent by __del__"))
                heard.append(bus.twitter("*:deleted"))
                bus.regist_function("late:b", receive)
                heard.append(bus.unfollow("x:deleted", receive))

        def receive(message: Message) -> None:
            heard.append(message.args)

        def other(message: Message) -> None: ...

        def add() -> None:
            talkative = Talkative()
            bus.regist_function("a:b", other, lambda message: talkative)

        bus.regist_function("x:deleted", receive)
        add()
        # Nothing but the bus has the guard; a change drops it while it is being made.
        bus.unfollow("a:b", other)
        assert heard == [("sent by __del__",), 1, (), 1, 0]
        assert bus.twitter("late:b", 5) == 1
        assert bus.twitter("x:deleted") == 0
        assert bus.statistics()["changes_waiting"] == 0

    def test_object_that_dies_in_the_middle_of_a_lookup(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Garbage collection may run there; the index must not change under the lookup."""
        holder = [Listener()]
        sizes: list[int] = []

        class InterruptedIndex(SubscriptionIndex):
            def find(self, identifier: Identifier) -> list[Registration]:
                found = super().find(identifier)
                holder.clear()
                sizes.append(len(self))
                return found

        monkeypatch.setattr(routing_table, "SubscriptionIndex", InterruptedIndex)
        bus = Bus()
        bus.regist_method("a:b", holder[0].hear)
        assert bus.twitter("a:b") == 0
        assert sizes == [1]
        assert bus.registrations() == []
        assert bus.statistics()["changes_waiting"] == 0
        assert bus.statistics()["routes_cached"] == 0


class TestWindows:
    def test_registrations(self, bus: Bus) -> None:
        def guard(message: Message) -> bool:
            return True

        listener = Listener()
        bus.regist_function("a:b", print)
        bus.regist_method("*:b", listener.hear, guard)
        first, second = bus.registrations()
        assert (str(first.identifier), first.receiver(), first.guard) == ("a:b", print, None)
        assert (str(second.identifier), second.receiver()) == ("*:b", listener.hear)
        assert second.guard is guard

    def test_statistics(self, bus: Bus) -> None:
        nothing = dict.fromkeys(bus.statistics(), 0)
        assert bus.statistics() == nothing
        bus.regist_function("a:b", recorder([], 1))
        bus.twitter("a:b")
        assert bus.statistics() == nothing | {"registrations": 1, "routes_cached": 1}
        bus.set_multiplicity(2)
        assert bus.statistics() == nothing | {"registrations": 1}
        assert bus.multiplicity == 2
        bus.set_multiplicity(0)
