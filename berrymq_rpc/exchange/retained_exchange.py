"""How what is retained comes to nodes that interconnect later, and what is forgotten leaves all.

A node that has connected asks its peer whenever the link is opened, and is asked back. It gets what
the peer retains, behind what waits in the send buffer. So that comes after older messages, and what
is newer comes after it or has a greater stamp. Of each identifier the message with the greatest
stamp stays; what is not newer than that goes no further, whatever circle the links make. A node of
an older version does not know the question, asks none, and gets nothing.
"""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from ..bus.gateway import Gateway
from ..bus.retained_store import Forgotten, Kept, Share
from ..identifier import Identifier
from ..runtime.log import Log
from .batch import Batch
from .link import Link
from .message_codec import BATCH_BYTES, LARGE, MessageCodec
from .policy import Grants
from .retained_batch import Entry, RetainedBatch, is_ahead, parse_retained

__all__ = ["RetainedExchange"]

logger = Log("berrymq_rpc.exchange")

#: Messages in one batch.
BATCH_MESSAGES = 100

#: Bytes in a link's send buffer over which what is retained waits: other messages need the room.
MAX_BUFFERED = 1 << 20

#: Changes that wait for a link; when there are more, it gets all that is retained anew.
MAX_CHANGES = 20_000


class RetainedHost(Protocol):
    """What the exchange needs of its mesh."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def links(self) -> tuple[Link, ...]:
        """All links."""

    def wake(self) -> None:
        """Have the links flushed soon."""

    def receiving(self, user: str | None) -> Grants | None:
        """What a user may get."""

    def deny(self, link: Link, count: int, example: str) -> None:
        """Count and report messages that a link's peer may not send."""


class RetainedExchange:
    """Asks peers for what they retain, takes it, and answers them.

    Args:
        gateway: of the bus.
        codec: packs and unpacks messages.
        host: the mesh.
    """

    def __init__(self, gateway: Gateway, codec: MessageCodec, host: RetainedHost) -> None:
        self._gateway = gateway
        self._codec = codec
        self._host = host

    def answer(self, link: Link) -> None:
        """Send what is retained to a peer that has asked, and changes from now on."""
        link.wants_retained = True
        if not link.asks_retained:
            # Now that the peer is known to understand it.
            link.ask_retained()
        self._send_all(link)
        self._host.wake()

    def _send_all(self, link: Link) -> None:
        link.retained = {}
        self._add(link, self._gateway.forgotten())
        self._add(link, self._gateway.retained())

    def offer(self, changes: Sequence[Kept | Entry | Forgotten], but: Link | None = None) -> None:
        """Send changes to all peers that have asked.

        Args:
            but: the link by which they came.
        """
        for link in self._host.links:
            if link is but or not link.wants_retained:
                continue
            if len(link.retained) + len(changes) > MAX_CHANGES:
                self._send_all(link)
            else:
                self._add(link, changes)

    def _add(self, link: Link, changes: Sequence[Kept | Entry | Forgotten]) -> None:
        grants = self._host.receiving(link.user)
        for each in changes:
            identifier = each.identifier
            if not identifier.is_local and (grants is None or grants.covers(identifier)):
                # What is sent of a message is looked up then: it may be another one.
                link.retained[each if isinstance(each, Forgotten) else str(identifier)] = None

    def feed(self, link: Link) -> None:
        """Put some of what waits for a link into its send buffer."""
        while link.retained and link.send_buffer.bytes < MAX_BUFFERED:
            batch = self._next_batch(link.retained)
            if batch is not None:
                link.send_buffer.put_retained(batch)

    def _next_batch(self, waiting: dict[str | Forgotten, None]) -> Batch | None:
        entries: list[Entry] = []
        packed: list[bytes] = []
        forgotten: list[Forgotten] = []
        size = 0
        while waiting and len(entries) + len(forgotten) < BATCH_MESSAGES and size < BATCH_BYTES:
            each = next(iter(waiting))
            if isinstance(each, Forgotten):
                del waiting[each]
                forgotten.append(each)
                continue
            kept = self._gateway.retained_as(each)
            entry = None if kept is None else Entry.of(kept, self._host.name)
            message = None if entry is None else self._packed(entry)
            if entry is None or message is None:
                del waiting[each]
                continue
            if len(message) < LARGE:
                entries.append(entry)
                packed.append(message)
                size += len(message)
            elif entries or forgotten:
                # It goes alone.
                break
            else:
                del waiting[each]
                return self._large_batch(entry)
            del waiting[each]
        if not entries and not forgotten:
            return None
        return RetainedBatch(entries, forgotten, self._codec.pack_all(packed), [])

    def _packed(self, entry: Entry) -> bytes | None:
        try:
            return self._codec.pack(entry.message)
        except Exception as error:
            # Its sender was told when it was sent.
            logger.debug("%s is retained here alone: %.200s", entry.identifier, error)
            return None

    def _large_batch(self, entry: Entry) -> Batch | None:
        try:
            return RetainedBatch([entry], [], *self._codec.pack_large(entry.message))
        except Exception as error:
            logger.debug("%s is retained here alone: %.200s", entry.identifier, error)
            return None

    def receive(
        self, link: Link, envelope: Any, data: bytes, frames: Any, share: Share | None
    ) -> None:
        """Take what a peer retains.

        Raises:
            TypeError, ValueError: a part is invalid.
            ProtocolError: the messages are malformed.
        """
        origins, forgotten = parse_retained(envelope)
        messages: tuple[tuple[Any, ...], ...] = ()
        if origins:
            batch = Batch((origins[0][0], 0), 1, len(origins), data, frames)
            self._codec.check_size(batch)
            messages = self._codec.unpack(batch)
        grants = None if link.filter is None else link.filter.grants
        now = time.time()
        news: list[Entry] = []
        denied: list[str] = []
        for (origin, stamp), message in zip(origins, messages, strict=True):
            identifier = Identifier(message[0]).require_exportable()
            if grants is not None and not grants.covers(identifier):
                denied.append(str(identifier))
                continue
            if is_ahead(stamp, now):
                logger.warning(
                    "%s of node %s is not retained: the clock there is more than a day ahead",
                    identifier,
                    origin,
                )
                continue
            kwargs = message[2] if len(message) > 2 else {}
            entry = Entry(identifier, message[1], kwargs, origin, stamp)
            if self._gateway.take_retained(*entry, is_late=True, share=share):
                news.append(entry)
        for each in forgotten:
            if grants is not None and not grants.covers(each.identifier):
                denied.append(str(each.identifier))
            elif not is_ahead(each.stamp, now):
                # The bus notes it, where it was not known: all links get it then.
                self._gateway.forget(*each)
        if news:
            self.offer(news, link)
            self._host.wake()
        if denied:
            self._host.deny(link, len(denied), denied[0])
