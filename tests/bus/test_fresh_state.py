"""A bus with a fresh start for as long as a test."""

from berrymq_rpc.bus import Bus, Follower, Queue
from berrymq_rpc.bus.fresh_state import fresh_state


def test_nothing_follows_and_then_all_is_as_before(bus: Bus) -> None:
    seen: list[object] = []
    bus.regist_function("a:b", lambda message: seen.append(message.args[0]))
    before = vars(bus).copy()
    with fresh_state(bus) as same:
        assert same is bus
        assert bus.twitter("a:b", 1) == 0
        bus.regist_function("a:b", lambda message: seen.append("inner"))
        bus.on_error = lambda *event: None
        assert bus.twitter("a:b", 2) == 1
    assert vars(bus) == before
    assert bus.on_error is None
    assert bus.twitter("a:b", 3) == 1
    assert seen == ["inner", 3]


def test_what_is_retained_is_not_that_of_before() -> None:
    bus = Bus(max_retained=2)
    bus.retain("a:*")
    bus.twitter("a:b", 1)
    with fresh_state(bus):
        assert bus.retained() == []
        bus.twitter("a:b", 2)
        assert bus.retained() == []
        bus.retain("c:*")
        for number in range(3):
            bus.twitter(f"c:n{number}", number)
        assert [message.args for message in bus.retained()] == [(1,), (2,)]
        assert bus.retained_bounds == (2, 64 << 20)
    assert [message.args for message in bus.retained()] == [(1,)]


def test_names_that_programs_hold_go_on(bus: Bus) -> None:
    twitter, following_function = bus.twitter, bus.following_function
    with fresh_state(bus):
        queue = Queue("a:*", bus=bus)
        following_function("a:c")(lambda message: None)
        assert twitter("a:c") == 2
        assert queue.get_nowait().id == "a:c"
    assert twitter("a:c") == 0
    assert queue.qsize() == 0


def test_shared_queues_are_not_those_of_before(bus: Bus) -> None:
    outer = Queue("a:*", shared=True, bus=bus)
    with fresh_state(bus):
        inner = Queue("a:*", shared=True, maxsize=5, bus=bus)
        bus.twitter("a:b", 1)
        assert inner.get_nowait().args == (1,)
    assert outer.empty()
    bus.twitter("a:b", 2)
    assert Queue("a:*", shared=True, bus=bus).get_nowait().args == (2,)
    inner.close()
    assert bus.twitter("a:b") == 1


def test_keep_followers(bus: Bus) -> None:
    seen: list[object] = []

    class Chef(metaclass=Follower):
        @bus.following("a:*", guard=lambda message: message.args[0] > 1)
        def cook(self, message: object) -> None:
            seen.append(message)

    chef = Chef()
    queue = Queue("a:*", bus=bus)
    bus.regist_function("a:b", seen.append)
    with fresh_state(bus, keep_followers=True):
        assert bus.twitter("a:b", 1) == 1
        assert bus.twitter("a:b", 2) == 2
        bus.unfollow("a:b", seen.append)
    assert queue.empty()
    assert bus.twitter("a:b", 2) == 3
    del chef


def test_a_pool_ends(bus: Bus) -> None:
    with fresh_state(bus):
        bus.set_multiplicity(4)
    assert bus.multiplicity == 1


def test_an_error_leaves_it_as_before(bus: Bus) -> None:
    bus.regist_function("a:b", lambda message: None)
    try:
        with fresh_state(bus):
            raise KeyError
    except KeyError:
        assert bus.twitter("a:b") == 1
