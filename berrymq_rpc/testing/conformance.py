"""Checks of what every transport has to do, for any that has `listen` and `dial`.

`berrymq_rpc.rpc.transport.port` says what that is. With pytest::

    TRANSPORT = TransportUnderTest(listen, dial, "my://*", unused=lambda: f"my://{next(numbers)}")

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    async def test_conformance(check):
        await check(TRANSPORT)

A check raises `AssertionError` for what is wrong, and `TimeoutError` after `CHECK_TIMEOUT` seconds.

A listener may learn of a peer only from the peer's first message, so no check waits for a
listener's `peer_connected` before something was sent to it.
"""

import asyncio
import errno
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeAlias

from ..errors import AuthenticationError
from ..rpc.transport.port import Buffer, Key, Port, PortHandler, PortOptions

__all__ = ["CHECKS", "CHECK_TIMEOUT", "Check", "TransportUnderTest"]

#: Seconds that a check may take.
CHECK_TIMEOUT = 30.0

Open: TypeAlias = Callable[[str, PortHandler, PortOptions], Awaitable[Port]]


@dataclass
class TransportUnderTest:
    """A transport, and the addresses to try it with.

    Args:
        listen, dial: the functions of the transport's module.
        wildcard: an endpoint that stands for any free address.
        unused: makes an endpoint that is not in use.
        is_shared: whether several ports may listen at one address.
    """

    listen: Open
    dial: Open
    wildcard: str
    unused: Callable[[], str]
    is_shared: bool = False


Check: TypeAlias = Callable[[TransportUnderTest], Awaitable[None]]

#: All checks, by name.
CHECKS: dict[str, Check] = {}


def _check(check: Callable[[TransportUnderTest], Any]) -> Check:
    @wraps(check)
    async def bounded(transport: TransportUnderTest) -> None:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check(transport)

    CHECKS[bounded.__name__] = bounded
    return bounded


class Peer:
    """A port and its handler, which notes what it hears and checks the order."""

    port: Port

    def __init__(self, echo: bool = False) -> None:
        self.keys: list[Key] = []
        self.messages: list[tuple[Key, list[bytes]]] = []
        self.losses: list[Key] = []
        self.bursts = 0
        self.unanswered_burst = False
        self._present: set[Key] = set()
        self._echo = echo
        self._busy = False
        self._heard = asyncio.Event()

    @property
    def key(self) -> Key:
        """The latest peer."""
        return self.keys[-1]

    @property
    def received(self) -> list[list[bytes]]:
        return [frames for _, frames in self.messages]

    def has_room(self, peers: int) -> bool:
        return True

    def peer_connected(self, key: Key) -> None:
        with self._called():
            assert key not in self.keys
            self.keys.append(key)
            self._present.add(key)

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        with self._called():
            assert key in self._present
            assert frames
            assert all(type(frame) is bytes for frame in frames)
            self.messages.append((key, list(frames)))
            self.unanswered_burst = True
            if self._echo:
                assert self.port.send(key, frames)

    def authentication_failed(self, error: AuthenticationError) -> None:
        raise error

    def servers_full(self, reason: str | None) -> None:
        raise AssertionError(f"servers are full: {reason}")

    def message_refused(self, key: Key, reason: str) -> None:
        raise AssertionError(f"a message was refused: {reason}")

    def read_complete(self) -> None:
        with self._called():
            self.bursts += 1
            self.unanswered_burst = False

    def peer_lost(self, key: Key, reason: str, *, at_once: bool = False) -> None:
        with self._called():
            assert key in self._present
            assert reason
            self._present.remove(key)
            self.losses.append(key)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that the handler hears makes the condition true."""
        while not condition():
            self._heard.clear()
            await self._heard.wait()

    @contextmanager
    def _called(self) -> Iterator[None]:
        assert not self._busy, "called while it was called"
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            self._heard.set()


class Scene:
    """Opens the ports of one check."""

    def __init__(self, transport: TransportUnderTest) -> None:
        self.transport = transport
        self.ports: list[Port] = []

    async def listen(
        self, endpoint: str | None = None, *, max_frame: int = 1 << 24, echo: bool = False
    ) -> Peer:
        endpoint = endpoint or self.transport.wildcard
        return await self._open(self.transport.listen, endpoint, max_frame, echo)

    async def dial(self, endpoint: str, *, max_frame: int = 1 << 24, echo: bool = False) -> Peer:
        return await self._open(self.transport.dial, endpoint, max_frame, echo)

    async def pair(self) -> tuple[Peer, Peer]:
        """A listener and a dialler that know each other; the first message is taken out."""
        server = await self.listen()
        client = await self.dial(*server.port.endpoints)
        await greet(client, server)
        server.messages.clear()
        return server, client

    async def _open(self, opens: Open, endpoint: str, max_frame: int, echo: bool) -> Peer:
        peer = Peer(echo)
        peer.port = await opens(endpoint, peer, PortOptions(heartbeat=2.0, max_frame=max_frame))
        self.ports.append(peer.port)
        return peer


@asynccontextmanager
async def scene(transport: TransportUnderTest) -> AsyncIterator[Scene]:
    made = Scene(transport)
    try:
        yield made
    finally:
        for port in made.ports:
            port.close()
        for port in made.ports:
            await port.wait_closed()


async def connected(peer: Peer) -> Key:
    await peer.until(lambda: peer.keys)
    return peer.key


async def received(peer: Peer, count: int) -> None:
    await peer.until(lambda: len(peer.messages) >= count)


async def lost(peer: Peer, count: int) -> None:
    await peer.until(lambda: len(peer.losses) >= count)


async def greet(client: Peer, server: Peer) -> None:
    """See one new message of the client arrive, over the connection that it has by then."""
    known = len(server.messages)
    lost = len(client.losses)
    await client.until(lambda: len(client.keys) > lost)
    assert client.port.send(client.key, [b"hello"])
    await server.until(lambda: len(server.messages) > known)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition that no handler event reports."""
    while not condition():
        await asyncio.sleep(0)


