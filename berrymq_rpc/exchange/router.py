"""The router: numbers a node's own messages and passes others on, each once and in order.

Each message of this node's bus that is not local gets the next number, is packed once, and goes to
all links. A new message that comes by one link is published here and goes to all other links. So in
any topology each node is sent each message by every route, and takes it from the first one.

The answers of ``talk`` go only to the node that asked, back along the links by which its messages
came first.

Nothing here waits or asks for the time. Any thread may send on the bus, and answer; everything else
belongs to one thread.
"""

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from ..bus import Message
from ..bus.durable import ConfirmedMessage
from ..bus.gateway import Gateway
from ..bus.message import TalkMessage, original_of, parts_of
from ..bus.retained_store import Forgotten, Kept
from ..common.tracing import Carrier, Tracing
from ..errors import ProtocolError
from ..identifier import Identifier
from ..rpc.wire.exception_codec import Failure, describe, restore
from ..rpc.wire.limits import Limits
from ..runtime.log import Log
from .batch import Batch, Source, checked_name, parse_batch, trace_of
from .message_codec import BATCH_BYTES, LARGE, MessageCodec
from .message_filter import Filtered, MessageFilter
from .policy import Grants
from .reorder import MAX_SOURCES, Gap, InOrder, Outcome, ReorderBuffer
from .retained_batch import is_ahead
from .send_buffer import SendBuffer

__all__ = ["Router"]

logger = Log("berrymq_rpc.exchange")

#: Messages of one batch. Larger ones gain nothing, and hold up their receiver.
BATCH_MESSAGES = 250

#: Messages of other nodes that are handed to the bus at once, where one that was missing releases
#: those that waited for it: up to 100,000.
MAX_RELAYED = 1000

#: Answers that are remembered, to recognize duplicates.
MAX_ANSWERS = 10_000


#: Types of immutable values that always pack, into a few bytes.
_PLAIN = frozenset((type(None), bool, int, float))

#: Those that do if they are short.
_TEXTS = frozenset((str, bytes))

#: Characters or bytes of a plain text, and values of a plain message: with these bounds, a batch of
#: plain messages has some 100 KB at most.
PLAIN_TEXT = 100
PLAIN_VALUES = 4


class Wake(Protocol):
    """Called, from any thread, when `Router.collect` has work and had none before."""

    def __call__(self) -> object: ...


