"""Functions that send messages by themselves."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Follower, Message
from berrymq_rpc.bus.registrations import remote_sink


@pytest.fixture
def heard(bus: Bus) -> list[Any]:
    seen: list[Any] = []
    bus.regist_function("*@*:*", lambda message: seen.append((message.id, *message.args)))
    return seen


class TestAutoTwitter:
    @pytest.mark.parametrize(
        ("flags", "sent"),
        [
            ({}, ["entry", "exit"]),
            ({"entry": True, "exit": True}, ["entry", "exit"]),
            ({"entry": True}, ["entry"]),
            ({"exit": True}, ["exit"]),
        ],
    )
    @pytest.mark.parametrize("identifier", ["job", "job:*", "job:entry", "job:other"])
    def test_flags(
        self, bus: Bus, heard: list[Any], identifier: str, flags: dict[str, bool], sent: list[str]
    ) -> None:
        @bus.auto_twitter(identifier, **flags)
        def work(number: int) -> int:
            heard.append("work")
            return number + 1

        assert work(1) == 2
        expected: list[Any] = [(f"job:{action}", 1) for action in sent]
        expected.insert(sent.index("entry") + 1 if "entry" in sent else 0, "work")
        assert heard == expected

    def test_arguments(self, bus: Bus) -> None:
        messages: list[Message] = []
        bus.regist_function("job", messages.append)

        @bus.auto_twitter("job")
        def work(number: int, *, self: str, identifier: str) -> None: ...

        work(1, self="x", identifier="y")
        assert [message.kwargs for message in messages] == [{"self": "x", "identifier": "y"}] * 2

    def test_namespace(self, bus: Bus, heard: list[Any]) -> None:
        bus.auto_twitter("job@plant:x")(lambda: None)()
        assert heard == [("job@plant:entry",), ("job@plant:exit",)]

    def test_exception_is_kept(self, bus: Bus, heard: list[Any]) -> None:
        @bus.auto_twitter("job")
        def work() -> None:
            raise ValueError("own")

        with pytest.raises(ValueError, match="own"):
            work()
        assert heard == [("job:entry",)]

    def test_looks_like_the_function(self, bus: Bus) -> None:
        def work(number: int) -> int:
            """Its docstring."""
            return number

        wrapped = bus.auto_twitter("job")(work)
        assert (wrapped.__name__, wrapped.__doc__) == ("work", "Its docstring.")
        assert inspect.signature(wrapped) == inspect.signature(work)

    def test_methods(self, bus: Bus, heard: list[Any]) -> None:
        class Engine:
            @bus.auto_twitter("method", entry=True)
            def start(self, speed: int) -> int:
                return speed

            @classmethod
            @bus.auto_twitter("class", entry=True)
            def make(cls) -> str:
                return cls.__name__

            @bus.auto_twitter("static", entry=True)
            @staticmethod
            def stop() -> str:
                return "stopped"

            @bus.auto_twitter("outer", entry=True)
            @classmethod
            def outer(cls) -> str:
                return cls.__name__

        engine = Engine()
        assert (engine.start(3), engine.make(), engine.stop(), engine.outer()) == (
            3,
            "Engine",
            "stopped",
            "Engine",
        )
        assert heard == [
            ("method:entry", engine, 3),
            ("class:entry", Engine),
            ("static:entry",),
            ("outer:entry", Engine),
        ]

    def test_with_following(self, bus: Bus, heard: list[Any]) -> None:
        class Chain(metaclass=Follower):
            @bus.auto_twitter("receiver", entry=True)
            @bus.following("start:x")
            def receive(self, message: Message) -> None:
                heard.append("received")

        chain = Chain()
        assert bus.twitter("start:x") == 2
        assert [item if item == "received" else item[0] for item in heard] == [
            "start:x",
            "receiver:entry",
            "received",
        ]
        del chain

    async def test_coroutine(self, bus: Bus, heard: list[Any]) -> None:
        @bus.auto_twitter("job")
        async def work(number: int) -> int:
            await asyncio.sleep(0)
            heard.append("work")
            return number + 1

        assert inspect.iscoroutinefunction(work)
        running = work(1)
        assert heard == []
        assert await running == 2
        assert heard == [("job:entry", 1), "work", ("job:exit", 1)]

    async def test_cancelled_coroutine(self, bus: Bus, heard: list[Any]) -> None:
        @bus.auto_twitter("job")
        async def work() -> None:
            await asyncio.get_running_loop().create_future()

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard == [("job:entry",)]

    def test_generator(self, bus: Bus, heard: list[Any]) -> None:
        @bus.auto_twitter("job")
        def count(stop: int) -> Iterator[int]:
            got = []
            for number in range(stop):
                got.append((yield number))
            heard.append(got)
            return "result"

        assert inspect.isgeneratorfunction(count)
        items = count(2)
        assert heard == []
        assert next(items) == 0
        assert heard == [("job:entry", 2)]
        assert items.send("x") == 1
        with pytest.raises(StopIteration) as stopped:
            items.send("y")
        assert stopped.value.value == "result"
        assert heard == [("job:entry", 2), ["x", "y"], ("job:exit", 2)]
        heard.clear()
        items = count(2)
        next(items)
        items.close()
        assert heard == [("job:entry", 2)]

    async def test_async_generator(self, bus: Bus, heard: list[Any]) -> None:
        @bus.auto_twitter("job")
        async def count(stop: int) -> AsyncIterator[int]:
            try:
                for number in range(stop):
                    try:
                        heard.append((yield number))
                    except LookupError:
                        heard.append("thrown")
                        yield -1
            finally:
                heard.append("closed")

        assert inspect.isasyncgenfunction(count)
        items = count(3)
        assert heard == []
        assert await anext(items) == 0
        assert await items.asend("x") == 1
        assert await items.athrow(LookupError()) == -1
        assert [item async for item in items] == [2]
        assert heard == [
            ("job:entry", 3),
            "x",
            "thrown",
            None,
            "closed",
            ("job:exit", 3),
        ]
        heard.clear()
        items = count(3)
        await anext(items)
        await items.aclose()
        assert heard == [("job:entry", 3), "closed"]

    def test_partial(self, bus: Bus, heard: list[Any]) -> None:
        work = bus.auto_twitter("job", exit=True)(functools.partial(int, base=2))
        assert work("11") == 3
        assert heard == [("job:exit", "11")]

    def test_no_identifier(self, bus: Bus) -> None:
        with pytest.raises(ValueError, match="not an identifier"):
            bus.auto_twitter("a::b")
        with pytest.raises(ValueError, match="not an identifier"):
            bus.twitter_exception("a::b")


def failing(value: Any = "broken") -> None:
    raise ValueError(value)


class TestTwitterException:
    def test_swallows_and_tells(self, bus: Bus) -> None:
        messages: list[Message] = []
        bus.regist_function("failed:job", messages.append)
        assert bus.twitter_exception("failed:job")(failing)("why") is None
        (message,) = messages
        (lines,) = message.args
        assert lines[0].startswith("Traceback")
        assert lines[-1] == "ValueError: why\n"
        assert "in failing" in "".join(lines)
        assert message.type is ValueError
        assert message.value is message.error is message.kwargs["value"]
        assert message.value.args == ("why",)
        assert message.traceback is message.value.__traceback__

    def test_reraise(self, bus: Bus, heard: list[Any]) -> None:
        wrapped = bus.twitter_exception("failed:job", reraise=True)(failing)
        with pytest.raises(ValueError, match="broken"):
            wrapped()
        assert len(heard) == 1

    def test_without_traceback(self, bus: Bus) -> None:
        messages: list[Message] = []
        bus.regist_function("failed:job", messages.append)
        bus.twitter_exception("failed:job", with_traceback=False)(failing)()
        assert messages[0].args == (["ValueError: broken\n"],)
        assert messages[0].traceback is None

    def test_result_is_kept(self, bus: Bus, heard: list[Any]) -> None:
        assert bus.twitter_exception("failed:job")(lambda: 7)() == 7
        assert heard == []

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_what_is_no_exception_passes(
        self, bus: Bus, heard: list[Any], error: type[BaseException]
    ) -> None:
        def work() -> None:
            raise error

        with pytest.raises(error):
            bus.twitter_exception("failed:job")(work)()
        assert heard == []

    def test_leaves_the_process_as_text(self, bus: Bus) -> None:
        forwarded: list[Message] = []

        class Mailbox:
            @remote_sink
            def put(self, message: Message) -> None:
                forwarded.append(message)

        local: list[Message] = []
        mailbox = Mailbox()
        bus.gateway.add_forwarder(forwarded.append)
        bus.regist_method("failed", mailbox.put)
        bus.regist_function("failed", local.append)
        bus.twitter_exception("failed:job")(failing)()
        assert local[0].type is ValueError
        for message in forwarded:
            assert message.args == local[0].args
            assert message.kwargs == {
                "type": "builtins.ValueError",
                "value": "ValueError: broken",
                "traceback": None,
            }
        assert len(forwarded) == 2

    async def test_coroutine(self, bus: Bus, heard: list[Any]) -> None:
        @bus.twitter_exception("failed:job")
        async def work() -> int:
            await asyncio.sleep(0)
            raise ValueError

        @bus.twitter_exception("failed:job")
        async def cancelled() -> None:
            raise asyncio.CancelledError

        assert await work() is None
        assert len(heard) == 1
        with pytest.raises(asyncio.CancelledError):
            await cancelled()
        assert len(heard) == 1

    def test_generator(self, bus: Bus, heard: list[Any]) -> None:
        @bus.twitter_exception("failed:job")
        def count() -> Iterator[int]:
            yield 1
            raise ValueError

        assert list(count()) == [1]
        assert len(heard) == 1

    async def test_async_generator(self, bus: Bus, heard: list[Any]) -> None:
        @bus.twitter_exception("failed:job")
        async def count() -> AsyncIterator[int]:
            yield 1
            raise ValueError

        assert [item async for item in count()] == [1]
        assert len(heard) == 1

    def test_methods_and_both_together(self, bus: Bus, heard: list[Any]) -> None:
        class Engine:
            @bus.auto_twitter("engine")
            @bus.twitter_exception("engine:failed")
            def start(self) -> None:
                raise ValueError

        engine = Engine()
        engine.start()
        assert [item[0] for item in heard] == ["engine:entry", "engine:failed", "engine:exit"]


def test_receivers_that_fail_do_not_reach_the_caller(bus: Bus) -> None:
    errors: list[BaseException] = []
    bus.on_error = lambda error, message, receiver: errors.append(error)
    bus.regist_function("job", lambda message: 1 / 0)
    work: Callable[[], int] = bus.auto_twitter("job")(lambda: 7)
    assert work() == 7
    assert len(errors) == 2
