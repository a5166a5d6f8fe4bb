"""A message that JetStream has delivered to this process, and what is said of it."""

import json
import threading
from collections.abc import Coroutine, Iterable
from functools import lru_cache
from typing import Any, Protocol

from ...identifier import Identifier
from ...nats.jetstream import NANOSECONDS, Delivery
from ..batch import Batch
from ..consumer import checked_delay

__all__ = ["ACK", "Delivered", "DeliveredHost", "Share", "nak"]

#: What JetStream is told of a message.
ACK = b"+ACK"
IN_PROGRESS = b"+WPI"
TERM = b"+TERM"
NAK = b"-NAK"

#: Characters of a reason.
MAX_REASON = 300


class DeliveredHost(Protocol):
    """What a delivered message needs of its consumer."""

    @property
    def thread(self) -> int:
        """The thread of the loop of the connection."""

    def tell(self, reply: str, word: bytes) -> bool:
        """Tell JetStream what became of a message, on that loop."""

    async def call(self, coroutine: Coroutine[Any, Any, bool]) -> bool:
        """Run a coroutine on the loop of the connection, from any loop."""

    async def settle(self, reply: str, word: bytes, confirm: bool = False) -> bool:
        """Tell JetStream what became of a message."""

    async def fail(self, delivered: "Delivered", error: BaseException) -> bool:
        """Have a message come again as its work failed, or give it up."""

    def give_back(self, reply: str, word: bytes) -> None:
        """Have a message delivered to another consumer, at once."""

    def put_back(self, delivered: "Delivered") -> None:
        """Have the next call of `get` take a message that was taken."""


class Share:
    """One word to JetStream for the messages of a batch that are delivered together.

    It is acknowledged when all of them are settled, and comes again whole when one is refused.

    Args:
        places: of the messages in the batch.
    """

    def __init__(self, places: Iterable[int]) -> None:
        self._left = set(places)
        self._is_refused = False

    def word(self, place: int, word: bytes) -> bytes | None:
        """What to tell JetStream when `word` is said of one message; ``None`` for nothing yet."""
        if self._is_refused or not self._left or word == IN_PROGRESS:
            return word if word == IN_PROGRESS else None
        if word.startswith(NAK):
            self._is_refused = True
            return word
        self._left.discard(place)
        return None if self._left else ACK


class Delivered:
    """A message that JetStream has delivered. Its coroutines run on any event loop.

    Args:
        host: its consumer.
        reply: the subject on which JetStream is told about it.
        info: what that subject says.
        batch: as it was published.
        item: the message.
        dead: what became of it, for a dead letter.
        came: when, on the clock of the event loop.
        share: with which others JetStream is told one word.
        place: in the batch.
    """

    __slots__ = (
        "_host",
        "_place",
        "_reply",
        "_share",
        "args",
        "batch",
        "came",
        "dead",
        "identifier",
        "info",
        "kwargs",
        "origin",
    )

    def __init__(
        self,
        host: DeliveredHost,
        reply: str,
        info: Delivery,
        batch: Batch,
        item: tuple[Any, ...],
        dead: dict[str, Any] | None,
        came: float,
        share: Share | None = None,
        place: int = 0,
    ) -> None:
        self._host = host
        self._reply = reply
        self._share = share
        self._place = place
        self.info = info
        self.batch = batch
        self.identifier = _exportable(item[0])
        self.args: tuple[Any, ...] = item[1]
        self.kwargs: dict[str, Any] = item[2] if len(item) > 2 else {}
        self.origin = batch.source[0]
        self.dead = dead
        self.came = came

    def shared(self, item: tuple[Any, ...], share: Share, place: int) -> "Delivered":
        """One message of the batch that this one was the first of."""
        return Delivered(
            self._host, self._reply, self.info, self.batch, item, None, self.came, share, place
        )

    @property
    def tries(self) -> int:
        """How often it was delivered, this time included."""
        return self.info.tries

    @property
    def key(self) -> tuple[int, int]:
        """Which message of its stream it is: the number of its batch, and the place in that."""
        return self.info.sequence, self._place

    async def ack(self, confirm: bool) -> bool:
        host = self._host
        if not confirm and self._share is None and threading.get_ident() == host.thread:
            return host.tell(self._reply, ACK)
        return await self._settle(ACK, confirm)

    def nak(self, delay: float) -> Coroutine[Any, Any, bool]:
        return self._settle(nak(checked_delay(delay)))

    async def refuse(self, delay: float) -> bool:
        """Give it back, on the loop of the consumer."""
        return await self._settle_here(nak(delay), False)

    async def fail(self, error: BaseException) -> bool:
        return await self._host.call(self._host.fail(self, error))

    async def in_progress(self) -> bool:
        return await self._settle(IN_PROGRESS)

    def term(self, reason: str) -> Coroutine[Any, Any, bool]:
        if not isinstance(reason, str):
            raise TypeError(f"reason is text, not {reason!r}")
        word = TERM
        if reason:
            word += b" " + " ".join(reason.split())[:MAX_REASON].encode("utf-8", "replace")
        return self._settle(word)

    def give_back(self) -> None:
        """Refuse it at once, on the loop of the consumer."""
        word: bytes | None = NAK
        if self._share is not None:
            word = self._share.word(self._place, NAK)
        if word is not None:
            self._host.give_back(self._reply, word)

    def put_back(self) -> None:
        """Have the next call of `get` take it, on the loop of the consumer."""
        self._host.put_back(self)

    async def _settle(self, word: bytes, confirm: bool = False) -> bool:
        return await self._host.call(self._settle_here(word, confirm))

    async def _settle_here(self, word: bytes, confirm: bool) -> bool:
        if self._share is not None:
            shared = self._share.word(self._place, word)
            if shared is None:
                return True
            word = shared
        return await self._host.settle(self._reply, word, confirm)


@lru_cache(1000)
def _exportable(text: str) -> Identifier:
    """The identifier of a message, which nearly all of a queue share."""
    return Identifier(text).require_exportable()


def nak(delay: float) -> bytes:
    """The word for a message that is refused.

    Args:
        delay: seconds after which it comes again.
    """
    if delay <= 0:
        return NAK
    return NAK + b" " + json.dumps({"delay": int(delay * NANOSECONDS)}).encode()
