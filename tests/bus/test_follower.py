"""Classes whose methods follow, with the metaclass and with the base class."""

import abc
import copy
import dataclasses
import functools
import gc
import inspect
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Follower, FollowerBase, Message

bus = Bus()


@pytest.fixture(autouse=True)
def fresh_bus() -> Iterator[None]:
    global bus
    bus = Bus()
    yield
    gc.collect()


class ByMetaclass(metaclass=Follower):
    """What makes the two ways alike for the tests below."""

    __slots__ = ()


@pytest.fixture(params=[ByMetaclass, FollowerBase], ids=["metaclass", "base"])
def base(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_methods(base: Any) -> None:
    class Logger(base):
        def __init__(self, label: str) -> None:
            self.label = label

        @bus.following("*:log")
        @bus.following("error:*", lambda message: not message.kwargs)
        def receive(self, message: Message) -> None:
            heard.append((self.label, message.id))

        @bus.following("other:x", guard_condition=lambda message: False)
        def other(self, message: Message) -> None:
            raise AssertionError("its guard refuses")

        def plain(self, message: Message) -> None: ...

    heard: list[tuple[str, str]] = []
    assert bus.twitter("a:log") == 0
    first, second = Logger("first"), Logger("second")
    assert bus.twitter("a:log") == 2
    assert bus.twitter("error:x") == 2
    assert bus.twitter("error:x", hidden=1) == 0
    assert bus.twitter("other:x") == 0
    assert heard == [
        ("first", "a:log"),
        ("second", "a:log"),
        ("first", "error:x"),
        ("second", "error:x"),
    ]
    del first
    assert bus.twitter("a:log") == 1
    assert bus.unfollow("*:log", second.receive) == 1
    assert bus.twitter("a:log") == 0


def test_follows_when_complete(base: Any) -> None:
    heard: list[str] = []

    class Parent(base):
        def __init__(self) -> None:
            assert bus.twitter("a:b") == 0
            self.ready = True

        @bus.following("a:b")
        def receive(self, message: Message) -> None:
            heard.append(type(self).__name__ + str(self.ready))

    class Child(Parent):
        def __init__(self) -> None:
            super().__init__()
            assert bus.twitter("a:b") == 0

    class Grandchild(Child):
        pass

    objects = [Parent()]
    assert bus.twitter("a:b") == 1
    objects.clear()
    child = Child()
    assert bus.twitter("a:b") == 1
    del child
    grandchild = Grandchild()
    assert bus.twitter("a:b") == 1
    assert heard == ["ParentTrue", "ChildTrue", "GrandchildTrue"]
    del grandchild


def test_override(base: Any) -> None:
    heard: list[str] = []

    class Parent(base):
        @bus.following("a:b")
        def kept(self, message: Message) -> None:
            heard.append("kept")

        @bus.following("a:b")
        def silenced(self, message: Message) -> None:
            heard.append("silenced")

        @bus.following("a:b")
        def moved(self, message: Message) -> None:
            heard.append("moved")

    class Child(Parent):
        def silenced(self, message: Message) -> None: ...

        @bus.following("c:d")
        def moved(self, message: Message) -> None:
            heard.append("moved away")

    child = Child()
    assert bus.twitter("a:b") == 1
    assert bus.twitter("c:d") == 1
    assert heard == ["kept", "moved away"]
    del child


def test_class_and_static_methods(base: Any) -> None:
    heard: list[Any] = []

    class Parent(base):
        @classmethod
        @bus.following("a:class")
        def of_class(cls, message: Message) -> None:
            heard.append(cls)

        @bus.following("a:class")
        @classmethod
        def wrong_order(cls, message: Message) -> None:
            heard.append(cls)

        @staticmethod
        @bus.following("a:static")
        def of_none(message: Message) -> None:
            heard.append("static")

    class Child(Parent):
        pass

    objects = [Parent(), Child(), Child()]
    assert bus.twitter("a:class") == 2
    assert bus.twitter("a:static") == 1
    assert heard == [Parent, Parent, "static"]
    assert len(objects) == 3


def test_arguments_of_the_class(base: Any) -> None:
    class Both(base):
        def __init__(self, first: int, *, second: int) -> None:
            self.sum = first + second

        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    assert Both(1, second=2).sum == 3
    if base is FollowerBase:
        assert list(inspect.signature(Both).parameters) == ["first", "second"]
    with pytest.raises(TypeError, match="second"):
        Both(1)
    assert bus.registrations() == []

    class Neither(base):
        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    Neither()
    with pytest.raises(TypeError, match="takes no arguments"):
        Neither(1)
    with pytest.raises(TypeError, match="takes no arguments"):
        Neither(x=1)


def test_arguments_taken_by_new(base: Any) -> None:
    class Point(base):
        def __new__(cls, x: int) -> Any:
            self = super().__new__(cls)
            self.x = x
            return self

        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    point = Point(5)
    assert point.x == 5
    assert bus.twitter("a:b") == 1


def test_failing_initializer(base: Any) -> None:
    class Broken(base):
        def __init__(self) -> None:
            raise LookupError

        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    with pytest.raises(LookupError):
        Broken()
    assert bus.twitter("a:b") == 0


def test_dataclass(base: Any) -> None:
    @dataclasses.dataclass
    class Record(base):
        number: int
        heard: list[int] = dataclasses.field(default_factory=list)

        @bus.following("a:b")
        def receive(self, message: Message) -> None:
            self.heard.append(self.number)

    record = Record(3)
    other = Record(3)
    assert record == other
    assert bus.twitter("a:b") == 2
    assert record.heard == other.heard == [3]


def test_singleton_follows_once(base: Any) -> None:
    class Single(base):
        instance: Any = None

        def __new__(cls) -> Any:
            if cls.instance is None:
                cls.instance = super().__new__(cls)
            return cls.instance

        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    assert Single() is Single()
    assert bus.twitter("a:b") == 1


def test_copies_do_not_follow(base: Any) -> None:
    class Listener(base):
        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    listener = Listener()
    other = copy.copy(listener)
    assert bus.twitter("a:b") == 1
    assert type(other) is Listener


def test_attributes_of_any_kind(base: Any) -> None:
    """A class may hold what claims to have every attribute."""

    class Anything:
        def __getattr__(self, name: str) -> Any:
            return self

    class Listener(base):
        anything = Anything()
        number = 1
        nothing = None

        class Inner:
            pass

        @property
        def failing(self) -> int:
            raise AssertionError("properties are not asked")

        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    listener = Listener()
    assert bus.twitter("a:b") == 1
    del listener


def test_wrapped_method(base: Any) -> None:
    heard: list[str] = []

    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any) -> None:
            function(*args)
            function(*args)

        return call

    class Listener(base):
        @twice
        @bus.following("a:b")
        def receive(self, message: Message) -> None:
            heard.append("x")

        @bus.following("c:d")
        @twice
        @bus.following("a:b")
        def also(self, message: Message) -> None:
            heard.append("y")

    listener = Listener()
    assert bus.twitter("a:b") == 2
    assert heard == ["x", "x", "y", "y"]
    assert bus.twitter("c:d") == 1
    del listener


