"""The send buffer of a cluster: batches as they are published, each of messages of one subject."""

from typing import Any, NamedTuple

from ...bus import Message
from ...bus.durable import Stored
from ...errors import (
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ServiceClosedError,
    TooLargeError,
)
from ...identifier import Identifier
from ...runtime.log import Log
from ..batch import OVERHEAD, Batch, Source
from ..durable.dead_letters import room_of_letter
from ..message_codec import MessageCodec
from ..message_filter import MessageFilter
from ..record import HEAD_BYTES, RecordCodec
from ..reorder import MAX_SOURCES
from ..send_buffer import MAX_BYTES, MAX_MESSAGES, SendBuffer
from ..subject import inbox, presence_subject, subject_of
from .bucket import STAMP_BYTES

__all__ = ["ClusterBuffer", "Publication", "Refused"]

logger = Log("berrymq_rpc.exchange")

#: Subjects of which the last number is remembered. Each takes some 150 bytes.
MAX_SUBJECTS = 100_000

#: Identifiers whose subjects are remembered.
MAX_KNOWN = 10_000


class Publication(Batch):
    """What is published at once: consecutive messages of one source on one subject.

    Attributes:
        subject: where it is published.
        payload: the record.
        key: what the publisher of stored messages knows it by, once it has it.
    """

    __slots__ = ("_messages", "key", "payload", "subject")

    def __init__(self, batch: Batch, subject: str, payload: bytes) -> None:
        super().__init__(batch.source, batch.first, batch.count, b"", (), batch.target)
        self.subject = subject
        self.payload = payload
        self.key: str | None = None
        self.stored = batch.stored
        self.stamp = batch.stamp
        self.identifier = batch.identifier
        self.size = len(payload) + OVERHEAD
        self._messages = batch.messages

    @property
    def messages(self) -> int:
        return self._messages


class Refused(NamedTuple):
    """A message that cannot be published."""

    error: Exception
    message: Message


