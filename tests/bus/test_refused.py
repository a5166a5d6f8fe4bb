"""Guards and receivers that cannot work are refused; what must be awaited is awaited."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Follower, FollowerBase, Message, Queue, cond

Errors = list[tuple[BaseException, Message, Any]]


async def later(message: Message) -> bool:
    return False


def generator(message: Message) -> Iterator[bool]:
    yield False


async def async_generator(message: Message) -> AsyncIterator[bool]:
    yield False


class Later:
    async def __call__(self, message: Message) -> bool:
        return False

    async def method(self, message: Message) -> bool:
        return False


class Steps:
    def __call__(self, message: Message) -> Iterator[bool]:
        yield False

    def method(self, message: Message) -> Iterator[bool]:
        yield False


GENERATORS = [generator, async_generator, functools.partial(generator), Steps(), Steps().method]
NO_GUARDS = [later, functools.partial(later), Later(), Later().method, *GENERATORS]


def shown(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__name__)


def receive(message: Message) -> None: ...


@pytest.mark.parametrize("guard", NO_GUARDS, ids=shown)
def test_a_guard_that_decides_nothing_is_refused(bus: Bus, guard: Any) -> None:
    for register in (
        lambda: bus.following("a:b", guard),
        lambda: bus.following("a:b", guard_condition=guard),
        lambda: bus.following_function("a:b", guard),
        lambda: bus.regist_function("a:b", receive, guard),
        lambda: bus.regist_method("a:b", receive, guard),
        lambda: cond("a:b", guard),
        lambda: bus.cond("a:b", guard_condition=guard),
    ):
        with pytest.raises(TypeError, match="cannot be a guard"):
            register()
    assert bus.registrations() == []


@pytest.mark.parametrize("receiver", GENERATORS, ids=shown)
def test_a_generator_as_receiver_is_refused(bus: Bus, receiver: Any) -> None:
    for register in (
        lambda: bus.following_function("a:b")(receiver),
        lambda: bus.regist_function("a:b", receiver),
        lambda: bus.regist_method("a:b", receiver),
        lambda: bus.regist_function(cond("a:b") & cond("c:d"), receiver),
    ):
        with pytest.raises(TypeError, match="generator function"):
            register()
    assert bus.registrations() == []


@pytest.mark.parametrize("kind", ["method", "classmethod", "staticmethod"])
@pytest.mark.parametrize("base", ["metaclass", "base class"])
def test_a_generator_as_following_method_is_refused_with_its_class(
    bus: Bus, base: str, kind: str
) -> None:
    wrap: Callable[[Any], Any] = {
        "method": lambda function: function,
        "classmethod": classmethod,
        "staticmethod": staticmethod,
    }[kind]
    with pytest.raises(TypeError, match="generator function"):
        if base == "metaclass":

            class One(metaclass=Follower):
                @bus.following("a:b")
                @wrap
                def steps(self, message: Message | None = None) -> Iterator[None]:
                    yield

        else:

            class Other(FollowerBase):
                @bus.following("a:b")
                @wrap
                def steps(self, message: Message | None = None) -> Iterator[None]:
                    yield


@pytest.mark.parametrize("way", ["guard", "cond", "both", "joined"])
def test_a_guard_that_answers_an_awaitable_has_failed(bus: Bus, errors: Errors, way: str) -> None:
    heard: list[str] = []

    def hear(message: Message) -> None:
        heard.append(message.id)

    def guard(message: Message) -> Any:
        return later(message)

    if way == "guard":
        bus.regist_function("a:b", hear, guard)
    elif way == "cond":
        bus.regist_function(cond("a:b", guard), hear)
    elif way == "both":
        bus.regist_function(cond("a:b", lambda message: True), hear, guard)
    else:
        bus.regist_function(cond("a:b", guard) & cond("c:d"), hear)
        bus.twitter("c:d")
    assert bus.twitter("a:b") == 0
    assert bus.gateway.relay("a:b", (), {}, "elsewhere") == 0
    assert heard == []
    assert [type(error) for error, _, _ in errors] == [TypeError, TypeError]
    assert "has to be awaited" in str(errors[0][0])


def test_a_guard_answers_what_it_likes_otherwise(bus: Bus, errors: Errors) -> None:
    for verdict, reached in (([], 0), ([0], 1), (None, 0), ("x", 1), (generator, 1)):
        bus.regist_function("a:b", receive, lambda message, verdict=verdict: verdict)
        assert bus.twitter("a:b") == reached
        bus.unfollow("a:b", receive)
    assert errors == []


def awaiting(result: Any) -> Callable[[Message], Any]:
    """A plain receiver that returns what has to be awaited."""

    async def work() -> Any:
        await asyncio.sleep(0)
        if isinstance(result, Exception):
            raise result
        return result

    class Handmade:
        def __await__(self) -> Any:
            return work().__await__()

    kinds = {
        "coroutine": lambda message: work(),
        "task": lambda message: asyncio.ensure_future(work()),
        "handmade": lambda message: Handmade(),
    }
    return lambda message: kinds[message.args[0]](message)


@pytest.mark.parametrize("kind", ["coroutine", "task", "handmade"])
async def test_what_a_plain_receiver_returns_is_awaited(
    bus: Bus, errors: Errors, kind: str
) -> None:
    bus.regist_function("good", awaiting("done"))
    bus.regist_function("bad", awaiting(LookupError("no")))
    answers = Queue("answer", bus=bus)
    bus.talk("good", "answer", kind)
    assert await asyncio.to_thread(lambda: answers.get(timeout=5).args) == ("done",)
    bus.talk("bad", "answer", kind)
    assert isinstance(await asyncio.to_thread(lambda: answers.get(timeout=5).error), LookupError)
    assert [type(error) for error, _, _ in errors] == [LookupError]
    assert await bus.publish("bad", kind) == 1
    assert len(errors) == 2


def test_a_generator_that_is_returned_is_reported(bus: Bus, errors: Errors) -> None:
    bus.regist_function("a:b", lambda message: generator(message))
    assert bus.twitter("a:b") == 1
    assert "no line has run" in str(errors[0][0])
    answers = Queue("answer", bus=bus)
    # Who asks for what receivers return gets it, and may iterate.
    bus.talk("a:b", "answer")
    assert list(answers.get_nowait().args[0]) == [False]
    assert len(errors) == 1
