"""A link to another node: sends what its send buffer holds until the peer has acknowledged it."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol

from ..bus.retained_store import Forgotten
from ..common.backoff import Backoff
from ..common.log_limiter import LogLimiter
from ..errors import (
    ConnectionLostError,
    NotFoundError,
    OverloadedError,
    RPCTimeoutError,
    ServiceClosedError,
)
from ..rpc import Call
from ..runtime.log import Log
from .batch import Batch
from .carrier import Carrier
from .message_filter import MessageFilter
from .send_buffer import SendBuffer
from .status import OK

__all__ = ["Link", "LinkHost"]

logger = Log("berrymq_rpc.exchange")

#: Batches and bytes of a group; the last batch of a group asks for an acknowledgement.
GROUP_BATCHES = 8
GROUP_BYTES = 128 << 10

#: Acknowledgements that are awaited at a time.
MAX_CALLS = 8

#: Unacknowledged bytes over which nothing more is sent, so that a larger batch goes alone. Far
#: below `Limits.max_queued_call_bytes`, over which a peer refuses calls: what came after would be
#: out of order.
MAX_IN_FLIGHT = 4 << 20

#: Seconds after which a peer that took nothing is tried again, the first time and at most.
FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0

#: Seconds between two events on the bus about dropped messages.
REPORT_PAUSE = 1.0

#: Messages sent to a peer that takes single ones before others have their turn on the event loop.
BURST = 200


class LinkHost(Protocol):
    """What a link needs of the mesh that it belongs to."""

    @property
    def lock(self) -> threading.RLock:
        """The lock to hold while using a send buffer."""

    def flush(self) -> None:
        """Fill the send buffers of all links, and send what may be sent now."""

    def wake(self) -> None:
        """Have `flush` called soon."""

    def unpack(self, batch: Batch) -> tuple[tuple[Any, ...], ...]:
        """Unpack the messages of a batch."""

    def feed(self, link: "Link") -> None:
        """Put some of what waits in `Link.retained` into its send buffer."""

    def renew(self, link: "Link") -> None:
        """Note that another process may be at the link's other end."""

    def discard(self, link: "Link") -> None:
        """Remove a link that was closed."""

    def report(self, action: str, **about: Any) -> None:
        """Publish an event about the link on the node's own bus."""


