"""Clients that are sent notifications, and the server that sends them."""

import contextlib
import threading
import time
from typing import Any

import pytest
import zmq

from berrymq_rpc.errors import OverloadedError, ProtocolError, ServiceClosedError
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.jsonrpc.zeromq import receiver, router_queues, subscription
from berrymq_rpc.runtime.log import Log

pytestmark = pytest.mark.usefixtures("nothing_left")

PATIENCE = 10.0
WILD = "tcp://127.0.0.1:*"


class Feed(zeromq.SubscriptionServer):
    last: Any = None

    def handle_watch_method(self, name):
        self.last = self.subscriber
        self.notify(self.subscriber, "event", name)
        return name

    def handle_echo_method(self, value):
        return value

    def handle_hang_method(self):
        time.sleep(0.3)

    def handle_ask_method(self):
        self.publish("question", 5)


class Watcher(zeromq.NotificationReceiverClient):
    def __init__(self, *args: Any, **options: Any) -> None:
        self.events: list[Any] = []
        self.answers: list[Any] = []
        super().__init__(*args, **options)

    def handle_event_notification(self, *args, **kwargs):
        self.events.append(args or kwargs)

    def handle_fails_notification(self):
        raise ValueError("no")

    def handle_question_notification(self, value):
        # It calls the server while it handles what the server sent.
        self.answers.append(self.echo(value))

    def handle_ends_notification(self):
        self.close()


def test_subscribe_and_publish(wait_until: Any) -> None:
    with Feed(WILD) as feed, Watcher(feed.endpoint) as one, Watcher(feed.endpoint) as other:
        feed.publish("event", "nobody hears")
        assert one.subscribe() is True
        assert one.subscribe() is True
        assert other.watch("me") == "me"
        assert len(feed.subscribers) == 2
        feed.publish("event", 1)
        feed.publish("event", a=2)
        feed.notify(feed.last, "event", "other alone")
        wait_until(lambda: len(one.events) == 2 and len(other.events) == 4)
        assert one.events == [(1,), {"a": 2}]
        assert other.events == [("me",), (1,), {"a": 2}, ("other alone",)]
        assert one.unsubscribe() is True
        assert len(feed.subscribers) == 1
        assert [one.echo(number) for number in range(100)] == list(range(100))


def test_subscribers_of_version_1(wait_until: Any) -> None:
    context = zmq.Context.instance()
    with Feed(WILD) as feed, Watcher(feed.endpoint) as watcher, context.socket(zmq.DEALER) as old:
        old.linger = 0
        old.rcvtimeo = 10_000
        old.connect(feed.endpoint)
        watcher.subscribe()
        old.send_json({"method": "subscribe", "params": [], "id": "s"})
        assert old.recv_json() == {"result": True, "error": None, "id": "s"}
        feed.publish("event", 1)
        feed.publish("event", a=2)
        assert old.recv_json() == {"method": "event", "params": [1], "id": None}
        assert old.recv_json() == {"method": "event", "params": [{"a": 2}], "id": None}
        wait_until(lambda: len(watcher.events) == 2)
        assert watcher.events == [(1,), {"a": 2}]
        # A later request of version 2.0 makes it a subscriber of that version.
        old.send_json({"jsonrpc": "2.0", "method": "subscribe", "id": 1})
        assert old.recv_json() == {"jsonrpc": "2.0", "result": True, "id": 1}
        assert len(feed.subscribers) == 2
        feed.publish("event", a=3)
        assert old.recv_json() == {"jsonrpc": "2.0", "method": "event", "params": {"a": 3}}


def test_the_dead_are_forgotten(wait_until: Any) -> None:
    with Feed(WILD) as feed:
        with Watcher(feed.endpoint) as watcher:
            watcher.subscribe()
            (gone,) = feed.subscribers
        with Watcher(feed.endpoint) as watcher:
            watcher.subscribe()

            def published() -> bool:
                feed.publish("event", 1)
                watcher.echo(1)
                return len(feed.subscribers) == 1

            wait_until(published)
            assert gone not in feed.subscribers
            feed.notify(gone, "event", 1)
            assert watcher.echo(1) == 1


def test_a_subscriber_that_does_not_read(monkeypatch: pytest.MonkeyPatch, wait_until: Any) -> None:
    monkeypatch.setattr(router_queues, "MAX_QUEUED", 1 << 20)
    with (
        Feed(WILD) as feed,
        Watcher(feed.endpoint) as good,
        zmq.Context.instance().socket(zmq.DEALER) as slow,
    ):
        slow.linger = 0
        slow.rcvhwm = 1
        slow.connect(feed.endpoint)
        slow.send(b'{"jsonrpc":"2.0","method":"subscribe","params":[],"id":1}')
        slow.recv()
        good.subscribe()
        for number in range(1500):
            feed.publish("event", number, "x" * 10_000)
            if number % 100 == 0:
                # The others are not held up.
                assert good.echo(number) == number
        wait_until(lambda: len(good.events) == 1500)
        assert [event[0] for event in good.events] == list(range(1500))
        assert feed.messages_dropped


