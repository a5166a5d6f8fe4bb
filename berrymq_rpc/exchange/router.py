"""What a node does with messages: numbers its own, passes others on, each once and in order.

Each message of this node's bus that is not local gets the next number, is packed once, and goes to
all lines. What comes by one line, and is new, is published here and goes to all the others. So in
any topology each node gets each message by all ways there are, and takes it by the first one.

The answers of ``talk`` go to the node that asked alone, back along the lines by which its messages
came first.

Nothing here waits or asks for the time. Any thread may send on the bus, and answer; all else
belongs to one thread.
"""

import logging
import threading
import uuid
from collections import deque
from collections.abc import Hashable, Iterable
from functools import partial
from typing import Any, Protocol

from ..bus import Message
from ..bus.gateway import Gateway
from ..bus.message import TalkMessage, parts_of
from ..common.tally import Tally
from ..errors import ProtocolError
from ..identifier import Identifier
from ..rpc.wire.codec import Codec
from ..rpc.wire.exception_codec import Failure, describe, restore
from ..rpc.wire.limits import Limits
from .bundle import Bundle, Source, checked_name, read_envelope
from .message_codec import BUNDLE_BYTES, LARGE, MessageCodec
from .outbox import Outbox
from .sequences import MAX_SOURCES, Arrival, Missed, Outcome, Sequences

__all__ = ["Router"]

logger = logging.getLogger("berrymq_rpc.exchange")

#: Messages of one bundle. Larger ones gain nothing, and hold up who takes them.
BUNDLE_MESSAGES = 250

#: Answers of which doubles are known.
MAX_ANSWERS = 10_000


#: What cannot change, and packs without fail into a few bytes.
_PLAIN = frozenset((type(None), bool, int, float))

#: Characters of text that counts as plain, and values of a message of nothing else: with these, a
#: bundle is of some 100 KB at most.
PLAIN_TEXT = 100
PLAIN_VALUES = 4


class Wake(Protocol):
    """Called, from any thread, when `Router.collect` has something to do and did not before."""

    def __call__(self) -> object: ...


