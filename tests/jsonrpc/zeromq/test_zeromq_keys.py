"""Keys on the servers and clients with threads."""

import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.jsonrpc.zeromq import client as client_module
from berrymq_rpc.rpc.transport import curve

KEYS = rpc.KeyPair.generate()
ALICE = rpc.KeyPair.generate()
BOB = rpc.KeyPair.generate()
MALLORY = rpc.KeyPair.generate()
ANY_PORT = "tcp://127.0.0.1:*"


class Methods:
    def handle_echo_method(self, value: Any) -> Any:
        return value


class Simple(Methods, zeromq.RPCServer):
    pass


class Notified(Methods, zeromq.RPCNotificationServer):
    pass


class Subscribed(Methods, zeromq.SubscriptionServer):
    pass


class Pulling(zeromq.NotificationOnlyPullServer):
    pass


PAIRS = [
    (Simple, zeromq.RPCClient),
    (Notified, zeromq.RPCNotifierClient),
    (Notified, zeromq.NotificationReceiverClient),
    (Subscribed, zeromq.NotificationReceiverClient),
]
each_pair = pytest.mark.parametrize(("server_class", "client_class"), PAIRS)


def client_of(keys: rpc.KeyPair = ALICE, server: str = KEYS.public) -> rpc.CurveClient:
    return rpc.CurveClient(keys, server=server)


@each_pair
def test_who_gets_in(server_class: Any, client_class: Any) -> None:
    security = rpc.CurveServer(KEYS, {ALICE.public})
    with server_class(ANY_PORT, security=security) as server:
        with client_class(server.endpoint, security=client_of()) as client:
            assert client.echo(5) == 5
        for refused, reason in (
            (client_of(MALLORY), "key"),
            (client_of(server=MALLORY.public), "handshake"),
            (None, "keys wanted"),
        ):
            with client_class(server.endpoint, timeout=8000, security=refused) as client:
                began = time.monotonic()
                with pytest.raises(rpc.AuthenticationError) as error:
                    client.echo(5)
                assert error.value.reason == reason
                assert (error.value.method, error.value.sent) == ("echo", False)
                assert time.monotonic() - began < 8
        with client_class(server.endpoint, security=client_of()) as client:
            assert client.echo(6) == 6