class Router:
    """Numbers messages, and decides where each goes.

    Args:
        gateway: of the bus that messages come from, and that those of other nodes go to.
        name: the node's; ``None`` for a random one.
        epoch: when it started, in microseconds since 1970.
        limits: the bounds of a message.
        translation_table: for values of the user's own, as for `rpc.open_client`.
        reorder: puts the messages of other nodes in order.
        wake: see `Wake`.

    Attributes:
        name: the node's name.
        source: its name and epoch, which other nodes know its messages by.
        refused: how many messages could not be sent, because of their arguments.
        malformed: how many malformed messages came.
        unanswered: how many answers of ``talk`` found no route to the node that asked.
    """

    #: Has the context that an answer carries; ``None`` for none.
    _tracing: Tracing | None = None

    def __init__(
        self,
        gateway: Gateway,
        name: str | None = None,
        *,
        epoch: int = 0,
        limits: Limits | None = None,
        translation_table: Mapping[int, Any] | None = None,
        reorder: ReorderBuffer | None = None,
        wake: Wake = lambda: None,
    ) -> None:
        self.name = str(uuid.uuid4()) if name is None else checked_name(name)
        self.source: Source = (self.name, epoch)
        self.refused = 0
        self.malformed = 0
        self.unanswered = 0
        self.reorder = ReorderBuffer() if reorder is None else reorder
        #: Called once, by the next message of the bus that goes to no other node. In any thread.
        self.on_unsent: Callable[[Message], object] | None = None
        self._gateway = gateway
        self._wake = wake
        self._is_awake = False
        self._send_buffers: tuple[SendBuffer, ...] = ()
        #: Held while a send buffer is used. Reentrant: an object that is garbage-collected
        #: meanwhile may send a message.
        self.lock = threading.RLock()
        self.codec = MessageCodec(Limits() if limits is None else limits, translation_table)
        #: Leaves values of the user's own as they are.
        self.plain_codec = MessageCodec(Limits() if limits is None else limits)
        #: Own messages that are in no batch yet. Plain messages are not packed, as it takes less
        #: time to pack all of them at once. Appending takes no lock.
        self._pending: deque[bytes | tuple[Any, ...]] = deque()
        self._pending_bytes = 0
        #: Own messages that the bus has retained, in the order in which it has. Appending takes no
        #: lock.
        self._noted: deque[Kept] = deque()
        #: What was forgotten on the bus, for the mesh.
        self.forgotten: deque[Forgotten] = deque()
        self._is_collecting = False
        self._next = 1
        self._next_answer = 1
        #: What `go_on` has still to hand to the bus.
        self._outcomes: deque[Outcome] = deque()
        #: The link by which each source's messages come first.
        self._routes: dict[Source, Hashable] = {}
        self._answers: dict[tuple[Source, int], None] = {}

    # -- links -----------------------------------------------------------------------------

    def new_filter(self, grants: Grants | None) -> MessageFilter | None:
        """Make the filter of one direction of a link; ``None`` where everything may pass."""
        return None if grants is None else MessageFilter(grants, self.plain_codec)

    def permitted(self, message_filter: MessageFilter, batch: Batch) -> Filtered:
        """Leave out of a batch that has come what its sender may not send.

        Raises:
            ProtocolError: the messages are malformed.
        """
        try:
            self.codec.check_size(batch)
            with self.lock:
                return message_filter.filter(batch)
        except ProtocolError as error:
            self.count_malformed(error)
            raise

    def add(self, send_buffer: SendBuffer, *, has_envelopes: bool = True) -> None:
        """Send messages to a link from now on.

        Args:
            send_buffer: the link's; the router knows the link by it.
            has_envelopes: whether the messages of its peer have envelopes.
        """
        with self.lock:
            self.collect()
            self._send_buffers = (*self._send_buffers, send_buffer)
        if has_envelopes:
            self.reorder.add_link(send_buffer)

    def remove(self, send_buffer: SendBuffer, now: float) -> None:
        """Forget a link that is closed. What its send buffer holds is left to the caller."""
        with self.lock:
            self.collect()
            self._send_buffers = tuple(
                kept for kept in self._send_buffers if kept is not send_buffer
            )
        self._routes = {
            source: link for source, link in self._routes.items() if link is not send_buffer
        }
        self._act(self.reorder.remove_link(send_buffer, now))

    def forget_links(self) -> None:
        """Send nothing any more, in the child of a fork: another thread may have held the lock."""
        self.lock = threading.RLock()
        self._send_buffers = ()
        self._pending.clear()
        self._noted.clear()
        self.forgotten.clear()

    def set_leaf(self, send_buffer: SendBuffer, now: float) -> None:
        """Expect no messages with envelopes from a link's peer any more."""
        self._act(self.reorder.remove_link(send_buffer, now))

    # -- this node's own messages ----------------------------------------------------------

    def forward(self, message: Message) -> None:
        """Take a message of the bus, as a forwarder. From any thread."""
        kind = type(message)
        if kind is not Message and message.origin is not None:
            # It came from another node, or is an event about this node's links.
            return
        if not self._send_buffers:
            with self.lock:
                self._next += 1
                on_unsent, self.on_unsent = self.on_unsent, None
            if on_unsent is not None:
                on_unsent(message)
            return
        identifier, args, kwargs = parts_of(message)
        if kind is not Message:
            if kind is TalkMessage and message.reply_to is not None:
                self._forward_packed(message, (identifier, args, kwargs, message.reply_to))
                return
            if isinstance(message, ConfirmedMessage):
                item = (identifier, args, kwargs) if kwargs else (identifier, args)
                self._forward_confirmed(message, item)
                return
        if kwargs:
            self._forward_packed(message, (identifier, args, kwargs))
            return
        if len(args) <= PLAIN_VALUES:
            for value in args:
                kind = type(value)
                if kind not in _PLAIN and (kind not in _TEXTS or len(value) > PLAIN_TEXT):
                    break
            else:
                pending = self._pending
                pending.append((identifier, args))
                if not self._is_awake:
                    self._wake_up()
                if len(pending) >= BATCH_MESSAGES:
                    self.collect()
                return
        self._forward_packed(message, (identifier, args))

    def _forward_packed(self, message: Message, item: tuple[Any, ...]) -> None:
        """Take a message whose arguments may change, or may be impossible to pack."""
        with self.lock:
            try:
                packed = self.codec.pack(item)
                if len(packed) >= LARGE and not self._is_collecting:
                    self._put_large(item)
                    self._wake_up()
                    return
            except Exception as error:
                self.refused += 1
                problem: Exception = error
            else:
                self._pending.append(packed)
                self._pending_bytes += len(packed)
                if not self._is_awake:
                    self._wake_up()
                if len(self._pending) >= BATCH_MESSAGES or self._pending_bytes >= BATCH_BYTES:
                    self.collect()
                return
        self._gateway.report(problem, message, self, "cannot carry")

    def _forward_confirmed(self, message: ConfirmedMessage, item: tuple[Any, ...]) -> None:
        """Take a message whose sender waits for the cluster: it travels alone."""
        stored = message.stored
        with self.lock:
            try:
                data, frames = self.codec.pack_one(item)
            except Exception as error:
                self.refused += 1
                stored.is_claimed = True
                stored.end(error)
                return
            self.collect()
            batch = Batch(self.source, self._next, 1, data, frames)
            batch.stored = stored
            batch.identifier = item[0]
            self._next += 1
            self._put(batch)
            self._wake_up()

    def note(self, change: Kept | Forgotten) -> None:
        """Take what the bus has retained or forgotten, as a `RetentionListener`."""
        if isinstance(change, Forgotten):
            self.forgotten.append(change)
        elif change.message.origin is None:
            self._noted.append(change)

    def forward_noted(self, message: Message | None = None) -> None:
        """Number the messages that were noted. From any thread."""
        if self._noted:
            self.collect()
        if self.forgotten:
            self._wake_up()

    def _put_noted(self, kept: Kept) -> Exception | None:
        """Take a message that is retained: it travels alone; return why it cannot."""
        if not self._send_buffers:
            self._next += 1
            return None
        message = original_of(kept.message)
        identifier, args, kwargs = parts_of(message)
        item: tuple[Any, ...] = (identifier, args, kwargs) if kwargs else (identifier, args)
        if message.reply_to is not None:
            item = (identifier, args, kwargs, message.reply_to)
        stored = message.stored if isinstance(message, ConfirmedMessage) else None
        try:
            data, frames = self.codec.pack_one(item)
        except Exception as error:
            self.refused += 1
            if stored is None:
                return error
            stored.is_claimed = True
            stored.end(error)
            return None
        batch = Batch(self.source, self._next, 1, data, frames)
        batch.stamp = kept.stamp
        if self._tracing is not None:
            batch.set_trace(self._tracing.carrier() or None)
        if stored is not None:
            batch.stored = stored
            batch.identifier = identifier
        self._next += 1
        self._put(batch)
        self._wake_up()
        return None

    def publish(
        self,
        send_buffer: SendBuffer,
        identifier: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        trace: Carrier | None = None,
    ) -> None:
        """Take a message that came by a link without an envelope; it counts as this node's own.

        Args:
            trace: metadata of the call that brought it.

        Raises:
            ValueError, TypeError: a part is invalid.
        """
        parsed = Identifier(identifier).require_exportable()
        with self.lock:
            self.collect()
            if len(self._send_buffers) > 1:
                data, frames = self.codec.pack_large((str(parsed), args, kwargs))
                batch = Batch(self.source, self._next, 1, data, frames)
                self._put(batch.set_trace(trace_of(trace)), send_buffer)
                self._wake_up()
            self._next += 1
        self._gateway.relay(parsed, args, kwargs, self.name, trace=trace)

    def collect(self) -> None:
        """Put what was sent on the bus into the send buffers. From any thread."""
        problems: list[tuple[Exception, Message]] = []
        unsent: list[Message] = []
        with self.lock:
            if self._is_collecting:
                # Garbage collection has interrupted the loop below, which takes this message too.
                return
            self._is_collecting = True
            try:
                pending = self._pending
                while pending:
                    count = min(len(pending), BATCH_MESSAGES)
                    messages = [pending.popleft() for _ in range(count)]
                    self._pending_bytes = 0
                    first = self._next
                    self._next += count
                    self._put(Batch(self.source, first, count, self.codec.pack_all(messages)))
                while self._noted:
                    kept = self._noted.popleft()
                    if self.on_unsent is not None and not self._send_buffers:
                        unsent.append(kept.message)
                    problem = self._put_noted(kept)
                    if problem is not None:
                        problems.append((problem, kept.message))
            finally:
                self._is_collecting = False
            on_unsent = self.on_unsent
            if unsent:
                self.on_unsent = None
        for problem, message in problems:
            self._gateway.report(problem, message, self, "cannot carry")
        if unsent and on_unsent is not None:
            on_unsent(unsent[0])

    def rest(self) -> None:
        """Wake again for later messages. The caller collects after this."""
        self._is_awake = False

    def _put_large(self, item: tuple[Any, ...]) -> None:
        data, frames = self.codec.pack_large(item)
        self.collect()
        first = self._next
        self._next += 1
        self._put(Batch(self.source, first, 1, data, frames))

    def _put(self, batch: Batch, but: Hashable = None) -> None:
        for send_buffer in self._send_buffers:
            if send_buffer is not but:
                send_buffer.put(batch)

    def _wake_up(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    # -- what comes from other nodes -------------------------------------------------------

    def receive(self, send_buffer: SendBuffer, batch: Batch, now: float) -> None:
        """Take a batch that has come by a link.

        Args:
            send_buffer: of the link by which it came.

        Raises:
            ProtocolError: the messages are malformed.
        """
        self.check_size(batch)
        if batch.target is not None:
            self._receive_answer(send_buffer, batch)
        elif batch.source != self.source:
            self._act(self.reorder.receive(send_buffer, batch, now), batch)

    def enclosed(
        self, identifier: Any, args: tuple[Any, ...], kwargs: dict[str, Any], envelope: Any
    ) -> Batch:
        """Make a batch of one message that came by itself, with its envelope.

        Raises:
            TypeError, ValueError: a part is invalid.
        """
        batch = parse_batch(envelope)
        if batch.count != 1:
            raise ValueError("the count of a single message must be 1")
        reply_to = envelope.get("reply_to")
        item: tuple[Any, ...] = (str(Identifier(identifier).require_exportable()), args, kwargs)
        if reply_to is not None:
            item = (*item, str(Identifier(reply_to).require_exportable()))
        data, frames = self.codec.pack_large(item)
        made = Batch(batch.source, batch.first, 1, data, frames, batch.target, batch.error)
        made.stamp = batch.stamp
        return made.set_trace(batch.trace)

    def put_presence(self, batch: Batch, but: Hashable = None) -> None:
        """Send what is said about a node to all links but one."""
        with self.lock:
            self.collect()
            for send_buffer in self._send_buffers:
                if send_buffer is not but:
                    send_buffer.put_presence(batch)
            self._wake_up()

    def deliver_will(self, send_buffer: SendBuffer | None, batch: Batch) -> None:
        """Publish the will of a lost node here, and send it to all other links.

        Args:
            send_buffer: of the link by which it came; ``None`` for a will that was held here.

        Raises:
            ProtocolError: it is malformed.
        """
        messages = self.unpack(batch)
        # Before it is published, so that it goes out before what its receivers send.
        self.put_presence(batch, send_buffer)
        self._relay(batch.source, messages)

    def expire(self, now: float) -> None:
        """Stop waiting for messages that have not arrived in time."""
        self._act(self.reorder.expire(now))

    def report(self, action: str, **about: Any) -> None:
        """Publish an event about this node's own links on the bus; no other node gets it."""
        self._gateway.announce(f"connection:{action}", about, self.name)

    def _act(self, outcomes: Iterable[Outcome], batch: Batch | None = None) -> None:
        self._outcomes.extend(outcomes)
        self.go_on(batch)

    @property
    def is_behind(self) -> bool:
        """Whether messages of other nodes wait for `go_on`."""
        return bool(self._outcomes)

    def go_on(self, batch: Batch | None = None) -> None:
        """Hand some of the messages to the bus that are in order: a single one may release many.

        Args:
            batch: what a peer has just sent. If another is malformed, it is only counted.

        Raises:
            ProtocolError: `batch` is malformed.
        """
        outcomes = self._outcomes
        problem: ProtocolError | None = None
        relayed = 0
        while outcomes and relayed < MAX_RELAYED:
            outcome = outcomes.popleft()
            if isinstance(outcome, Gap):
                source, first, last = outcome
                self.report_missed(source, first, last, last - first + 1)
                continue
            relayed += outcome.batch.count
            try:
                self._accept(outcome)
            except ProtocolError as error:
                if outcome.batch is batch:
                    problem = error
        if problem is not None:
            raise problem

    def _accept(self, in_order: InOrder) -> None:
        batch, link, skip = in_order
        messages = self.unpack(batch)
        source = batch.source
        if self._routes.get(source) is not link:
            self._set_route(source, link)
        # Before it is published, so that it goes out before what its receivers send.
        if self._send_buffers != (link,):
            with self.lock:
                self._put(batch, link)
            self._wake_up()
        if batch.stamp is not None and not is_ahead(batch.stamp, time.time()):
            self._relay_retained(source, messages[0], batch, link)
            return
        self._relay(source, messages[skip:] if skip else messages, batch.trace)

    def _relay_retained(
        self, source: Source, message: tuple[Any, ...], batch: Batch, link: Hashable
    ) -> None:
        """Publish a message that the bus of its origin has retained."""
        stamp = batch.stamp
        assert stamp is not None
        identifier, args, *rest = message
        kwargs = rest[0] if rest else {}
        share = link.share if isinstance(link, SendBuffer) else None
        try:
            answer = None
            if len(rest) > 1:
                callback = Identifier(rest[1]).require_exportable()
                answer = partial(self._answer, source, str(callback))
            self._gateway.take_retained(
                identifier,
                args,
                kwargs,
                source[0],
                stamp,
                answer=answer,
                share=share,
                trace=batch.trace,
            )
        except (TypeError, ValueError) as error:
            self.count_malformed(error)

    def deliver(
        self, send_buffer: SendBuffer, batch: Batch, messages: tuple[tuple[Any, ...], ...]
    ) -> None:
        """Hand messages of another node to this bus alone, whatever their numbers are.

        Args:
            send_buffer: of the link by which they came.
            batch: their batch.
            messages: those of it that are new.
        """
        source = batch.source
        if self._routes.get(source) is not send_buffer:
            self._set_route(source, send_buffer)
        if batch.stamp is not None and not is_ahead(batch.stamp, time.time()):
            self._relay_retained(source, messages[0], batch, send_buffer)
            return
        self._relay(source, messages, batch.trace)

    def _relay(
        self, source: Source, messages: tuple[tuple[Any, ...], ...], trace: Carrier | None = None
    ) -> None:
        """Publish messages of another node on the bus."""
        relay, origin = self._gateway.relay, source[0]
        if trace is not None:
            relay = partial(relay, trace=trace)
        for message in messages:
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
                # From an identifier: the rest was checked before.
                self.count_malformed(error)

    def check_size(self, batch: Batch) -> None:
        """Refuse a batch that is larger than a node may send.

        Raises:
            ProtocolError: it is.
        """
        try:
            self.codec.check_size(batch)
        except ProtocolError as error:
            self.count_malformed(error)
            raise

    def unpack(self, batch: Batch) -> tuple[tuple[Any, ...], ...]:
        """Unpack the messages of a batch.

        Raises:
            ProtocolError: they are malformed.
        """
        try:
            return self.codec.unpack(batch)
        except ProtocolError as error:
            self.count_malformed(error)
            raise

    def count_malformed(self, error: Exception) -> None:
        """Count and log a malformed message."""
        self.malformed += 1
        logger.warning(
            "node %s: malformed message received (%d so far): %.200s",
            self.name,
            self.malformed,
            error,
        )

    def report_missed(self, source: Source, first: int, last: int, count: int) -> None:
        """Report that so many messages, with numbers between the two, were missed."""
        logger.info("node %s: missed %d messages from %s", self.name, count, source[0])
        self.report("missed", origin=source[0], first=first, last=last, count=count)

    def _set_route(self, source: Source, link: Hashable) -> None:
        if len(self._routes) >= MAX_SOURCES and source not in self._routes:
            del self._routes[next(iter(self._routes))]
        self._routes[source] = link

    # -- the answers of talk ---------------------------------------------------------------

    def _answer(
        self, target: Source, callback: str, result: Any, error: BaseException | None
    ) -> None:
        """Send a receiver's answer to the node that asked. From any thread."""
        failure: Failure | None = None if error is None else describe(error, self.codec.new_codec())
        data, frames = b"", list[bytes]()
        if failure is None:
            try:
                data, frames = self.codec.pack_large((callback, (result,)), "the answer")
            except Exception as problem:
                failure = describe(problem, self.codec.new_codec())
        if failure is not None:
            data, frames = self.codec.pack_large((callback, ()))
        with self.lock:
            number = self._next_answer
            self._next_answer += 1
            fields = None if failure is None else failure[:3]
            batch = Batch(self.source, number, 1, data, frames, target, fields)
            if self._tracing is not None:
                batch.set_trace(self._tracing.carrier() or None)
            self._send_answer(batch, None)

    def _receive_answer(self, send_buffer: SendBuffer, batch: Batch) -> None:
        key = (batch.source, batch.first)
        if key in self._answers:
            # It was sent again after a link broke, or goes in a circle.
            return
        self._answers[key] = None
        if len(self._answers) > MAX_ANSWERS:
            del self._answers[next(iter(self._answers))]
        if batch.target != self.source:
            with self.lock:
                self._send_answer(batch, send_buffer)
            return
        ((callback, args, *_),) = self.unpack(batch)
        origin = batch.source[0]
        try:
            if batch.error is not None:
                type_name, arguments, text = batch.error
                error = restore(Failure(type_name, tuple(arguments), text))
                self._gateway.answer(callback, error=error, origin=origin, trace=batch.trace)
            else:
                self._gateway.answer(callback, result=args[0], origin=origin, trace=batch.trace)
        except (TypeError, ValueError, IndexError) as problem:
            self.count_malformed(problem)

    def _send_answer(self, batch: Batch, came_by: Hashable) -> None:
        """Send an answer towards its target, never back to where it came from."""
        assert batch.target is not None
        route = self._routes.get(batch.target)
        if not isinstance(route, SendBuffer) or route is came_by:
            self.unanswered += 1
            logger.warning(
                "node %s: no route to %s for an answer (%d so far)",
                self.name,
                batch.target[0],
                self.unanswered,
            )
            return
        route.put(batch)
        self._wake_up()

    def __repr__(self) -> str:
        return f"<Router of node {self.name}>"