@_check
async def endpoint_of_a_wildcard_is_real(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        first = await opened.listen()
        second = await opened.listen()
        addresses = {*first.port.endpoints, *second.port.endpoints}
        assert len(addresses) == 2
        assert not any("*" in address for address in addresses)
        client = await opened.dial(*second.port.endpoints)
        await greet(client, second)
        assert not first.keys


@_check
async def endpoint_of_an_address_is_that_address(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        address = transport.unused()
        server = await opened.listen(address)
        client = await opened.dial(address)
        assert server.port.endpoints == (address,)
        assert client.port.endpoints == (address,)


@_check
async def address_in_use(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen()
        second = opened.listen(*server.port.endpoints)
        if transport.is_shared:
            assert (await second).port.endpoints == server.port.endpoints
            return
        (error,) = await asyncio.gather(second, return_exceptions=True)
        assert isinstance(error, OSError)
        assert error.errno == errno.EADDRINUSE
        assert str(error)


@_check
async def echo_to_the_dialler(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen(echo=True)
        client = await opened.dial(*server.port.endpoints)
        await connected(client)
        assert client.port.send(client.key, [b"one", b"", b"two"])
        await received(client, 1)
        assert client.messages == [(client.key, [b"one", b"", b"two"])]
        assert server.messages == [(server.key, [b"one", b"", b"two"])]


@_check
async def echo_to_the_listener(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen()
        client = await opened.dial(*server.port.endpoints, echo=True)
        await greet(client, server)
        assert server.port.send(server.key, [b"and back"])
        await received(server, 2)
        assert server.messages[-1] == (server.key, [b"and back"])


@_check
async def burst_follows_the_messages(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        for number in range(100):
            client.port.send(client.key, [b"%d" % number])
        await server.until(lambda: len(server.messages) == 100 and not server.unanswered_burst)
        assert 1 <= server.bursts <= 101


@_check
async def any_buffer_is_sent(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        frames: list[Buffer] = [b"bytes", bytearray(b"bytearray"), memoryview(b"-view-")[1:-1]]
        assert client.port.send(client.key, frames)
        await received(server, 1)
        assert server.received == [[b"bytes", b"bytearray", b"view"]]


@_check
async def dial_before_listen(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        address = transport.unused()
        client = await opened.dial(address)
        server = await opened.listen(address, echo=True)
        await greet(client, server)
        await received(client, 1)


@_check
async def no_peer_is_connected_before_listen(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        client = await opened.dial(transport.unused())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not client.keys
    assert not client.losses


@_check
async def order_of_mixed_sizes(transport: TransportUnderTest) -> None:
    chance = random.Random(1)
    sizes = [0, 1, 100, 1_000, 10_000, 50_000]
    sent = [
        [b"%d" % number] + [bytes(chance.choice(sizes)) for _ in range(chance.randrange(3))]
        for number in range(1_000)
    ]
    async with scene(transport) as opened:
        server = await opened.listen(echo=True)
        client = await opened.dial(*server.port.endpoints)
        await connected(client)
        for frames in sent:
            assert client.port.send(client.key, frames)
        await received(client, len(sent))
        assert server.received == sent
        assert client.received == sent
        assert not client.losses


@_check
async def order_both_ways_at_once(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        sent = [[b"%d" % number] for number in range(1_000)]
        for frames in sent:
            assert client.port.send(client.key, frames)
            assert server.port.send(server.key, frames)
            if len(frames[0]) % 2:
                await asyncio.sleep(0)
        await received(client, len(sent))
        await received(server, len(sent))
        assert client.received == server.received == sent


@_check
async def many_peers(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen(echo=True)
        clients = [await opened.dial(*server.port.endpoints) for _ in range(30)]
        for number, client in enumerate(clients):
            await connected(client)
            for part in range(10):
                assert client.port.send(client.key, [b"%d" % number, b"%d" % part])
        for number, client in enumerate(clients):
            await received(client, 10)
            assert client.received == [[b"%d" % number, b"%d" % part] for part in range(10)]
        assert len(set(server.keys)) == 30
        senders = {frames[0]: key for key, frames in server.messages}
        assert len(set(senders.values())) == 30
        assert all(senders[frames[0]] == key for key, frames in server.messages)


@_check
async def loss_of_one_peer_among_many(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen(echo=True)
        clients = [await opened.dial(*server.port.endpoints) for _ in range(3)]
        for client in clients:
            await greet(client, server)
            await received(client, 1)
        leaving = server.messages[1][0]
        clients[1].port.close()
        await lost(server, 1)
        assert server.losses == [leaving]
        for client in (clients[0], clients[2]):
            await greet(client, server)
            assert not client.losses


@_check
async def big_frame(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen(echo=True)
        client = await opened.dial(*server.port.endpoints)
        await connected(client)
        big = random.Random(2).randbytes(1 << 20)
        for _ in range(5):
            assert client.port.send(client.key, [b"before", big, b"after"])
        await received(client, 5)
        assert client.received == [[b"before", big, b"after"]] * 5


@_check
async def many_frames(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen(echo=True)
        client = await opened.dial(*server.port.endpoints)
        await connected(client)
        frames = [b"%d" % number if number % 3 else b"" for number in range(1_000)]
        assert client.port.send(client.key, frames)
        await received(client, 1)
        assert client.received == [frames]


@_check
async def queue_empties(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        for _ in range(200):
            assert client.port.send(client.key, [bytes(100_000)])
        assert client.port.queued_bytes(client.key) <= 200 * 100_000
        await received(server, 200)
        await eventually(lambda: client.port.queued_bytes(client.key) == 0)


@_check
async def close_of_the_dialler_is_told_after_its_messages(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        for number in range(100):
            assert client.port.send(client.key, [b"%d" % number, bytes(10_000)])
        client.port.close()
        await lost(server, 1)
        assert server.losses == [server.key]
        assert [int(frames[0]) for frames in server.received] == list(range(100))
        await client.port.wait_closed()
        assert not client.losses


@_check
async def close_of_the_listener_is_told_after_its_messages(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        for number in range(100):
            assert server.port.send(server.key, [b"%d" % number, bytes(10_000)])
        server.port.close()
        await lost(client, 1)
        assert client.losses == [client.key]
        assert [int(frames[0]) for frames in client.received] == list(range(100))
        await server.port.wait_closed()
        assert not server.losses


@_check
async def restarted_listener_is_another_peer(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        address = transport.unused()
        client = await opened.dial(address)
        for restarts in range(3):
            server = await opened.listen(address, echo=True)
            await greet(client, server)
            await received(client, restarts + 1)
            server.port.close()
            await server.port.wait_closed()
            await lost(client, restarts + 1)
        assert len(set(client.keys)) == 3
        assert client.losses == client.keys


@_check
async def same_dialler_again_is_another_peer(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen()
        for times in range(3):
            client = await opened.dial(*server.port.endpoints)
            await greet(client, server)
            client.port.close()
            await lost(server, times + 1)
        assert len(set(server.keys)) == 3


@_check
async def send_to_a_lost_key(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        client.port.close()
        await lost(server, 1)
        assert server.port.send(server.key, [b"late"]) is False
        assert server.port.queued_bytes(server.key) == 0
        server.port.disconnect(server.key)


@_check
async def send_to_a_lost_listener(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        server.port.close()
        await lost(client, 1)
        assert client.port.send(client.key, [b"late"]) is False
        assert client.port.queued_bytes(client.key) == 0


@_check
async def send_to_a_key_that_never_was(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        for peer in (server, client):
            assert peer.port.send(object(), [b"to no peer"]) is False
            assert peer.port.queued_bytes(object()) == 0
            peer.port.disconnect(object())


@_check
async def send_to_an_old_key_does_not_reach_the_new_peer(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        address = transport.unused()
        client = await opened.dial(address)
        server = await opened.listen(address)
        await greet(client, server)
        server.port.close()
        await server.port.wait_closed()
        server = await opened.listen(address)
        await client.until(lambda: len(client.keys) == 2)
        assert client.port.send(client.keys[0], [b"old"]) is False
        assert client.port.send(client.keys[1], [b"new"]) is True
        await received(server, 1)
        assert server.received == [[b"new"]]


@_check
async def disconnect_is_silent_here(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, _ = await opened.pair()
        key = server.key
        server.port.disconnect(key)
        assert server.port.send(key, [b"late"]) is False
        assert server.port.queued_bytes(key) == 0
        another = await opened.dial(*server.port.endpoints)
        await greet(another, server)
        assert key not in server.losses


@_check
async def frame_at_the_limit(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen(max_frame=1_000)
        client = await opened.dial(*server.port.endpoints)
        await connected(client)
        assert client.port.send(client.key, [bytes(1_000), bytes(1_000)])
        await received(server, 1)
        assert not client.losses


@_check
async def frame_over_the_limit_of_the_listener(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen(max_frame=1_000)
        client = await opened.dial(*server.port.endpoints)
        await greet(client, server)
        known = server.key
        client.port.send(client.key, [b"head", bytes(1_001)])
        await lost(client, 1)
        await lost(server, 1)
        assert server.losses == [known]
        await greet(client, server)
        assert len(set(client.keys)) == 2
        assert server.received == [[b"hello"], [b"hello"]]


@_check
async def frame_over_the_limit_of_the_dialler(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen()
        client = await opened.dial(*server.port.endpoints, max_frame=1_000)
        await greet(client, server)
        server.port.send(server.key, [bytes(1_001)])
        await lost(server, 1)
        await lost(client, 1)
        assert not client.messages
        await greet(client, server)


@_check
async def frame_over_the_limit_loses_no_other_peer(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen(max_frame=1_000, echo=True)
        good = await opened.dial(*server.port.endpoints)
        bad = await opened.dial(*server.port.endpoints)
        await greet(good, server)
        bad_key = await connected(bad)
        bad.port.send(bad_key, [bytes(1_001)])
        await lost(bad, 1)
        await greet(good, server)
        assert not good.losses


@_check
async def wait_closed(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        for peer in await opened.pair():
            waiting = asyncio.ensure_future(peer.port.wait_closed())
            cancelled = asyncio.ensure_future(peer.port.wait_closed())
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert cancelled.cancelled()
            assert not waiting.done()
            peer.port.close()
            peer.port.close()
            await waiting
            await peer.port.wait_closed()
            assert peer.port.endpoints


@_check
async def closed_port_sends_nothing(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        client.port.close()
        assert client.port.send(client.key, [b"late"]) is False
        assert client.port.queued_bytes(client.key) >= 0
        client.port.disconnect(client.key)
        await lost(server, 1)
        await client.port.wait_closed()
        assert not server.messages
        assert client.port.send(client.key, [b"late"]) is False


@_check
async def closed_port_calls_its_handler_no_more(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server, client = await opened.pair()
        client.port.close()
        heard = (len(client.keys), len(client.messages), client.bursts, len(client.losses))
        server.port.send(server.key, [b"late"])
        server.port.close()
        await client.port.wait_closed()
        await server.port.wait_closed()
        assert heard == (
            len(client.keys),
            len(client.messages),
            client.bursts,
            len(client.losses),
        )


@_check
async def close_without_a_peer(transport: TransportUnderTest) -> None:
    async with scene(transport) as opened:
        server = await opened.listen()
        client = await opened.dial(transport.unused())
        for peer in (server, client):
            peer.port.close()
            await peer.port.wait_closed()
            assert not peer.keys
