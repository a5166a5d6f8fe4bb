"""Messages whose receivers answer."""

import asyncio
import threading
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus, Message, Queue
from berrymq_rpc.bus.delivery import MAX_DEPTH

Errors = list[tuple[BaseException, Message, Any]]
BOUND = 30.0


def drain(queue: Queue) -> list[Message]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


def fail(message: Message) -> None:
    raise LookupError("broken")


def test_results_in_order(bus: Bus, answers: Queue) -> None:
    bus.regist_function("ask:sum", lambda message: sum(message.args))
    bus.regist_function("ask:sum", lambda message: None)
    bus.regist_function("ask", lambda message: message.kwargs)
    assert bus.talk("ask:sum", "answer:sum", 1, 2, to="you") == 3
    found = drain(answers)
    assert [message.args for message in found] == [(3,), (None,), ({"to": "you"},)]
    assert {message.id for message in found} == {"answer:sum"}
    assert all(message.error is None and message.kwargs == {} for message in found)


def test_answers_come_between_the_receivers(bus: Bus) -> None:
    order: list[Any] = []
    for number in range(2):
        bus.regist_function("ask:x", lambda message, number=number: order.append(number))
    bus.regist_function("answer:x", lambda message: order.append("answer"))
    assert bus.talk("ask:x", "answer:x") == 2
    assert order == [0, "answer", 1, "answer"]


def test_receiver_that_raises(bus: Bus, answers: Queue, errors: Errors) -> None:
    bus.regist_function("ask:x", fail)
    bus.regist_function("ask:x", lambda message: "well")
    assert bus.talk("ask:x", "answer:x") == 2
    failed, well = drain(answers)
    assert failed.args == (None,)
    assert isinstance(failed.error, LookupError)
    assert (well.args, well.error) == (("well",), None)
    # The author of the receiver learns it as well.
    assert [(type(error), receiver) for error, _, receiver in errors] == [(LookupError, fail)]


def test_who_does_not_answer(bus: Bus, answers: Queue, errors: Errors) -> None:
    bus.regist_function("ask:x", lambda message: 1, lambda message: False)
    bus.regist_function("ask:x", lambda message: 2, lambda message: 1 / 0)
    with Queue("ask", bus=bus) as queue, AsyncQueue("ask", shared=True, bus=bus):
        assert bus.talk("ask:x", "answer:x") == 2
        assert queue.get_nowait().reply_to == "answer:x"
    assert bus.talk("ask:x", "answer:x") == 0
    assert drain(answers) == []
    assert len(errors) == 2


def test_message_tells_where_to_answer(bus: Bus) -> None:
    heard: list[Message] = []
    bus.regist_function("ask:x", heard.append)
    bus.talk("ask:x", "answer")
    bus.talk("ask:x", "_own:x")
    bus.twitter("ask:x", reply_to="argument")
    assert [message.reply_to for message in heard] == ["answer:*", None, None]


def test_guards_methods_and_objects(bus: Bus, answers: Queue) -> None:
    class Talker:
        def method(self, message: Message) -> str:
            return "method"

        def __call__(self, message: Message) -> str:
            return "object"

    talker = Talker()
    bus.regist_method("ask:x", talker.method)
    bus.regist_function("ask:x", talker, lambda message: True)
    assert bus.talk("ask:x", "answer:x") == 2
    assert [message.args for message in drain(answers)] == [("method",), ("object",)]


@pytest.mark.parametrize("wrong", ["", "a::b", None, 7])
def test_no_identifier(bus: Bus, wrong: Any) -> None:
    heard: list[Message] = []
    bus.regist_function("ask:x", heard.append)
    for identifiers in ((wrong, "answer:x"), ("ask:x", wrong)):
        with pytest.raises((ValueError, TypeError)):
            bus.talk(*identifiers)
    assert heard == []


def test_forwarders_see_the_question_only(bus: Bus, answers: Queue) -> None:
    seen: list[tuple[str, str | None]] = []
    bus.gateway.add_forwarder(lambda message: seen.append((message.id, message.reply_to)))
    bus.regist_function("ask:x", lambda message: 1)
    bus.talk("ask:x", "answer:x")
    assert seen == [("ask:x", "answer:x")]
    assert len(drain(answers)) == 1


def test_questions_without_end(bus: Bus, errors: Errors) -> None:
    """An answer that is a question again."""
    bus.regist_function("ask:x", lambda message: 1)
    bus.regist_function("answer:x", lambda message: bus.talk("ask:x", "answer:x"))
    assert bus.talk("ask:x", "answer:x") == 1
    assert [type(error) for error, _, _ in errors] == [RecursionError]
    assert f"{MAX_DEPTH} levels deep" in str(errors[0][0])


def test_outermost_receiver_of_a_cycle_answers(bus: Bus, answers: Queue, errors: Errors) -> None:
    bus.regist_function("ask:x", lambda message: bus.talk("ask:x", "answer:x"))
    assert bus.talk("ask:x", "answer:x") == 1
    (answer,) = drain(answers)
    assert isinstance(answer.error, RecursionError)
    assert len(errors) == 1


async def test_async_receivers(bus: Bus, errors: Errors) -> None:
    answers = AsyncQueue("answer", bus=bus)

    @bus.following_function("ask:x")
    async def good(message: Message) -> int:
        await asyncio.sleep(0)
        return 5

    @bus.following_function("ask:x")
    async def bad(message: Message) -> None:
        await asyncio.sleep(0)
        raise LookupError("later")

    @bus.following_function("ask:x")
    async def cancelled(message: Message) -> None:
        raise asyncio.CancelledError

    assert bus.talk("ask:x", "answer:x") == 3
    assert answers.empty()
    found = [await answers.get(timeout=BOUND) for _ in range(3)]
    assert sorted(message.args for message in found if message.error is None) == [(5,)]
    kinds = {type(message.error) for message in found}
    assert kinds == {type(None), LookupError, asyncio.CancelledError}
    assert [receiver for _, _, receiver in errors] == [bad]


def test_async_receiver_without_a_loop(bus: Bus, answers: Queue) -> None:
    @bus.following_function("ask:x")
    async def receive(message: Message) -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert bus.talk("ask:x", "answer:x") == 1
    answer = answers.get(timeout=BOUND)
    assert answer.error is None
    assert answer.args != (threading.current_thread().name,)


def test_on_the_pool(bus: Bus, answers: Queue, errors: Errors) -> None:
    class Talker:
        def method(self, message: Message) -> str:
            return threading.current_thread().name

    talker = Talker()
    bus.set_multiplicity(2)
    bus.regist_method("ask:x", talker.method)
    bus.regist_function("ask:x", fail)
    bus.regist_function("ask:x", lambda message: 1, lambda message: False)
    with Queue("ask", bus=bus):
        assert bus.talk("ask:x", "answer:x") == 3
    found = [answers.get(timeout=BOUND) for _ in range(2)]
    assert {type(message.error) for message in found} == {type(None), LookupError}
    (well,) = [message for message in found if message.error is None]
    assert well.args != (threading.current_thread().name,)
    assert answers.empty()
    bus.set_multiplicity(0)
