"""The in-memory transport: what it does beyond the conformance suite, and its faults."""

import array
import asyncio
import contextvars
import errno
import gc
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from berrymq_rpc.rpc.transport.memory import Faults, dial, faults, listen
from berrymq_rpc.rpc.transport.memory_name import Side
from berrymq_rpc.rpc.transport.memory_port import RECONNECT_PAUSE
from berrymq_rpc.rpc.transport.port import Buffer, Key, Port, PortOptions

T = TypeVar("T")

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"mem://test-memory-{next(_numbers)}"


@pytest.fixture
def link(name: str) -> Faults:
    return faults(name)


class Peer:
    """A port and its owner, which writes down what it hears as `events`."""

    port: Port

    def __init__(self) -> None:
        self.events: list[tuple[str, *tuple[Any, ...]]] = []
        self.keys: list[Key] = []
        self.thread = threading.get_ident()
        #: Called with each message.
        self.reaction: Callable[[Key, Sequence[bytes]], object] = lambda key, frames: None
        self._heard = asyncio.Event()

    @property
    def key(self) -> Key:
        return self.keys[-1]

    @property
    def received(self) -> list[bytes]:
        """The first frames of all messages."""
        return [event[2][0] for event in self.events if event[0] == "message"]

    @property
    def reasons(self) -> list[str]:
        return [event[2] for event in self.events if event[0] == "lost"]

    def send(self, *frames: Buffer) -> bool:
        return self.port.send(self.key, frames)

    def queued(self) -> int:
        return self.port.queued_bytes(self.key)

    def peer_connected(self, key: Key) -> None:
        self.keys.append(key)
        self._note("connected", key)

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        self._note("message", key, frames)
        self.reaction(key, frames)

    def read_complete(self) -> None:
        self._note("burst")

    def peer_lost(self, key: Key, reason: str) -> None:
        self._note("lost", key, reason)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._heard.clear()
            await self._heard.wait()

    async def until_connected(self, times: int = 1) -> None:
        await self.until(lambda: len(self.keys) >= times)

    async def until_lost(self, times: int = 1) -> None:
        await self.until(lambda: len(self.reasons) >= times)

    async def until_received(self, count: int) -> None:
        await self.until(lambda: len(self.received) >= count)

    def _note(self, *event: Any) -> None:
        assert threading.get_ident() == self.thread
        self.events.append(event)
        self._heard.set()


async def listening(endpoint: str, *, max_frame: int = 1 << 20, linger: float = 1.0) -> Peer:
    peer = Peer()
    peer.port = await listen(endpoint, peer, PortOptions(2.0, max_frame, linger))
    return peer


async def dialling(endpoint: str, *, max_frame: int = 1 << 20, linger: float = 1.0) -> Peer:
    peer = Peer()
    peer.port = await dial(endpoint, peer, PortOptions(2.0, max_frame, linger))
    return peer


async def pair(name: str, **options: Any) -> tuple[Peer, Peer]:
    """A listener and a dialler that are connected, their events cleared."""
    server = await listening(name, **options)
    client = await dialling(name, **options)
    await settled()
    assert server.keys
    assert client.keys
    server.events.clear()
    client.events.clear()
    return server, client


async def settled() -> None:
    """Let everything happen that needs no time."""
    for _ in range(10):
        await asyncio.sleep(0)


def chosen(side: Side, server: Peer, client: Peer) -> tuple[Peer, Peer]:
    """The peer at this side, then the one at the other."""
    return (server, client) if side == "listener" else (client, server)


both_sides = pytest.mark.parametrize("side", ["listener", "dialler"])


class TestNames:
    @pytest.mark.parametrize(
        "endpoint",
        ["", "mem", "mem:", "mem:/", "mem://", "mem:/name", "MEM://name", "tcp://127.0.0.1:1"],
    )
    async def test_what_is_no_address(self, endpoint: str) -> None:
        with pytest.raises(ValueError, match="mem://name"):
            await listening(endpoint)
        with pytest.raises(ValueError, match="mem://name"):
            await dialling(endpoint)
        with pytest.raises(ValueError, match="mem://name"):
            faults(endpoint)

    async def test_wildcard_is_for_listeners(self) -> None:
        with pytest.raises(ValueError, match="mem://name"):
            await dialling("mem://*")
        with pytest.raises(ValueError, match="mem://name"):
            faults("mem://*")

    async def test_wildcard_avoids_names_in_use(self) -> None:
        first = await listening("mem://*")
        number = int(first.port.endpoints[0].removeprefix("mem://"))
        taken = await listening(f"mem://{number + 1}")
        waited_for = await dialling(f"mem://{number + 2}")
        second = await listening("mem://*")
        assert second.port.endpoints == (f"mem://{number + 3}",)
        await settled()
        assert not waited_for.events
        assert not taken.events

    async def test_name_in_use(self, name: str) -> None:
        first = await listening(name)
        with pytest.raises(OSError, match=f"{name} already") as caught:
            await listening(name)
        assert caught.value.errno == errno.EADDRINUSE
        client = await dialling(name)
        await client.until_connected()
        assert client.send(b"to the first")
        await first.until_received(1)

    async def test_name_is_free_once_closed(self, name: str) -> None:
        first = await listening(name)
        first.port.close()
        second = await listening(name)
        client = await dialling(name)
        await second.until_connected()
        assert not first.events
        assert client.port.endpoints == second.port.endpoints == (name,)

    async def test_names_are_apart(self, name: str) -> None:
        server = await listening(name)
        client = await dialling(f"{name}/deeper")
        await settled()
        assert not server.events
        assert not client.events

    async def test_loss_is_not_noticed(self, name: str) -> None:
        for peer in await pair(name):
            assert peer.port.notices_loss is False


