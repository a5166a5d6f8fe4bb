"""What is retained: the last message of each identifier, within bounds.

It knows no threads and no time: its user has the lock and the stamps.
"""

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import NamedTuple, TypeAlias

from ..identifier import WILDCARD, Identifier
from .message import RetainedMessage
from .registrations import Guard, ReceiverKey
from .subscription_index import Parts, SubscriptionIndex, parts_of

__all__ = [
    "MAX_RETAINED",
    "MAX_RETAINED_BYTES",
    "Forgotten",
    "Kept",
    "RetainedStore",
    "Share",
    "Stamp",
]

#: Messages, and bytes of them, that a bus retains by default.
MAX_RETAINED = 10_000
MAX_RETAINED_BYTES = 64 << 20

#: When a message was retained, in microseconds since 1970, and a number of the bus that did it. Of
#: two messages with one identifier the one with the greater stamp is the newer one, on each bus.
Stamp: TypeAlias = tuple[int, int]


NEVER: Stamp = (-1, -1)


class Kept(NamedTuple):
    """A message that is retained.

    Args:
        identifier: its identifier.
        message: the message, as late receivers get it.
        stamp: when it was sent.
        size: about how many bytes it takes.
    """

    identifier: Identifier
    message: RetainedMessage
    stamp: Stamp
    size: int


class Forgotten(NamedTuple):
    """The end of retained messages.

    Args:
        identifier: which, with all that it covers.
        stamp: older ones than this.
    """

    identifier: Identifier
    stamp: Stamp


class Share(NamedTuple):
    """What a peer may have retained.

    Args:
        holder: the peer.
        part: the part of all places and bytes that its messages may take.
    """

    holder: Hashable
    part: float


class Held:
    """What is retained for one peer.

    Attributes:
        texts: the identifiers, as the keys; the one that changed first is the first.
        bytes: what the messages take.
    """

    __slots__ = ("bytes", "texts")

    def __init__(self) -> None:
        self.texts: OrderedDict[str, None] = OrderedDict()
        self.bytes = 0


class Slot:
    """The place of an identifier, with its last message."""

    __slots__ = ("holder", "identifier", "kept", "number")

    def __init__(self, kept: Kept) -> None:
        self.identifier = kept.identifier
        self.kept = kept
        self.number = 0
        self.holder: Hashable = None

    @property
    def key(self) -> ReceiverKey:
        return 0

    @property
    def guard(self) -> Guard | None:
        return None


