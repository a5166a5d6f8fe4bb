"""Each row of the table for programs of jsonrpc2-zeromq, in its new form."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc import zeromq as jsonrpc2_zeromq
from berrymq_rpc.jsonrpc.zeromq import (
    InvalidParams,
    MethodNotFound,
    NotificationOnlyPullServer,
    NotificationReceiverClient,
    NotifierOnlyPushClient,
    RPCClient,
    RPCError,
    RPCNotificationServer,
    RPCNotifierClient,
    RPCServer,
    ServerError,
    SubscriptionServer,
)

from .conftest import rows

ANY_PORT = "tcp://127.0.0.1:*"
SECONDS = 10


@pytest.fixture
def heard() -> "queue.Queue[Any]":
    return queue.Queue()


class OutOfStock(RPCError):
    error_code = 7


class Handlers:
    heard: "queue.Queue[Any]"

    def handle_echo_method(self, msg: Any) -> Any:
        return msg

    def handle_event_method(self, *args: Any) -> None:
        self.heard.put(args)

    def handle_fails_method(self, which: str) -> None:
        raise {"stock": OutOfStock("no rolls"), "other": LookupError("no rolls")}[which]


class EchoServer(Handlers, RPCServer):
    pass


class EventServer(Handlers, RPCNotificationServer):
    pass


def servers() -> None:
    with pytest.raises(ValueError, match="insecure=True"):
        EchoServer("tcp://0.0.0.0:*")
    with EchoServer(ANY_PORT) as server:
        assert not server.endpoint.endswith("*")
        with RPCClient(server.endpoint, timeout=SECONDS * 1000) as client:
            assert client.echo("text") == "text"


def starting() -> None:
    server = EchoServer(ANY_PORT)
    server.start()
    with RPCClient(server.endpoint) as client:
        assert client.echo(1) == 1
    server.stop()
    server.run()
    assert not server.is_alive()


def stopping() -> None:
    server = EchoServer(ANY_PORT, timeout=60_000)
    server.start()
    server.stop()
    server.join(SECONDS)
    assert not server.is_alive()


def calling() -> None:
    with EchoServer(ANY_PORT) as server, RPCClient(server.endpoint) as client:
        assert (client.echo("text"), client.echo(msg="text")) == ("text", "text")
        with pytest.raises(MethodNotFound):
            client.ns.echo("text")


def timing_out() -> None:
    assert jsonrpc2_zeromq.TimeoutError is TimeoutError
    is_over = threading.Event()

    class Slow(EchoServer):
        def handle_wait_method(self) -> bool:
            return is_over.wait(SECONDS)

    with Slow(ANY_PORT) as server, RPCClient(server.endpoint) as client:
        assert client.echo("text") == "text"
        client.timeout = 50
        with pytest.raises(rpc.RPCTimeoutError):
            client.wait()
        is_over.set()


def notifying(heard: "queue.Queue[Any]") -> None:
    assert EventServer.default_socket_type != RPCServer.default_socket_type
    with EventServer(ANY_PORT) as server, RPCNotifierClient(server.endpoint) as client:
        server.heard = heard
        client.notify.event("text")
        assert heard.get(timeout=SECONDS) == ("text",)
        assert client.echo(2) == 2


def preferring(heard: "queue.Queue[Any]") -> None:
    class Both(EventServer):
        def handle_event_notification(self, kind: str) -> None:
            heard.put(("notification", kind))

    notifying(heard)
    with Both(ANY_PORT) as server, RPCNotifierClient(server.endpoint) as client:
        server.heard = heard
        client.notify.event("text")
        assert heard.get(timeout=SECONDS) == ("notification", "text")


def pushing(heard: "queue.Queue[Any]") -> None:
    class PullServer(Handlers, NotificationOnlyPullServer):
        pass

    with PullServer(ANY_PORT) as server, NotifierOnlyPushClient(server.endpoint) as client:
        server.heard = heard
        client.notify.event("text")
        assert heard.get(timeout=SECONDS) == ("text",)
        with pytest.raises(TypeError, match=r"notify\.echo"):
            client.echo("text")


def receiving(heard: "queue.Queue[Any]") -> None:
    class Watcher(NotificationReceiverClient):
        def handle_event_notification(self, kind: str) -> None:
            heard.put((kind, self.ping()))

    class Server(SubscriptionServer):
        def handle_ping_method(self) -> str:
            return "pong"

    with Server(ANY_PORT) as server, Watcher(server.endpoint) as watcher:
        watcher.subscribe()
        server.publish("event", "text")
        assert heard.get(timeout=SECONDS) == ("text", "pong")


def errors() -> None:
    with EchoServer(ANY_PORT) as server, RPCClient(server.endpoint) as client:
        with pytest.raises(MethodNotFound):
            client.no_such()
        with pytest.raises(InvalidParams):
            client.echo(1, 2)
        with pytest.raises(ServerError) as raised:
            client.fails("other")
        assert raised.value.error_data["type"] == "builtins.LookupError"
        assert raised.value.error_data["args"] == ["no rolls"]


def own_errors() -> None:
    with (
        EchoServer(ANY_PORT) as server,
        RPCClient(server.endpoint) as client,
        pytest.raises(OutOfStock, match="no rolls"),
    ):
        client.fails("stock")


def own_codes() -> None:
    class Mine(Exception):
        pass

    with EchoServer(ANY_PORT) as server, RPCClient(server.endpoint) as client:
        client.error_code_exceptions = {7: Mine}
        with pytest.raises(Mine):
            client.fails("stock")


def logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "berrymq_rpc.jsonrpc.zeromq")
    errors()
    assert "berrymq_rpc.jsonrpc.zeromq" in {record.name for record in caplog.records}


ROWS: dict[str, Callable[..., None]] = {
    "``import jsonrpc2_zeromq``": calling,
    "``RPCServer(endpoint)``, ``handle_NAME_method``": servers,
    "``server.run()``, ``server.start()``": starting,
    "``server.stop()``, ``server.join()``": stopping,
    "``RPCClient(endpoint, timeout=5000)``": servers,
    '``client.echo("text")``, ``client.echo(msg="text")``': calling,
    "``jsonrpc2_zeromq.client.TimeoutError``": timing_out,
    '``client.notify.event("text")``': notifying,
    "``RPCNotificationServer``, ``RPCNotifierClient``": preferring,
    "``NotificationOnlyPullServer``, ``NotifierOnlyPushClient``": pushing,
    "``NotificationReceiverClient``, ``handle_NAME_notification``": receiving,
    "``MethodNotFound``, ``InvalidParams``, ``ServerError``, ...": errors,
    "``class MyError(RPCError)`` with ``error_code``": own_errors,
    "``client.error_code_exceptions = {code: class}``": own_codes,
    '``logging.getLogger("jsonrpc2_zeromq")``': logs,
}


def test_all_rows() -> None:
    assert rows("jsonrpc2_zeromq.rst") == set(ROWS)


@pytest.mark.parametrize("new_form", dict.fromkeys(ROWS.values()))
def test_row(new_form: Callable[..., None], request: pytest.FixtureRequest) -> None:
    code = new_form.__code__
    new_form(*map(request.getfixturevalue, code.co_varnames[: code.co_argcount]))