class TestConnecting:
    async def test_both_are_told_in_a_later_turn(self, name: str) -> None:
        server = await listening(name)
        client = await dialling(name)
        assert not server.events
        assert not client.events
        await asyncio.sleep(0)
        assert server.events == [("connected", server.key)]
        assert client.events == [("connected", client.key)]

    async def test_diallers_that_wait(self, name: str) -> None:
        clients = [await dialling(name) for _ in range(5)]
        await settled()
        assert not any(client.events for client in clients)
        server = await listening(name)
        await server.until_connected(5)
        for client, key in zip(clients, server.keys, strict=True):
            await client.until_connected()
            assert server.port.send(key, [b"it is you"])
            await client.until_received(1)
        assert len(set(server.keys)) == 5

    async def test_listener_that_comes_back(self, name: str) -> None:
        server, client = await pair(name)
        first = client.key
        server.port.close()
        await client.until_lost()
        await settled()
        assert len(client.keys) == 1
        server = await listening(name)
        await settled()
        second = client.key
        assert second != first
        assert client.events == [
            ("lost", first, "the peer closed the connection"),
            ("connected", second),
        ]
        assert client.port.send(first, [b"old"]) is False
        assert client.port.send(second, [b"new"]) is True
        await server.until_received(1)
        assert server.received == [b"new"]

    async def test_listener_that_comes_back_before_the_loss_is_told(self, name: str) -> None:
        server, client = await pair(name)
        first = client.key
        server.port.close()
        await listening(name)
        await settled()
        assert [event[0] for event in client.events] == ["lost", "connected"]
        assert client.events[0][1] == first

    async def test_refused_dialler_pauses(self, name: str) -> None:
        server = await listening(name)

        def refuse(key: Key) -> None:
            Peer.peer_connected(server, key)
            server.port.disconnect(key)

        server.peer_connected = refuse  # type: ignore[method-assign]
        start = time.monotonic()
        client = await dialling(name)
        await client.until_lost(4)
        # Three pauses, each rounded to the resolution of the loop's clock.
        assert time.monotonic() - start > 2 * RECONNECT_PAUSE
        assert client.keys == server.keys
        client.port.close()


class TestDelivery:
    async def test_one_turn_is_one_burst(self, name: str) -> None:
        server, client = await pair(name)
        for number in range(3):
            assert client.send(b"%d" % number, b"more")
        assert not server.events
        await asyncio.sleep(0)
        assert server.events == [
            ("message", server.key, (b"0", b"more")),
            ("message", server.key, (b"1", b"more")),
            ("message", server.key, (b"2", b"more")),
            ("burst",),
        ]

    async def test_one_turn_of_several_peers_is_one_burst(self, name: str) -> None:
        server, first = await pair(name)
        second = await dialling(name)
        await second.until_connected()
        server.events.clear()
        for client in (first, second, first):
            client.send(b"message")
        await asyncio.sleep(0)
        assert [event[0] for event in server.events] == ["message"] * 3 + ["burst"]
        assert server.events[0][1] == server.events[2][1] != server.events[1][1]

    async def test_connection_alone_is_no_burst(self, name: str) -> None:
        server = await listening(name)
        client = await dialling(name)
        await settled()
        client.port.close()
        await settled()
        assert [event[0] for event in server.events] == ["connected", "lost"]

    async def test_answer_comes_in_a_later_turn(self, name: str) -> None:
        server, client = await pair(name)
        server.reaction = lambda key, frames: server.send(*frames)
        client.reaction = lambda key, frames: client.send(*frames)
        client.send(b"to and fro for ever")
        for turns in range(20):
            await asyncio.sleep(0)
            assert abs(len(server.received) + len(client.received) - turns) <= 1
        server.port.close()

    async def test_bytes_are_not_copied(self, name: str) -> None:
        server, client = await pair(name)
        frame = bytes(1_000)
        client.send(frame)
        await server.until_received(1)
        assert server.received[0] is frame

    async def test_what_may_change_is_copied(self, name: str) -> None:
        server, client = await pair(name)
        changing = bytearray(b"before")
        client.send(changing, memoryview(changing)[:2])
        changing[:] = b"after!"
        await server.until_received(1)
        _, _, frames = server.events[0]
        assert frames == (b"before", b"be")
        assert [type(frame) for frame in frames] == [bytes, bytes]

    async def test_views_of_any_shape(self, name: str) -> None:
        server, client = await pair(name)
        numbers = array.array("I", [1, 2])
        client.send(memoryview(b"abcdef")[::2], memoryview(numbers))
        await server.until_received(1)
        assert server.events[0][2] == (b"ace", numbers.tobytes())
        assert client.queued() == 0

    async def test_message_without_frames(self, name: str) -> None:
        _, client = await pair(name)
        with pytest.raises(ValueError, match="at least one frame"):
            client.send()

    @pytest.mark.parametrize("frame", ["text", 7, None, [b"nested"]])
    async def test_frame_that_is_no_bytes(self, name: str, frame: Any) -> None:
        server, client = await pair(name)
        with pytest.raises(TypeError):
            client.send(b"head", frame)
        await settled()
        assert not server.events

    async def test_owner_that_raises(self, name: str) -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        server, client = await pair(name)

        def fail_once(key: Key, frames: Sequence[bytes]) -> None:
            if frames[0] == b"1":
                raise ZeroDivisionError

        server.reaction = fail_once
        for number in range(3):
            client.send(b"%d" % number)
        await server.until_received(3)
        assert server.received == [b"0", b"1", b"2"]
        assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]

    async def test_owner_does_not_see_the_context_of_the_sender(self, name: str) -> None:
        variable = contextvars.ContextVar("variable", default="unset")
        server, client = await pair(name)
        seen: list[str] = []
        server.reaction = lambda key, frames: seen.append(variable.get())
        variable.set("the sender's")
        client.send(b"message")
        await server.until_received(1)
        assert seen == ["unset"]


