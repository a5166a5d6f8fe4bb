"""What is retained: the last message of each identifier, within bounds.

It knows no threads and no time: its user has the lock and the stamps.
"""

from collections import OrderedDict
from typing import NamedTuple, TypeAlias

from ..identifier import WILDCARD, Identifier
from .message import RetainedMessage
from .registrations import Guard, ReceiverKey
from .subscription_index import Parts, SubscriptionIndex, parts_of

__all__ = ["MAX_RETAINED", "MAX_RETAINED_BYTES", "Forgotten", "Kept", "RetainedStore", "Stamp"]

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
        identifier: which; may have wildcards.
        stamp: older ones than this.
    """

    identifier: Identifier
    stamp: Stamp


class Slot:
    """The place of an identifier, with its last message."""

    __slots__ = ("identifier", "kept", "number")

    def __init__(self, kept: Kept, number: int) -> None:
        self.identifier = kept.identifier
        self.kept = kept
        self.number = number

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
        #: When what is not there any more was forgotten: what other buses still have is older.
        self._forgotten: OrderedDict[str, Stamp] = OrderedDict()

    def want(self, identifier: Identifier) -> None:
        """Retain what `identifier` covers from now on."""
        self._wanted.add(parts_of(identifier))

    def wants(self, identifier: Identifier) -> bool:
        """Whether messages with this identifier are retained.

        They are if what was wanted covers all that they reach, or if one is there already.
        """
        if str(identifier) in self._slots:
            return True
        wanted = self._wanted
        namespace, name, action = parts_of(identifier)
        return any(
            (one, two, three) in wanted
            for one in (namespace, WILDCARD)
            for two in (name, WILDCARD)
            for three in (action, WILDCARD)
        )

    def is_newer(self, identifier: Identifier, stamp: Stamp) -> bool:
        """Whether a message is newer than what is known of its identifier."""
        text = str(identifier)
        slot = self._slots.get(text)
        known = self._forgotten.get(text) if slot is None else slot.kept.stamp
        return known is None or stamp > known

    def put(self, kept: Kept) -> int:
        """Retain a message that is newer; return how many were dropped for it."""
        text = str(kept.identifier)
        self._changes += 1
        self._forgotten.pop(text, None)
        slot = self._slots.get(text)
        if slot is None:
            slot = self._slots[text] = Slot(kept, self._changes)
            self._index.add(slot)
        else:
            self.bytes -= slot.kept.size
            slot.kept = kept
            slot.number = self._changes
            self._slots.move_to_end(text)
        self.bytes += kept.size
        dropped = 0
        while self._slots and (len(self._slots) > self.max_messages or self.bytes > self.max_bytes):
            # One that is larger than all may be goes alone.
            is_too_large = kept.size > self.max_bytes
            self._remove(text if is_too_large else next(iter(self._slots)))
            dropped += 1
        self.dropped += dropped
        return dropped

    def find(self, identifier: Identifier) -> list[Kept]:
        """What a receiver of `identifier` hears, that which changed first first."""
        return [slot.kept for slot in self._index.find(identifier)]

    def forget(self, forgotten: Forgotten) -> int:
        """Drop what matches and is older; return how many that were."""
        identifier, stamp = forgotten
        older = [kept for kept in self.find(identifier) if kept.stamp < stamp]
        for kept in older:
            text = str(kept.identifier)
            self._remove(text)
            self._note_forgotten(text, stamp)
        if WILDCARD not in parts_of(identifier) and not self.holds(identifier):
            self._note_forgotten(str(identifier), stamp)
        return len(older)

    def holds(self, identifier: Identifier) -> bool:
        """Whether a message with exactly this identifier is there."""
        return str(identifier) in self._slots

    def statistics(self) -> dict[str, int]:
        """Counts, for `Bus.statistics`."""
        return {
            "messages_retained": len(self._slots),
            "retained_bytes": self.bytes,
            "retained_dropped": self.dropped,
            "retained_outdated": self.outdated,
        }

    def _note_forgotten(self, text: str, stamp: Stamp) -> None:
        if stamp > self._forgotten.get(text, NEVER):
            self._forgotten[text] = stamp
            self._forgotten.move_to_end(text)
        while len(self._forgotten) > self.max_messages:
            self._forgotten.popitem(last=False)

    def _remove(self, text: str) -> None:
        slot = self._slots.pop(text)
        self._index.discard(slot)
        self.bytes -= slot.kept.size

    def __len__(self) -> int:
        return len(self._slots)
