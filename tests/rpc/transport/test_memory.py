"""The in-memory transport: what it does beyond the checks of `conformance`."""

import array
import asyncio
import contextvars
import errno
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from memory_peers import (
    LoopThread,
    Peer,
    both_sides,
    chosen,
    dialling,
    listening,
    pair,
    pause_is_over,
    settled,
)

from berrymq_rpc.rpc.transport.memory import RECONNECT_PAUSE, Side
from berrymq_rpc.rpc.transport.port import Key
from berrymq_rpc.testing import LinkFaults, link_faults

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"mem://test-memory-{next(_numbers)}"


@pytest.fixture
def link(name: str) -> LinkFaults:
    return link_faults(name)


@pytest.fixture
def elsewhere() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


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

    async def test_wildcard_is_for_listeners(self) -> None:
        with pytest.raises(ValueError, match="mem://name"):
            await dialling("mem://*")

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
        with pytest.raises(OSError, match=f"{name} is in use: this process") as caught:
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

    async def test_waits_no_longer_than_linger(self, name: str, link: LinkFaults) -> None:
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
        self, name: str, link: LinkFaults, elsewhere: LoopThread
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
        assert client.send(b"to no peer") is False
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
        assert server.send(b"to no peer") is False
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

    async def test_send_twice_to_it(
        self, name: str, link: LinkFaults, elsewhere: LoopThread
    ) -> None:
        server = await listening(name)
        await elsewhere.run(dialling(name))
        await server.until_connected()
        elsewhere.close()
        link.duplicate(towards="dialler")
        assert server.send(b"to no peer") is False
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