class TestQueuedBytes:
    async def test_counts_until_delivered(self, name: str) -> None:
        server, client = await pair(name)
        counts: list[int] = []
        server.reaction = lambda key, frames: counts.append(client.queued())
        client.send(bytes(10), bytes(5))
        client.send(bytes(100))
        assert client.queued() == 115
        assert server.queued() == 0
        await server.until_received(2)
        assert counts == [100, 0]

    async def test_of_a_peer_that_is_gone(self, name: str) -> None:
        server, client = await pair(name)
        client.send(bytes(10))
        server.port.close()
        await client.until_lost()
        assert client.queued() == 0

    async def test_peers_are_counted_apart(self, name: str) -> None:
        server = await listening(name)
        for _ in range(2):
            await dialling(name)
        await server.until_connected(2)
        server.port.send(server.keys[0], [bytes(7)])
        assert [server.port.queued_bytes(key) for key in server.keys] == [7, 0]


class TestClosing:
    @both_sides
    async def test_is_told_after_what_was_sent(self, name: str, side: Side) -> None:
        closing, other = chosen(side, *await pair(name))
        closing.send(b"last words")
        closing.port.close()
        await other.until_lost()
        await settled()
        assert other.events == [
            ("message", other.key, (b"last words",)),
            ("lost", other.key, "the peer closed the connection"),
            ("burst",),
        ]
        assert not closing.events

    @both_sides
    async def test_closing_port_hears_nothing(self, name: str, side: Side) -> None:
        closing, other = chosen(side, *await pair(name))
        other.send(b"too late")
        closing.port.close()
        assert other.send(b"and later") is False
        assert closing.send(b"from the grave") is False
        assert other.queued() == 0
        await other.until_lost()
        await settled()
        assert not closing.events

    async def test_waits_until_all_is_read(self, name: str) -> None:
        server, client = await pair(name, linger=1_000.0)
        client.send(b"last words")
        client.port.close()
        waiting = asyncio.ensure_future(client.port.wait_closed())
        while not waiting.done():
            assert not server.received
            await asyncio.sleep(0)
            if server.received:
                await waiting

    async def test_waits_no_longer_than_linger(self, name: str, link: Faults) -> None:
        server, client = await pair(name, linger=0.001)
        link.freeze()
        client.send(b"last words")
        client.port.close()
        await client.port.wait_closed()
        assert not server.events
        link.thaw()
        await server.until_lost()
        assert server.received == [b"last words"]

    async def test_waits_for_no_one_who_drops_it(self, name: str) -> None:
        server, client = await pair(name, linger=1_000.0)
        client.send(b"last words")
        client.port.close()
        server.port.close()
        await client.port.wait_closed()
        await server.port.wait_closed()

    async def test_close_in_the_middle_of_a_burst(self, name: str) -> None:
        server, client = await pair(name)
        server.reaction = lambda key, frames: server.port.close()
        for number in range(3):
            client.send(b"%d" % number)
        await client.until_lost()
        assert server.events == [("message", server.key, (b"0",))]
        await server.port.wait_closed()

    async def test_closed_dialler_stays_away(self, name: str) -> None:
        server, client = await pair(name)
        server.port.close()
        await client.until_lost()
        client.port.close()
        server = await listening(name)
        await pause_is_over()
        assert not server.events


