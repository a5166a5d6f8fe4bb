"""berryMQ's functions for programs without asyncio. None of these tests has an event loop."""

import asyncio
import concurrent.futures
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import berrymq_rpc
from berrymq_rpc import Bus, Empty, Message, connect, rpc
from berrymq_rpc.exchange import SyncNode
from berrymq_rpc.exchange.sync_node import GET_TIMEOUT

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20
THREADS = {"berrymq_rpc node", "berrymq_rpc receivers"}
FUNCTIONS = [
    "close_connection",
    "connect_oneway",
    "connect_via_queue",
    "get",
    "get_nowait",
    "init_connection",
    "interconnect",
    "send_message",
]


class Place:
    """A node, its bus, and what its receivers hear: from which thread, too."""

    def __init__(self, **options: Any) -> None:
        self.bus = Bus()
        self.node = SyncNode(self.bus, **options)
        self.heard: queue.Queue[tuple[Message, str]] = queue.Queue()
        self.bus.regist_function("*@*:*", self._hear)

    def _hear(self, message: Message) -> None:
        self.heard.put((message, threading.current_thread().name))

    def next(self) -> Message:
        return self.heard.get(timeout=PATIENCE)[0]

    @property
    def silent(self) -> bool:
        return self.heard.empty()


@contextmanager
def two() -> Iterator[tuple[Place, str, Place]]:
    """A place that listens, where, and another."""
    there, here = Place(), Place()
    with there.node, here.node:
        yield there, there.node.init_connection(), here
    assert not {thread.name for thread in threading.enumerate()} & THREADS


def test_the_functions_are_found_in_two_places() -> None:
    for name in FUNCTIONS:
        assert getattr(berrymq_rpc, name) == getattr(connect, name)
        assert name in dir(berrymq_rpc)
        assert name in berrymq_rpc.__all__
        assert getattr(connect, name).__self__ is connect.default_node
    assert berrymq_rpc.connect is connect


def test_the_class_is_found_at_the_top() -> None:
    assert berrymq_rpc.SyncNode is SyncNode
    assert "SyncNode" in berrymq_rpc.__all__


CONNECT: dict[str, Callable[..., None]] = {
    "interconnect": lambda node, address, **wait: node.interconnect(address, **wait),
    "connect_oneway": lambda node, address, **wait: node.connect_oneway(address, **wait),
    "connect_via_queue": lambda node, address, **wait: node.connect_via_queue(
        address, "job:*", **wait
    ),
}


class TestWait:
    """For a node that is not up yet."""

    @pytest.mark.parametrize("wait", [20, None, float("inf")])
    @pytest.mark.parametrize("name", CONNECT)
    def test_until_it_is_up(self, name: str, wait: float | None) -> None:
        # Attempts of their own are much shorter.
        here, there = Place(connect_timeout=0.05), Place()
        with here.node, there.node:
            endpoint = there.node.init_connection()
            there.node.close_connection()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                connecting = pool.submit(CONNECT[name], here.node, endpoint, wait=wait)
                # Some attempts fail.
                with pytest.raises(concurrent.futures.TimeoutError):
                    connecting.result(0.4)
                there.node.init_connection(endpoint)
                connecting.result(PATIENCE)
            there.bus.twitter("job:new")
            here.bus.twitter("job:new")

    @pytest.mark.parametrize(
        ("name", "address"),
        [
            *((name, "tcp://127.0.0.1:1") for name in CONNECT),
            # To interconnect over HTTP takes a listener.
            ("connect_oneway", "http://127.0.0.1:1"),
            ("connect_via_queue", "http://127.0.0.1:1"),
        ],
    )
    def test_for_no_longer(self, name: str, address: str) -> None:
        node = SyncNode(Bus(), connect_timeout=PATIENCE)
        began = time.monotonic()
        with node, pytest.raises(rpc.ConnectionLostError):
            CONNECT[name](node, address, wait=0.3)
        assert 0.3 <= time.monotonic() - began < 3

    @pytest.mark.parametrize("name", CONNECT)
    def test_by_default_as_long_as_the_node_is_set_to(self, name: str) -> None:
        node = SyncNode(Bus(), connect_timeout=0.1)
        began = time.monotonic()
        with node, pytest.raises(rpc.ConnectionLostError):
            CONNECT[name](node, "tcp://127.0.0.1:1")
        assert time.monotonic() - began < 3

    @pytest.mark.parametrize("wait", [0, -1, "1", True, float("nan")])
    def test_that_is_none(self, wait: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="wait must be"):
            SyncNode(Bus()).interconnect("tcp://127.0.0.1:1", wait=wait)

    def test_what_waiting_does_not_help_is_raised_at_once(self) -> None:
        place = Place()
        with place.node as node:
            endpoint = node.init_connection()
            with pytest.raises(ValueError, match="itself"):
                node.interconnect(endpoint, wait=None)

    def test_is_ended_by_close(self) -> None:
        node = SyncNode(Bus())
        node.init_connection()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            connecting = pool.submit(node.connect_oneway, "tcp://127.0.0.1:1", wait=None)
            with pytest.raises(concurrent.futures.TimeoutError):
                connecting.result(0.2)
            node.close_connection()
            with pytest.raises((rpc.Error, RuntimeError, concurrent.futures.CancelledError)):
                connecting.result(PATIENCE)