def test_slots(base: Any) -> None:
    class Referable(base):
        __slots__ = ("__weakref__",)

        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    referable = Referable()
    assert bus.twitter("a:b") == 1
    del referable


def test_slots_without_weak_references() -> None:
    class Slots(FollowerBase):
        __slots__ = ()

        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    with pytest.raises(TypeError, match="'__weakref__'"):
        Slots()


def test_base_beside_another_metaclass() -> None:
    class Reader(FollowerBase, abc.ABC):
        @abc.abstractmethod
        def read(self) -> str: ...

        @bus.following("a:b")
        def receive(self, message: Message) -> None:
            heard.append(self.read())

    class File(Reader):
        def read(self) -> str:
            return "text"

    heard: list[str] = []
    with pytest.raises(TypeError, match="abstract"):
        Reader()  # type: ignore[abstract]
    file = File()
    assert bus.twitter("a:b") == 1
    assert heard == ["text"]
    del file


def test_base_before_a_class_that_takes_arguments_in_new() -> None:
    class Number(FollowerBase, float):
        @bus.following("a:b")
        def receive(self, message: Message) -> None:
            heard.append(self)

    class Named(FollowerBase, float):
        def __init__(self, value: float) -> None:
            self.label = str(value)

        @bus.following("a:b")
        def receive(self, message: Message) -> None:
            heard.append(self.label)

    heard: list[Any] = []
    objects = [Number(1.5), Named(2.5)]
    assert objects == [1.5, 2.5]
    assert bus.twitter("a:b") == 2
    assert heard == [1.5, "2.5"]