class TestDisconnect:
    @both_sides
    async def test_drops_what_is_queued(self, name: str, side: Side) -> None:
        leaving, other = chosen(side, *await pair(name))
        left = leaving.key
        leaving.send(b"taken back")
        leaving.port.disconnect(left)
        assert leaving.port.queued_bytes(left) == 0
        assert leaving.port.send(left, [b"late"]) is False
        await other.until_lost()
        assert other.events == [("lost", left, "the peer ended the connection")]
        assert not leaving.events

    @both_sides
    async def test_dialler_connects_again(self, name: str, side: Side) -> None:
        server, client = await pair(name)
        leaving, _ = chosen(side, server, client)
        leaving.port.disconnect(leaving.key)
        await client.until_connected(2)
        assert client.send(b"back again")
        await server.until_received(1)
        assert server.events[-2] == ("message", server.key, (b"back again",))
        assert server.keys[0] != server.keys[1]

    async def test_nothing_comes_from_a_forgotten_peer(self, name: str) -> None:
        server, client = await pair(name)
        server.reaction = lambda key, frames: server.port.disconnect(key)
        forgotten = client.key
        for number in range(3):
            client.send(b"%d" % number)
        await client.until_lost()
        await settled()
        assert server.received == [b"0"]
        assert client.port.queued_bytes(forgotten) == 0
        client.port.close()

    async def test_key_that_is_not_there(self, name: str) -> None:
        server, client = await pair(name)
        server.port.disconnect(object())
        server.port.disconnect(server.key)
        server.port.disconnect(server.key)
        await client.until_lost()
        await pause_is_over()
        assert len(client.reasons) == 1

    async def test_other_peers_are_kept(self, name: str) -> None:
        server, first = await pair(name)
        second = await dialling(name)
        await second.until_connected()
        first.send(b"one")
        second.send(b"two")
        server.port.disconnect(server.keys[0])
        await server.until_received(1)
        assert server.received == [b"two"]
        assert not second.reasons


class TestMaxFrame:
    @both_sides
    async def test_connection_is_cut(self, name: str, side: Side) -> None:
        sender, receiver = chosen(side, *await pair(name, max_frame=100))
        key = sender.key
        assert sender.send(bytes(100), bytes(100))
        assert sender.send(b"x", bytes(101))
        sender.send(b"after it")
        receiver.send(b"on its way")
        await asyncio.gather(sender.until_lost(), receiver.until_lost())
        reason = "a frame of 101 bytes is over the receiver's limit of 100"
        assert receiver.events[0] == ("message", key, (bytes(100), bytes(100)))
        assert receiver.reasons == sender.reasons == [reason]
        assert receiver.received == [bytes(100)]
        assert sender.received == [b"on its way"]
        assert sender.port.queued_bytes(key) == 0

    async def test_sender_that_has_closed(self, name: str) -> None:
        server, client = await pair(name, max_frame=100)
        client.send(bytes(101))
        client.port.close()
        await server.until_lost()
        await client.port.wait_closed()
        assert not server.received
        assert server.reasons == ["the peer closed the connection"]
        assert not client.events

    async def test_limit_is_the_receivers(self, name: str) -> None:
        server = await listening(name, max_frame=1_000)
        client = await dialling(name, max_frame=10)
        await client.until_connected()
        assert client.send(bytes(1_000))
        await server.until_received(1)
        server.send(bytes(11))
        await server.until_lost()
        await client.until_connected(2)
        assert client.send(b"works again")
        await server.until_received(2)

    async def test_nobody_else_is_lost(self, name: str) -> None:
        server, bad = await pair(name, max_frame=100)
        good = await dialling(name)
        await good.until_connected()
        bad.send(bytes(101))
        good.send(b"still here")
        await server.until_received(1)
        await bad.until_lost()
        assert not good.reasons


class LoopThread:
    """An event loop in a thread of its own, in debug mode."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.reports: list[dict[str, Any]] = []
        self._stop: asyncio.Event
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        self._started.result(10)

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def close(self) -> None:
        """Close the loop, as it is."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert not self.reports

    def _main(self) -> None:
        asyncio.run(self._serve(), debug=True)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, report: self.reports.append(report))
        self._stop = asyncio.Event()
        self._started.set_result(None)
        await self._stop.wait()


@pytest.fixture
def elsewhere() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


