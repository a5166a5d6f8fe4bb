"""Each row of the table for programs of berryMQ 0.3, in its new form."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import berrymq_rpc as berrymq
from berrymq_rpc import Bus, Node, SyncNode
from berrymq_rpc.jsonrpc.bridge import Bridge

from .conftest import rows

Hear = Callable[[Any], None]


@pytest.fixture
def heard() -> "queue.Queue[Any]":
    return queue.Queue()


class Other:
    """A node as in another process, with a bus of its own."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.node = SyncNode(self.bus)
        host, _, port = self.node.init_connection().removeprefix("tcp://").rpartition(":")
        self.address = host, int(port)


@pytest.fixture
def other() -> Iterator[Other]:
    other = Other()
    yield other
    other.node.close_connection()


@pytest.fixture
def node() -> Iterator[None]:
    berrymq.init_connection(("localhost", 0))
    yield
    berrymq.close_connection()


class Logger(metaclass=berrymq.Follower):
    def __init__(self, heard: "queue.Queue[Any]") -> None:
        self.heard = heard

    @berrymq.following("migrate:log", lambda message: message.args[0] > 0)
    @berrymq.following("migrate:note")
    def receive_log(self, message: berrymq.Message) -> None:
        self.heard.put(message.args[0])


def old_metaclass() -> None:
    with pytest.warns(RuntimeWarning, match="Python 3 ignores __metaclass__"):

        class Old:
            __metaclass__ = berrymq.Follower

            @berrymq.following("migrate:old")
            def receive(self, message: berrymq.Message) -> None: ...


def following(heard: "queue.Queue[Any]") -> None:
    logger = Logger(heard)
    assert berrymq.twitter("migrate:log", 1) == 1
    assert berrymq.twitter("migrate:log", -1) == 0
    assert berrymq.twitter("migrate:note", 2) == 1
    del logger
    assert berrymq.twitter("migrate:log", 1) == 0
    assert (heard.get_nowait(), heard.get_nowait()) == (1, 2)


def following_function(heard: "queue.Queue[Any]") -> None:
    @berrymq.following_function("migrate:log")
    def receive(message: berrymq.Message) -> None:
        heard.put(message)

    assert berrymq.twitter("migrate:log", 1) == 1
    berrymq.unfollow("migrate:log", receive)
    assert berrymq.twitter("migrate:log", 1) == 0


def regist(heard: "queue.Queue[Any]") -> None:
    berrymq.regist_function("migrate:a", heard.put)
    berrymq.regist_method("migrate:b", heard.put)
    assert (berrymq.twitter("migrate:a"), berrymq.twitter("migrate:b")) == (1, 1)
    berrymq.unfollow("migrate:a", heard.put)
    berrymq.unfollow("migrate:b", heard.put)


def conditions(heard: "queue.Queue[Any]") -> None:
    wanted = berrymq.cond("migrate:a") & berrymq.cond("migrate:b", lambda message: message.args)
    berrymq.regist_function(wanted, heard.put)
    berrymq.twitter("migrate:a")
    berrymq.twitter("migrate:b")
    assert heard.empty()
    berrymq.twitter("migrate:b", 1)
    assert heard.get_nowait().id == "migrate:b"
    berrymq.unfollow(wanted, heard.put)


def automatic(heard: "queue.Queue[Any]") -> None:
    @berrymq.auto_twitter("migrate")
    def work(value: int) -> int:
        return 1 // value

    @berrymq.twitter_exception("migrate:error", reraise=True)
    def guarded(value: int) -> int:
        return work(value)

    berrymq.regist_function("migrate:*", heard.put)
    assert guarded(1) == 1
    with pytest.raises(ZeroDivisionError):
        guarded(0)
    berrymq.unfollow("migrate:*", heard.put)
    actions = [heard.get_nowait().action for _ in range(heard.qsize())]
    assert actions[:2] == ["entry", "exit"]
    assert "error" in actions[2:]


def twitter(heard: "queue.Queue[Any]") -> None:
    def fails(message: berrymq.Message) -> None:
        raise LookupError("one receiver")

    errors: list[Any] = []
    berrymq.default_bus.on_error = lambda error, *rest: errors.append(error)
    berrymq.regist_function("migrate:log", fails)
    berrymq.regist_function("migrate:log", heard.put)
    try:
        assert berrymq.twitter("migrate:log", 1) == 2
    finally:
        berrymq.unfollow("migrate:log", fails)
        berrymq.unfollow("migrate:log", heard.put)
        berrymq.default_bus.on_error = None
    assert heard.get_nowait().args == (1,)
    assert isinstance(errors[0], LookupError)


def talk(heard: "queue.Queue[Any]") -> None:
    def double(message: berrymq.Message) -> int:
        return int(2 * message.args[0])

    berrymq.regist_function("migrate:ask", double)
    berrymq.regist_function("migrate:told", heard.put)
    berrymq.talk("migrate:ask", "migrate:told", 21)
    berrymq.unfollow("migrate:ask", double)
    berrymq.unfollow("migrate:told", heard.put)
    assert heard.get_nowait().args == (42,)


