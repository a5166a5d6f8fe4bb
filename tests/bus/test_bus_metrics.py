"""Messages that are counted: by identifier, and none where nothing counts."""

from typing import Any

import pytest

from berrymq_rpc import Bus, Queue, rpc
from berrymq_rpc.common.measures import LOCAL
from berrymq_rpc.common.series import OTHER


def messages(bus: Bus) -> dict[str, tuple[int, int]]:
    assert bus.metrics is not None
    return {
        name: (figures["published"], figures["relayed"])
        for name, figures in bus.metrics.snapshot()["messages"].items()
    }


def test_messages_are_counted_whether_followed_or_not() -> None:
    bus = Bus(metrics=True)
    heard: list[Any] = []
    bus.regist_function("oven:*", heard.append)
    assert bus.twitter("oven:log", 1) == 1
    assert bus.twitter("oven:log", 2) == 1
    assert bus.twitter("door:open") == 0
    # The forms of one identifier are one.
    assert bus.twitter("door") == bus.twitter("door:*") == 0
    assert messages(bus) == {"oven:log": (2, 0), "door:open": (1, 0), "door:*": (2, 0)}
    assert len(heard) == 2
    counts = bus.statistics()
    assert counts["messages_published"] == 5
    assert counts["messages_relayed"] == counts["receiver_errors"] == 0


def test_local_identifiers_are_not_shown() -> None:
    bus = Bus(metrics=True)
    bus.twitter("_secret:key")
    bus.twitter("_another:key")
    assert messages(bus) == {LOCAL: (2, 0)}


async def test_all_ways_to_send_are_counted_once() -> None:
    bus = Bus(metrics=True)

    @bus.following_function("ask:time")
    def answer(message: Any) -> int:
        return 12

    heard: list[Any] = []
    bus.regist_function("time:is", heard.append)
    await bus.publish("ask:time")
    bus.talk("ask:time", "time:is")
    assert [message.args for message in heard] == [(12,)]

    @bus.auto_twitter("job")
    def job() -> None: ...

    @bus.twitter_exception("job:failed")
    def fail() -> None:
        raise ValueError

    job()
    fail()
    assert messages(bus) == {
        "ask:time": (2, 0),
        "time:is": (1, 0),
        "job:entry": (1, 0),
        "job:exit": (1, 0),
        "job:failed": (1, 0),
    }


def test_messages_of_other_processes_are_counted_apart() -> None:
    bus = Bus(metrics=True)
    bus.regist_function("oven:*", lambda message: None)
    bus.gateway.relay("oven:log", (), {}, "node")
    bus.gateway.relay("made:up", (), {}, "node")
    bus.gateway.answer("oven:answer", 1, None, "node")
    bus.retain("oven:*")
    bus.gateway.relay("oven:log", (), {}, "node")
    assert bus.gateway.take_retained("oven:state", (), {}, "node", (1, "other"))
    assert not bus.gateway.take_retained("oven:state", (), {}, "node", (1, "other"))
    assert messages(bus) == {
        "oven:log": (0, 2),
        "oven:answer": (0, 1),
        "oven:state": (0, 1),
        OTHER: (0, 1),
    }
    assert bus.statistics()["messages_relayed"] == 5


def test_receivers_that_raise_are_counted() -> None:
    bus = Bus(metrics=True)
    bus.on_error = lambda error, message, receiver: None

    def fails(message: Any) -> None:
        raise ValueError

    bus.regist_function("a:b", fails)
    bus.regist_function("a:b", print, fails)
    bus.twitter("a:b")
    assert bus.statistics()["receiver_errors"] == 2


def test_nothing_counts_unless_it_is_asked_for() -> None:
    bus = Bus()
    bus.twitter("a:b")
    assert bus.metrics is None
    assert "messages_published" not in bus.statistics()


def test_measuring_begins_later_and_goes_on_with_another_meter() -> None:
    bus = Bus()
    bus.regist_function("a:b", lambda message: None)
    bus.twitter("a:b")
    meter = bus.measure()
    assert bus.measure() is meter is bus.metrics
    bus.twitter("a:b")
    another = rpc.Meter()
    assert bus.measure(another) is another is bus.metrics
    bus.twitter("a:b")
    for each in (meter, another):
        assert each.snapshot()["messages"]["a:b"]["published"] == 1


def test_metrics_are_true_or_a_meter() -> None:
    wrong: Any = "yes"
    with pytest.raises(TypeError, match="metrics must be"):
        Bus(metrics=wrong)


def test_queues_are_counted_by_the_words_of_a_node() -> None:
    bus = Bus()
    first = Queue("a:*", maxsize=2, bus=bus)
    pair = [Queue("a:*", shared=True, bus=bus) for _ in range(2)]
    for number in range(3):
        bus.twitter("a:b", number)
    counts = bus.statistics()
    assert counts["queues"] == 2
    assert counts["messages_waiting"] == 2 + 3
    assert counts["messages_dropped"] == 1
    first.close()
    assert bus.statistics()["queues"] == 1
    for queue in pair:
        queue.close()
    assert bus.statistics()["queues"] == bus.statistics()["messages_waiting"] == 0