def test_subscribers_that_do_not_read_have_a_bound_together(wait_until: Any) -> None:
    """Real sockets, one of which goes at the end, as does what was queued for it."""
    context: Any = zmq.Context()
    server = context.socket(zmq.ROUTER)
    queues = router_queues.RouterQueues(server, Log("berrymq_rpc.jsonrpc.zeromq"))
    server.linger = 0
    server.sndhwm = 1
    port = server.bind_to_random_port("tcp://127.0.0.1")
    slow = [context.socket(zmq.DEALER) for _ in range(12)]
    try:
        keys = []
        for peer in slow:
            peer.linger = 0
            peer.rcvhwm = 1
            peer.connect(f"tcp://127.0.0.1:{port}")
            peer.send(b"")
            keys.append(server.recv_multipart()[0])
        text = b"x" * 100_000
        for key in keys:
            # More than a peer's own bound, with what ZeroMQ and the host's sockets hold. Ten peers
            # reach the bound of all, so that there is no room for the last one.
            for _ in range(300):
                queues.send([key, text])
        assert 49 << 20 < queues.size <= router_queues.MAX_ALL_QUEUED
        dropped = queues.dropped
        assert dropped > 0
        peer = slow[0]
        peer.rcvtimeo = 5000

        def drained() -> bool:
            with contextlib.suppress(zmq.Again):
                peer.recv(zmq.NOBLOCK)
            queues.retry()
            return queues.size <= 46 << 20

        wait_until(drained)
        # There is room again for those that had none left.
        queues.send([keys[-1], text])
        assert queues.dropped == dropped
        for peer in slow:
            peer.close()

        def gone() -> bool:
            # A server looks for what has arrived, and so comes to know who has left.
            server.poll(0)
            queues.retry()
            return not queues

        wait_until(gone)
        assert queues.size == 0
    finally:
        context.destroy(linger=0)


def test_what_waited_is_sent_when_there_is_room() -> None:
    with Feed(WILD) as feed, zmq.Context.instance().socket(zmq.DEALER) as slow:
        slow.linger = 0
        slow.rcvtimeo = 5000
        slow.connect(feed.endpoint)
        slow.send(b'{"jsonrpc":"2.0","method":"subscribe","params":[],"id":1}')
        slow.recv()
        for number in range(3000):
            feed.publish("event", number)
        seen = [slow.recv() for _ in range(3000)]
        assert seen[0].endswith(b"[0]}")
        assert seen[-1].endswith(b"[2999]}")


def test_subscriber_outside_of_a_handler() -> None:
    with Feed(WILD) as feed, pytest.raises(RuntimeError, match="inside a handler"):
        _ = feed.subscriber


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "MAX_SUBSCRIBERS", 1)
    monkeypatch.setattr(subscription, "MAX_WAITING", 2)
    with Feed(WILD) as feed, Watcher(feed.endpoint) as one, Watcher(feed.endpoint) as other:
        one.subscribe()
        with pytest.raises(zeromq.ServerError, match="1 subscribers"):
            other.subscribe()
        (known,) = feed.subscribers
    feed = Feed(WILD)
    try:
        feed.publish("event", 1)
        feed.notify(known, "event", 1)
        feed.notify(known, "event", 2)
        with pytest.raises(OverloadedError, match="wait to be sent"):
            feed.notify(known, "event", 3)
        with pytest.raises(TypeError, match="by position or by name"):
            feed.publish("event", 1, a=2)
        with pytest.raises(TypeError):
            feed.publish("event", object())
    finally:
        feed.close()
    with pytest.raises(ServiceClosedError):
        feed.publish("event", 1)


def test_published_before_and_after(wait_until: Any) -> None:
    class Slow(Feed):
        go_on = threading.Event()

        def handle_wait_method(self):
            return self.go_on.wait(PATIENCE)

    with Slow(WILD) as feed, Watcher(feed.endpoint) as one, Watcher(feed.endpoint) as other:
        one.subscribe()
        waiting = threading.Thread(target=other.wait)
        waiting.start()
        # While the server's thread is busy.
        feed.publish("event", "to one alone")
        feed.go_on.set()
        waiting.join(PATIENCE)
        other.subscribe()
        feed.publish("event", "to both")
        wait_until(lambda: len(one.events) == 2 and other.events)
        assert other.events == [("to both",)]


# -- the client ------------------------------------------------------------------------------


def test_handlers_may_call_and_fail(caplog: pytest.LogCaptureFixture, wait_until: Any) -> None:
    with Feed(WILD) as feed, Watcher(feed.endpoint) as watcher:
        watcher.subscribe()
        feed.publish("fails")
        feed.publish("nothing_such")
        feed.publish("event", "still there")
        watcher.ask()
        wait_until(lambda: watcher.answers)
        assert watcher.answers == [5]
        assert watcher.events == [("still there",)]
    assert "the handler of 'fails' failed" in caplog.text
    assert "nothing_such" in caplog.text


