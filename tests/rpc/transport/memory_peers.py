"""Ports of the in-memory transport that note what they hear, and loops in other threads."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from berrymq_rpc.rpc.transport.memory import RECONNECT_PAUSE, Side, dial, listen
from berrymq_rpc.rpc.transport.port import Buffer, Key, Port, PortOptions

T = TypeVar("T")


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

    def has_room(self, peers: int) -> bool:
        return True

    def peer_connected(self, key: Key) -> None:
        self.keys.append(key)
        self._note("connected", key)

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        self._note("message", key, frames)
        self.reaction(key, frames)

    def read_complete(self) -> None:
        self._note("burst")

    def peer_lost(self, key: Key, reason: str, *, at_once: bool = False) -> None:
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


async def pause_is_over() -> None:
    """The timer of a dialler that lost its peer just now has run."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(2 * RECONNECT_PAUSE, over.set)
    await over.wait()


def chosen(side: Side, server: Peer, client: Peer) -> tuple[Peer, Peer]:
    """The peer at this side, then the one at the other."""
    return (server, client) if side == "listener" else (client, server)


both_sides = pytest.mark.parametrize("side", ["listener", "dialler"])


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