@each_pair
def test_a_look_that_finds_nothing_is_repeated(
    server_class: Any, client_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server may not say in time that it refuses a client."""
    looks: list[str | None] = []

    def look(*args: Any) -> str | None:
        looks.append(curve.find_refusal_blocking(*args) if looks else None)
        return looks[-1]

    monkeypatch.setattr(client_module, "find_refusal_blocking", look)
    security = rpc.CurveServer(KEYS, {ALICE.public})
    with (
        server_class(ANY_PORT, security=security) as server,
        client_class(server.endpoint, timeout=30_000, security=client_of(MALLORY)) as client,
    ):
        began = time.monotonic()
        with pytest.raises(rpc.AuthenticationError):
            client.echo(5)
        assert looks[0] is None
        assert time.monotonic() - began < 20


@each_pair
def test_who_is_refused_before_its_first_call(server_class: Any, client_class: Any) -> None:
    """libzmq may have taken away the way to the server by then, so that nothing can be sent."""
    security = rpc.CurveServer(KEYS, {ALICE.public})
    with (
        server_class(ANY_PORT, security=security) as server,
        client_class(server.endpoint, timeout=30_000, security=client_of(MALLORY)) as client,
    ):
        began = time.monotonic()
        if client.socket_type == zmq.REQ:
            while client.socket.poll(0, zmq.POLLOUT):
                assert time.monotonic() - began < 20
        with pytest.raises(rpc.AuthenticationError):
            client.echo(5)
        assert time.monotonic() - began < 20


@each_pair
def test_a_short_timeout_is_told_as_well(
    server_class: Any, client_class: Any, caplog: pytest.LogCaptureFixture
) -> None:
    security = rpc.CurveServer(KEYS, {ALICE.public})
    with (
        server_class(ANY_PORT, security=security) as server,
        client_class(server.endpoint, timeout=50, security=client_of(MALLORY)) as client,
        pytest.raises(rpc.AuthenticationError, match="has not authorized"),
    ):
        client.echo(5)
    assert f"refused at {server.endpoint}: not authorized" in caplog.text


@pytest.mark.parametrize(
    ("server_class", "client_class"),
    [
        (Pulling, zeromq.NotifierOnlyPushClient),
        (Notified, zeromq.RPCNotifierClient),
        (Subscribed, zeromq.NotificationReceiverClient),
    ],
)
def test_who_only_notifies_is_told_as_well(server_class: Any, client_class: Any) -> None:
    """No answer would say it."""
    security = rpc.CurveServer(KEYS, {ALICE.public})
    with server_class(ANY_PORT, security=security) as server:
        for refused, reason in (
            (client_of(MALLORY), "key"),
            (client_of(server=MALLORY.public), "handshake"),
            (None, "keys wanted"),
        ):
            with client_class(server.endpoint, timeout=8000, security=refused) as client:
                with pytest.raises(rpc.AuthenticationError) as error:
                    client.notify.event(5)
                assert error.value.reason == reason
                assert (error.value.method, error.value.sent) == ("event", False)
        with client_class(server.endpoint, security=client_of()) as client:
            client.notify.event(6)


@each_pair
def test_a_server_without_keys(server_class: Any, client_class: Any) -> None:
    with (
        server_class(ANY_PORT) as server,
        client_class(server.endpoint, timeout=8000, security=client_of()) as client,
        pytest.raises(rpc.AuthenticationError) as error,
    ):
        client.echo(5)
    assert error.value.reason == "no keys"


async def test_a_refused_client_where_an_event_loop_runs() -> None:
    # As in a notebook: the client blocks the loop, and is told nevertheless.
    with (
        Simple(ANY_PORT) as server,
        zeromq.RPCClient(server.endpoint, timeout=8000, security=client_of()) as client,
        pytest.raises(rpc.AuthenticationError) as error,
    ):
        client.echo(5)
    assert error.value.reason == "no keys"


@each_pair
def test_no_server_is_no_refusal(server_class: Any, client_class: Any) -> None:
    with server_class(ANY_PORT) as server:
        endpoint = server.endpoint
    with (
        client_class(endpoint, timeout=100, security=client_of()) as client,
        pytest.raises(rpc.RPCTimeoutError),
    ):
        client.echo(5)


@each_pair
def test_a_removed_key(server_class: Any, client_class: Any, tmp_path: Path) -> None:
    ALICE.save(tmp_path, "alice")
    security = rpc.CurveServer(KEYS, tmp_path)
    with (
        server_class(ANY_PORT, security=security) as server,
        client_class(server.endpoint, timeout=1000, security=client_of()) as client,
    ):
        assert client.echo(5) == 5
        (tmp_path / "alice.key").unlink()
        deadline = time.monotonic() + 10
        with pytest.raises((rpc.AuthenticationError, rpc.ProtocolError)):
            # It is noticed within a moment.
            while time.monotonic() < deadline:
                client.echo(6)
        with pytest.raises(rpc.AuthenticationError):
            client.echo(7)


def test_a_subscriber_whose_key_is_removed(tmp_path: Path, wait_until: Any) -> None:
    """It gets nothing more, though it asks for nothing; the others do."""
    ALICE.save(tmp_path, "alice")
    BOB.save(tmp_path, "bob")

    class Receiver(zeromq.NotificationReceiverClient):
        def __init__(self, keys: rpc.KeyPair) -> None:
            super().__init__(server.endpoint, security=client_of(keys))
            self.events: list[int] = []

        def handle_event_notification(self, number: int) -> None:
            self.events.append(number)

    with (
        Subscribed(ANY_PORT, security=rpc.CurveServer(KEYS, tmp_path)) as server,
        Receiver(ALICE) as alice,
        Receiver(BOB) as bob,
    ):
        alice.subscribe()
        (removed,) = server.subscribers
        assert removed.key == ALICE.public
        bob.subscribe()
        server.publish("event", 1)
        wait_until(lambda: (alice.events, bob.events) == ([1], [1]))
        (tmp_path / "alice.key").unlink()
        wait_until(lambda: removed not in server.subscribers)
        server.publish("event", 2)
        server.notify(removed, "event", 3)
        wait_until(lambda: bob.events == [1, 2] and server.messages_dropped == 1)
        assert alice.events == [1]


def test_beyond_loopback_with_keys() -> None:
    with pytest.raises(ValueError, match="there is no authentication"):
        Simple("tcp://0.0.0.0:*")
    security = rpc.CurveServer(KEYS, {ALICE.public})
    with Simple("tcp://0.0.0.0:*", security=security) as server:
        endpoint = server.endpoint.replace("0.0.0.0", "127.0.0.1")
        with zeromq.RPCClient(endpoint, security=client_of()) as client:
            assert client.echo(5) == 5


@each_pair
def test_one_key_for_each_endpoint(server_class: Any, client_class: Any) -> None:
    security = rpc.CurveServer([KEYS, MALLORY], {ALICE.public})
    for made in (server_class, client_class):
        with pytest.raises(ValueError, match="2 keys for one endpoint"):
            made("tcp://127.0.0.1:9", security=security)


def test_a_function_that_is_async_has_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def decide(key: str) -> bool:
        return True

    with (
        Simple(ANY_PORT, security=rpc.CurveServer(KEYS, decide)) as server,
        zeromq.RPCClient(server.endpoint, security=client_of()) as client,
        pytest.raises(rpc.AuthenticationError) as error,
    ):
        client.echo(5)
    assert error.value.reason == "handshake"
    assert "this server has no loop" in caplog.text