def test_calls_of_several_threads() -> None:
    with Feed(WILD) as feed, Watcher(feed.endpoint) as watcher:
        results: list[Any] = []
        threads = [
            threading.Thread(
                target=lambda n=n: results.extend(watcher.echo(n) - n for _ in range(20))
            )
            for n in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == [0] * 200


def test_timeout_and_after() -> None:
    with Feed(WILD) as feed, Watcher(feed.endpoint, timeout=50) as watcher:
        with pytest.raises(TimeoutError, match="hang"):
            watcher.hang()
        watcher.timeout = 5000
        assert watcher.echo(1) == 1
        with pytest.raises(zeromq.MethodNotFound):
            watcher.nothing_such()


def test_no_server(wait_until: Any) -> None:
    with zmq.Context.instance().socket(zmq.ROUTER) as reserved:
        port = reserved.bind_to_random_port("tcp://127.0.0.1")
    endpoint = f"tcp://127.0.0.1:{port}"
    with Watcher(endpoint, timeout=50) as watcher:
        with pytest.raises(TimeoutError):
            watcher.watch("not to be run later")
        watcher.notify.watch("but this is")
        with Feed(endpoint) as feed:
            watcher.timeout = 5000
            assert watcher.echo(1) == 1
            wait_until(lambda: watcher.events)
            assert watcher.events == [("but this is",)]
            assert len(feed.subscribers) == 1


def test_too_much_waits(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(receiver, "MAX_UNSENT", 3)
    monkeypatch.setattr(receiver, "CLOSE_LINGER", 50)
    with Watcher("tcp://127.0.0.1:9") as watcher:
        for number in range(3):
            watcher.notify.event(number)
        with pytest.raises(OverloadedError, match="3 messages"):
            watcher.notify.event(4)
    assert "3 messages were not sent" in caplog.text


def test_the_end(wait_until: Any) -> None:
    with Feed(WILD) as feed:
        watcher = Watcher(feed.endpoint)
        failed: list[Any] = []

        def call() -> None:
            try:
                watcher.hang()
            except ServiceClosedError as error:
                failed.append(error)

        waiting = threading.Thread(target=watcher.wait_for_notifications)
        calling = threading.Thread(target=call)
        waiting.start()
        calling.start()
        wait_until(lambda: watcher._pending)
        watcher.stop()
        watcher.close()
        waiting.join(PATIENCE)
        calling.join(PATIENCE)
        assert len(failed) == 1
        assert not watcher.is_alive()
        with pytest.raises(ServiceClosedError):
            watcher.echo(1)

        watcher = Watcher(feed.endpoint)
        watcher.subscribe()
        feed.publish("ends")
        watcher.wait_for_notifications()
        watcher.join(PATIENCE)
        assert watcher.socket.closed


def test_what_makes_no_sense(wait_until: Any) -> None:
    with zmq.Context.instance().socket(zmq.ROUTER) as socket:
        socket.rcvtimeo = 5000
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        with Watcher(f"tcp://127.0.0.1:{port}") as watcher:
            outcomes: list[Any] = []

            def call() -> None:
                for _ in range(3):
                    try:
                        outcomes.append(watcher.echo(1))
                    except Exception as error:
                        outcomes.append(error)

            thread = threading.Thread(target=call)
            thread.start()
            identity, _ = socket.recv_multipart()
            for data in (
                b"",
                b"{",
                b"[1]",
                b'{"jsonrpc":"2.0","result":1,"id":99}',
                b'{"jsonrpc":"2.0","method":"event","params":[1]}',
                b'{"jsonrpc":"2.0","method":"event","params":[1],"id":"x"}',
                b'{"jsonrpc":"2.0","result":1,"error":1,"id":1}',
            ):
                socket.send_multipart([identity, b"", data])
            assert b"-32601" in socket.recv_multipart()[-1]
            socket.recv_multipart()
            socket.send_multipart([identity, b'{"jsonrpc":"2.0","result":5,"id":2}'])
            socket.recv_multipart()
            socket.send_multipart(
                [identity, b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"}}']
            )
            socket.send_multipart(
                [identity, b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"},"id":null}']
            )
            thread.join(PATIENCE)
            assert type(outcomes[0]) is ProtocolError
            assert outcomes[1] == 5
            assert type(outcomes[2]) is zeromq.ParseError
            wait_until(lambda: watcher.events == [(1,)])


def test_no_private_name_is_one_of_a_thread() -> None:
    taken = {name for name in (*dir(threading.Thread), *vars(threading.Thread())) if name[0] == "_"}
    with Feed(WILD) as feed, Watcher(feed.endpoint) as watcher:
        for thing in (feed, watcher):
            own = {*vars(thing)} - {*vars(threading.Thread())}
            for cls in type(thing).__mro__:
                if cls.__module__.startswith("berrymq_rpc"):
                    own |= {name for name in vars(cls) if not name.startswith("__")}
            assert own & taken == set()
