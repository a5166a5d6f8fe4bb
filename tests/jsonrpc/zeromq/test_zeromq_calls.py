"""Servers and clients with threads, with each other and with bare sockets."""

import decimal
import gc
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from pathlib import Path
from typing import Any

import pytest
import zmq

from berrymq_rpc.errors import ProtocolError, ServiceClosedError
from berrymq_rpc.jsonrpc import zeromq

#: Seconds in which what has to happen happens.
pytestmark = pytest.mark.usefixtures("nothing_left")

PATIENCE = 10.0

WILD = "tcp://127.0.0.1:*"


class Methods:
    """What the servers of these tests offer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.events: list[Any] = []
        self.got = threading.Event()
        self.go_on = threading.Event()
        super().__init__(*args, **options)

    def handle_echo_method(self, value):
        return value

    def handle_add_up_method(self, a, b=1, *, c=0):
        return a + b + c

    def handle_nothing_method(self):
        return None

    def handle_fails_method(self):
        raise ValueError("no", 1)

    def handle_wrong_inside_method(self):
        return None + 1

    def handle_refuses_method(self):
        raise zeromq.InvalidParams("not these", {"a": 1})

    def handle_object_method(self):
        return object()

    def handle_exits_method(self):
        raise SystemExit(3)

    def handle_waits_method(self):
        return self.go_on.wait(PATIENCE)

    def handle_event_notification(self, *args, **kwargs):
        self.events.append((args, kwargs))
        self.got.set()

    def handle_other_method(self, *args):
        self.events.append(args)
        self.got.set()


class Server(Methods, zeromq.RPCServer):
    pass


class NotificationServer(Methods, zeromq.RPCNotificationServer):
    pass


class PullServer(Methods, zeromq.NotificationOnlyPullServer):
    pass


PAIRS = [(Server, zeromq.RPCClient), (NotificationServer, zeromq.RPCNotifierClient)]


@pytest.fixture(params=PAIRS, ids=["REP and REQ", "ROUTER and DEALER"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    server_class, client_class = request.param
    with server_class(WILD) as server, client_class(server.endpoint, timeout=5000) as client:
        yield server, client


# -- calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "\u65e5\U0001f600", [1, {"a": [2.5]}], {"id": 1}])
def test_echo(pair: tuple[Any, Any], value: Any) -> None:
    _, client = pair
    assert client.echo(value) == value
    assert client.echo(value=value) == value


def test_names_and_arguments(pair: tuple[Any, Any]) -> None:
    _, client = pair
    assert client.add_up(1) == 2
    assert client.add_up(1, 2) == 3
    assert client.add_up(a=1, c=5) == 7
    assert client.nothing() is None
    assert client.get_request_method("Add-Up")(1) == 2
    with pytest.raises(ValueError, match="by position or by name"):
        client.add_up(1, c=5)
    with pytest.raises(TypeError):
        client.echo(object())
    assert client.echo({1}) == [1]


@pytest.mark.parametrize("name", ["nothing_such", "__init__", "ns.method", "event"])
def test_no_such_method(pair: tuple[Any, Any], name: str) -> None:
    _, client = pair
    with pytest.raises(zeromq.MethodNotFound) as caught:
        client.get_request_method(name)()
    assert caught.value.error_code == -32601


@pytest.mark.parametrize("arguments", [(), (1, 2, 3)])
def test_arguments_that_do_not_fit(pair: tuple[Any, Any], arguments: Any) -> None:
    with pytest.raises(zeromq.InvalidParams, match="add_up"):
        pair[1].add_up(*arguments)


def test_what_handlers_raise(pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    _, client = pair
    with pytest.raises(zeromq.ServerError) as failed:
        client.fails()
    assert failed.value.error_code == -32000
    assert failed.value.error_data == {
        "type": "builtins.ValueError",
        "args": ["no", 1],
        "repr": "ValueError('no', 1)",
    }
    # A TypeError of the handler's own is not a fault of the arguments.
    with pytest.raises(zeromq.ServerError, match="unsupported operand"):
        client.wrong_inside()
    with pytest.raises(zeromq.InvalidParams, match="not these") as refused:
        client.refuses()
    assert refused.value.error_data == {"a": 1}
    with pytest.raises(zeromq.InternalError, match="no form in JSON"):
        client.object()
    with pytest.raises(zeromq.ServerError, match="3"):
        client.exits()
    assert client.echo(1) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4
    assert caplog.records[0].exc_info is not None


def test_error_code_exceptions(pair: tuple[Any, Any]) -> None:
    class NoSuch(Exception):
        pass

    _, client = pair
    client.error_code_exceptions = {-32601: NoSuch}
    with pytest.raises(NoSuch):
        client.nothing_such()


def test_several_threads_and_clients() -> None:
    with NotificationServer(WILD) as server, zeromq.RPCNotifierClient(server.endpoint) as shared:
        results: list[int] = []

        def work(number: int) -> None:
            with zeromq.RPCNotifierClient(server.endpoint) as own:
                for client in (shared, own) * 20:
                    results.append(client.echo(number) - number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == [0] * 200


# -- notifications ---------------------------------------------------------------------------


def test_notifications() -> None:
    with (
        NotificationServer(WILD) as server,
        zeromq.RPCNotifierClient(server.endpoint) as client,
    ):
        assert client.notify.event(1, 2) is None
        client.notify.event(a=1)
        client.notify.other(3)
        client.notify.nothing_such()
        client.notify.fails()
        client.notify.add_up()
        assert client.echo(1) == 1
        assert server.events == [((1, 2), {}), ((), {"a": 1}), (3,)]


def test_push_and_pull() -> None:
    with PullServer(WILD) as server, zeromq.NotifierOnlyPushClient(server.endpoint) as client:
        with pytest.raises(TypeError, match=r"notify\.event"):
            client.event(1)
        client.notify.event(1)
        assert server.got.wait(PATIENCE)
        assert server.events == [((1,), {})]


def test_what_was_pushed_arrives_after_close(wait_until: Any) -> None:
    with PullServer(WILD) as server:
        client = zeromq.NotifierOnlyPushClient(server.endpoint)
        for number in range(100):
            client.notify.other(number)
        client.close()
        wait_until(lambda: len(server.events) == 100)


def test_a_rep_server_takes_no_notifications() -> None:
    with Server(WILD) as server, zeromq.RPCClient(server.endpoint) as client:
        with pytest.raises(zeromq.InvalidRequest, match="no notifications"):
            client.notify.event(1)
        assert client.echo(1) == 1
        server.allow_notifications = True
        assert client.notify.event(1) is None
        assert server.events == [((1,), {})]
        assert client.echo(2) == 2


def test_a_server_of_notifications_alone() -> None:
    class Alone(NotificationServer):
        allow_methods = False

    with (
        Alone(WILD) as server,
        zeromq.RPCNotifierClient(server.endpoint) as client,
        pytest.raises(zeromq.InvalidRequest),
    ):
        client.echo(1)


# -- what arrives ----------------------------------------------------------------------------


@pytest.fixture
def bare() -> Iterator[Callable[[int, str], Any]]:
    """``bare(kind, endpoint)`` gives a socket that waits for 5 seconds at most."""
    sockets = []

    def make(kind: int, endpoint: str) -> Any:
        socket = zmq.Context.instance().socket(kind)
        socket.linger = 0
        socket.rcvtimeo = 5000
        socket.connect(endpoint)
        sockets.append(socket)
        return socket

    yield make
    for socket in sockets:
        socket.close()


def test_each_part_of_a_batch_has_its_version(bare: Callable[[int, str], Any]) -> None:
    with Server(WILD) as server:
        peer = bare(zmq.REQ, server.endpoint)
        old = {"version": "1.1", "method": "echo", "params": [1], "id": 1}
        new = {"jsonrpc": "2.0", "method": "echo", "params": {"value": 2}, "id": 2}
        peer.send_json([old, new])
        assert peer.recv_json() == [
            {"result": 1, "error": None, "id": 1},
            {"jsonrpc": "2.0", "result": 2, "id": 2},
        ]
        peer.send_json({"method": "echo", "params": [1], "id": None})
        refused = peer.recv_json()
        assert refused.keys() == {"result", "error", "id"}
        assert refused["error"]["code"] == -32600
        peer.send_json({"jsonrpc": "2.0", "method": "echo", "params": [1]})
        assert peer.recv_json()["jsonrpc"] == "2.0"


BYTES = [
    b"",
    b"\0" * 100,
    b"\xff",
    b"{",
    b"[" * 100_000,
    b"5",
    b"{}",
    b"[]",
    b"[1]",
    b'{"jsonrpc":"2.0","method":5,"id":1}',
    b'{"jsonrpc":"2.0","method":"echo","params":null,"id":1}',
    b'{"jsonrpc":"2.0","result":5,"id":1}',
    b'{"jsonrpc":"2.0","method":"echo","params":["\\ud800"],"id":1}',
]


@pytest.mark.parametrize("data", BYTES, ids=lambda data: repr(data[:30]))
def test_a_rep_server_answers_whatever_arrives(bare: Any, data: bytes) -> None:
    with Server(WILD) as server:
        socket = bare(zmq.REQ, server.endpoint)
        socket.send(data)
        answer = socket.recv()
        assert answer == b"" or b"error" in answer
        socket.send(b'{"jsonrpc":"2.0","method":"echo","params":[1],"id":7}')
        assert json.loads(socket.recv()) == {"jsonrpc": "2.0", "result": 1, "id": 7}


def test_frames_are_joined(bare: Any) -> None:
    with Server(WILD) as rep, NotificationServer(WILD) as router:
        parts = [b'{"jsonrpc":"2.0","method":"echo",', b'"params":[1],"id":7}']
        for kind, server in ((zmq.REQ, rep), (zmq.DEALER, router), (zmq.REQ, router)):
            socket = bare(kind, server.endpoint)
            socket.send_multipart(parts)
            assert json.loads(socket.recv())["result"] == 1


def test_a_route_is_returned(bare: Any) -> None:
    with NotificationServer(WILD) as server:
        socket = bare(zmq.DEALER, server.endpoint)
        call = b'{"jsonrpc":"2.0","method":"echo","params":[1],"id":7}'
        for route in ([], [b""], [b"proxy", b""], [b"a", b"b", b""]):
            socket.send_multipart([*route, call])
            assert socket.recv_multipart()[:-1] == route


def test_batches_and_version_1(bare: Any) -> None:
    with Server(WILD) as server:
        socket = bare(zmq.REQ, server.endpoint)
        socket.send(b'[{"jsonrpc":"2.0","method":"echo","params":[1],"id":7},5]')
        assert len(json.loads(socket.recv())) == 2
        socket.send(b'{"method":"echo","params":[1],"id":7}')
        assert json.loads(socket.recv()) == {"result": 1, "error": None, "id": 7}


def test_bounds(bare: Any) -> None:
    with Server(WILD, max_size=1000) as server:
        socket = bare(zmq.REQ, server.endpoint)
        socket.send(b" " * 1001)
        assert json.loads(socket.recv())["error"]["code"] == -32700
        with zeromq.RPCClient(server.endpoint, max_size=1000) as client:
            with pytest.raises(zeromq.ParseError):
                client.echo("x" * 1000)
            assert client.echo(1) == 1


# -- answers ---------------------------------------------------------------------------------


def answer_with(socket: Any, *answers: Callable[[Any], bytes]) -> threading.Thread:
    """Answer calls at a bare socket with these, in a thread."""

    def serve() -> None:
        for answer in answers:
            *route, data = socket.recv_multipart()
            request = json.loads(data)
            socket.send_multipart([*route, answer(request.get("id"))])

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def result(value: Any, request_id: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "result": value, "id": request_id}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"5",
        b"{}",
        b'{"jsonrpc":"2.0","method":"a","id":1}',
        b'{"jsonrpc":"2.0","result":1,"error":{"code":1,"message":"no"},"id":1}',
    ],
)
def test_answers_that_make_no_sense(answer: bytes) -> None:
    with zmq.Context.instance().socket(zmq.REP) as socket:
        socket.rcvtimeo = 5000
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        thread = answer_with(socket, lambda _: answer, lambda i: result(5, i))
        with zeromq.RPCClient(f"tcp://127.0.0.1:{port}", timeout=5000) as client:
            with pytest.raises(ProtocolError):
                client.echo(1)
            assert client.echo(1) == 5
        thread.join()


def test_answers_of_other_calls() -> None:
    with zmq.Context.instance().socket(zmq.ROUTER) as socket:
        socket.rcvtimeo = 5000
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        with zeromq.RPCNotifierClient(f"tcp://127.0.0.1:{port}", timeout=5000) as client:

            def serve() -> None:
                identity, data = socket.recv_multipart()
                request_id = json.loads(data)["id"]
                for number in (request_id - 1, request_id + 1, request_id):
                    socket.send_multipart([identity, result(number, number)])

            thread = threading.Thread(target=serve)
            thread.start()
            assert client.echo(1) == 1
            thread.join()


def test_an_error_without_id() -> None:
    with zmq.Context.instance().socket(zmq.REP) as socket:
        socket.rcvtimeo = 5000
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        answer = b'{"jsonrpc":"2.0","result":null,"error":{"code":-32700,"message":"no"}}'
        thread = answer_with(socket, lambda _: answer)
        with (
            zeromq.RPCClient(f"tcp://127.0.0.1:{port}", timeout=5000) as client,
            pytest.raises(zeromq.ParseError),
        ):
            client.echo(1)
        thread.join()


# -- time ------------------------------------------------------------------------------------


def test_timeout_and_after(pair: tuple[Any, Any]) -> None:
    server, client = pair
    client.timeout = 100
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="waits"):
        client.waits()
    assert 0.09 < time.monotonic() - begin < 5
    client.timeout = 5000
    server.go_on.set()
    for number in range(10):
        assert client.echo(number) == number


def test_no_server(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path / 'socket'}"
    for client_class in (zeromq.RPCClient, zeromq.RPCNotifierClient):
        with client_class(endpoint, timeout=50) as client:
            with pytest.raises(zeromq.TimeoutError):
                client.echo(1)
            with (
                Server(endpoint)
                if client_class is zeromq.RPCClient
                else NotificationServer(endpoint) as server
            ):
                client.timeout = 5000
                assert client.echo(2) == 2
                # The call whose time was over is not run by the server that came later.
                assert server.events == []


def test_timeouts_of_none() -> None:
    with Server(WILD, timeout=None) as server:
        with zeromq.RPCClient(server.endpoint, timeout=None) as client:
            assert client.echo(1) == 1
        with zeromq.RPCClient(server.endpoint, timeout=-1) as client:
            assert client.echo(1) == 1


# -- the end ---------------------------------------------------------------------------------


def test_closed_client() -> None:
    with Server(WILD) as server:
        client = zeromq.RPCClient(server.endpoint)
        client.close()
        client.close()
        for call in (client.echo, client.notify.event):
            with pytest.raises(ServiceClosedError):
                call(1)


def test_life_of_a_server() -> None:
    server = Server(WILD)
    assert server.endpoint.rpartition(":")[2].isdigit()
    assert not server.is_alive()
    server.join()
    server.start()
    server.start()
    assert server.is_alive()
    server.stop()
    server.join(PATIENCE)
    assert not server.is_alive()
    assert server.socket.closed
    server.close()
    server.run()
    with pytest.raises(RuntimeError, match="stopped"):
        server.start()


def test_a_server_that_never_ran() -> None:
    server = Server(WILD)
    server.close()
    assert server.socket.closed
    server = Server(WILD)
    server.stop()
    server.run()
    assert server.socket.closed


def test_run_in_this_thread() -> None:
    server = Server(WILD)
    results = []

    def call() -> None:
        with zeromq.RPCClient(server.endpoint) as client:
            results.append(client.echo(1))
        server.stop()

    thread = threading.Thread(target=call)
    thread.start()
    server.run()
    thread.join()
    assert results == [1]
    assert server.socket.closed


def test_close_by_a_handler() -> None:
    class Closing(Server):
        def handle_end_method(self):
            self.close()
            return "ended"

    server = Closing(WILD)
    server.start()
    with zeromq.RPCClient(server.endpoint) as client:
        assert client.end() == "ended"
    server.join(PATIENCE)
    assert server.socket.closed


def test_ctrl_c_of_a_handler_is_answered_first() -> None:
    class Interrupted(Server):
        def handle_interrupt_method(self):
            raise KeyboardInterrupt

    server = Interrupted(WILD)
    caught: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except KeyboardInterrupt as interrupt:
            caught.append(interrupt)

    thread = threading.Thread(target=run)
    thread.start()
    with (
        zeromq.RPCClient(server.endpoint) as client,
        pytest.raises(zeromq.ServerError) as error,
    ):
        client.interrupt()
    assert error.value.error_data["type"] == "builtins.KeyboardInterrupt"
    thread.join(PATIENCE)
    assert len(caught) == 1
    assert server.socket.closed


@pytest.mark.parametrize("endpoint", ["tcp://*:*", "tcp://0.0.0.0:*"])
def test_beyond_loopback(endpoint: str) -> None:
    with pytest.raises(ValueError, match="insecure=True"):
        Server(endpoint)
    Server(endpoint, insecure=True).close()


def test_an_address_in_use() -> None:
    with Server(WILD) as server, pytest.raises(zmq.ZMQError):
        Server(server.endpoint)


def test_no_file_is_left_open(wait_until: Any) -> None:
    def cycle() -> int:
        for _ in range(20):
            with Server(WILD) as server, zeromq.RPCClient(server.endpoint) as client:
                client.echo(1)
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("there is no /proc")
    before = cycle()
    wait_until(lambda: cycle() <= before + 5)


def test_logger(caplog: pytest.LogCaptureFixture) -> None:
    own = logging.getLogger("own")
    with caplog.at_level(logging.INFO, "own"), Server(WILD, logger=own) as server:
        with zeromq.RPCClient(server.endpoint, logger=own) as client:
            client.echo(1)
        assert caplog.records[0].name == "own"
        assert server.endpoint in caplog.text


def test_names_that_are_private() -> None:
    with Server(WILD) as server, zeromq.RPCClient(server.endpoint) as client:
        for thing in (client, client.notify, client.echo):
            with pytest.raises(AttributeError):
                thing._private  # noqa: B018
        with pytest.raises(zeromq.MethodNotFound, match=r"ns\.deep\.echo"):
            client.ns.deep.echo(1)


def test_what_a_handler_sets_in_its_context_is_not_there_for_the_next() -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")
    told: queue.Queue[Any] = queue.Queue()

    def visit(name: str) -> list[Any]:
        found = [user.get(), decimal.getcontext().prec]
        user.set(name)
        decimal.getcontext().prec = 5
        return found

    class Visited(zeromq.SubscriptionServer):
        def handle_visit_method(self, name):
            return visit(name)

        def handle_visit_notification(self, name):
            told.put(visit(name))

    class Watcher(zeromq.NotificationReceiverClient):
        def handle_visit_notification(self, name):
            told.put(visit(name))

    def run() -> None:
        user.set("starter")
        with Visited(WILD) as server, Watcher(server.endpoint) as watcher:
            watcher.subscribe()
            for name in ("alice", "bob"):
                assert watcher.visit(name) == ["starter", 28]
                watcher.notify.visit(name)
                server.publish("visit", name)
            for _ in range(4):
                assert told.get(timeout=PATIENCE) == ["starter", 28]

    Context().run(run)


async def _later() -> int:
    return 1


def _steps() -> Any:
    yield 1


@pytest.mark.parametrize("function", [_later, _steps], ids=["async def", "generator"])
@pytest.mark.parametrize("wrap", [staticmethod, lambda function: lambda self: function()])
def test_a_handler_that_would_never_run_is_refused(function: Any, wrap: Any) -> None:
    hidden = wrap is not staticmethod

    class Refused(zeromq.RPCServer):
        handle_work_method = wrap(function)

    class RefusedWatcher(zeromq.NotificationReceiverClient):
        handle_work_notification = wrap(function)

    if not hidden:
        for make in (Refused, RefusedWatcher):
            with pytest.raises(TypeError, match=r"handle_work_.* has to be awaited or iterated"):
                make(WILD)
        return
    with (
        Refused(WILD) as server,
        zeromq.RPCClient(server.endpoint) as client,
        pytest.raises((zeromq.ServerError, zeromq.InternalError), match="async def"),
    ):
        client.work()


def test_a_name_that_is_bound_already_is_a_wrong_parameter() -> None:
    class Bound(zeromq.RPCServer):
        def handle_va_method(self, **kwargs):
            return sorted(kwargs)

    with Bound(WILD) as server, zeromq.RPCClient(server.endpoint) as client:
        assert client.va(this=1) == ["this"]
        with pytest.raises(zeromq.InvalidParams, match="self"):
            client.va(self=1)
