"""A node's own will, which its peers publish when it is lost, and what it says about itself."""

import uuid
from collections.abc import Sequence
from typing import Any

from ..errors import TooLargeError
from ..identifier import Identifier
from ..rpc.validation import check_count
from .batch import MAX_DELAY, Presence, PresenceBatch, Source
from .message_codec import MessageCodec

__all__ = ["MAX_WILL_BYTES", "WILL_DELAY", "OwnWill"]

#: Seconds that a lost node has to come back, before its will is published.
WILL_DELAY = 5.0

#: Bytes of one will, packed: enough for a text and some numbers, and little for a thousand peers.
MAX_WILL_BYTES = 64 << 10


class OwnWill:
    """What a node says about itself to each peer: who it is, and its will if it has one.

    Args:
        source: the node.
        codec: packs the will.
        will: ``(identifier, *args)``; ``None`` for none.
        delay: seconds that the node has to come back.
        max_bytes: bytes that the will may take, packed.

    Attributes:
        id: what the node is known by to those that hold its will.
        round: how many of its wills were published before, as far as it knows.

    Raises:
        TypeError, ValueError: an argument is invalid, or cannot be packed.
        TooLargeError: the will has more than `max_bytes`.
    """

    def __init__(
        self,
        source: Source,
        codec: MessageCodec,
        will: Sequence[Any] | None = None,
        delay: float = WILL_DELAY,
        max_bytes: int = MAX_WILL_BYTES,
    ) -> None:
        check_count("will_bytes", max_bytes)
        self.id = str(uuid.uuid4())
        self.round = 0
        self._source = source
        self._delay = _checked_delay(delay)
        self._data, self._frames = b"", list[bytes]()
        if will is not None:
            identifier, args = _parts_of(will)
            self._data, self._frames = codec.pack_large((str(identifier), args), "the will")
            size = len(self._data) + sum(map(len, self._frames))
            if size > max_bytes:
                raise TooLargeError(f"the will has {size:,} bytes: will_bytes={max_bytes:,}")

    @property
    def is_there(self) -> bool:
        """Whether the node has a will."""
        return bool(self._data)

    def introduction(self, number: int) -> PresenceBatch:
        """What a peer is told when it is connected with."""
        delay = self._delay if self._data else 0.0
        presence = Presence("node", self._source, self.id, self.round, delay)
        return PresenceBatch(presence, self._source, number, self._data, self._frames)


def _checked_delay(delay: Any) -> float:
    if isinstance(delay, int | float) and not isinstance(delay, bool) and 0 <= delay <= MAX_DELAY:
        return float(delay)
    raise ValueError(f"will_delay must be 0 to {MAX_DELAY:,.0f} seconds, not {delay!r}")


def _parts_of(will: Any) -> tuple[Identifier, tuple[Any, ...]]:
    if not isinstance(will, tuple | list) or not will:
        raise TypeError(f"will is (identifier, *args), such as ('sensor:gone', 3), not {will!r}")
    return Identifier(will[0]).require_exportable(), tuple(will[1:])