class Router:
    """Numbers messages, and tells which go where.

    Args:
        gateway: that of the bus where they come from, and are published.
        name: the node's; ``None`` for a random one.
        epoch: when it started, in microseconds since 1970.
        limits: bounds of what a message may be.
        sequences: what keeps their order.
        wake: see `Wake`.

    Attributes:
        name: the node's name.
        source: its name and epoch, which other nodes know its messages by.
        refused: how many messages could not travel, because of their arguments.
        malformed: how many messages came that were none.
        unanswered: how many answers of ``talk`` found no way to who asked.
    """

    def __init__(
        self,
        gateway: Gateway,
        name: str | None = None,
        *,
        epoch: int = 0,
        limits: Limits | None = None,
        sequences: Sequences | None = None,
        wake: Wake = lambda: None,
    ) -> None:
        self.name = str(uuid.uuid4()) if name is None else checked_name(name)
        self.source: Source = (self.name, epoch)
        self.refused = 0
        self.malformed = Tally()
        self.unanswered = Tally()
        self.sequences = Sequences() if sequences is None else sequences
        self._gateway = gateway
        self._wake = wake
        self._is_awake = False
        self._outboxes: tuple[Outbox, ...] = ()
        #: Held for whatever touches an outbox. Reentrant: an object that is collected in the midst
        #: of anything may send a message.
        self.lock = threading.RLock()
        self._codec = MessageCodec(Limits() if limits is None else limits)
        #: Own messages that are in no bundle yet: packed; or, where nothing in them can change and
        #: all can travel, as they are, for all at once they are packed in less time. Appending to
        #: it takes no lock.
        self._pending: deque[bytes | tuple[Any, ...]] = deque()
        self._pending_bytes = 0
        self._is_collecting = False
        self._next = 1
        self._next_answer = 1
        #: The lines by which a source's messages come first.
        self._routes: dict[Source, Hashable] = {}
        self._answers: dict[tuple[Source, int], None] = {}

    # -- lines -----------------------------------------------------------------------------

    def add(self, outbox: Outbox, *, brings: bool = True) -> None:
        """Send what comes from now on to a line as well.

        Args:
            outbox: the line's, by which it is known here.
            brings: whether messages with envelopes come by it.
        """
        with self.lock:
            self.collect()
            self._outboxes = (*self._outboxes, outbox)
        if brings:
            self.sequences.add_line(outbox)

    def remove(self, outbox: Outbox, now: float) -> None:
        """A line is closed. What its outbox holds is left to the caller."""
        with self.lock:
            self.collect()
            self._outboxes = tuple(kept for kept in self._outboxes if kept is not outbox)
        self._routes = {source: line for source, line in self._routes.items() if line is not outbox}
        self._act(self.sequences.remove_line(outbox, now))

    def leaf(self, outbox: Outbox, now: float) -> None:
        """A line turned out to bring no messages with envelopes."""
        self._act(self.sequences.remove_line(outbox, now))

    # -- this node's own messages ----------------------------------------------------------

    def forward(self, message: Message) -> None:
        """Take a message of the bus: a forwarder. From any thread."""
        kind = type(message)
        if kind is not Message and message.origin is not None:
            # It came from another node, or is about this one's own lines.
            return
        if not self._outboxes:
            with self.lock:
                self._next += 1
            return
        identifier, args, kwargs = parts_of(message)
        if kind is TalkMessage and message.reply_to is not None:
            self._forward_packed(message, (identifier, args, kwargs, message.reply_to))
            return
        if kwargs:
            self._forward_packed(message, (identifier, args, kwargs))
            return
        if len(args) <= PLAIN_VALUES:
            for value in args:
                kind = type(value)
                if kind not in _PLAIN and (kind is not str or len(value) > PLAIN_TEXT):
                    break
            else:
                pending = self._pending
                pending.append((identifier, args))
                if not self._is_awake:
                    self._wake_up()
                if len(pending) >= BUNDLE_MESSAGES:
                    self.collect()
                return
        self._forward_packed(message, (identifier, args))

    def _forward_packed(self, message: Message, item: tuple[Any, ...]) -> None:
        """Take a message whose arguments may change, or may be unable to travel."""
        with self.lock:
            try:
                piece = self._codec.pack(item)
                if len(piece) >= LARGE and not self._is_collecting:
                    self._put_large(item)
                    self._wake_up()
                    return
            except Exception as error:
                self.refused += 1
                problem: Exception = error
            else:
                self._pending.append(piece)
                self._pending_bytes += len(piece)
                if not self._is_awake:
                    self._wake_up()
                if len(self._pending) >= BUNDLE_MESSAGES or self._pending_bytes >= BUNDLE_BYTES:
                    self.collect()
                return
        self._gateway.report(problem, message, self, "cannot carry")

    def publish(
        self, outbox: Outbox, identifier: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Take a message that came by a line without an envelope: it is this node's own.

        Raises:
            ValueError, TypeError: it is no message.
        """
        parsed = Identifier(identifier).require_exportable()
        with self.lock:
            self.collect()
            if len(self._outboxes) > 1:
                data, frames = self._codec.pack_large((str(parsed), args, kwargs))
                self._put(Bundle(self.source, self._next, 1, data, frames), outbox)
                self._wake_up()
            self._next += 1
        self._gateway.relay(parsed, args, kwargs, self.name)

    def collect(self) -> None:
        """Put what was sent on the bus into the outboxes. From any thread."""
        with self.lock:
            if self._is_collecting:
                # An object that is collected just now sends a message: it has its turn below.
                return
            self._is_collecting = True
            try:
                pending = self._pending
                while pending:
                    count = min(len(pending), BUNDLE_MESSAGES)
                    pieces = [pending.popleft() for _ in range(count)]
                    self._pending_bytes = 0
                    first = self._next
                    self._next += count
                    self._put(Bundle(self.source, first, count, self._codec.pack_all(pieces)))
            finally:
                self._is_collecting = False

    def rest(self) -> None:
        """What comes after this wakes the owner again. It collects after it."""
        self._is_awake = False

    def _put_large(self, item: tuple[Any, ...]) -> None:
        data, frames = self._codec.pack_large(item)
        self.collect()
        first = self._next
        self._next += 1
        self._put(Bundle(self.source, first, 1, data, frames))

    def _put(self, bundle: Bundle, but: Hashable = None) -> None:
        for outbox in self._outboxes:
            if outbox is not but:
                outbox.put(bundle)

    def _wake_up(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    # -- what comes from other nodes -------------------------------------------------------

    def receive(self, outbox: Outbox, bundle: Bundle, now: float) -> None:
        """Take what has come by a line.

        Args:
            outbox: that of the line by which it came.

        Raises:
            ProtocolError: the messages are none.
        """
        try:
            self._codec.check_size(bundle)
        except ProtocolError as error:
            self._count_malformed(error)
            raise
        if bundle.target is not None:
            self._receive_answer(outbox, bundle)
        elif bundle.source != self.source:
            self._act(self.sequences.receive(outbox, bundle, now))

    def enclosed(
        self, identifier: Any, args: tuple[Any, ...], kwargs: dict[str, Any], envelope: Any
    ) -> Bundle:
        """The bundle of one message that came for itself, with its envelope.

        Raises:
            TypeError, ValueError: a part is not what it must be.
        """
        bundle = read_envelope(envelope)
        if bundle.count != 1:
            raise ValueError("this is one message, so its count is 1")
        reply_to = envelope.get("reply_to")
        item: tuple[Any, ...] = (str(Identifier(identifier).require_exportable()), args, kwargs)
        if reply_to is not None:
            item = (*item, str(Identifier(reply_to).require_exportable()))
        data, frames = self._codec.pack_large(item)
        return Bundle(bundle.source, bundle.first, 1, data, frames, bundle.target, bundle.error)

    def expire(self, now: float) -> None:
        """Wait no longer for messages that have not come in time."""
        self._act(self.sequences.expire(now))

    def tell(self, action: str, **kwargs: Any) -> None:
        """Say something about this node's own lines on the bus; it is not carried anywhere."""
        self._gateway.relay(f"connection:{action}", (), kwargs, self.name)

    def _act(self, outcomes: Iterable[Outcome]) -> None:
        problem: ProtocolError | None = None
        for outcome in outcomes:
            if isinstance(outcome, Missed):
                self._tell_missed(outcome)
                continue
            try:
                self._arrived(outcome)
            except ProtocolError as error:
                problem = error
        if problem is not None:
            raise problem

    def _arrived(self, arrival: Arrival) -> None:
        bundle, line, skip = arrival
        messages = self.unpack(bundle)
        source = bundle.source
        if self._routes.get(source) is not line:
            self._set_route(source, line)
        # Before it is published, so that it goes before what its receivers send.
        if self._outboxes != (line,):
            with self.lock:
                self._put(bundle, line)
            self._wake_up()
        relay, origin = self._gateway.relay, source[0]
        for message in messages[skip:] if skip else messages:
            try:
                if len(message) == 2:
                    relay(message[0], message[1], {}, origin)
                elif len(message) == 3:
                    relay(message[0], message[1], message[2], origin)
                else:
                    identifier, args, kwargs, reply_to = message
                    callback = Identifier(reply_to).require_exportable()
                    answer = partial(self._answer, source, str(callback))
                    relay(identifier, args, kwargs, origin, answer)
            except (TypeError, ValueError) as error:
                # Of an identifier: the rest was looked at.
                self._count_malformed(error)

    def unpack(self, bundle: Bundle) -> tuple[tuple[Any, ...], ...]:
        """The messages of a bundle.

        Raises:
            ProtocolError: they are none.
        """
        try:
            return self._codec.unpack(bundle)
        except ProtocolError as error:
            self._count_malformed(error)
            raise

    def _count_malformed(self, error: Exception) -> None:
        if self.malformed.add():
            logger.warning(
                "node %s: what is no message came from another (%d so far): %.200s",
                self.name,
                self.malformed.count,
                error,
            )

    def _tell_missed(self, missed: Missed) -> None:
        (origin, _), first, last = missed
        count = last - first + 1
        logger.info("node %s: missed %d messages of %s", self.name, count, origin)
        self.tell("missed", origin=origin, first=first, last=last, count=count)

    def _set_route(self, source: Source, line: Hashable) -> None:
        if len(self._routes) >= MAX_SOURCES and source not in self._routes:
            del self._routes[next(iter(self._routes))]
        self._routes[source] = line

    # -- the answers of talk ---------------------------------------------------------------

    def _answer(
        self, target: Source, callback: str, result: Any, error: BaseException | None
    ) -> None:
        """Send a receiver's answer to the node that asked. From any thread."""
        failure: Failure | None = None if error is None else describe(error, Codec())
        data, frames = b"", list[bytes]()
        if failure is None:
            try:
                data, frames = self._codec.pack_large((callback, (result,)), "the answer")
            except Exception as problem:
                failure = describe(problem, Codec())
        if failure is not None:
            data, frames = self._codec.pack_large((callback, ()))
        with self.lock:
            number = self._next_answer
            self._next_answer += 1
            fields = None if failure is None else failure[:3]
            self._send_answer(Bundle(self.source, number, 1, data, frames, target, fields), None)

    def _receive_answer(self, outbox: Outbox, bundle: Bundle) -> None:
        key = (bundle.source, bundle.first)
        if key in self._answers:
            # It was sent anew on a line that broke, or goes in a circle.
            return
        self._answers[key] = None
        if len(self._answers) > MAX_ANSWERS:
            del self._answers[next(iter(self._answers))]
        if bundle.target != self.source:
            with self.lock:
                self._send_answer(bundle, outbox)
            return
        ((callback, args, *_),) = self.unpack(bundle)
        origin = bundle.source[0]
        try:
            if bundle.error is not None:
                type_name, arguments, text = bundle.error
                error = restore(Failure(type_name, tuple(arguments), text))
                self._gateway.answer(callback, error=error, origin=origin)
            else:
                self._gateway.answer(callback, result=args[0], origin=origin)
        except (TypeError, ValueError, IndexError) as problem:
            self._count_malformed(problem)

    def _send_answer(self, bundle: Bundle, came_by: Hashable) -> None:
        """Put an answer on its way; never back to where it came from."""
        assert bundle.target is not None
        route = self._routes.get(bundle.target)
        if not isinstance(route, Outbox) or route is came_by:
            if self.unanswered.add():
                logger.warning(
                    "node %s: no way to %s for an answer (%d so far)",
                    self.name,
                    bundle.target[0],
                    self.unanswered.count,
                )
            return
        route.put(bundle)
        self._wake_up()

    def __repr__(self) -> str:
        return f"<Router of node {self.name}>"
