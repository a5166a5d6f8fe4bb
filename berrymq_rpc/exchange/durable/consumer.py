"""One process's part in a durable queue: pulls its messages from JetStream, a few at a time.

A pull is a request for some messages, which JetStream answers as they come, for 30 s or `ack_wait`
at most: to a process that is frozen or cut off it delivers a message twice and no more. How many
are asked for follows how fast they are taken, so that none waits here for long while another
process has nothing to do.
"""

import asyncio
import json
import math
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ...bus import Empty
from ...errors import (
    NotFoundError,
    ProtocolError,
)
from ...nats.connection import Connection, Subscription
from ...nats.headers import NO_RESPONDERS, parse_headers, status_of
from ...nats.jetstream import NANOSECONDS, parse_delivery
from ...nats.stored_publisher import ABSENCE
from ...runtime.log import Log
from ..batch import Batch
from .dead_letters import dead_of
from .delivered import Delivered, Share, nak
from .settlement import GiveUp, Settlement

__all__ = ["DurableConsumer", "Unpacked"]

logger = Log("berrymq_rpc.exchange")

#: Seconds that a pull lasts at most and at least, and between two signs of life of JetStream while
#: it does; those come twice in a pull, if it is shorter.
EXPIRES = 30.0
SHORTEST = 1.0
HEARTBEAT = 5.0

#: Messages that are asked for at most, and the seconds and the part of `ack_wait` within which
#: those are taken.
MAX_CREDIT = 256
CREDIT_TIME = 0.25
CREDIT_PART = 0.25

#: Seconds that a pull for more than is waited for lasts. What comes later may be work of another
#: kind, which is not done as fast.
PREFETCH_EXPIRES = 1.0

#: Messages that are asked for at most where those are taken within so many seconds.
MAX_FAST_CREDIT = 1000
FAST_TIME = 0.05

#: The part of `ack_wait` after which a message that nobody has taken goes back.
STALE = 0.5

#: Seconds to the next try of a pull that JetStream could not take.
PAUSE = 0.25

#: Seconds that JetStream has to say whether there is a message.
PRESENT_TIMEOUT = 5.0

#: Seconds for messages that are on their way when a queue is closed.
DRAIN_TIMEOUT = 1.0

#: What JetStream says of a pull: it is alive, or why the pull is over.
ALIVE = 100

#: A message of a durable queue: its batch, and the parts of the message.
Unpacked = tuple[Batch, list[tuple[Any, ...]]]


