"""The port of the in-memory transport.

* All that happens to a port goes through its inbox, so that a loss comes after what was sent
  before it. The port's event loop hands it to the owner in a later turn; the lock is not held then.
* What is sent becomes bytes that nobody can change any more.
* A port whose event loop was closed under it is gone. Its peers are told when they next send.
"""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable, Sequence

from .memory_name import (
    Connected,
    End,
    Event,
    Lost,
    Message,
    Name,
    Side,
    lock,
)
from .port import Buffer, Key, Port, PortHandler, PortOptions

__all__ = ["MemoryPort"]

#: Seconds. Without a pause, a listener that refuses its peers and a dialler that comes back would
#: keep both loops busy for nothing.
RECONNECT_PAUSE = 0.01


class MemoryPort(Port):
    """One end of the transport. What is not of `Port` is used under the lock."""

    def __init__(self, name: Name, side: Side, owner: PortHandler, options: PortOptions) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.ends: dict[Key, End] = {}
        self.is_frozen = False
        self.is_closed = False
        self._side: Side = side
        self._owner = owner
        self._options = options
        # An owner must not see the context variables of whoever sent it something.
        self._context = contextvars.copy_context()
        self._inbox: deque[Event] = deque()
        self._delivery_scheduled = False
        self._delivery_timer: asyncio.TimerHandle | None = None
        # What the port did while frozen: a message it sent, or `None` for a peer that it left.
        self._held: list[tuple[End, tuple[bytes, ...] | None]] = []
        self._left: list[End] = []
        self._linger_timer: asyncio.TimerHandle | None = None
        self._finished = asyncio.Event()

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (self.name.endpoint,)

    @property
    def notices_loss(self) -> bool:
        """False: a peer that is frozen or behind a silent network looks like an idle one."""
        return False

    def send(self, key: Key, frames: Sequence[Buffer]) -> bool:
        message = tuple(
            frame if type(frame) is bytes else bytes(memoryview(frame)) for frame in frames
        )
        if not message:
            raise ValueError("a message has at least one frame")
        with lock:
            end = self.ends.get(key)
            if end is None or not end.is_open:
                return False
            if self.is_frozen:
                end.queued += _size(message)
                self._held.append((end, message))
            else:
                self._transmit(end, message)
            return end.is_open

    def queued_bytes(self, key: Key) -> int:
        with lock:
            end = self.ends.get(key)
            return 0 if end is None else end.queued

    def address(self, key: Key) -> str | None:
        return ""

    def disconnect(self, key: Key) -> None:
        """Forget a peer, which is told. A dialler connects again after a short pause."""
        with lock:
            end = self.ends.pop(key, None)
            if end is None:
                return
            if self.is_frozen:
                self._held = [held for held in self._held if held[0] is not end]
                self._held.append((end, None))
            else:
                end.other.port.discard(end.other)
                end.leave("the peer ended the connection")
            self._connect_later()

    def close(self) -> None:
        """Tell the peers, after what was sent, and wait up to `linger` for them to read it.

        What they have not read then is not lost: it is with the receiver. The owner hears
        nothing any more. The name is free at once.
        """
        with lock:
            if self.is_closed:
                return
            self.thaw()
            self.shut("the peer closed the connection")
            self._linger_timer = self.loop.call_later(self._options.linger, self.finish)
            self.finish_if_sent()

    async def wait_closed(self) -> None:
        await self._finished.wait()

    def shut(self, reason: str) -> None:
        """Leave the name and all peers, and drop what was not handed to the owner yet."""
        self.is_closed = True
        if self.name.listener is self:
            self.name.listener = None
        self.name.diallers.pop(self, None)
        for event in self._inbox:
            if isinstance(event, Message):
                event.end.other.handed_over(event.size)
        self._inbox.clear()
        self._held.clear()
        self._left = [*self.ends.values()]
        self.ends.clear()
        for end in self._left:
            end.leave(reason)

    def finish_if_sent(self) -> None:
        if not any(end.queued for end in self._left):
            self.call(self.finish)

    def finish(self) -> None:
        """Let `wait_closed` return; runs on the port's loop."""
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._finished.set()

    def thaw(self) -> None:
        if not self.is_frozen:
            return
        self.is_frozen = False
        held, self._held = self._held, []
        for end, frames in held:
            if frames is None:
                end.leave("the peer ended the connection")
                continue
            end.queued -= _size(frames)
            if end.is_open:
                self._transmit(end, frames)
        self._wake()

    def put(self, event: Event) -> None:
        """Put an event into the inbox, and see to it that the port's loop looks there."""
        self._inbox.append(event)
        self._wake()

    def discard(self, end: End) -> None:
        """Drop the messages under way to an end of this port, unless the port is frozen."""
        if self.is_frozen:
            return
        kept: deque[Event] = deque()
        for event in self._inbox:
            if isinstance(event, Message) and event.end is end:
                end.other.handed_over(event.size)
            else:
                kept.append(event)
        self._inbox = kept

    def call(self, callback: Callable[[], None]) -> bool:
        """Call back on the port's loop; `False` if that is closed."""
        try:
            if self.loop is _running_loop():
                self.loop.call_soon(callback, context=self._context)
            else:
                self.loop.call_soon_threadsafe(callback, context=self._context)
        except RuntimeError:
            return False
        return True

    def _transmit(self, end: End, frames: tuple[bytes, ...]) -> None:
        """Put a message under way to the peer, as far as the faults of the name let it."""
        name, receiver = self.name, end.other.port
        towards = receiver._side
        if name.is_silent:
            return
        if name.drops[towards] > 0:
            name.drops[towards] -= 1
            return
        copies = 1
        if name.duplicates[towards] > 0:
            name.duplicates[towards] -= 1
            copies = 2
        message = Message(name.due(), end.other, frames, _size(frames))
        for _ in range(copies):
            if end.is_open:
                end.queued += message.size
                receiver.put(message)

    def _connect_later(self) -> None:
        """Runs on the port's loop."""
        if self._side == "dialler":
            self.loop.call_later(RECONNECT_PAUSE, self._connect)

    def _connect(self) -> None:
        with lock:
            if not self.is_closed:
                self.name.connect(self)

    def _wake(self) -> None:
        # A loop that was closed never runs what it was asked to.
        if self._delivery_scheduled and not self.loop.is_closed():
            return
        self._delivery_scheduled = True
        if not self.call(self._deliver):
            self.shut("the peer's event loop was closed")

    def _deliver(self) -> None:
        """Hand the owner what has arrived by now; runs on the port's loop.

        What the owner causes to arrive meanwhile is left to a later turn, or two ports on one
        loop could keep it for ever.
        """
        with lock:
            self._delivery_scheduled = False
            if self._delivery_timer is not None:
                self._delivery_timer.cancel()
                self._delivery_timer = None
            arrived = len(self._inbox)
        has_message = False
        try:
            for _ in range(arrived):
                event = self._next_event()
                if event is None:
                    break
                key = event.end.key
                if isinstance(event, Message):
                    has_message = True
                    self._owner.message_received(key, event.frames)
                elif isinstance(event, Connected):
                    self._owner.peer_connected(key)
                else:
                    self._owner.peer_lost(key, event.reason)
            if has_message and not self.is_closed:
                self._owner.read_complete()
        finally:
            with lock:
                self._deliver_later()

    def _next_event(self) -> Event | None:
        """Take the next event that the owner is to be told, if it is due."""
        with lock:
            while self._inbox and not self.is_frozen:
                event = self._inbox[0]
                if event.due and event.due > time.monotonic():
                    break
                self._inbox.popleft()
                end = event.end
                if isinstance(event, Message):
                    end.other.handed_over(event.size)
                if self.ends.get(end.key) is not end:
                    continue
                if isinstance(event, Message) and self._is_refused(event):
                    continue
                if isinstance(event, Lost):
                    del self.ends[end.key]
                    self._connect_later()
                return event
            return None

    def _is_refused(self, message: Message) -> bool:
        """Break the connection over a frame that is too large, as libzmq does."""
        largest = max(map(len, message.frames))
        limit = self._options.max_frame
        if largest <= limit:
            return False
        self.discard(message.end)
        for end in (message.end, message.end.other):
            if end.is_open:
                end.lose(f"a frame of {largest} bytes is over the receiver's limit of {limit}")
        return True

    def _deliver_later(self) -> None:
        if not self._inbox or self.is_frozen:
            return
        wait = self._inbox[0].due - time.monotonic()
        if wait <= 0:
            self._wake()
        else:
            self._delivery_timer = self.loop.call_later(wait, self._deliver, context=self._context)


def _size(frames: tuple[bytes, ...]) -> int:
    return sum(map(len, frames))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
