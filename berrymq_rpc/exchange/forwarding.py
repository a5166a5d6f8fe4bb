"""One direction of an interconnection: a bus's own messages go to one peer, in order."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

from ..bus import Bus, Message
from ..errors import ConnectionLostError, OverloadedError, ServiceClosedError

__all__ = ["MAXIMUM_KEPT", "Forwarding", "Send"]

logger = logging.getLogger("berrymq_rpc.exchange")

Send: TypeAlias = Callable[[str, tuple[Any, ...], dict[str, Any]], object]

#: Messages kept while the line is down: some seconds to minutes of a busy bus.
MAXIMUM_KEPT = 100_000

#: Seconds after which a peer that did not read fast enough is tried again.
CONGESTION_PAUSE = 0.01

#: Messages sent before others have their turn on the event loop; a millisecond or a few.
BURST = 200


class Forwarding:
    """Carries the messages of a bus to a peer, over a line that may be cut and opened again.

    A message that itself came over an interconnection is not carried on, so none comes back to
    where it came from. While the line is down, or the peer does not read, messages are kept up to
    `MAXIMUM_KEPT`; then the oldest is dropped, counted and, at a bounded rate, logged. Any thread
    may send on the bus; all else belongs to the event loop on which this was made.

    Args:
        bus: whose messages to carry, from now on until `close`.
        name: the peer's, for logs and as `Message.origin` of what comes from it.

    Attributes:
        dropped: how many messages were dropped as too many were kept.
        refused: how many could not travel, because of their arguments.
    """

    def __init__(self, bus: Bus, name: str, maximum: int = MAXIMUM_KEPT) -> None:
        self.name = name
        self.dropped = 0
        self.refused = 0
        self._bus = bus
        self._maximum = maximum
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._line: Hashable = None
        self._send: Send | None = None
        self._kept: deque[Message] = deque()
        self._is_scheduled = False
        self._later: asyncio.TimerHandle | None = None
        self._is_closed = False
        # Reentrant: an object that is collected while the lock is held may send a message.
        self._lock = threading.RLock()
        bus.add_forwarder(self.forward)

    def open(self, line: Hashable, send: Send) -> None:
        """The line is there: send what was kept, and from now on at once.

        Args:
            line: what names the line for `cut`.
            send: sends one message, or raises and has not sent it.
        """
        if not self._is_closed:
            self._line = line
            self._send = send
            self._flush()

    def cut(self, line: Hashable) -> None:
        """The line is gone, unless another one was opened since."""
        if self._line == line:
            self._line = self._send = None

    def forward(self, message: Message) -> None:
        """Take a message of the bus. From any thread."""
        if message.origin is not None:
            return
        with self._lock:
            if self._is_closed:
                return
            self._kept.append(message)
            if len(self._kept) > self._maximum:
                self._kept.popleft()
                self._count_dropped()
            if threading.get_ident() != self._thread:
                self._schedule()
                return
        # At once: a receiver may change the arguments, and the sender's order is kept.
        if self._later is None:
            self._flush()

    def close(self) -> None:
        """Carry no further messages."""
        self._bus.remove_forwarder(self.forward)
        with self._lock:
            self._is_closed = True
            self._kept.clear()
        self._line = self._send = None
        if self._later is not None:
            self._later.cancel()

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<Forwarding to {self.name}>"

    def _schedule(self) -> None:
        if self._is_scheduled:
            return
        self._is_scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._scheduled)
        except RuntimeError:
            # The loop was closed while another thread sent its last message.
            self._is_closed = True

    def _scheduled(self) -> None:
        self._is_scheduled = False
        self._flush()

    def _flush(self) -> None:
        room = BURST
        while self._send is not None:
            if not room:
                self._flush_later(0.0)
                return
            room -= 1
            with self._lock:
                if not self._kept:
                    return
                message = self._kept.popleft()
            try:
                self._send(message.id, message.args, message.kwargs)
            except OverloadedError:
                self._keep(message)
                self._flush_later(CONGESTION_PAUSE)
                return
            except (ServiceClosedError, ConnectionLostError):
                self._keep(message)
                self._line = self._send = None
            except Exception as error:
                self.refused += 1
                self._bus.report(error, message, self, "cannot carry")

    def _flush_later(self, seconds: float) -> None:
        if self._later is None:
            self._later = self._loop.call_later(seconds, self._flush_again)

    def _flush_again(self) -> None:
        self._later = None
        self._flush()

    def _keep(self, message: Message) -> None:
        with self._lock:
            self._kept.appendleft(message)

    def _count_dropped(self) -> None:
        self.dropped += 1
        # At 1, 2, 4, 8...: a line that stays down must not fill the log instead.
        if self.dropped.bit_count() == 1:
            logger.warning(
                "interconnection with %s: %s messages wait for the line, %d dropped so far",
                self.name,
                f"{self._maximum:,}",
                self.dropped,
            )