class DurableConsumer:
    """Pulls messages of a durable queue, and gives each to one call of `get`.

    It belongs to the event loop of the connection.

    Args:
        connection: to NATS.
        stream, name: of JetStream's consumer.
        tries: how often a message is delivered.
        ack_wait: seconds that it may take to be acknowledged.
        unpack: reads a payload; raises `ProtocolError` for one that is malformed.
        exists: asks JetStream whether the queue is still there.
        split: called with a batch of several messages: publishes them one by one, and returns the
            places of those for which there is no room.
        call, give_up: as for `Settlement`.
        on_check: called every few seconds while messages are asked for.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        name: str,
        tries: int,
        ack_wait: float,
        *,
        unpack: Callable[[bytes], Unpacked],
        call: Callable[[Coroutine[Any, Any, bool]], Coroutine[Any, Any, bool]],
        exists: Callable[[], Coroutine[Any, Any, bool]],
        give_up: GiveUp,
        split: Callable[[Batch, list[tuple[Any, ...]]], Coroutine[Any, Any, list[int]]],
        on_check: Callable[[], object],
    ) -> None:
        self.name = name
        self._settlement = Settlement(connection, name, tries, call, give_up, self.put_back)
        self._exists = exists
        self._connection = connection
        self._loop = connection.loop
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._tries = tries
        self._ack_wait = ack_wait
        self._expires = min(max(ack_wait, SHORTEST), EXPIRES)
        self._heartbeat = min(self._expires / 2, HEARTBEAT)
        self._unpack = unpack
        self._split = split
        self._on_check = on_check
        self._buffer: deque[Delivered] = deque()
        self._waiters: deque[asyncio.Future[Delivered]] = deque()
        self._numbers = 0
        self._present_numbers = 0
        self._subscription: Subscription | None = None
        self._inbox = ""
        #: How many messages JetStream may still send.
        self._outstanding = 0
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        #: When a message was last taken, and the usual time between two.
        self._taken = 0.0
        self._interval = ack_wait
        self._credit_time = min(CREDIT_TIME, ack_wait * CREDIT_PART)
        self._is_looking = False
        #: When it began anew, as the server may have been started anew.
        self._reset_at = -math.inf
        self._end: Exception | None = None

    @property
    def fetched(self) -> int:
        """How many messages wait here."""
        return len(self._buffer)

    @property
    def waiting(self) -> int:
        """How many calls of `get` wait."""
        return len(self._waiters)

    # -- taking ----------------------------------------------------------------------------

    async def get(self, timeout: float | None) -> Delivered:
        """Take the next message. If it is cancelled, the next call gets the message.

        Raises:
            Empty: the time is over.
            NotFoundError: the queue was deleted.
            ServiceClosedError: it was closed.
        """
        delivered = self.take_now()
        if delivered is not None:
            return delivered
        waiter: asyncio.Future[Delivered] = self._loop.create_future()
        self._waiters.append(waiter)
        self._pull()
        return await self._wait_for(waiter, timeout)

    async def _wait_for(
        self, waiter: "asyncio.Future[Delivered]", timeout: float | None
    ) -> Delivered:
        try:
            async with asyncio.timeout(timeout) as limit:
                taken = await waiter
        except BaseException as error:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It came in the very moment.
                self.put_back(waiter.result())
            if isinstance(error, TimeoutError) and limit.expired():
                raise Empty from None
            raise
        self._note_taken(self._loop.time())
        return taken

    async def get_present(self) -> Delivered:
        """Take a message that JetStream has just now.

        Raises:
            Empty: there is none, or it has not answered.
            NotFoundError, ServiceClosedError: as `get`.
        """
        try:
            return self.get_nowait()
        except Empty:
            if self._end is not None or self._waiters or not self._connection.is_connected:
                raise
        waiter: asyncio.Future[Delivered] = self._loop.create_future()
        self._present_numbers += 1
        inbox = f"{self._connection.inbox}.p.{id(self)}.{self._present_numbers}"
        subscription = self._connection.subscribe(inbox, partial(self._present, waiter))
        self._waiters.append(waiter)
        body = json.dumps({"batch": 1, "no_wait": True}).encode()
        self._connection.publish(self._request, body, inbox)
        try:
            return await self._wait_for(waiter, PRESENT_TIMEOUT)
        finally:
            self._connection.unsubscribe(subscription)

    def _present(
        self,
        waiter: "asyncio.Future[Delivered]",
        subject: str,
        reply: str,
        payload: bytes,
        headers: bytes,
    ) -> None:
        """Take the answer to `get_present`: a message, or that there is none."""
        status = status_of(headers)
        if status == ALIVE:
            return
        if not status:
            self._take(reply, payload, headers)
        elif status == NO_RESPONDERS:
            self._look_up()
        if not waiter.done():
            waiter.set_exception(Empty())

    def get_nowait(self) -> Delivered:
        """Take a message that is here, or raise `Empty` and ask for one."""
        delivered = self.take_now()
        if delivered is None:
            self._pull(1)
            raise Empty
        return delivered

    def take_now(self) -> Delivered | None:
        """Take a message that is here; ``None`` if there is none. Raises as `get`."""
        if self._end is not None:
            raise self._end
        if self._buffer:
            now = self._loop.time()
            while self._buffer:
                delivered = self._buffer.popleft()
                if now - delivered.came < self._ack_wait * STALE:
                    self._note_taken(now)
                    self._pull()
                    return delivered
                # It may be elsewhere by the time that its work is done.
                delivered.give_back()
        self._pull()
        return None

    def put_back(self, delivered: Delivered) -> None:
        """Have the next call of `get` take a message that was taken."""
        if self._end is not None:
            delivered.give_back()
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(delivered)
                return
        self._buffer.appendleft(delivered)

    def _note_taken(self, now: float) -> None:
        self._interval += (min(now - self._taken, self._ack_wait) - self._interval) / 4
        self._taken = now

    # -- pulling ---------------------------------------------------------------------------

    @property
    def _credit(self) -> int:
        """How many messages may be on their way, or wait here."""
        # Nor are they taken as fast while nothing comes, or the work on one takes longer.
        interval = max(self._interval, self._loop.time() - self._taken, 1e-6)
        credit = min(self._credit_time / interval, MAX_CREDIT)
        fast = min(FAST_TIME / interval, MAX_FAST_CREDIT)
        return max(len(self._waiters), int(max(credit, fast)))

    def _pull(self, least: int = 0) -> None:
        """Ask for messages, if some are wanted.

        Args:
            least: how many are.
        """
        present = self._outstanding + len(self._buffer)
        if present > MAX_FAST_CREDIT // 2 and not self._waiters:
            # As mostly: enough, however fast they are taken.
            return
        if self._end is not None or self._retry is not None or not self._connection.is_connected:
            return
        credit = max(self._credit, least)
        wanted = credit - present
        # Not one by one, unless someone waits.
        if wanted <= 0 or (present > credit // 2 and len(self._waiters) <= self._outstanding):
            return
        if self._subscription is None:
            self._numbers += 1
            self._inbox = f"{self._connection.inbox}.q.{id(self)}.{self._numbers}"
            self._subscription = self._connection.subscribe(
                self._inbox, partial(self._received, self._numbers)
            )
        body = {"batch": wanted, "expires": int(self._expires * NANOSECONDS)}
        if wanted > len(self._waiters):
            body["expires"] = int(min(self._expires, PREFETCH_EXPIRES) * NANOSECONDS)
        else:
            body["idle_heartbeat"] = int(self._heartbeat * NANOSECONDS)
        self._connection.publish(self._request, json.dumps(body).encode(), self._inbox)
        self._outstanding += wanted
        self._heard = self._loop.time()
        if self._watch is None:
            self._watch = self._loop.call_later(self._heartbeat, self._check)

    def _check(self) -> None:
        """Begin anew if JetStream is silent; give back what is not taken."""
        self._watch = None
        self._on_check()
        now = self._loop.time()
        if self._buffer and now - self._buffer[0].came >= self._ack_wait * STALE:
            # Messages are not taken as fast any more. Those that are on their way would not be
            # taken either, and each delivery counts as a try.
            self._interval = self._ack_wait
            while self._buffer:
                self._buffer.popleft().give_back()
            self.reset()
        if self._outstanding and now - self._heard > 2 * self._heartbeat + PAUSE:
            logger.warning("durable queue %s: JetStream is silent; pulling anew", self.name)
            self.reset()
        if self._end is None and (self._outstanding or self._buffer or self._waiters):
            self._watch = self._loop.call_later(self._heartbeat, self._check)
            self._pull()

    def reset(self) -> None:
        """Begin anew: what JetStream was asked for does not come any more."""
        self._reset_at = self._loop.time()
        self._drain()
        self._outstanding = 0
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._waiters:
            self._pull()

    def _received(
        self, number: int, subject: str, reply: str, payload: bytes, headers: bytes
    ) -> None:
        """Take what came for a pull; `number` says by which subscription."""
        self._heard = self._loop.time()
        status = status_of(headers)
        if status:
            if number != self._numbers or self._subscription is None:
                return
            self._pull_ended(status, headers)
            return
        if number != self._numbers or self._subscription is None:
            # It was asked for by a pull that is over.
            self._connection.publish(reply, nak(0.0))
            return
        self._outstanding = max(0, self._outstanding - 1)
        self._take(reply, payload, headers)
        self._pull()

    def _take(self, reply: str, payload: bytes, headers: bytes) -> None:
        """Take a message that was asked for."""
        try:
            batch, items = self._unpack(payload)
            info, dead = parse_delivery(reply), dead_of(headers)
            delivered = Delivered(
                self._settlement, reply, info, batch, items[0], dead, self._loop.time()
            )
        except (ProtocolError, ValueError, TypeError) as error:
            logger.warning("durable queue %s: malformed message: %.200s", self.name, error)
            if reply:
                self._connection.publish(reply, b"+TERM malformed")
            return
        if len(items) > 1:
            self._settlement.start(self._split_up(delivered, items))
        elif delivered.tries > self._tries:
            self._settlement.bury(delivered, self._tries)
        else:
            self._deliver(delivered)

    def _deliver(self, delivered: Delivered) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(delivered)
                return
        self._buffer.append(delivered)

    def _pull_ended(self, status: int, headers: bytes) -> None:
        """A pull is over, or JetStream is only alive."""
        if status == ALIVE:
            return
        text = headers.partition(b"\r\n")[0].decode("utf-8", "replace")
        pending = parse_headers(headers).get("nats-pending-messages", "")
        if pending.isdecimal():
            self._outstanding = max(0, self._outstanding - int(pending))
        else:
            self._outstanding = 0
        if "Consumer Deleted" in text:
            self.close(self._deleted())
            return
        if status in (404, 408):
            # Its time is over.
            if self._waiters:
                self._pull()
            return
        logger.debug("durable queue %s: %s", self.name, text)
        if self._retry is None:
            self._retry = self._loop.call_later(PAUSE, self._pull_again)
        if status == NO_RESPONDERS:
            self._look_up()

    def _look_up(self) -> None:
        """See whether the queue is still there: nobody listens to what is asked of it."""
        if not self._is_looking:
            self._is_looking = True
            self._settlement.start(self._end_if_deleted())

    async def _end_if_deleted(self) -> None:
        try:
            # A server that was just started may have read the stream and not yet its queues.
            is_settled = self._loop.time() - self._reset_at > ABSENCE
            if not await self._exists() and is_settled:
                self.close(self._deleted())
        finally:
            self._is_looking = False

    def _deleted(self) -> NotFoundError:
        return NotFoundError(f"the durable queue {self.name!r} was deleted")

    def _pull_again(self) -> None:
        self._retry = None
        if self._waiters:
            self._pull()

    # -- batches, and the end ---------------------------------------------------------------

    async def _split_up(self, first: Delivered, items: list[tuple[Any, ...]]) -> None:
        """Have each message of a batch be one by itself, which is acknowledged by itself."""
        without_room = await self._split(first.batch, items)
        if without_room:
            self._deliver_together(first, {place: items[place] for place in without_room})
        else:
            await first.ack(confirm=False)

    def _deliver_together(self, first: Delivered, items: dict[int, tuple[Any, ...]]) -> None:
        """Deliver messages of a batch, each by its place, of which JetStream is told one word."""
        share = Share(items)
        for place, item in items.items():
            delivered = first.shared(item, share, place)
            if self._end is not None:
                delivered.give_back()
            elif delivered.tries > self._tries:
                self._settlement.bury(delivered, self._tries)
            else:
                self._deliver(delivered)

    def close(self, error: Exception | None = None) -> None:
        """Take no more; what was not taken goes back, and calls of `get` fail."""
        if self._end is not None:
            return
        self._end = error or Empty()
        self._settlement.is_closed = True
        for timer in (self._watch, self._retry):
            if timer is not None:
                timer.cancel()
        while self._buffer:
            self._buffer.popleft().give_back()
        self._drain()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(self._end)

    def _drain(self) -> None:
        """End what was asked for; messages that are on their way go back."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        if self._connection.is_connected:
            self._settlement.start(self._connection.drain_subscription(subscription, DRAIN_TIMEOUT))
        else:
            self._connection.unsubscribe(subscription)

    async def wait_closed(self) -> None:
        """Wait until what it still did has ended, for as long as that takes at most."""
        await self._settlement.wait_closed(DRAIN_TIMEOUT)