class ClusterBuffer(SendBuffer):
    """What is to be published, or was published and may be lost. The router knows a cluster by it.

    Args:
        cluster: its namespace.
        source: this node.
        codec: of the messages, with a translation table for no type.
        message_filter: leaves out what other nodes may not get; ``None`` for nothing.
        max_messages, max_bytes: as for `SendBuffer`.

    Attributes:
        max_payload: bytes that the server takes at once.
        withheld: how many messages were left out.
        vias: for each source that another node publishes for, that node.
    """

    def __init__(
        self,
        cluster: str,
        source: Source,
        codec: MessageCodec,
        message_filter: MessageFilter | None = None,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(max_messages, max_bytes)
        self.max_payload = 1 << 20
        self.withheld = 0
        self.vias: dict[Source, Source] = {}
        self._cluster = cluster
        self._source = source
        self._codec = codec
        self._filter = message_filter
        self._records = RecordCodec()
        #: The subject of each identifier that was sent.
        self._known: dict[str, str] = {}
        #: The last number of each source on each subject.
        self._last: dict[tuple[Source, str], int] = {}
        self._refused: list[Refused] = []
        self._is_closed = False

    def put(self, batch: Batch) -> None:
        try:
            if batch.target is not None:
                self._put_answer(batch)
                return
            parts = [batch]
            if self._filter is not None:
                filtered = self._filter.filter(batch)
                self.withheld += filtered.left_out
                parts = filtered.parts
                self._pass_on(batch, parts)
            for part in parts:
                self._put_messages(part)
        except ProtocolError as error:
            # It came from another node; what cannot be looked at has no subject.
            logger.warning("%r is not published: %.200s", batch, error)
            self.refused += batch.count

    def put_presence(self, batch: Batch) -> None:
        try:
            subject = presence_subject(self._cluster)
            if batch.data:
                if self._filter is not None and not self._filter.admits(batch):
                    self.withheld += 1
                    return
                subject = self.subject(self._codec.unpack(batch)[0][0])
        except (ProtocolError, ValueError) as error:
            logger.warning("%r is not published: %.200s", batch, error)
            self.refused += 1
            return
        super().put(Publication(batch, subject, self._records.pack(batch)))

    def _pass_on(self, batch: Batch, parts: list[Batch]) -> None:
        """Have a message that its sender waits for still be one after the filter."""
        if (stored := batch.stored) is None:
            return
        if parts:
            parts[0].stored = stored
            return
        stored.is_claimed = True
        stored.end(PermissionDeniedError("allow_receive= lets no other node get the message"))

    def take_refused(self) -> list[Refused]:
        """The messages that could not be published, since the last call."""
        refused, self._refused = self._refused, []
        return refused

    def _put_answer(self, batch: Batch) -> None:
        assert batch.target is not None
        node = self.vias.get(batch.target, batch.target)
        payload = self._records.pack(batch)
        if len(payload) > self.max_payload:
            self.refused += 1
            logger.warning("%r is too large for NATS: %s bytes", batch, f"{len(payload):,}")
            return
        super().put(Publication(batch, inbox(self._cluster, node), payload))

    def _put_messages(self, batch: Batch) -> None:
        if batch.identifier is not None:
            self._publish(batch, batch.identifier)
            return
        messages = self._codec.unpack(batch)
        identifiers = [message[0] for message in messages]
        if identifiers.count(identifiers[0]) == len(identifiers):
            self._publish(batch, identifiers[0])
            return
        start = 0
        while start < len(identifiers):
            end = start + 1
            # Those with long byte strings go singly: which are whose is not known.
            while end < len(identifiers) and identifiers[end] == identifiers[start]:
                if batch.frames:
                    break
                end += 1
            part = self._part(batch, messages, start, end)
            self._publish(part, identifiers[start])
            start = end

    def _part(
        self, batch: Batch, messages: tuple[tuple[Any, ...], ...], start: int, end: int
    ) -> Batch:
        """Make a batch of some messages of another."""
        if batch.frames:
            data, frames = self._codec.pack_large(messages[start])
        else:
            data, frames = self._codec.pack_all(list(messages[start:end])), []
        withheld = 0 if start else batch.withheld
        return Batch(
            batch.source, batch.first + start, end - start, data, frames, withheld=withheld
        )

    def _publish(self, batch: Batch, identifier: str) -> None:
        """Make a publication of messages that all have one identifier."""
        if batch.size + HEAD_BYTES > self.max_payload and batch.count > 1:
            messages = self._codec.unpack(batch)
            for place in range(batch.count):
                self._publish(self._part(batch, messages, place, place + 1), identifier)
            return
        try:
            subject = self.subject(identifier)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        key = batch.source, subject
        via = None if batch.source == self._source else self._source
        payload = self._records.pack(batch, self._last.pop(key, 0), via)
        if len(self._last) >= MAX_SUBJECTS:
            del self._last[next(iter(self._last))]
        self._last[key] = batch.last
        limit = self.max_payload
        if (stored := batch.stored) is not None:
            stored.is_claimed = True
            # So that there is room for what becomes of it.
            limit -= room_of_letter(identifier)
        if batch.stamp is not None:
            batch.identifier = identifier
            limit -= STAMP_BYTES
        if len(payload) > limit:
            too_large = self._refuse(self._codec.unpack(batch)[0], len(payload), limit)
            if stored is not None:
                stored.end(too_large)
            return
        super().put(Publication(batch, subject, payload))

    def unstored(self) -> list[Stored]:
        """Those whose messages are to be stored, and were never published."""
        return [
            batch.stored
            for batch in self._waiting
            if batch.stored is not None and isinstance(batch, Publication) and batch.key is None
        ]

    def clear(self) -> int:
        self._is_closed = True
        return super().clear()

    def _drop(self, batch: Batch) -> None:
        if batch.stored is None:
            return
        if self._is_closed:
            batch.stored.end(ServiceClosedError("the node was closed before this was sent"))
        else:
            batch.stored.end(
                OverloadedError("too many messages wait for the NATS server: this one was dropped")
            )

    def subject(self, identifier: str) -> str:
        """The subject of messages with an identifier.

        Raises:
            ValueError, TypeError: it is not an identifier, or is local.
        """
        subject = self._known.get(identifier)
        if subject is None:
            parsed = Identifier(identifier).require_exportable()
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            subject = self._known[identifier] = subject_of(self._cluster, parsed)
        return subject

    def _refuse(self, message: tuple[Any, ...], size: int, limit: int) -> Exception:
        self.refused += 1
        error = TooLargeError(
            f"{size:,} bytes are more than the {limit:,} that the NATS server takes of such a "
            f"message (max_payload={self.max_payload:,})"
        )
        identifier, args, *rest = message
        refused = Refused(error, Message(Identifier(identifier), args, rest[0] if rest else {}))
        if len(self._refused) < MAX_SOURCES:
            self._refused.append(refused)
        return error