def message(heard: "queue.Queue[Any]") -> None:
    berrymq.regist_function("migrate:log", heard.put)
    berrymq.twitter("migrate:log", 1, unit="C")
    berrymq.unfollow("migrate:log", heard.put)
    got = heard.get_nowait()
    assert (got.id, got.name, got.action) == ("migrate:log", "migrate", "log")
    assert (got.args, got.kwargs, got.unit) == ((1,), {"unit": "C"}, "C")


def queues() -> None:
    with berrymq.Queue("migrate:*", shared=False, maxsize=2) as jobs:
        berrymq.twitter("migrate:job", 1)
        assert (jobs.qsize(), jobs.empty()) == (1, False)
        assert jobs.get().args == (1,)
        with pytest.raises(berrymq.Empty):
            jobs.get_nowait()


def multiplicity(heard: "queue.Queue[Any]") -> None:
    berrymq.set_multiplicity(2)
    try:
        berrymq.regist_function("migrate:log", lambda _: heard.put(threading.current_thread()))
        berrymq.twitter("migrate:log")
        assert heard.get(timeout=10) is not threading.main_thread()
    finally:
        berrymq.set_multiplicity(0)


def init_connection() -> None:
    for addr in (("localhost", 0), "tcp://127.0.0.1:*"):
        assert berrymq.init_connection(addr).startswith("tcp://127.0.0.1:")
        berrymq.close_connection()


def interconnect(heard: "queue.Queue[Any]", node: None, other: Other) -> None:
    other.bus.regist_function("migrate:log", heard.put)
    berrymq.interconnect(other.address)
    berrymq.twitter("migrate:log", 1)
    assert heard.get(timeout=10).args == (1,)


def oneway(heard: "queue.Queue[Any]", node: None, other: Other) -> None:
    other.bus.regist_function("migrate:log", heard.put)
    berrymq.connect_oneway(other.address)
    berrymq.send_message("migrate:log", 1)
    assert heard.get(timeout=10).args == (1,)


def via_queue(node: None, other: Other) -> None:
    berrymq.connect_via_queue(other.address, "migrate:*")
    other.bus.twitter("migrate:job", 1)
    assert berrymq.get(timeout=10).args == (1,)
    with pytest.raises(berrymq.Empty):
        berrymq.get_nowait()
    berrymq.close_connection(other.address)
    berrymq.connect_via_queue(other.address, "migrate:*", ack_wait=30)
    other.bus.twitter("migrate:job", 2)
    with berrymq.get(timeout=10) as message:
        assert message.args == (2,)


def closing(other: Other) -> None:
    berrymq.init_connection()
    berrymq.interconnect(other.address)
    berrymq.close_connection()
    with pytest.raises(RuntimeError):
        berrymq.send_message("migrate:log", 1)


def interactively(heard: "queue.Queue[Any]", node: None, other: Other) -> None:
    assert not hasattr(berrymq, "connect_interactively")
    interconnect(heard, node, other)


def behind_a_bridge() -> None:
    async def main() -> None:
        async with Node(None, Bus()) as node, Bridge(node) as bridge:
            url = await bridge.serve_http("127.0.0.1", 0)
            assert url.startswith("http://127.0.0.1:")

    asyncio.run(main())


ROWS: dict[str, Callable[..., None]] = {
    "``__metaclass__ = Follower``": old_metaclass,
    "``following(identifier, guard_condition)``": following,
    "``following_function(identifier)``": following_function,
    "``regist_method``, ``regist_function``": regist,
    "``cond(identifier, guard) & cond(...)``": conditions,
    '``auto_twitter("name")``, ``twitter_exception("name:error")``': automatic,
    "``twitter(identifier, ...)``": twitter,
    "``talk(identifier, callback_identifier, ...)``": talk,
    "``message.id``, ``.name``, ``.action``, ``.args``, ``.kwargs``": message,
    "``Queue(identifier, shared=False)``": queues,
    "``set_multiplicity(5)``": multiplicity,
    '``init_connection(("localhost", 5555))``': init_connection,
    '``interconnect(("localhost", 5555))``': interconnect,
    '``connect_oneway(("localhost", 5555))``, ``send_message(identifier, ...)``': oneway,
    '``connect_via_queue(("localhost", 5555), identifier)``, ``get()``': via_queue,
    "``close_connection()``": closing,
    "``connect_interactively``": interactively,
    "a node of berryMQ 0.3 (HTTP)": behind_a_bridge,
}


def test_all_rows() -> None:
    assert rows("berrymq.rst") == set(ROWS)


@pytest.mark.parametrize("new_form", ROWS.values())
def test_row(new_form: Callable[..., None], request: pytest.FixtureRequest) -> None:
    code = new_form.__code__
    new_form(*map(request.getfixturevalue, code.co_varnames[: code.co_argcount]))