class Link:
    """One direction of an interconnection, which outlives the connections that carry it.

    Made by `Mesh.add_link`. It belongs to the mesh's event loop.

    Args:
        host: the mesh.
        peer: what to call the other side, in logs and on the bus.
        send_buffer: what to send.
    """

    def __init__(self, host: LinkHost, peer: str, send_buffer: SendBuffer) -> None:
        self.peer = peer
        self.send_buffer = send_buffer
        #: The name of the node at the other side, if it is known.
        self.node: str | None = None
        #: The user or the key by which it has proved who it is, if it has.
        self.user: str | None = None
        #: Leaves out what the peer may not send; ``None`` where it may send everything. When a
        #: refusal is reported, and how many messages were refused since the last report.
        self.filter: MessageFilter | None = None
        self.refusals = LogLimiter()
        self.unreported_refusals = 0
        #: Whether the peer has asked for what is retained, and what of it waits to be sent: the
        #: identifiers of messages, and what was forgotten.
        self.wants_retained = False
        #: Whether this side asks the peer: the one that has connected does so first.
        self.asks_retained = False
        self.retained: dict[str | Forgotten, None] = {}
        #: Whether the peer is not a node: its messages have no envelopes.
        self.is_leaf = False
        #: Of a leaf: the IP addresses, each with the port, at which it listens, as far as is known.
        self.places: frozenset[tuple[str, int]] = frozenset()
        #: Called when sending has shown that the peer is gone; the link is down then.
        self.on_down: Callable[[], object] = lambda: None
        #: Called with whether there is a carrier, when there is one again, or none any more.
        self.on_change: Callable[[bool], object] = lambda is_up: None
        self._host = host
        self._lock = host.lock
        self._loop = asyncio.get_running_loop()
        self._channel: Hashable = None
        self._carrier: Carrier | None = None
        #: The token of the last carrier: with another one, the peer may be another process.
        self._token: str | None = None
        #: Acknowledgements that are awaited, each with its position; the bytes that they are for;
        #: and a number that voids those of a former carrier.
        self._in_flight: dict[Call, int] = {}
        self._bytes_in_flight = 0
        self._generation = 0
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._retry: asyncio.TimerHandle | None = None
        #: The unsent rest of a batch, for a peer that takes messages one by one.
        self._singles: deque[Any] = deque()
        #: How many of the dropped messages were reported.
        self._reported = send_buffer.dropped
        self._report_timer: asyncio.TimerHandle | None = None
        self._drainers: list[asyncio.Future[None]] = []
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        """Whether there is a carrier."""
        return self._carrier is not None

    @property
    def carrier(self) -> Carrier | None:
        """The carrier in use, or ``None`` while there is none."""
        return self._carrier

    def open(self, channel: Hashable, carrier: Carrier) -> None:
        """Send over `carrier` from now on, unacknowledged messages first.

        Args:
            channel: what `cut` names the carrier by.
        """
        if self._is_closed:
            return
        if self._channel == channel and self._carrier is not None and self._token == carrier.token:
            # Opened twice. Starting over would send everything in flight again.
            return
        self._down()
        if self._token != carrier.token:
            self._token = carrier.token
            self._host.renew(self)
        self._channel = channel
        self._carrier = carrier
        if self.asks_retained:
            self.ask_retained()
        self._host.wake()
        self.on_change(True)

    def ask_retained(self) -> None:
        """Have the peer send what it retains, when there is a carrier and whenever it is renewed.

        One of an older version does not know the question.
        """
        self.asks_retained = True
        carrier = self._carrier
        if carrier is None or not carrier.takes_batches:
            return
        try:
            call = carrier.call("ask_retained", carrier.token)
        except Exception as error:
            logger.debug("%r: not asked for what is retained: %.200s", self, error)
            return
        call.add_done_callback(_ignore)

    def cut(self, channel: Hashable) -> bool:
        """Stop using a carrier that is gone; return whether it was in use."""
        if self._is_closed or self._channel != channel:
            return False
        self._channel = None
        self._down()
        self.on_change(False)
        return True

    def close(self) -> None:
        """Stop sending: drop what waits, count and report it."""
        if self._is_closed:
            return
        for call, ack_position in self._in_flight.items():
            # The peer may have acknowledged and closed in one message: callbacks run after it.
            if call.done() and not (call.cancelled() or call.exception()) and call.result() == OK:
                self._acknowledge(ack_position)
        self.give_up()
        self._host.discard(self)
        with self._lock:
            self.send_buffer.clear()
        self._report("the connection has ended")

    def give_up(self) -> SendBuffer:
        """Close the link, and leave what waits to another one."""
        self._is_closed = True
        self._down()
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        return self.send_buffer

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until the peer has acknowledged everything, the link is closed, or time is over.

        Args:
            timeout: seconds, or ``None`` for no limit.

        Returns:
            Whether everything is acknowledged.
        """
        self._host.flush()
        if len(self.send_buffer) and not self._is_closed:
            waiter = self._loop.create_future()
            self._drainers.append(waiter)
            await asyncio.wait((waiter,), timeout=timeout)
        return not len(self.send_buffer)

    @property
    def dropped(self) -> int:
        """How many messages were not carried: too many waited, or the peer did not accept them."""
        return self.send_buffer.dropped + self.send_buffer.refused

    def __len__(self) -> int:
        return len(self.send_buffer)

    def __repr__(self) -> str:
        return f"<Link to {self.peer}>"

    # -- sending ---------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what may be sent now."""
        if self.send_buffer.dropped > self._reported:
            self.report_dropped()
        carrier = self._carrier
        if carrier is None or self._retry is not None:
            return
        if self.retained:
            self._host.feed(self)
        if not carrier.takes_batches:
            self._flush_singles(carrier)
            return
        group, calls = (GROUP_BATCHES, MAX_CALLS) if carrier.keeps_order else (1, 1)
        while self._carrier is carrier and self._has_room(calls):
            with self._lock:
                batches = self.send_buffer.take(group, GROUP_BYTES)
                ack_position = self.send_buffer.ack_position
            if not self._send_group(carrier, batches, ack_position):
                return

    def _has_room(self, calls: int) -> bool:
        """Whether there is something to send, and it may be sent now, with so many in flight."""
        size = self.send_buffer.next_size
        if not size or len(self._in_flight) >= calls:
            return False
        return not self._in_flight or self._bytes_in_flight + size <= MAX_IN_FLIGHT

    def _send_group(self, carrier: Carrier, batches: list[Batch], ack_position: int) -> bool:
        """Send batches, and ask for an acknowledgement of all; return whether to go on."""
        last = batches[-1]
        for batch in batches:
            arguments: tuple[Any, ...] = (carrier.token, batch.envelope(), batch.data)
            if batch.frames:
                arguments = (*arguments, batch.frames)
            try:
                if batch is not last:
                    carrier.notify(batch.method, *arguments)
                    continue
                call = carrier.call(batch.method, *arguments)
            except (ServiceClosedError, ConnectionLostError):
                self._fail()
                return False
            except OverloadedError:
                self._retransmit_later()
                return False
            except Exception as error:
                # Too large for the peer, most often.
                self._refuse(batch, error)
                if batch is last:
                    # No call is left that would be answered.
                    self._acknowledge(ack_position)
                continue
            self._in_flight[call] = ack_position
            size = sum(batch.size for batch in batches)
            self._bytes_in_flight += size
            call.add_done_callback(
                partial(self._answered, self._generation, ack_position, last, size)
            )
        return True

    def _answered(
        self, generation: int, ack_position: int, last: Batch, size: int, call: Any
    ) -> None:
        error = None if call.cancelled() else call.exception()
        if generation != self._generation:
            return
        del self._in_flight[call]
        self._bytes_in_flight -= size
        if error is None and not call.cancelled():
            if call.result() == OK:
                self._backoff.reset()
                self._acknowledge(ack_position)
                self.flush()
            else:
                # The peer has forgotten the connection, which registers again by itself.
                self._fail()
        elif isinstance(error, OverloadedError | RPCTimeoutError):
            self._retransmit_later()
        elif error is None or isinstance(error, ServiceClosedError | ConnectionLostError):
            self._fail()
        else:
            # A retry would be refused as well.
            self._refuse(last, error)
            self._acknowledge(ack_position)
            self.flush()

    def _flush_singles(self, carrier: Carrier) -> None:
        """Send messages one by one.

        They count as acknowledged once they are sent: the peer could not tell a duplicate.
        """
        room = BURST
        while self._carrier is carrier:
            if not self._singles:
                with self._lock:
                    batches = self.send_buffer.take(1, 0)
                if not batches:
                    self._acknowledge(self.send_buffer.ack_position)
                    return
                self._singles.extend(self._host.unpack(batches[0]))
            if not room:
                self._loop.call_soon(self.flush)
                return
            room -= 1
            identifier, args, *rest = self._singles[0]
            try:
                kwargs = rest[0] if rest else {}
                carrier.notify("send_message", carrier.token, identifier, args, kwargs)
            except (ServiceClosedError, ConnectionLostError):
                self._fail()
                return
            except OverloadedError:
                self._flush_later()
                return
            except Exception as error:
                self.send_buffer.refused += 1
                logger.warning("%r: message %s refused: %.200s", self, identifier, error)
            self._singles.popleft()
            if not self._singles:
                self._acknowledge(self.send_buffer.ack_position)

    def _acknowledge(self, ack_position: int) -> None:
        with self._lock:
            self.send_buffer.acknowledge(ack_position)
        if not len(self.send_buffer):
            self._release_drainers()

    def _refuse(self, batch: Batch, error: BaseException) -> None:
        if batch.method == "send_retained" and isinstance(error, NotFoundError):
            # A node of an older version is there now.
            self.wants_retained = False
            self.retained.clear()
            return
        self.send_buffer.refuse(batch)
        logger.warning("%r: %r refused by the peer: %.200s", self, batch, error)

    def _fail(self) -> None:
        self._down()
        self.on_change(False)
        self.on_down()

    def _down(self) -> None:
        """Stop sending; the next carrier begins with what is not acknowledged."""
        self._forget_calls()
        self._carrier = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if not self._singles:
            with self._lock:
                self.send_buffer.retransmit()
        if self._is_closed:
            self._release_drainers()

    def _retransmit_later(self) -> None:
        self._forget_calls()
        with self._lock:
            self.send_buffer.retransmit()
        self._flush_later()

    def _forget_calls(self) -> None:
        self._generation += 1
        self._in_flight.clear()
        self._bytes_in_flight = 0

    def _flush_later(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(self._backoff.next(), self._flush_again)

    def _flush_again(self) -> None:
        self._retry = None
        self.flush()

    def _release_drainers(self) -> None:
        drainers, self._drainers = self._drainers, []
        for waiter in drainers:
            if not waiter.done():
                waiter.set_result(None)

    # -- what is dropped -------------------------------------------------------------------

    def report_dropped(self) -> None:
        """Report on the bus what was dropped since the last report, at a bounded rate."""
        if self._report_timer is None and not self._is_closed:
            buffer = self.send_buffer
            bound = f"{buffer.max_messages:,} messages or {buffer.max_bytes:,} bytes"
            self._report(f"more than {bound} wait for the line")
            self._report_timer = self._loop.call_later(REPORT_PAUSE, self._report_again)

    def _report_again(self) -> None:
        self._report_timer = None
        if self.send_buffer.dropped > self._reported:
            self.report_dropped()

    def _report(self, reason: str) -> None:
        count = self.send_buffer.dropped - self._reported
        if count:
            self._reported = self.send_buffer.dropped
            logger.warning("%r: dropped %s messages: %s", self, f"{count:,}", reason)
            self._host.report("dropped", endpoint=self.peer, count=count, reason=reason)


def _ignore(call: Any) -> None:
    """Look at how a call ended, so that nothing is logged of it."""
    if not call.cancelled():
        call.exception()
