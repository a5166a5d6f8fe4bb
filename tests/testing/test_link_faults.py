"""What goes wrong on a link of the in-memory transport, and how its ends notice."""

import asyncio
import gc
import itertools
import time

import pytest
from memory_peers import both_sides, chosen, dialling, listening, pair, pause_is_over, settled

from berrymq_rpc.rpc.transport.memory import Side
from berrymq_rpc.testing import LinkFaults, link_faults

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"mem://test-link-faults-{next(_numbers)}"


@pytest.fixture
def link(name: str) -> LinkFaults:
    return link_faults(name)


@pytest.mark.parametrize("endpoint", ["", "mem://", "MEM://name", "tcp://127.0.0.1:1", "mem://*"])
def test_what_is_not_an_address(endpoint: str) -> None:
    with pytest.raises(ValueError, match="mem://name"):
        link_faults(endpoint)


class TestDelay:
    async def test_order_is_kept(self, name: str, link: LinkFaults) -> None:
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
    async def test_both_directions(self, name: str, link: LinkFaults, side: Side) -> None:
        sender, receiver = chosen(side, *await pair(name))
        link.delay = 0.02
        start = time.monotonic()
        sender.send(b"message")
        await receiver.until_received(1)
        assert time.monotonic() - start >= 0.02

    async def test_close_is_delayed_too(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.delay = 0.02
        start = time.monotonic()
        client.send(b"last words")
        client.port.close()
        await client.port.wait_closed()
        await server.until_lost()
        assert time.monotonic() - start >= 0.02
        assert server.received == [b"last words"]

    async def test_what_is_under_way_is_cut(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.delay = 1_000.0
        client.send(b"never arrives")
        await settled()
        link.cut()
        await asyncio.gather(server.until_lost(), client.until_lost())
        assert not server.received
        await client.until_connected(2)

    @pytest.mark.parametrize("seconds", [-1.0, float("nan")])
    async def test_what_is_no_delay(self, link: LinkFaults, seconds: float) -> None:
        with pytest.raises(ValueError, match="0 seconds or more"):
            link.delay = seconds


class TestDropAndDuplicate:
    @both_sides
    async def test_drop(self, name: str, link: LinkFaults, side: Side) -> None:
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
    async def test_duplicate(self, name: str, link: LinkFaults, side: Side) -> None:
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

    async def test_one_after_the_other(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.duplicate(2, towards="listener")
        link.drop(towards="listener")
        link.drop(towards="listener")
        for number in range(5):
            client.send(b"%d" % number)
        await server.until_received(5)
        assert server.received == [b"2", b"2", b"3", b"3", b"4"]

    async def test_set_before_anybody_is_there(self, name: str, link: LinkFaults) -> None:
        link.drop(towards="listener")
        server, client = await pair(name)
        client.send(b"0")
        client.send(b"1")
        await server.until_received(1)
        assert server.received == [b"1"]


class TestCutAndDown:
    async def test_cut(self, name: str, link: LinkFaults) -> None:
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

    async def test_cut_of_many(self, name: str, link: LinkFaults) -> None:
        server = await listening(name)
        clients = [await dialling(name) for _ in range(3)]
        await settled()
        link.cut()
        await server.until_connected(6)
        assert len(set(server.keys)) == 6
        for client in clients:
            await client.until_connected(2)
            assert len(client.reasons) == 1

    async def test_cut_of_what_is_closing(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        client.send(b"last words")
        client.port.close()
        link.cut()
        await client.port.wait_closed()
        await settled()
        assert server.events == [("lost", server.key, "the peer closed the connection")]
        assert not client.events

    async def test_cut_without_anybody(self, link: LinkFaults) -> None:
        link.cut()

    async def test_down(self, name: str, link: LinkFaults) -> None:
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

    async def test_down_from_the_start(self, name: str, link: LinkFaults) -> None:
        link.down()
        server = await listening(name)
        client = await dialling(name)
        await settled()
        assert not client.events
        link.up()
        await asyncio.gather(server.until_connected(), client.until_connected())


class TestSilence:
    @both_sides
    async def test_swallows(self, name: str, link: LinkFaults, side: Side) -> None:
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
    async def test_close_is_not_told(self, name: str, link: LinkFaults, side: Side) -> None:
        closing, other = chosen(side, *await pair(name))
        link.silence()
        closing.port.close()
        await closing.port.wait_closed()
        await settled()
        assert not other.events
        assert other.send(b"to no peer") is True
        link.restore()
        await other.until_lost()
        assert other.reasons == ["the peer went away while the network was cut"]
        assert other.port.send(other.keys[0], [b"late"]) is False

    async def test_disconnect_is_not_told(self, name: str, link: LinkFaults) -> None:
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

    async def test_nobody_connects(self, name: str, link: LinkFaults) -> None:
        link.silence()
        server = await listening(name)
        client = await dialling(name)
        await settled()
        assert not server.events
        assert not client.events
        link.restore()
        await asyncio.gather(server.until_connected(), client.until_connected())

    async def test_listener_that_restarts_meanwhile(self, name: str, link: LinkFaults) -> None:
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

    async def test_both_leave(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.silence()
        server.port.disconnect(server.key)
        client.port.disconnect(client.key)
        link.restore()
        await settled()
        assert [event[0] for event in server.events + client.events] == ["connected"] * 2

    async def test_cut_is_told(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.silence()
        link.cut()
        await asyncio.gather(server.until_lost(), client.until_lost())
        await pause_is_over()
        assert len(client.keys) == 1


class TestFreeze:
    async def test_everything_is_kept(self, name: str, link: LinkFaults) -> None:
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

    async def test_in_the_middle_of_a_burst(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        server.reaction = lambda key, frames: link.freeze()
        for number in range(2):
            client.send(b"%d" % number)
        await settled()
        assert server.received == [b"0"]
        link.thaw()
        await server.until_received(2)

    async def test_listener_does_not_speak(self, name: str, link: LinkFaults) -> None:
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

    async def test_listener_leaves_its_peer(self, name: str, link: LinkFaults) -> None:
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

    async def test_listener_speaks_to_one_who_left(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.freeze()
        assert server.send(b"to no peer") is True
        client.port.close()
        await settled()
        assert not server.events
        link.thaw()
        await server.until_lost()
        assert server.queued() == 0

    async def test_newcomers_wait(self, name: str, link: LinkFaults) -> None:
        server, _ = await pair(name)
        link.freeze()
        newcomer = await dialling(name)
        await settled()
        assert not newcomer.events
        link.thaw()
        await asyncio.gather(newcomer.until_connected(), server.until_connected(2))

    async def test_dialler_that_gives_up(self, name: str, link: LinkFaults) -> None:
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

    async def test_delay_goes_on(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.delay = 0.01
        client.send(b"message")
        link.freeze()
        await pause_is_over()
        assert not server.events
        link.thaw()
        await server.until_received(1)

    async def test_silence_leaves_what_has_arrived(self, name: str, link: LinkFaults) -> None:
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

    async def test_close_thaws(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.freeze()
        server.send(b"held")
        server.port.close()
        await client.until_lost()
        assert client.received == [b"held"]
        await server.port.wait_closed()

    async def test_next_listener_is_not_frozen(self, name: str, link: LinkFaults) -> None:
        _, client = await pair(name)
        link.freeze()
        client.send(b"to the first")
        link.kill()
        server = await listening(name)
        await client.until_connected(2)
        client.send(b"to the second")
        await server.until_received(1)
        assert server.received == [b"to the second"]

    async def test_without_a_listener(self, name: str, link: LinkFaults) -> None:
        await dialling(name)
        with pytest.raises(LookupError, match=f"no port listens on {name}"):
            link.freeze()
        link.thaw()

    async def test_thaw_of_what_is_not_frozen(self, name: str, link: LinkFaults) -> None:
        server, client = await pair(name)
        link.thaw()
        client.send(b"message")
        await server.until_received(1)
        assert not server.reasons


class TestKill:
    async def test_kill(self, name: str, link: LinkFaults) -> None:
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

    async def test_name_is_free(self, name: str, link: LinkFaults) -> None:
        _, client = await pair(name)
        link.kill()
        server = await listening(name)
        await client.until_connected(2)
        assert client.send(b"to the next")
        await server.until_received(1)

    async def test_of_a_frozen_listener(self, name: str, link: LinkFaults) -> None:
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

    async def test_behind_a_silent_network(self, name: str, link: LinkFaults) -> None:
        _, client = await pair(name)
        link.silence()
        link.kill()
        await settled()
        assert not client.events
        link.restore()
        await client.until_lost()

    async def test_without_a_listener(self, name: str, link: LinkFaults) -> None:
        server = await listening(name)
        server.port.close()
        with pytest.raises(LookupError, match=f"no port listens on {name}"):
            link.kill()

    async def test_of_all_diallers_peers(self, name: str, link: LinkFaults) -> None:
        await listening(name)
        clients = [await dialling(name) for _ in range(3)]
        await settled()
        link.kill()
        for client in clients:
            await client.until_lost()


class TestForgetting:
    async def test_faults_last_while_a_port_is_kept(self, name: str) -> None:
        client = await dialling(name)
        link_faults(name).delay = 1.0
        gc.collect()
        assert link_faults(name).delay == 1.0
        client.port.close()
        await client.port.wait_closed()

    async def test_name_is_forgotten_with_its_last_port(self, name: str) -> None:
        link_faults(name).delay = 1.0
        gc.collect()
        assert link_faults(name).delay == 0.0

    async def test_ports_that_were_never_closed(self, name: str) -> None:
        def open_and_leave() -> None:
            async def leave() -> None:
                await pair(name)
                link_faults(name).delay = 1.0

            asyncio.run(leave())

        await asyncio.to_thread(open_and_leave)
        gc.collect()
        assert link_faults(name).delay == 0.0
