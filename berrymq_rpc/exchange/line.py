"""One line to another node: what its outbox holds is sent until the peer has confirmed it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConnectionLostError, OverloadedError, RPCTimeoutError, ServiceClosedError
from ..rpc import Call, Client, Peer
from ..rpc.proxy import Namespace
from .bundle import Bundle
from .outbox import Outbox
from .status import OK

if TYPE_CHECKING:
    from .switchboard import Switchboard

__all__ = ["Line", "Wire"]

logger = logging.getLogger("berrymq_rpc.exchange")

#: Bundles and bytes of which the last bundle asks for a confirmation.
GROUP_BUNDLES = 8
GROUP_BYTES = 128 << 10

#: Confirmations that are awaited at a time.
MAX_CALLS = 8

#: Bytes that are not confirmed, beside which nothing more is sent: so a larger bundle is alone. It
#: is far below `Limits.max_queued_call_bytes`, over which a peer refuses: what came after would be
#: out of order.
MAX_UNDER_WAY = 4 << 20

#: Seconds after which a peer that took nothing is tried again, the first time and at most.
FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0

#: Seconds between two words on the bus about what was dropped.
TELL_PAUSE = 1.0

#: Messages sent to a peer that takes single ones before others have their turn on the event loop.
BURST = 200


class Wire(NamedTuple):
    """A way to the peer, for as long as it is there.

    Args:
        token: what the peer knows the connection by.
        call: calls a method of the peer's by name.
        notify: the same, without an answer.
        takes_bundles: whether the peer is a node that numbers messages; one that does not gets
            them one by one.
    """

    token: str
    call: Callable[..., Call]
    notify: Callable[..., object]
    takes_bundles: bool

    @classmethod
    def to_peer(cls, peer: Peer, token: str, takes_bundles: bool) -> "Wire":
        """The way over one connection, and none that follows it: so the order is kept."""
        return cls(token, peer.call, _by_name(peer.notify), takes_bundles)

    @classmethod
    def to_server(cls, client: Client, token: str) -> "Wire":
        """The way to a server that takes messages one by one, over whichever connection."""
        return cls(token, client.call, _by_name(client.notify), False)


def _by_name(notify: Namespace[None]) -> Callable[..., object]:
    def send(name: str, *args: Any) -> None:
        getattr(notify, name)(*args)

    return send


class Line:
    """One direction of an interconnection, which outlives the connections that carry it.

    Made by `Switchboard.line`. It belongs to the switchboard's event loop.

    Args:
        switchboard: whose messages it carries.
        peer: what to call the other side, in logs and on the bus.
        outbox: what it carries.
    """

    def __init__(self, switchboard: "Switchboard", peer: str, outbox: Outbox) -> None:
        self.peer = peer
        self.outbox = outbox
        #: The name of the node at the other side, where it is known.
        self.node: str | None = None
        #: Called when the way to the peer turned out not to be there; the line is cut then.
        self.on_down: Callable[[], object] = lambda: None
        self._switchboard = switchboard
        self._lock = switchboard.router.lock
        self._loop = asyncio.get_running_loop()
        self._channel: Hashable = None
        self._wire: Wire | None = None
        #: That of the last wire: with another one, the peer may be another process.
        self._token: str | None = None
        #: Confirmations that are awaited, each with its mark; what they are for in bytes; and what
        #: makes those of a former wire void.
        self._under_way: dict[Call, int] = {}
        self._bytes_under_way = 0
        self._generation = 0
        self._pause = FIRST_PAUSE
        self._later: asyncio.TimerHandle | None = None
        #: What of a bundle was not sent yet, to a peer that takes messages one by one.
        self._singles: deque[Any] = deque()
        #: Of the dropped ones, how many the bus was told of.
        self._told = outbox.dropped
        self._teller: asyncio.TimerHandle | None = None
        self._drainers: list[asyncio.Future[None]] = []
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        """Whether there is a way to the peer."""
        return self._wire is not None

    def open(self, channel: Hashable, wire: Wire) -> None:
        """There is a way: send what waits, what was not confirmed first.

        Args:
            channel: what names the way, for `cut`.
        """
        if self._is_closed:
            return
        if self._channel == channel and self._wire is not None and self._token == wire.token:
            # Said twice. To begin anew would send all that is under way again.
            return
        self._down()
        if self._token != wire.token:
            self._token = wire.token
            self._switchboard.router.sequences.renew_line(self.outbox)
        self._channel = channel
        self._wire = wire
        self._switchboard.wake()

    def cut(self, channel: Hashable) -> bool:
        """That way is gone, unless another one was opened since; whether it was the present one."""
        if self._is_closed or self._channel != channel:
            return False
        self._channel = None
        self._down()
        return True

    def close(self) -> None:
        """Carry nothing any more: what waits is dropped, counted and told."""
        if self._is_closed:
            return
        for call, mark in self._under_way.items():
            # The peer may have confirmed and closed in one message: callbacks run after it.
            if call.done() and not (call.cancelled() or call.exception()) and call.result() == OK:
                self._confirm(mark)
        self.give_up()
        self._switchboard.discard(self)
        with self._lock:
            self.outbox.clear()
        self._tell("the connection has ended")

    def give_up(self) -> Outbox:
        """Close the line, and leave what waits to another one."""
        self._is_closed = True
        self._down()
        if self._teller is not None:
            self._teller.cancel()
            self._teller = None
        return self.outbox

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until the peer has confirmed all, the line is closed, or the time is over.

        Args:
            timeout: seconds, or ``None``: as long as it takes.

        Returns:
            Whether all is confirmed.
        """
        self._switchboard.flush()
        if len(self.outbox) and not self._is_closed:
            waiter = self._loop.create_future()
            self._drainers.append(waiter)
            await asyncio.wait((waiter,), timeout=timeout)
        return not len(self.outbox)

    @property
    def dropped(self) -> int:
        """How many messages were not carried: too many waited, or the peer did not take them."""
        return self.outbox.dropped + self.outbox.refused

    def __len__(self) -> int:
        return len(self.outbox)

    def __repr__(self) -> str:
        return f"<Line to {self.peer}>"

    # -- sending ---------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what may be sent now."""
        if self.outbox.dropped > self._told:
            self.tell_dropped()
        wire = self._wire
        if wire is None or self._later is not None:
            return
        if not wire.takes_bundles:
            self._flush_singles(wire)
            return
        while self._wire is wire and self._has_room():
            with self._lock:
                bundles = self.outbox.take(GROUP_BUNDLES, GROUP_BYTES)
                mark = self.outbox.mark
            if not self._send_group(wire, bundles, mark):
                return

    def _has_room(self) -> bool:
        """Whether there is something to send, and it may be sent now."""
        size = self.outbox.next_size
        if not size or len(self._under_way) >= MAX_CALLS:
            return False
        return not self._under_way or self._bytes_under_way + size <= MAX_UNDER_WAY

    def _send_group(self, wire: Wire, bundles: list[Bundle], mark: int) -> bool:
        """Send bundles, and ask for a confirmation of all; whether to go on."""
        last = bundles[-1]
        for bundle in bundles:
            arguments: tuple[Any, ...] = (wire.token, bundle.envelope(), bundle.data)
            if bundle.frames:
                arguments = (*arguments, bundle.frames)
            try:
                if bundle is not last:
                    wire.notify("send_messages", *arguments)
                    continue
                call = wire.call("send_messages", *arguments)
            except (ServiceClosedError, ConnectionLostError):
                self._fail()
                return False
            except OverloadedError:
                self._try_later()
                return False
            except Exception as error:
                # Too large for the peer, most often.
                self._refuse(bundle, error)
                if bundle is last:
                    # There is nothing to ask with.
                    self._confirm(mark)
                continue
            self._under_way[call] = mark
            size = sum(bundle.size for bundle in bundles)
            self._bytes_under_way += size
            call.add_done_callback(partial(self._answered, self._generation, mark, last, size))
        return True

    def _answered(self, generation: int, mark: int, last: Bundle, size: int, call: Any) -> None:
        error = None if call.cancelled() else call.exception()
        if generation != self._generation:
            return
        del self._under_way[call]
        self._bytes_under_way -= size
        if error is None and not call.cancelled():
            if call.result() == OK:
                self._pause = FIRST_PAUSE
                self._confirm(mark)
                self.flush()
            else:
                # The peer has forgotten the connection: it is made anew elsewhere.
                self._fail()
        elif isinstance(error, OverloadedError | RPCTimeoutError):
            self._try_later()
        elif error is None or isinstance(error, ServiceClosedError | ConnectionLostError):
            self._fail()
        else:
            # It would be refused the next time as well.
            self._refuse(last, error)
            self._confirm(mark)
            self.flush()

    def _flush_singles(self, wire: Wire) -> None:
        """Send messages one by one: confirmed as they are sent, as a double would not be known."""
        room = BURST
        while self._wire is wire:
            if not self._singles:
                with self._lock:
                    bundles = self.outbox.take(1, 0)
                if not bundles:
                    self._confirm(self.outbox.mark)
                    return
                self._singles.extend(self._switchboard.router.unpack(bundles[0]))
            if not room:
                self._loop.call_soon(self.flush)
                return
            room -= 1
            identifier, args, *rest = self._singles[0]
            try:
                kwargs = rest[0] if rest else {}
                wire.notify("send_message", wire.token, identifier, args, kwargs)
            except (ServiceClosedError, ConnectionLostError):
                self._fail()
                return
            except OverloadedError:
                self._plan()
                return
            except Exception as error:
                self.outbox.refused += 1
                logger.warning("%r: %s is not taken: %.200s", self, identifier, error)
            self._singles.popleft()
            if not self._singles:
                self._confirm(self.outbox.mark)

    def _confirm(self, mark: int) -> None:
        with self._lock:
            self.outbox.confirm(mark)
        if not len(self.outbox):
            self._release_drainers()

    def _refuse(self, bundle: Bundle, error: BaseException) -> None:
        self.outbox.refuse(bundle)
        logger.warning("%r: %r: the peer does not take it: %.200s", self, bundle, error)

    def _fail(self) -> None:
        self._down()
        self.on_down()

    def _down(self) -> None:
        """There is no way to the peer: what was not confirmed is sent anew on the next."""
        self._forget_calls()
        self._wire = None
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._singles:
            with self._lock:
                self.outbox.rewind()
        if self._is_closed:
            self._release_drainers()

    def _try_later(self) -> None:
        self._forget_calls()
        with self._lock:
            self.outbox.rewind()
        self._plan()

    def _forget_calls(self) -> None:
        self._generation += 1
        self._under_way.clear()
        self._bytes_under_way = 0

    def _plan(self) -> None:
        if self._later is None:
            self._later = self._loop.call_later(self._pause, self._again)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _again(self) -> None:
        self._later = None
        self.flush()

    def _release_drainers(self) -> None:
        drainers, self._drainers = self._drainers, []
        for waiter in drainers:
            if not waiter.done():
                waiter.set_result(None)

    # -- what is dropped -------------------------------------------------------------------

    def tell_dropped(self) -> None:
        """Say on the bus what was dropped since the last time; at a bounded rate."""
        if self._teller is None and not self._is_closed:
            bound = f"{self.outbox.maximum:,} messages or {self.outbox.maximum_bytes:,} bytes"
            self._tell(f"more than {bound} wait for the line")
            self._teller = self._loop.call_later(TELL_PAUSE, self._tell_again)

    def _tell_again(self) -> None:
        self._teller = None
        if self.outbox.dropped > self._told:
            self.tell_dropped()

    def _tell(self, reason: str) -> None:
        count = self.outbox.dropped - self._told
        if count:
            self._told = self.outbox.dropped
            logger.warning("%r: dropped %s messages: %s", self, f"{count:,}", reason)
            self._switchboard.tell("dropped", endpoint=self.peer, count=count, reason=reason)