class RetainedStore:
    """The last message of each identifier; over a bound, the one that changed first is dropped.

    Args:
        max_messages: how many at most.
        max_bytes: bytes of all together.

    Attributes:
        bytes: how many they take.
        dropped: how many were dropped because of a bound.
        outdated: how many came from other buses after a newer one of their identifier.
    """

    def __init__(
        self, max_messages: int = MAX_RETAINED, max_bytes: int = MAX_RETAINED_BYTES
    ) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.bytes = 0
        self.dropped = 0
        self.outdated = 0
        self._wanted: set[Parts] = set()
        #: By identifier, the one that changed first is the first.
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._index: SubscriptionIndex[Slot] = SubscriptionIndex()
        self._changes = 0
        #: What came from peers with a share.
        self._held: dict[Hashable, Held] = {}
        #: When what is not there any more was forgotten: what other buses still have is older.
        self._forgotten: OrderedDict[Parts, Stamp] = OrderedDict()

    def want(self, identifier: Identifier) -> None:
        """Retain what `identifier` covers from now on."""
        self._wanted.add(parts_of(identifier))

    def wants(self, identifier: Identifier) -> bool:
        """Whether messages with this identifier are retained.

        They are if what was wanted covers all that they reach, or if one is there already.
        """
        if str(identifier) in self._slots:
            return True
        return any(parts in self._wanted for parts in _covering(identifier))

    def is_newer(self, identifier: Identifier, stamp: Stamp) -> bool:
        """Whether a message is newer than what is known of its identifier."""
        slot = self._slots.get(str(identifier))
        if slot is not None and stamp <= slot.kept.stamp:
            return False
        forgotten = self._forgotten
        return all(stamp > forgotten.get(parts, NEVER) for parts in _covering(identifier))

    def put(self, kept: Kept, share: Share | None = None) -> int:
        """Retain a message that is newer; return how many were dropped for it.

        Args:
            share: of the peer that it came from; over it, that peer's oldest is dropped.
        """
        text = str(kept.identifier)
        self._changes += 1
        parts = parts_of(kept.identifier)
        if WILDCARD not in parts:
            self._forgotten.pop(parts, None)
        slot = self._slots.get(text)
        if slot is None:
            slot = self._slots[text] = Slot(kept)
            self._index.add(slot)
        else:
            self._let_go(text, slot)
            slot.kept = kept
            self._slots.move_to_end(text)
        slot.number = self._changes
        self.bytes += kept.size
        dropped = 0 if share is None else self._hold(text, slot, share)
        while self._slots and (len(self._slots) > self.max_messages or self.bytes > self.max_bytes):
            # One that is larger than all may be goes alone.
            is_too_large = kept.size > self.max_bytes
            self._remove(text if is_too_large else next(iter(self._slots)))
            dropped += 1
        self.dropped += dropped
        return dropped

    def get(self, text: str) -> Kept | None:
        """The message with exactly this identifier."""
        slot = self._slots.get(text)
        return None if slot is None else slot.kept

    def find(self, identifier: Identifier) -> list[Kept]:
        """What a receiver of `identifier` hears, that which changed first first."""
        return [slot.kept for slot in self._index.find(identifier)]

    def forget(self, forgotten: Forgotten) -> int:
        """Drop what it covers and is older; return how many that were.

        What it merely matches stays, as others hear that as well.
        """
        identifier, stamp = forgotten
        parts = parts_of(identifier)
        older = [
            kept
            for kept in self.find(identifier)
            if kept.stamp < stamp and parts in _covering(kept.identifier)
        ]
        for kept in older:
            self._remove(str(kept.identifier))
            self._note_forgotten(parts_of(kept.identifier), stamp)
        self._note_forgotten(parts, stamp)
        return len(older)

    def forgotten(self) -> list[Forgotten]:
        """What was forgotten, so that no older message of it may come back."""
        return [Forgotten(_identifier(parts), stamp) for parts, stamp in self._forgotten.items()]

    def is_news(self, forgotten: Forgotten) -> bool:
        """Whether it was not known yet that this was forgotten."""
        identifier, stamp = forgotten
        slot = self._slots.get(str(identifier))
        if WILDCARD not in parts_of(identifier) and slot is not None and stamp < slot.kept.stamp:
            return False
        return all(stamp > self._forgotten.get(parts, NEVER) for parts in _covering(identifier))

    def statistics(self) -> dict[str, int]:
        """Counts, for `Bus.statistics`."""
        return {
            "messages_retained": len(self._slots),
            "retained_bytes": self.bytes,
            "retained_dropped": self.dropped,
            "retained_outdated": self.outdated,
        }

    def _note_forgotten(self, parts: Parts, stamp: Stamp) -> None:
        if stamp > self._forgotten.get(parts, NEVER):
            self._forgotten[parts] = stamp
            self._forgotten.move_to_end(parts)
        while len(self._forgotten) > self.max_messages:
            self._forgotten.popitem(last=False)

    def _remove(self, text: str) -> None:
        slot = self._slots.pop(text)
        self._index.discard(slot)
        self._let_go(text, slot)

    def _let_go(self, text: str, slot: Slot) -> None:
        """Count the message of a slot no more."""
        self.bytes -= slot.kept.size
        held = self._held.get(slot.holder)
        if held is not None and text in held.texts:
            del held.texts[text]
            held.bytes -= slot.kept.size
            if not held.texts:
                del self._held[slot.holder]
        slot.holder = None

    def _hold(self, text: str, slot: Slot, share: Share) -> int:
        """Count a message for its peer; return how many of the peer's were dropped for it."""
        holder, part = share
        slot.holder = holder
        held = self._held.setdefault(holder, Held())
        held.texts[text] = None
        held.bytes += slot.kept.size
        most = max(1, int(self.max_messages * part))
        is_too_large = slot.kept.size > self.max_bytes * part
        dropped = 0
        while held.texts and (len(held.texts) > most or held.bytes > self.max_bytes * part):
            self._remove(text if is_too_large else next(iter(held.texts)))
            dropped += 1
            if is_too_large:
                break
        return dropped

    def __len__(self) -> int:
        return len(self._slots)


def _covering(identifier: Identifier) -> Iterator[Parts]:
    """The identifiers that cover this one."""
    namespace, name, action = parts_of(identifier)
    return itertools.product((namespace, WILDCARD), (name, WILDCARD), (action, WILDCARD))


def _identifier(parts: Parts) -> Identifier:
    namespace, name, action = parts
    return Identifier(f"{name}:{action}" if namespace is None else f"{name}@{namespace}:{action}")
