"""What a node knows of one consumer of a queue: which messages it has got and not acknowledged."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from ..rpc import Peer
from .remote_queue import RemoteQueue
from .stored_message import StoredMessage

__all__ = [
    "MAX_UNACKNOWLEDGED",
    "Consumer",
    "checked_ack_wait",
    "checked_delay",
    "checked_tries",
]

#: Messages that a consumer may have got and not acknowledged: more than it works on at a time, and
#: few enough to come again when it dies.
MAX_UNACKNOWLEDGED = 1000

#: Seconds. A consumer that says nothing for longer is gone; one that has less time would be
#: sent each message again and again.
MAX_ACK_WAIT, MIN_ACK_WAIT = 86400.0, 0.01

#: Why a message comes back: what is said of one that has no deliveries left.
GONE, LATE, REFUSED = "its consumer is gone", "ack_wait has passed", "it was refused"


class Delivery:
    """A message that was sent to a consumer and may still come back."""

    __slots__ = ("peer", "stored", "timer")

    def __init__(self, stored: StoredMessage, peer: Peer) -> None:
        self.stored = stored
        self.peer = peer
        self.timer: asyncio.TimerHandle | None = None


class Consumer:
    """One connection to a queue.

    It belongs to the event loop of the queue.

    Args:
        queue: where the messages come from, and go back to.
        ack_wait: seconds that each has to be acknowledged; ``None``: acknowledged on receipt.
        tries: how often each is delivered at most; ``None`` for no limit.
        max_unacknowledged: how many may be unacknowledged at a time.
        numbers: gives each delivery its number; no other delivery of the node has the same.
        on_dead: called with the queue, a message that has no deliveries left, and the reason why
            it came back from the last one.
    """

    __slots__ = (
        "_deliveries",
        "_lost",
        "_numbers",
        "_on_dead",
        "_slots",
        "_stalled",
        "ack_wait",
        "is_closed",
        "queue",
        "tries",
    )

    def __init__(
        self,
        queue: RemoteQueue,
        ack_wait: float | None,
        tries: int | None,
        max_unacknowledged: int,
        numbers: Iterator[int],
        on_dead: Callable[[RemoteQueue, StoredMessage, str], object],
    ) -> None:
        self.queue = queue
        self.ack_wait = ack_wait
        self.tries = tries
        self.is_closed = False
        self._numbers = numbers
        self._on_dead = on_dead
        #: By their numbers, in the order in which they were made.
        self._deliveries: dict[int, Delivery] = {}
        #: Calls of `get` that wait, and deliveries: so there are never too many deliveries.
        self._slots = asyncio.Semaphore(max_unacknowledged)
        #: Calls of `get` that wait for a slot.
        self._stalled = 0
        #: What is called when a peer that has got messages is lost.
        self._lost: dict[Peer, Callable[[], object]] = {}

    @property
    def unacknowledged(self) -> int:
        """How many messages it has got and not acknowledged."""
        return len(self._deliveries)

    @property
    def stalled(self) -> int:
        """How many calls of `get` wait until a message is acknowledged."""
        return self._stalled

    async def get(self, timeout: float | None) -> StoredMessage | None:
        """Wait for a message, as `RemoteQueue.get` does, and until there may be one more.

        It has to be passed to `deliver` at once.
        """
        if self._slots.locked():
            clock = asyncio.get_running_loop().time
            end = None if timeout is None else clock() + timeout
            self._stalled += 1
            try:
                async with asyncio.timeout_at(end):
                    await self._slots.acquire()
            except TimeoutError:
                return None
            finally:
                self._stalled -= 1
            if end is not None:
                timeout = max(0.0, end - clock())
        else:
            await self._slots.acquire()
        stored = None
        try:
            if not self.is_closed:
                stored = await self.queue.get(timeout, self)
            if stored is not None and self.is_closed and self.ack_wait is not None:
                # Nothing would bring it back.
                self.queue.put_back(stored)
                stored = None
        finally:
            if stored is None:
                self._slots.release()
        return stored

    async def take(self) -> StoredMessage | None:
        """Take a message, or ``None`` if there is none or there may not be one more."""
        if self._slots.locked() or self.is_closed:
            return None
        stored = self.queue.take()
        if stored is not None:
            # It is free, so this does not wait.
            await self._slots.acquire()
        return stored

    def deliver(self, stored: StoredMessage, peer: Peer) -> int:
        """Note that a message is sent to a peer; return the delivery's number."""
        number = next(self._numbers)
        stored.tries += 1
        self.queue.hold(stored)
        delivery = self._deliveries[number] = Delivery(stored, peer)
        if self.ack_wait is not None:
            self._set_timer(number, delivery)
            # The end of a request over HTTP says nothing of its consumer.
            if not peer.is_request and peer not in self._lost:
                self._lost[peer] = lambda: self._peer_lost(peer)
                peer.on_lost(self._lost[peer])
        return number

    def acknowledge(self, number: int) -> bool:
        """Forget a message that was worked on; return whether it was still this consumer's."""
        return self._settle(number) is not None

    def refuse(self, number: int, delay: float = 0.0, reason: str = REFUSED) -> bool:
        """Let a message go back to the queue; return whether it was still this consumer's.

        Args:
            delay: seconds after which it is there again.
            reason: why, for the log.
        """
        delivery = self._settle(number)
        if delivery is None:
            return False
        stored = delivery.stored
        stored.redelivered = True
        if self.tries is not None and stored.tries >= self.tries:
            self._on_dead(self.queue, stored, reason)
        else:
            self.queue.put_back(stored, delay)
        return True

    def take_back(self, number: int) -> None:
        """Let a message go back that was never sent: it counts as not delivered."""
        delivery = self._settle(number)
        if delivery is not None:
            delivery.stored.tries -= 1
            self.queue.put_back(delivery.stored)

    def in_progress(self, number: int) -> bool:
        """Restart the `ack_wait` of a message; return whether it is still this consumer's."""
        delivery = self._deliveries.get(number)
        if delivery is None:
            return False
        if delivery.timer is not None:
            delivery.timer.cancel()
            self._set_timer(number, delivery)
        return True

    def close(self) -> None:
        """Let all that is unacknowledged go back, and end the waiting of `get`."""
        self.is_closed = True
        for peer, callback in self._lost.items():
            peer.forget_on_lost(callback)
        self._lost.clear()
        for number in list(self._deliveries):
            self.refuse(number, reason=GONE)
        for _ in range(self._stalled):
            self._slots.release()

    def _settle(self, number: int) -> Delivery | None:
        delivery = self._deliveries.pop(number, None)
        if delivery is not None:
            if delivery.timer is not None:
                delivery.timer.cancel()
            self.queue.release(delivery.stored)
            self._slots.release()
        return delivery

    def _set_timer(self, number: int, delivery: Delivery) -> None:
        assert self.ack_wait is not None
        loop = asyncio.get_running_loop()
        delivery.timer = loop.call_later(self.ack_wait, self._expire, number)

    def _expire(self, number: int) -> None:
        self.refuse(number, reason=LATE)

    def _peer_lost(self, peer: Peer) -> None:
        self._lost.pop(peer, None)
        for number, delivery in list(self._deliveries.items()):
            if delivery.peer == peer:
                self.refuse(number, reason=GONE)


def checked_ack_wait(value: Any) -> float | None:
    """Return the seconds to acknowledge a message, a day at most; ``None`` for on receipt.

    Raises:
        ValueError: it is not a number of seconds, or is below a hundredth.
    """
    return None if value is None else _seconds("ack_wait", value, MIN_ACK_WAIT)


def checked_delay(value: Any) -> float:
    """Return the seconds after which a refused message is there again, a day at most.

    Raises:
        ValueError: it is not a number of seconds from 0 on.
    """
    return _seconds("delay", value, 0.0)


def _seconds(name: str, value: Any, least: float) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # An int may be too large for a float.
        seconds = MAX_ACK_WAIT if value > MAX_ACK_WAIT else float(max(value, -1))
        if seconds >= least:
            return seconds
    raise ValueError(f"{name} must be a number of seconds from {least} on")


def checked_tries(value: Any) -> int | None:
    """Return how often a message may be delivered.

    Raises:
        ValueError: it is not a whole number above 0, or None.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("tries must be a whole number above 0, or None")