class TestThreads:
    async def test_echo(self, name: str, elsewhere: LoopThread) -> None:
        client = await dialling(name)
        server = await elsewhere.run(listening(name))
        server.reaction = lambda key, frames: server.port.send(key, frames)
        await client.until_connected()
        for number in range(1_000):
            assert client.send(b"%d" % number, bytes(number))
        await client.until_received(1_000)
        assert client.received == server.received == [b"%d" % number for number in range(1_000)]
        assert client.queued() == 0

    async def test_close_there(self, name: str, elsewhere: LoopThread) -> None:
        server, client = await listening(name), await elsewhere.run(dialling(name))
        await elsewhere.run(client.until_connected())

        async def say_and_close() -> None:
            client.send(b"last words")
            client.port.close()
            await client.port.wait_closed()

        await elsewhere.run(say_and_close())
        await server.until_lost()
        assert server.received == [b"last words"]

    async def test_close_here(self, name: str, elsewhere: LoopThread) -> None:
        server, client = await listening(name), await elsewhere.run(dialling(name))
        await server.until_connected()
        server.send(b"last words")
        server.port.close()
        await server.port.wait_closed()
        await elsewhere.run(client.until_lost())
        assert client.received == [b"last words"]
        server = await listening(name)
        await elsewhere.run(client.until_connected(2))

    async def test_many_threads_to_one_listener(self, name: str) -> None:
        threads = [LoopThread() for _ in range(4)]

        async def talk(label: bytes) -> Peer:
            client = await dialling(name)
            await client.until_connected()
            for number in range(500):
                assert client.send(label, b"%d" % number)
                if number % 7 == 0:
                    await asyncio.sleep(0)
            await client.until_received(500)
            return client

        try:
            server = await listening(name)
            server.reaction = lambda key, frames: server.port.send(key, frames)
            clients = await asyncio.gather(
                *(thread.run(talk(b"%d" % label)) for label, thread in enumerate(threads))
            )
        finally:
            for thread in threads:
                thread.close()
        for label, client in enumerate(clients):
            sent = [(b"%d" % label, b"%d" % number) for number in range(500)]
            assert [event[2] for event in client.events if event[0] == "message"] == sent
            received = [event[2] for event in server.events if event[0] == "message"]
            assert [frames for frames in received if frames[0] == b"%d" % label] == sent

    async def test_faults_from_another_thread(
        self, name: str, link: Faults, elsewhere: LoopThread
    ) -> None:
        server, client = await pair(name)
        await asyncio.to_thread(link.cut)
        await asyncio.gather(server.until_lost(), client.until_connected(2))
        await asyncio.to_thread(link.freeze)
        client.send(b"kept")
        await settled()
        assert not server.received
        await asyncio.to_thread(link.thaw)
        await server.until_received(1)
        waiting = asyncio.ensure_future(server.port.wait_closed())
        await asyncio.to_thread(link.kill)
        await waiting
        await client.until_lost(2)


class TestClosedLoops:
    async def test_listener_is_gone(self, name: str, elsewhere: LoopThread) -> None:
        client = await dialling(name)
        await elsewhere.run(listening(name))
        await client.until_connected()
        elsewhere.close()
        assert client.send(b"to nobody") is False
        await client.until_lost()
        assert client.reasons == ["the peer's event loop was closed"]
        assert not client.received
        server = await listening(name)
        await client.until_connected(2)
        assert client.send(b"to somebody")
        await server.until_received(1)

    async def test_dialler_is_gone(self, name: str, elsewhere: LoopThread) -> None:
        server = await listening(name)
        await elsewhere.run(dialling(name))
        await server.until_connected()
        elsewhere.close()
        assert server.send(b"to nobody") is False
        await server.until_lost()
        assert server.queued() == 0
        await settled()
        assert len(server.keys) == 1

    async def test_name_is_free(self, name: str, elsewhere: LoopThread) -> None:
        client = await dialling(name)
        await elsewhere.run(listening(name))
        await client.until_connected()
        elsewhere.close()
        server = await listening(name)
        await client.until_connected(2)
        await server.until_connected()
        assert client.reasons == ["the peer's event loop was closed"]

    async def test_dial_to_it(self, name: str, elsewhere: LoopThread) -> None:
        await elsewhere.run(listening(name))
        elsewhere.close()
        client = await dialling(name)
        await settled()
        assert not client.events
        server = await listening(name)
        await client.until_connected()
        await server.until_connected()

    async def test_listen_for_it(self, name: str, elsewhere: LoopThread) -> None:
        await elsewhere.run(dialling(name))
        elsewhere.close()
        living = await dialling(name)
        server = await listening(name)
        await living.until_connected()
        await server.until_connected(2)
        await settled()
        assert [event[0] for event in server.events] == ["connected", "lost", "connected"]
        assert server.send(b"to the living")
        await living.until_received(1)

    async def test_send_twice_to_it(self, name: str, link: Faults, elsewhere: LoopThread) -> None:
        server = await listening(name)
        await elsewhere.run(dialling(name))
        await server.until_connected()
        elsewhere.close()
        link.duplicate(towards="dialler")
        assert server.send(b"to nobody") is False
        assert server.queued() == 0

    async def test_close_to_it(self, name: str, elsewhere: LoopThread) -> None:
        server = await listening(name, linger=1_000.0)
        await elsewhere.run(dialling(name))
        await server.until_connected()
        elsewhere.close()
        server.port.close()
        await server.port.wait_closed()

    def test_closed_with_a_delivery_scheduled(self, name: str) -> None:
        # Not a Runner: closing that runs the loop once more.
        first = asyncio.new_event_loop()
        try:
            server = first.run_until_complete(listening(name))
            with asyncio.Runner() as second:
                client = second.run(dialling(name))
                second.run(client.until_connected())
                assert client.send(b"scheduled, and never read")
                first.close()
                assert client.send(b"noticed") is False
                assert client.queued() == 0
                second.run(client.until_lost())
            assert not server.events
        finally:
            first.close()

    def test_loop_that_only_rests(self, name: str) -> None:
        with asyncio.Runner() as first, asyncio.Runner() as second:
            server = first.run(listening(name))
            client = second.run(dialling(name))
            second.run(client.until_connected())
            assert client.send(b"kept")
            second.run(settled())
            assert client.queued() == 4
            first.run(server.until_received(1))
            assert client.queued() == 0


