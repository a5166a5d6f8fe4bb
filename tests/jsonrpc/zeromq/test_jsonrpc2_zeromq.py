"""Both ways with jsonrpc2-zeromq 2.0: its bytes, and itself where it is installed.

It asks for a pyzmq that is long gone, and works with today's: ``pip install --no-deps
jsonrpc2-zeromq future``.
"""

import gc
import json
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc import zeromq

try:
    import jsonrpc2_zeromq as theirs
except ImportError:
    theirs = None

needs_theirs = pytest.mark.skipif(theirs is None, reason="jsonrpc2-zeromq is not installed")

PATIENCE = 10.0

#: What its client sends (`common.Request.to_dict`), and what its server answers
#: (`common.Response.to_dict`), byte for byte as its version 2.0.1 wrote them.
CALL = (
    b'{"jsonrpc": "2.0", "method": "echo", "params": ["Echo?"], '
    b'"id": "0f8fad5b-d9cb-469f-a165-70867728950e"}'
)
CALL_WITHOUT_ARGUMENTS = (
    b'{"jsonrpc": "2.0", "method": "nothing", "params": {}, '
    b'"id": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}'
)
NOTIFICATION = b'{"jsonrpc": "2.0", "method": "event", "params": ["birthday!", "yours!"]}'
RESULT = b'{"jsonrpc": "2.0", "result": "Echo?", "id": %d}'
ERROR = (
    b'{"jsonrpc": "2.0", "result": null, '
    b'"error": {"code": -32601, "message": "Method Not Found", "data": null}, "id": %d}'
)
ERROR_WITHOUT_ID = (
    b'{"jsonrpc": "2.0", "result": null, '
    b'"error": {"code": -32700, "message": "Parse Error", "data": null}}'
)
#: A `ServerError` of its has no code.
ERROR_WITHOUT_CODE = (
    b'{"jsonrpc": "2.0", "result": null, '
    b'"error": {"code": null, "message": "hm", "data": null}, "id": %d}'
)


def methods(base: type) -> Any:
    class Server(base):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.events: list[Any] = []
            self.got = threading.Event()
            super().__init__(*args, **options)

        def handle_echo_method(self, value):
            return value

        def handle_nothing_method(self):
            return None

        def handle_fails_method(self):
            raise ValueError("hm")

        def handle_event_method(self, *args):
            self.events.append(args)
            self.got.set()

    return Server


# -- its bytes -------------------------------------------------------------------------------


@pytest.fixture
def bare() -> Iterator[Any]:
    sockets: list[Any] = []

    def make(kind: int) -> Any:
        made = zmq.Context.instance().socket(kind)
        made.linger = 0
        made.rcvtimeo = 5000
        sockets.append(made)
        return made

    yield make
    for made in sockets:
        made.close()


