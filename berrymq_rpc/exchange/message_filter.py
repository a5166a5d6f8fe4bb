"""Leave out of batches what a peer may not send, or may not get.

What is left is split where messages are missing, and each part says how many numbers before it were
withheld: the receiver does not report them as missed.
"""

from typing import NamedTuple

from ..errors import ProtocolError
from ..runtime.log import Log
from .batch import Batch, Source
from .message_codec import MessageCodec
from .policy import Grants
from .reorder import MAX_SOURCES
from .send_buffer import SendBuffer

__all__ = ["Filtered", "FilteredSendBuffer", "MessageFilter"]

logger = Log("berrymq_rpc.exchange")


class Filtered(NamedTuple):
    """What is left of a batch.

    Args:
        parts: in order; the batch itself if nothing was left out.
        left_out: how many messages were left out.
        example: the identifier of the first of them.
    """

    parts: list[Batch]
    left_out: int = 0
    example: str = ""


class MessageFilter:
    """One direction of one link. One thread at a time may use it.

    Args:
        grants: what may pass.
        codec: of the messages, with a translation table for no type: what a value is does not
            matter here.
    """

    def __init__(self, grants: Grants, codec: MessageCodec) -> None:
        self.grants = grants
        self._codec = codec
        #: Of each source whose last messages were left out: the numbers of the first and the last.
        self._left_out: dict[Source, tuple[int, int]] = {}

    def filter(self, batch: Batch) -> Filtered:
        """Leave out what may not pass.

        Raises:
            ProtocolError: the messages are malformed.
        """
        messages = self._codec.unpack(batch)
        covers = self.grants.covers_text
        passes = [covers(message[0]) for message in messages]
        count = passes.count(False)
        example = messages[passes.index(False)][0] if count else ""
        if batch.target is not None:
            # Answers have numbers of their own, and none waits for another.
            return Filtered([] if count else [batch], count, example)
        source = batch.source
        since = batch.first - batch.withheld
        before = self._left_out.pop(source, None)
        if before is not None and before[0] < since <= before[1] + 1:
            since = before[0]
        elif not count:
            return Filtered([batch])
        parts: list[Batch] = []
        start = 0
        while start < batch.count:
            if not passes[start]:
                start += 1
                continue
            end = start + 1
            while end < batch.count and passes[end]:
                end += 1
            first = batch.first + start
            parts += self._part(batch, messages[start:end], first, first - since)
            start, since = end, batch.first + end
        if since <= batch.last:
            if len(self._left_out) >= MAX_SOURCES:
                del self._left_out[next(iter(self._left_out))]
            self._left_out[source] = (since, batch.last)
        return Filtered(parts, count, example)

    def admits(self, batch: Batch) -> bool:
        """Whether all of a batch may pass that is in no order with others.

        Raises:
            ProtocolError: the messages are malformed.
        """
        return all(self.grants.covers_text(message[0]) for message in self._codec.unpack(batch))

    def _part(
        self, batch: Batch, messages: tuple[tuple[object, ...], ...], first: int, withheld: int
    ) -> list[Batch]:
        source, count = batch.source, len(messages)
        if count == batch.count:
            whole = Batch(source, first, count, batch.data, batch.frames, withheld=withheld)
            whole.stamp = batch.stamp
            return [whole.set_trace(batch.trace)]
        if not batch.frames:
            data = self._codec.pack_all(list(messages))
            return [Batch(source, first, count, data, withheld=withheld)]
        # Each with the long byte strings that are in it.
        return [
            Batch(
                source,
                first + place,
                1,
                *self._codec.pack_large(message),
                withheld=0 if place else withheld,
            )
            for place, message in enumerate(messages)
        ]


class FilteredSendBuffer(SendBuffer):
    """The send buffer of a link whose peer may not get everything.

    Args:
        max_messages, max_bytes: as for `SendBuffer`.
        message_filter: leaves the rest out.

    Attributes:
        withheld: how many messages were left out.
    """

    def __init__(self, max_messages: int, max_bytes: int, message_filter: MessageFilter) -> None:
        super().__init__(max_messages, max_bytes)
        self.withheld = 0
        self._filter = message_filter

    def put(self, batch: Batch) -> None:
        try:
            filtered = self._filter.filter(batch)
        except ProtocolError as error:
            # What cannot be looked at cannot be let through.
            logger.warning("%r is withheld: %.200s", batch, error)
            self.withheld += batch.count
            return
        self.withheld += filtered.left_out
        for part in filtered.parts:
            super().put(part)

    def put_presence(self, batch: Batch) -> None:
        if batch.data and not self._filter.admits(batch):
            self.withheld += 1
            return
        super().put_presence(batch)