def test_base_in_the_middle_of_super_calls() -> None:
    order: list[str] = []

    class Mixin:
        def __init__(self, **kwargs: Any) -> None:
            order.append("mixin")
            super().__init__(**kwargs)

    class Widget:
        def __init__(self, size: int) -> None:
            order.append("widget")
            self.size = size

    class Button(FollowerBase, Mixin, Widget):
        @bus.following("a:b")
        def receive(self, message: Message) -> None:
            order.append(f"heard {self.size}")

    button = Button(size=4)
    assert bus.twitter("a:b") == 1
    assert order == ["mixin", "widget", "heard 4"]
    del button


def test_base_with_an_initializer_that_is_replaced() -> None:
    class Listener(FollowerBase):
        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    first = Listener()

    def initialize(self: Any) -> None:
        self.replaced = True

    Listener.__init__ = initialize  # type: ignore[method-assign]
    second = Listener()
    assert second.replaced  # type: ignore[attr-defined]
    assert bus.twitter("a:b") == 2
    del first


def test_metaclass_with_keywords() -> None:
    class Base(metaclass=Follower):
        def __init_subclass__(cls, label: str = "") -> None:
            cls.label = label

    class Child(Base, label="x"):
        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    child = Child()
    assert child.label == "x"
    assert bus.twitter("a:b") == 1


def test_base_with_keywords() -> None:
    class Base(FollowerBase):
        def __init_subclass__(cls, label: str = "", **keywords: Any) -> None:
            super().__init_subclass__(**keywords)
            cls.label = label

    class Child(Base, label="x"):
        @classmethod
        @bus.following("a:b")
        def receive(cls, message: Message) -> None: ...

    assert Child.label == "x"
    assert bus.twitter("a:b") == 1


def test_without_either_nothing_follows() -> None:
    class Plain:
        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    plain = Plain()
    assert bus.twitter("a:b") == 0
    bus.regist_method("a:b", plain.receive)
    assert bus.twitter("a:b") == 1


def test_classes_are_collected(base: Any) -> None:
    """Their methods refer to them: by ``super()``, and by annotations from Python 3.14 on."""

    class Local(base):
        def __init__(self) -> None:
            super().__init__()

        @bus.following("a:b")
        def receive(self, message: Message) -> None:
            super().__str__()

        @classmethod
        @bus.following("a:b")
        def receive_once(cls, message: Message) -> None:
            super().__init_subclass__()

    local = Local()
    assert bus.twitter("a:b") == 2
    reference = weakref.ref(Local)
    del local, Local
    gc.collect()
    assert reference() is None
    assert bus.twitter("a:b") == 0


def test_methods_are_looked_for_once_in_each_class(base: Any) -> None:
    class Parent(base):
        @bus.following("a:b")
        def receive(self, message: Message) -> None: ...

    class Child(Parent):
        @bus.following("a:b")
        def receive_too(self, message: Message) -> None: ...

    kept = [Parent(), Child(), Parent(), Child()]
    assert bus.twitter("a:b") == 6
    assert len(kept) == 4


def test_the_metaclass_of_python_2() -> None:
    with pytest.warns(RuntimeWarning, match=r"class Old\(metaclass=Follower\)") as warned:

        class Old:
            __metaclass__ = Follower

            @bus.following("oven:log")
            def hear(self, message: Message) -> None:
                raise AssertionError("it follows nothing")

    assert warned[0].filename == __file__
    Old()
    assert bus.twitter("oven:log") == 0
