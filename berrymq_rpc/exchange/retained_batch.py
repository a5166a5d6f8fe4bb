"""What is retained, as it travels to a node that has asked for it.

It is sent by ``send_retained(token, envelope, messages, frames)``. The messages are packed as those
of other batches. The envelope says of each where it comes from and when it was retained, and what
was forgotten::

    {"retained": [[origin, when, number], ...], "forgotten": [[identifier, when, number], ...]}

`when` is in microseconds since 1970; `number` is one of the bus that has retained the message, so
that two buses never have the same pair.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..bus.retained_store import Forgotten, Kept, Stamp
from ..bus.retention import MAX_AHEAD
from ..identifier import Identifier
from .batch import MAX_COUNT, Batch, checked_name, parse_stamp

__all__ = ["Entry", "RetainedBatch", "is_ahead", "parse_retained"]


class Entry(NamedTuple):
    """A message that is retained.

    Args:
        identifier: its identifier.
        args, kwargs: its arguments.
        origin: the name of the node that it comes from.
        stamp: when it was retained.
    """

    identifier: Identifier
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    origin: str
    stamp: Stamp

    @property
    def message(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """The message, as it is packed."""
        return str(self.identifier), self.args, self.kwargs

    @classmethod
    def of(cls, kept: Kept, name: str) -> "Entry":
        """What a node of that name sends of a message that its bus retains."""
        message = kept.message
        origin = message.origin if type(message.origin) is str else name
        return cls(kept.identifier, message.args, message.kwargs, origin, kept.stamp)


class RetainedBatch(Batch):
    """Some of what is retained and forgotten, in the send buffer of one link.

    Args:
        entries: origin and stamp of each message.
        forgotten: what was forgotten.
        data: the messages, packed.
        frames: the long byte strings in them.
    """

    __slots__ = ("_entries", "_forgotten")

    method = "send_retained"

    def __init__(
        self,
        entries: list[Entry],
        forgotten: list[Forgotten],
        data: bytes,
        frames: list[bytes],
    ) -> None:
        super().__init__(("", 0), 1, max(1, len(entries)), data, frames)
        self._entries = [(entry.origin, *entry.stamp) for entry in entries]
        self._forgotten = [(str(each.identifier), *each.stamp) for each in forgotten]

    @property
    def messages(self) -> int:
        # What is retained stays here, and its next connection gets it.
        return 0

    def envelope(self) -> dict[str, Any]:
        return {"retained": self._entries, "forgotten": self._forgotten}

    def __repr__(self) -> str:
        return f"<{len(self._entries)} retained messages, {len(self._forgotten)} forgotten>"


def parse_retained(envelope: Any) -> tuple[list[tuple[str, Stamp]], list[Forgotten]]:
    """Check the envelope of what a peer retains: origins and stamps, and what was forgotten.

    Raises:
        TypeError, ValueError: a part is invalid.
    """
    if not isinstance(envelope, Mapping):
        raise TypeError(f"envelope must be a map, not {type(envelope).__name__}")
    entries = [
        (checked_name(origin), parse_stamp(stamp))
        for origin, *stamp in _arrays("retained", envelope.get("retained", ()))
    ]
    forgotten = [
        Forgotten(Identifier(identifier).require_exportable(), parse_stamp(stamp))
        for identifier, *stamp in _arrays("forgotten", envelope.get("forgotten", ()))
    ]
    return entries, forgotten


def _arrays(name: str, value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) > MAX_COUNT:
        raise TypeError(f"{name} must be an array of at most {MAX_COUNT:,} elements")
    if not all(isinstance(each, list | tuple) and len(each) == 3 for each in value):
        raise TypeError(f"{name} must have arrays of a text and two numbers")
    return value


def is_ahead(stamp: Stamp, now: float) -> bool:
    """Whether a stamp is so far in the future that nothing could replace its message.

    Args:
        now: seconds since 1970.
    """
    return stamp[0] > (now + MAX_AHEAD) * 10**6