class TestDelay:
    async def test_order_is_kept(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        arrivals: list[float] = []
        server.reaction = lambda key, frames: arrivals.append(time.monotonic())
        link.delay = 0.03
        assert link.delay == 0.03
        start = time.monotonic()
        client.send(b"0")
        await settled()
        client.send(b"1")
        link.delay = 0.0
        client.send(b"2")
        assert client.queued() == 3
        await server.until_received(3)
        assert server.received == [b"0", b"1", b"2"]
        assert min(arrivals) - start >= 0.03
        assert client.queued() == 0

    @both_sides
    async def test_both_directions(self, name: str, link: Faults, side: Side) -> None:
        sender, receiver = chosen(side, *await pair(name))
        link.delay = 0.02
        start = time.monotonic()
        sender.send(b"message")
        await receiver.until_received(1)
        assert time.monotonic() - start >= 0.02

    async def test_close_is_delayed_too(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.delay = 0.02
        start = time.monotonic()
        client.send(b"last words")
        client.port.close()
        await client.port.wait_closed()
        await server.until_lost()
        assert time.monotonic() - start >= 0.02
        assert server.received == [b"last words"]

    async def test_what_is_under_way_is_cut(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.delay = 1_000.0
        client.send(b"never arrives")
        await settled()
        link.cut()
        await asyncio.gather(server.until_lost(), client.until_lost())
        assert not server.received
        await client.until_connected(2)

    @pytest.mark.parametrize("seconds", [-1.0, float("nan")])
    async def test_what_is_no_delay(self, link: Faults, seconds: float) -> None:
        with pytest.raises(ValueError, match="0 seconds or more"):
            link.delay = seconds


class TestDropAndDuplicate:
    @both_sides
    async def test_drop(self, name: str, link: Faults, side: Side) -> None:
        receiver, sender = chosen(side, *await pair(name))
        link.drop(2, towards=side)
        for number in range(4):
            assert sender.send(b"%d" % number)
            assert receiver.send(b"%d" % number)
        assert sender.queued() == 2
        await receiver.until_received(2)
        await sender.until_received(4)
        assert receiver.received == [b"2", b"3"]

    @both_sides
    async def test_duplicate(self, name: str, link: Faults, side: Side) -> None:
        receiver, sender = chosen(side, *await pair(name))
        link.duplicate(towards=side)
        for number in range(2):
            sender.send(b"%d" % number)
            receiver.send(b"%d" % number)
        assert sender.queued() == 3
        await receiver.until_received(3)
        await settled()
        assert receiver.received == [b"0", b"0", b"1"]
        assert sender.received == [b"0", b"1"]
        assert sender.queued() == 0

    async def test_one_after_the_other(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.duplicate(2, towards="listener")
        link.drop(towards="listener")
        link.drop(towards="listener")
        for number in range(5):
            client.send(b"%d" % number)
        await server.until_received(5)
        assert server.received == [b"2", b"2", b"3", b"3", b"4"]

    async def test_set_before_anybody_is_there(self, name: str, link: Faults) -> None:
        link.drop(towards="listener")
        server, client = await pair(name)
        client.send(b"0")
        client.send(b"1")
        await server.until_received(1)
        assert server.received == [b"1"]


class TestCutAndDown:
    async def test_cut(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        key = client.key
        client.send(b"under way")
        link.cut()
        assert client.send(b"late") is False
        assert server.send(b"late") is False
        assert client.queued() == 0
        await client.until_connected(2)
        for peer in (server, client):
            assert peer.events == [
                ("lost", key, "the connection was cut"),
                ("connected", client.key),
            ]
        assert client.key != key
        assert client.send(b"over the new one")
        await server.until_received(1)

    async def test_cut_of_many(self, name: str, link: Faults) -> None:
        server = await listening(name)
        clients = [await dialling(name) for _ in range(3)]
        await settled()
        link.cut()
        await server.until_connected(6)
        assert len(set(server.keys)) == 6
        for client in clients:
            await client.until_connected(2)
            assert len(client.reasons) == 1

    async def test_cut_of_what_is_closing(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        client.send(b"last words")
        client.port.close()
        link.cut()
        await client.port.wait_closed()
        await settled()
        assert server.events == [("lost", server.key, "the peer closed the connection")]
        assert not client.events

    async def test_cut_without_anybody(self, link: Faults) -> None:
        link.cut()

    async def test_down(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.down()
        await asyncio.gather(server.until_lost(), client.until_lost())
        newcomer = await dialling(name)
        # The dialler tries after its pause, in vain.
        await pause_is_over()
        assert client.reasons == ["the network is down"]
        assert len(client.keys) == 1
        assert not newcomer.events
        link.up()
        await asyncio.gather(client.until_connected(2), newcomer.until_connected())
        assert not newcomer.reasons

    async def test_down_from_the_start(self, name: str, link: Faults) -> None:
        link.down()
        server = await listening(name)
        client = await dialling(name)
        await settled()
        assert not client.events
        link.up()
        await asyncio.gather(server.until_connected(), client.until_connected())


async def pause_is_over() -> None:
    """The timer of a dialler that lost its peer just now has run."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(2 * RECONNECT_PAUSE, over.set)
    await over.wait()


class TestSilence:
    @both_sides
    async def test_swallows(self, name: str, link: Faults, side: Side) -> None:
        sender, receiver = chosen(side, *await pair(name))
        sender.send(b"under way")
        link.silence()
        assert sender.queued() == 0
        assert sender.send(b"swallowed") is True
        assert sender.queued() == 0
        await settled()
        assert not receiver.events
        link.restore()
        assert sender.send(b"after it")
        await receiver.until_received(1)
        assert receiver.received == [b"after it"]
        assert not receiver.reasons
        assert not sender.reasons

    @both_sides
    async def test_close_is_not_told(self, name: str, link: Faults, side: Side) -> None:
        closing, other = chosen(side, *await pair(name))
        link.silence()
        closing.port.close()
        await closing.port.wait_closed()
        await settled()
        assert not other.events
        assert other.send(b"to nobody") is True
        link.restore()
        await other.until_lost()
        assert other.reasons == ["the peer went away while the network was cut"]
        assert other.port.send(other.keys[0], [b"late"]) is False

    async def test_disconnect_is_not_told(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.silence()
        client.port.disconnect(client.key)
        await pause_is_over()
        assert not server.events
        assert not client.events
        link.restore()
        await server.until_lost()
        await client.until_connected(2)
        await server.until_connected(2)
        assert len(server.reasons) == 1
        assert not client.reasons

    async def test_nobody_connects(self, name: str, link: Faults) -> None:
        link.silence()
        server = await listening(name)
        client = await dialling(name)
        await settled()
        assert not server.events
        assert not client.events
        link.restore()
        await asyncio.gather(server.until_connected(), client.until_connected())

    async def test_listener_that_restarts_meanwhile(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.silence()
        server.port.close()
        server = await listening(name)
        await settled()
        assert not client.events
        link.restore()
        await settled()
        assert [event[0] for event in client.events] == ["lost", "connected"]
        assert client.send(b"to the second")
        await server.until_received(1)

    async def test_both_leave(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.silence()
        server.port.disconnect(server.key)
        client.port.disconnect(client.key)
        link.restore()
        await settled()
        assert [event[0] for event in server.events + client.events] == ["connected"] * 2

    async def test_cut_is_told(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.silence()
        link.cut()
        await asyncio.gather(server.until_lost(), client.until_lost())
        await pause_is_over()
        assert len(client.keys) == 1


class TestFreeze:
    async def test_everything_is_kept(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        client.send(b"0")
        link.freeze()
        client.send(b"1")
        await settled()
        assert not server.events
        assert client.queued() == 2
        link.thaw()
        await server.until_received(2)
        assert server.received == [b"0", b"1"]
        assert client.queued() == 0

    async def test_in_the_middle_of_a_burst(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        server.reaction = lambda key, frames: link.freeze()
        for number in range(2):
            client.send(b"%d" % number)
        await settled()
        assert server.received == [b"0"]
        link.thaw()
        await server.until_received(2)

    async def test_listener_does_not_speak(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.freeze()
        assert server.send(b"held", b"back") is True
        assert server.queued() == 8
        await settled()
        assert not client.events
        link.thaw()
        await client.until_received(1)
        assert client.events[0] == ("message", client.key, (b"held", b"back"))
        assert server.queued() == 0

    async def test_listener_leaves_its_peer(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.freeze()
        server.send(b"taken back")
        server.port.disconnect(server.key)
        await settled()
        assert not client.events
        link.thaw()
        await client.until_lost()
        assert not client.received
        assert client.reasons == ["the peer ended the connection"]

    async def test_listener_speaks_to_one_who_left(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.freeze()
        assert server.send(b"to nobody") is True
        client.port.close()
        await settled()
        assert not server.events
        link.thaw()
        await server.until_lost()
        assert server.queued() == 0

    async def test_newcomers_wait(self, name: str, link: Faults) -> None:
        server, _ = await pair(name)
        link.freeze()
        newcomer = await dialling(name)
        await settled()
        assert not newcomer.events
        link.thaw()
        await asyncio.gather(newcomer.until_connected(), server.until_connected(2))

    async def test_dialler_that_gives_up(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.freeze()
        client.send(b"was on its way")
        client.port.disconnect(client.key)
        await pause_is_over()
        assert not client.events
        assert len(client.keys) == 1
        link.thaw()
        await asyncio.gather(server.until_connected(2), client.until_connected(2))
        assert [event[0] for event in server.events] == ["message", "lost", "connected", "burst"]

    async def test_delay_goes_on(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.delay = 0.01
        client.send(b"message")
        link.freeze()
        await pause_is_over()
        assert not server.events
        link.thaw()
        await server.until_received(1)

    async def test_silence_leaves_what_has_arrived(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.freeze()
        client.send(b"arrived")
        link.silence()
        client.send(b"swallowed")
        link.restore()
        link.thaw()
        await server.until_received(1)
        await settled()
        assert server.received == [b"arrived"]

    async def test_close_thaws(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.freeze()
        server.send(b"held")
        server.port.close()
        await client.until_lost()
        assert client.received == [b"held"]
        await server.port.wait_closed()

    async def test_next_listener_is_not_frozen(self, name: str, link: Faults) -> None:
        _, client = await pair(name)
        link.freeze()
        client.send(b"to the first")
        link.kill()
        server = await listening(name)
        await client.until_connected(2)
        client.send(b"to the second")
        await server.until_received(1)
        assert server.received == [b"to the second"]

    async def test_without_a_listener(self, name: str, link: Faults) -> None:
        await dialling(name)
        with pytest.raises(LookupError, match=f"nobody listens on {name}"):
            link.freeze()
        link.thaw()

    async def test_thaw_of_what_is_not_frozen(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.thaw()
        client.send(b"message")
        await server.until_received(1)
        assert not server.reasons


class TestKill:
    async def test_kill(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        server.send(b"had left already")
        client.send(b"never read")
        key = client.key
        link.kill()
        assert client.send(b"late") is False
        assert client.queued() == 0
        assert server.send(b"from the grave") is False
        await client.until_lost()
        await settled()
        assert client.events == [
            ("message", key, (b"had left already",)),
            ("lost", key, "the peer was killed"),
            ("burst",),
        ]
        assert not server.events
        server.port.close()
        await server.port.wait_closed()

    async def test_name_is_free(self, name: str, link: Faults) -> None:
        _, client = await pair(name)
        link.kill()
        server = await listening(name)
        await client.until_connected(2)
        assert client.send(b"to the next")
        await server.until_received(1)

    async def test_of_a_frozen_listener(self, name: str, link: Faults) -> None:
        server, client = await pair(name)
        link.freeze()
        server.send(b"never left")
        client.send(b"never read")
        link.kill()
        await client.until_lost()
        await settled()
        assert not client.received
        assert not server.events
        await server.port.wait_closed()

    async def test_behind_a_silent_network(self, name: str, link: Faults) -> None:
        _, client = await pair(name)
        link.silence()
        link.kill()
        await settled()
        assert not client.events
        link.restore()
        await client.until_lost()

    async def test_without_a_listener(self, name: str, link: Faults) -> None:
        server = await listening(name)
        server.port.close()
        with pytest.raises(LookupError, match=f"nobody listens on {name}"):
            link.kill()

    async def test_of_all_diallers_peers(self, name: str, link: Faults) -> None:
        await listening(name)
        clients = [await dialling(name) for _ in range(3)]
        await settled()
        link.kill()
        for client in clients:
            await client.until_lost()


class TestForgetting:
    async def test_faults_last_while_a_port_is_kept(self, name: str) -> None:
        client = await dialling(name)
        faults(name).delay = 1.0
        gc.collect()
        assert faults(name).delay == 1.0
        client.port.close()
        await client.port.wait_closed()

    async def test_name_is_forgotten_with_its_last_port(self, name: str) -> None:
        faults(name).delay = 1.0
        gc.collect()
        assert faults(name).delay == 0.0

    async def test_ports_that_were_never_closed(self, name: str) -> None:
        def open_and_leave() -> None:
            async def leave() -> None:
                await pair(name)
                faults(name).delay = 1.0

            asyncio.run(leave())

        await asyncio.to_thread(open_and_leave)
        gc.collect()
        assert faults(name).delay == 0.0