class TestWhatIsSentOnTheBus:
    """It does not go over `connect_oneway`, which is said once."""

    TEXT = "was sent on the bus, so it goes to no other node"

    def count(self, caplog: pytest.LogCaptureFixture) -> int:
        return sum(self.TEXT in record.getMessage() for record in caplog.records)

    def test_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        with two() as (there, endpoint, here):
            here.bus.twitter("job:before")
            assert self.count(caplog) == 0
            here.node.connect_oneway(endpoint)
            here.bus.twitter("_job:local")
            assert self.count(caplog) == 0
            for _ in range(3):
                here.bus.twitter("job:new")
            here.node.connect_oneway(endpoint)
            here.bus.twitter("job:new")
            assert self.count(caplog) == 1
            assert "job:new was sent" in caplog.text
            assert there.silent

    @pytest.mark.parametrize("name", ["interconnect", "connect_via_queue"])
    def test_is_not_said_without_reason(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        with two() as (there, endpoint, here):
            if name == "interconnect":
                here.node.interconnect(endpoint)
                here.node.connect_oneway(endpoint)
                here.bus.twitter("job:new")
                assert there.next().id == "job:new"
            else:
                # Others get what is sent here.
                there.node.connect_via_queue(here.node.init_connection(), "job:*")
                here.node.connect_oneway(endpoint)
                here.bus.twitter("job:new")
                assert there.node.get().id == "job:new"
            assert self.count(caplog) == 0

    def test_is_not_said_after_the_connection(self, caplog: pytest.LogCaptureFixture) -> None:
        with two() as (_, endpoint, here):
            here.node.init_connection()
            here.node.connect_oneway(endpoint)
            here.node.close_connection(endpoint)
            here.bus.twitter("job:new")
            assert self.count(caplog) == 0


def test_oneway() -> None:
    with two() as (there, endpoint, here):
        here.node.connect_oneway(endpoint)
        assert here.node.send_message("job:new", 1, identifier="x", self=2) == "ok"
        message = there.next()
        assert (message.id, message.args) == ("job:new", (1,))
        assert message.kwargs == {"identifier": "x", "self": 2}
        assert here.silent


def test_queue() -> None:
    with two() as (there, endpoint, here):
        here.node.connect_via_queue(endpoint, "job:*")
        with pytest.raises(Empty):
            here.node.get_nowait()
        with pytest.raises(Empty):
            here.node.get(timeout=0.01)
        there.bus.twitter("job:new", 1, two=2)
        message = here.node.get()
        assert (message.id, message.args, message.kwargs) == ("job:new", (1,), {"two": 2})
        assert here.node.send_message("job:mine") == "ok"
        assert [there.next().id for _ in range(2)] == ["job:new", "job:mine"]
        assert here.node.get(timeout=None).id == "job:mine"
        assert GET_TIMEOUT == 1000


def test_interconnect() -> None:
    with two() as (there, endpoint, here):
        here.node.interconnect(endpoint)
        here.bus.twitter("job:here", 1)
        there.bus.twitter("job:there", 2)
        assert sorted(here.next().id for _ in range(2)) == ["job:here", "job:there"]
        assert sorted(there.next().id for _ in range(2)) == ["job:here", "job:there"]
        with pytest.raises(RuntimeError, match="needs a connection"):
            here.node.send_message("job:direct")


def test_both_listen_and_connect() -> None:
    """In any order, as programs do."""
    with two() as (there, endpoint, here):
        here.node.connect_oneway(endpoint)
        mine = here.node.init_connection(("127.0.0.1", 0))
        there.node.connect_oneway(mine)
        assert here.node.send_message("to:there") == "ok"
        assert there.node.send_message("to:here") == "ok"
        assert (here.next().id, there.next().id) == ("to:here", "to:there")


@pytest.mark.parametrize("form", ["endpoint", "text", "pair"])
def test_addresses(form: str) -> None:
    with two() as (there, endpoint, here):
        text = endpoint.removeprefix("tcp://")
        host, port = text.split(":")
        address: Any = {"endpoint": endpoint, "text": text, "pair": (host, int(port))}[form]
        here.node.connect_oneway(address)
        assert here.node.send_message("job:new") == "ok"
        assert there.next().id == "job:new"
        here.node.close_connection(address)
        with pytest.raises(RuntimeError, match="needs a connection"):
            here.node.send_message("job:new")


class TestInitConnection:
    def test_may_be_called_again(self) -> None:
        place = Place()
        with place.node as node:
            first = node.init_connection()
            assert node.init_connection(first) == first
            second = node.init_connection()
            assert node.endpoints == (first, second)
            assert repr(node) == f"<SyncNode {first}, {second}>"
            port = int(first.rpartition(":")[2])
            # By another name, which is asked for twice.
            with pytest.raises(OSError, match="in use"):
                node.init_connection(("localhost", port))

    def test_by_the_name_of_the_host(self) -> None:
        with SyncNode(Bus()) as other:
            port = int(other.init_connection().rpartition(":")[2])
        with SyncNode(Bus()) as node:
            first = node.init_connection(("localhost", port))
            assert node.init_connection(("localhost", port)) == first
            assert node.init_connection(f"localhost:{port}") == first
            assert len(node.endpoints) == 1

    def test_after_it_was_closed(self) -> None:
        place = Place()
        for _ in range(3):
            endpoint = place.node.init_connection()
            with SyncNode(Bus()) as other:
                other.connect_oneway(endpoint)
                assert other.send_message("job:new") == "ok"
            assert place.next().id == "job:new"
            place.node.close_connection()
            assert place.node.endpoints == ()
            assert repr(place.node) == "<SyncNode nowhere>"

    def test_where_another_listens(self) -> None:
        with two() as (_, endpoint, here), pytest.raises(OSError, match="in use"):
            here.node.init_connection(endpoint)

    def test_not_beyond_this_host_by_accident(self) -> None:
        with SyncNode(Bus()) as node:
            with pytest.raises(ValueError, match="insecure=True"):
                node.init_connection(("0.0.0.0", 0))
            assert node.init_connection(("0.0.0.0", 0), insecure=True)

    @pytest.mark.parametrize(
        "address", [None, 5, "localhost", ("localhost", "x"), ("localhost", 1, 2)]
    )
    def test_what_is_no_address(self, address: Any) -> None:
        with SyncNode(Bus()) as node:
            for call in (node.init_connection, node.connect_oneway, node.interconnect):
                with pytest.raises((TypeError, ValueError)):
                    call(address)


class TestReceivers:
    def test_are_called_on_one_thread(self) -> None:
        with two() as (there, endpoint, here):
            here.node.connect_oneway(endpoint)
            for number in range(100):
                here.node.send_message("job:new", number)
            heard = [there.heard.get(timeout=PATIENCE) for _ in range(100)]
            assert [message.args[0] for message, _ in heard] == [*range(100)]
            assert {name for _, name in heard} == {"berrymq_rpc receivers"}

    def test_may_call_the_functions(self) -> None:
        with two() as (there, endpoint, here):
            mine = here.node.init_connection()

            def ask_back(message: Message) -> None:
                there.node.connect_via_queue(mine, "answer:*")
                there.node.send_message("question:back", *message.args)
                there.bus.twitter("answered:*", there.node.get(timeout=PATIENCE).args[0])

            there.bus.regist_function("question:new", ask_back)
            here.bus.regist_function(
                "question:back", lambda message: here.bus.twitter("answer:*", message.args[0] + 1)
            )
            here.node.connect_oneway(endpoint)
            here.node.send_message("question:new", 41)
            while (message := there.next()).name != "answered":
                pass
            assert message.args == (42,)

    def test_may_close_the_connection(self) -> None:
        with two() as (there, endpoint, here):
            closed = threading.Event()

            def close(_: Message) -> None:
                there.node.close_connection()
                closed.set()

            there.bus.regist_function("close:*", close)
            here.node.connect_oneway(endpoint)
            here.node.send_message("close:now")
            assert closed.wait(PATIENCE)
            assert there.node.endpoints == ()

    def test_slow_ones_lose_the_oldest_and_are_reported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("berrymq_rpc.exchange.threaded_node.MAX_MESSAGES", 3)
        with two() as (there, endpoint, here):
            begun, go = threading.Event(), threading.Event()

            def hold(_: Message) -> None:
                begun.set()
                assert go.wait(PATIENCE)

            there.bus.regist_function("hold:*", hold)
            here.node.connect_oneway(endpoint)
            here.node.send_message("hold:on")
            assert begun.wait(PATIENCE)
            for number in range(5):
                assert here.node.send_message("job:new", number) == "ok"
            go.set()
            # What tells of it takes the place of one as well.
            assert there.next().id == "hold:on"
            heard = [there.next() for _ in range(3)]
            assert [message.args for message in heard if message.name == "job"] == [(4,)]
            reported = [message for message in heard if message.id == "receiver:dropped"]
            assert reported
            assert all(message.kwargs["count"] in (1, 2, 4) for message in reported)

    def test_async_ones_run(self) -> None:
        with two() as (there, endpoint, here):
            heard: queue.Queue[Any] = queue.Queue()

            async def receive(message: Message) -> None:
                await asyncio.sleep(0)
                try:
                    there.node.get()
                except RuntimeError as error:
                    heard.put((message.id, str(error)))

            there.bus.regist_function("job:*", receive)
            here.node.connect_oneway(endpoint)
            here.node.send_message("job:new")
            identifier, error = heard.get(timeout=PATIENCE)
            assert identifier == "job:new"
            assert error.startswith("get() would block the event loop")


class TestOnARunningLoop:
    @pytest.mark.parametrize("name", FUNCTIONS)
    async def test_all_say_so(self, name: str) -> None:
        node = SyncNode(Bus())
        arguments: dict[str, Any] = {
            "connect_oneway": ("tcp://127.0.0.1:1",),
            "interconnect": ("tcp://127.0.0.1:1",),
            "connect_via_queue": ("tcp://127.0.0.1:1", "a"),
            "send_message": ("a:b",),
        }
        with pytest.raises(RuntimeError, match=rf"^{name}\(\) would block the event loop"):
            getattr(node, name)(*arguments.get(name, ()))
        assert node.endpoints == ()

    async def test_but_not_in_a_thread_of_its_own(self) -> None:
        node = SyncNode(Bus())
        endpoint = await asyncio.to_thread(node.init_connection)
        assert endpoint.startswith("tcp://")
        await asyncio.to_thread(node.close_connection)


class TestSendMessage:
    def test_to_each_node_once(self) -> None:
        with two() as (there, endpoint, here):
            here.node.connect_oneway(endpoint)
            here.node.connect_oneway(endpoint)
            here.node.connect_via_queue(endpoint, "x")
            third = Place()
            with third.node:
                here.node.connect_oneway(third.node.init_connection())
                assert here.node.send_message("job:new") == "ok"
                assert here.node.send_message("job:last") == "ok"
                for place in (there, third):
                    assert [place.next().id for _ in range(2)] == ["job:new", "job:last"]

    def test_one_that_is_gone_holds_up_no_other(self) -> None:
        with two() as (there, endpoint, _):
            here = Place(connect_timeout=0.1)
            gone = Place()
            with here.node:
                with gone.node:
                    here.node.connect_oneway(gone.node.init_connection())
                here.node.connect_oneway(endpoint)
                with pytest.raises((rpc.ConnectionLostError, rpc.ServiceClosedError)):
                    here.node.send_message("job:new")
                assert there.next().id == "job:new"

    def test_what_cannot_be_sent(self) -> None:
        with two() as (there, endpoint, here):
            here.node.connect_oneway(endpoint)
            with pytest.raises(ValueError, match="local"):
                here.node.send_message("_local:new")
            with pytest.raises(ValueError, match="not an identifier"):
                here.node.send_message("a:b:c")
            with pytest.raises(TypeError):
                here.node.send_message("a:b", object())
            assert there.silent


class TestGet:
    def test_of_two_queues(self) -> None:
        with two() as (there, endpoint, here):
            third = Place()
            with third.node:
                here.node.connect_via_queue(endpoint, "job:*")
                here.node.connect_via_queue(third.node.init_connection(), "job:*")
                with pytest.raises(Empty):
                    here.node.get_nowait()
                with pytest.raises(Empty):
                    here.node.get(timeout=0.01)
                for number in range(10):
                    there.bus.twitter("job:new", number)
                    third.bus.twitter("job:new", 100 + number)
                taken = [here.node.get(timeout=PATIENCE).args[0] for _ in range(20)]
                assert [n for n in taken if n < 100] == [*range(10)]
                assert [n for n in taken if n >= 100] == [*range(100, 110)]
                with pytest.raises(Empty):
                    here.node.get(block=False)

    def test_of_two_queues_when_one_is_gone(self) -> None:
        with two() as (there, endpoint, _):
            here, gone = Place(connect_timeout=0.1), Place()
            with here.node:
                with gone.node:
                    here.node.connect_via_queue(gone.node.init_connection(), "job:*")
                here.node.connect_via_queue(endpoint, "job:*")
                there.bus.twitter("job:new", 1)
                assert here.node.get(timeout=PATIENCE).args == (1,)
                # With nothing to take, the problem is raised.
                with pytest.raises((rpc.ConnectionLostError, rpc.ServiceClosedError)):
                    here.node.get(timeout=0.5)

    def test_without_a_queue(self) -> None:
        with two() as (_, endpoint, here):
            with pytest.raises(RuntimeError, match=r"get\(\) needs .*connect_via_queue\(\) first"):
                here.node.get()
            here.node.connect_oneway(endpoint)
            with pytest.raises(RuntimeError, match="needs a connection"):
                here.node.get_nowait()

    def test_is_ended_by_close(self) -> None:
        with two() as (_, endpoint, here):
            here.node.connect_via_queue(endpoint, "job:*")
            outcomes: queue.Queue[BaseException] = queue.Queue()

            def wait() -> None:
                try:
                    here.node.get()
                except BaseException as error:
                    outcomes.put(error)

            threads = [threading.Thread(target=wait) for _ in range(3)]
            for thread in threads:
                thread.start()
            here.node.close_connection()
            for thread in threads:
                error = outcomes.get(timeout=PATIENCE)
                assert isinstance(error, rpc.ServiceClosedError | RuntimeError)
                thread.join(PATIENCE)

    def test_that_is_interrupted_as_the_message_comes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = concurrent.futures.Future.result
        with two() as (there, endpoint, here):
            here.node.connect_via_queue(endpoint, "job:*")
            there.bus.twitter("job:new", 1)

            def interrupt(future: Any, timeout: float | None = None) -> Any:
                result(future, timeout)
                monkeypatch.undo()
                raise KeyboardInterrupt

            monkeypatch.setattr(concurrent.futures.Future, "result", interrupt)
            with pytest.raises(KeyboardInterrupt):
                here.node.get()
            assert here.node.get(timeout=PATIENCE).args == (1,)

    def test_of_many_threads(self) -> None:
        with two() as (there, endpoint, here):
            here.node.connect_via_queue(endpoint, "job:*")
            taken: queue.Queue[int] = queue.Queue()

            def work() -> None:
                while (number := here.node.get(timeout=PATIENCE).args[0]) >= 0:
                    taken.put(number)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for number in [*range(400), *[-1] * 8]:
                there.bus.twitter("job:new", number)
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
            assert sorted(taken.get_nowait() for _ in range(400)) == [*range(400)]


class TestCloseConnection:
    def test_of_one_node(self) -> None:
        with two() as (there, endpoint, here):
            third = Place()
            with third.node:
                other = third.node.init_connection()
                here.node.connect_oneway(endpoint)
                here.node.connect_oneway(other)
                here.node.close_connection(endpoint)
                here.node.close_connection(endpoint)
                assert here.node.send_message("job:new") == "ok"
                assert third.next().id == "job:new"
                assert there.silent

    def test_without_any(self) -> None:
        node = SyncNode(Bus())
        node.close_connection()
        node.close_connection("tcp://127.0.0.1:1")
        with node:
            pass

    def test_no_one_there(self) -> None:
        node = SyncNode(Bus(), connect_timeout=0.1)
        with node, pytest.raises(rpc.ConnectionLostError):
            node.connect_oneway("tcp://127.0.0.1:1")
        with pytest.raises(ValueError, match="timeout"):
            SyncNode(Bus(), timeout=-1).init_connection()

    def test_receivers_may_finish(self) -> None:
        with two() as (there, endpoint, here):
            begun, go = threading.Event(), threading.Event()
            done: list[int] = []

            def slow(message: Message) -> None:
                begun.set()
                assert go.wait(PATIENCE)
                done.append(message.args[0])

            there.bus.regist_function("job:*", slow)
            here.node.connect_oneway(endpoint)
            for number in range(3):
                here.node.send_message("job:new", number)
            assert begun.wait(PATIENCE)
            closing = threading.Thread(target=there.node.close_connection)
            closing.start()
            go.set()
            closing.join(PATIENCE)
            assert done == [0, 1, 2]


# -- processes -------------------------------------------------------------------------------

LISTENER = """
    import sys, threading
    import berrymq_rpc as berrymq

    @berrymq.following_function("*:*")
    def show(message):
        print(message.id, *message.args, flush=True)

    print(berrymq.init_connection(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def program() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs, which are killed if they still run at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = process.stdout.readline().rstrip("\n")
    if not found:
        assert process.stderr is not None
        pytest.fail(process.stderr.read())
    return found


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, out, errors


Program = Callable[..., subprocess.Popen[str]]

ENDS_AT_ONCE = """
    import sys
    import berrymq_rpc as berrymq

    berrymq.init_connection()
    getattr(berrymq, sys.argv[2])(sys.argv[1])
    for number in range(100):
        if sys.argv[2] == "interconnect":
            berrymq.twitter("job:new", number)
        else:
            berrymq.send_message("job:new", number)
"""


@pytest.mark.parametrize("style", ["interconnect", "connect_oneway"])
def test_a_program_that_just_ends_has_sent_everything(program: Program, style: str) -> None:
    listener = program(LISTENER)
    sender = program(ENDS_AT_ONCE, line(listener), style)
    assert end(sender) == (0, "", "")
    assert [line(listener) for _ in range(100)] == [f"job:new {n}" for n in range(100)]
    # A listener that has its end too.
    assert end(listener) == (0, "", "")


INTERRUPTED = """
    import sys
    import berrymq_rpc as berrymq

    berrymq.connect_via_queue(sys.argv[1], "job:*")
    print("waiting", flush=True)
    try:
        berrymq.get()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(berrymq.get().args[0], flush=True)
"""


def test_ctrl_c_while_it_waits(program: Program) -> None:
    place = Place()
    with place.node as node:
        other = program(INTERRUPTED, node.init_connection())
        assert line(other) == "waiting"
        while not waiting_gets(node):
            pass
        other.send_signal(signal.SIGINT)
        assert line(other) == "interrupted"
        place.bus.twitter("job:new", 1)
        assert line(other) == "1"
        assert end(other) == (0, "", "")


def waiting_gets(node: SyncNode) -> int:
    return node.statistics()["consumers_waiting"]


FORKED = """
    import os, sys, warnings
    import berrymq_rpc as berrymq

    # A fork of a process with threads: 3.12 warns of it.
    warnings.simplefilter("ignore", DeprecationWarning)
    berrymq.init_connection()
    berrymq.interconnect(sys.argv[1])
    berrymq.connect_via_queue(sys.argv[1], "job:*")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            berrymq.twitter("child:unheard")
            try:
                berrymq.get_nowait()
            except RuntimeError:
                status = 2
            berrymq.close_connection()
            endpoint = berrymq.init_connection()
            berrymq.connect_oneway(sys.argv[1])
            berrymq.send_message("child:heard")
            if status == 2:
                status = 0
        finally:
            if "exit" in sys.argv:
                sys.exit(status)
            berrymq.close_connection()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    berrymq.twitter("parent:heard")
    berrymq.send_message("job:new", 5)
    print(berrymq.get(timeout=10).args[0])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("way", ["_exit", "exit"])
def test_fork(program: Program, way: str) -> None:
    listener = program(LISTENER)
    assert end(program(FORKED, line(listener), way)) == (0, "5\n", "")
    heard = [line(listener) for _ in range(3)]
    assert heard == ["child:heard", "parent:heard", "job:new 5"]


FROZEN = """
    import sys
    import berrymq_rpc as berrymq

    berrymq.connect_oneway(sys.argv[1])
    print("connected", flush=True)
    sys.stdin.readline()
"""


def test_a_frozen_peer_does_not_hold_up_the_end(program: Program) -> None:
    listener = program(LISTENER)
    sender = program(FROZEN, line(listener))
    assert line(sender) == "connected"
    os.kill(listener.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, listener.pid, os.WSTOPPED)
    try:
        assert end(sender) == (0, "", "")
    finally:
        os.kill(listener.pid, signal.SIGCONT)