@pytest.mark.parametrize(
    ("server", "kind"), [("RPCServer", zmq.REQ), ("RPCNotificationServer", zmq.DEALER)]
)
def test_its_calls(bare: Any, server: str, kind: int) -> None:
    own = bare(kind)
    with methods(getattr(zeromq, server))("tcp://127.0.0.1:*") as serving:
        own.connect(serving.endpoint)
        own.send(CALL)
        (answer,) = own.recv_multipart()
        assert json.loads(answer) == {
            "jsonrpc": "2.0",
            "result": "Echo?",
            "id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        }
        own.send(CALL_WITHOUT_ARGUMENTS)
        assert json.loads(own.recv())["result"] is None
        if kind == zmq.DEALER:
            own.send(NOTIFICATION)
            assert serving.got.wait(PATIENCE)
            assert serving.events == [("birthday!", "yours!")]


@pytest.mark.parametrize(
    ("client", "kind"), [("RPCClient", zmq.REP), ("RPCNotifierClient", zmq.ROUTER)]
)
def test_its_answers(bare: Any, client: str, kind: int) -> None:
    own = bare(kind)
    port = own.bind_to_random_port("tcp://127.0.0.1")
    answers = [RESULT, ERROR, ERROR_WITHOUT_ID, ERROR_WITHOUT_CODE]
    requests: list[Any] = []

    def serve() -> None:
        for answer in answers:
            *route, data = own.recv_multipart()
            requests.append(json.loads(data))
            if b"%d" in answer:
                answer = answer % requests[-1]["id"]
            own.send_multipart([*route, answer])

    thread = threading.Thread(target=serve)
    thread.start()
    with getattr(zeromq, client)(f"tcp://127.0.0.1:{port}") as calling:
        assert calling.echo("Echo?") == "Echo?"
        with pytest.raises(zeromq.MethodNotFound, match="Method Not Found"):
            calling.echo(a=1)
        with pytest.raises(zeromq.ParseError):
            calling.echo()
        with pytest.raises(zeromq.RPCError, match="hm"):
            calling.echo()
    thread.join(PATIENCE)
    # Its server refuses a request without params.
    assert [request["params"] for request in requests] == [["Echo?"], {"a": 1}, [], []]


# -- itself ----------------------------------------------------------------------------------


@pytest.fixture(
    params=[("RPCServer", "RPCClient"), ("RPCNotificationServer", "RPCNotifierClient")],
    ids=["REP and REQ", "ROUTER and DEALER"],
)
def names(request: pytest.FixtureRequest) -> Any:
    return request.param


def check(client: Any, errors: Any) -> None:
    assert client.echo([1, {"a": None}]) == [1, {"a": None}]
    assert client.echo(value="\u65e5") == "\u65e5"
    assert client.nothing() is None
    with pytest.raises(errors.MethodNotFound):
        client.nothing_such()
    with pytest.raises(errors.InvalidParams):
        client.echo(1, 2)
    with pytest.raises(errors.RPCError) as caught:
        client.fails()
    assert caught.value.error_msg == "hm"
    assert client.echo(2) == 2


@needs_theirs
def test_their_client_at_our_server(names: Any) -> None:
    with methods(getattr(zeromq, names[0]))("tcp://127.0.0.1:*") as server:
        client = getattr(theirs, names[1])(server.endpoint)
        try:
            check(client, theirs)
            if names[0] != "RPCServer":
                client.notify.event(1, 2)
                assert server.got.wait(PATIENCE)
                assert server.events == [(1, 2)]
        finally:
            client.close()


@pytest.fixture
def their_server(names: Any) -> Iterator[Any]:
    # It does not tell which port a wildcard became.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = methods(getattr(theirs, names[0]))(f"tcp://127.0.0.1:{port}", timeout=10)
    server.start()
    yield server
    server.stop()
    server.join(PATIENCE)
    server.close()


@needs_theirs
def test_our_client_at_their_server(names: Any, their_server: Any) -> None:
    with getattr(zeromq, names[1])(their_server.endpoint) as client:
        check(client, zeromq)
        if names[0] != "RPCServer":
            client.notify.event(1, 2)
            assert their_server.got.wait(PATIENCE)
            assert their_server.events == [(1, 2)]


@needs_theirs
async def test_our_async_client_at_their_server(names: Any, their_server: Any) -> None:
    async with await rpc.open_client(
        connect=their_server.endpoint, dialect="jsonrpc", timeout=5
    ) as client:
        assert await client.rpc.echo([1]) == [1]
        assert await client.rpc.nothing() is None
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.nothing_such()
        with pytest.raises(rpc.ParametersError):
            await client.rpc.echo(1, 2)


@needs_theirs
def test_push_and_pull() -> None:
    with methods(zeromq.NotificationOnlyPullServer)("tcp://127.0.0.1:*") as server:
        client = theirs.NotifierOnlyPushClient(server.endpoint)
        try:
            client.notify.event(1)
            assert server.got.wait(PATIENCE)
        finally:
            client.close()


@needs_theirs
def test_their_receiver_at_our_subscription_server() -> None:
    with warnings.catch_warnings():
        # It leaves a socket of its own open.
        warnings.simplefilter("ignore", ResourceWarning)
        receive_from_our_server()
        gc.collect()


def receive_from_our_server() -> None:
    class Receiver(theirs.NotificationReceiverClient):  # type: ignore[misc]
        poll_timeout = 10
        got = threading.Event()

        def handle_event_notification(self, value):
            if value == "last":
                self.got.set()

        def handle_empty_notification(self):
            """It would end its thread if there were no params."""

    with zeromq.SubscriptionServer("tcp://127.0.0.1:*") as server:
        client = Receiver(server.endpoint)
        try:
            assert client.subscribe() is True
            server.publish("empty")
            server.publish("event", 1)
            server.publish("event", "last")
            assert client.got.wait(PATIENCE)
        finally:
            client.stop()
            client.request_sock.close()
            client.close()
