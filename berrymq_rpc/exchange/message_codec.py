"""Pack and unpack the messages of a batch, within the bounds of a node."""

import re
from collections.abc import Mapping
from typing import Any

from ..errors import ProtocolError, TooLargeError
from ..rpc.wire.codec import Codec
from ..rpc.wire.depth import DepthLimit
from ..rpc.wire.limits import MAX_DEPTH, Limits
from ..rpc.wire.safe_repr import safe_repr
from ..rpc.wire.translation import Untranslated
from ..runtime.log import Log
from .batch import Batch

__all__ = ["BATCH_BYTES", "LARGE", "MessageCodec"]

logger = Log("berrymq_rpc.exchange")

#: Bytes of one batch. Larger ones gain nothing, and hold up their receiver.
BATCH_BYTES = 64 << 10

#: Bytes by which several messages together may exceed the bound on a single one.
LARGEST = 2 * BATCH_BYTES

#: Bytes of a message that is a batch by itself, with its long byte strings apart.
LARGE = 8 << 10

_TUPLES = {tuple}
_NAMES = {str}

#: The beginning of an error about an argument: its place within the message.
_ARGUMENT = re.compile(r"the message(?:\[0\])?\[([12])\]")

#: Msgpack's header of an array of one element.
_ARRAY_OF_ONE = b"\x91"


def _explained(error: Exception, item: tuple[Any, ...]) -> Exception:
    """The error for a message that cannot be packed, with the place of the argument in it."""
    where = _ARGUMENT.match(str(error)) if type(error) in (TypeError, ValueError) else None
    if where is None:
        return error
    name = ("args", "kwargs")[int(where[1]) - 1]
    rest = str(error)[where.end() :]
    return type(error)(f"{name} of the message {safe_repr(item[0], 200)}: {name}{rest}")


class MessageCodec:
    """Packs and unpacks messages: ``(identifier, args[, kwargs[, reply_to]])``.

    Only one thread at a time may use it, except for `pack_large` and `unpack`.

    Args:
        limits: the bounds of a message.
        translation_table: for values of the user's own, as for `rpc.open_client`.
    """

    def __init__(self, limits: Limits, translation_table: Mapping[int, Any] | None = None) -> None:
        self._max_message = limits.max_message
        # A batch is one level above its messages, which may be as deep as the records of calls.
        self._levels = min(limits.max_depth + 1, 1000)
        self._translation_table = translation_table
        self.codec = self.new_codec(self._levels)
        self._fast_pack = self.codec.fast_pack
        self._depth = DepthLimit(self._levels - 1)
        self._is_packing = False

    def new_codec(self, max_depth: int = MAX_DEPTH) -> Codec:
        """Make a codec for the same values; one serves one thread at a time."""
        return Codec(self._translation_table, max_depth=max_depth, untranslated=Untranslated.of)

    def pack(self, item: tuple[Any, ...]) -> bytes:
        """Pack a message.

        Raises:
            TypeError, ValueError: it cannot be packed.
        """
        if self._is_packing:
            # Garbage collection has interrupted another `pack`: the packer is in use.
            return self._pack_slowly(self.new_codec(self._depth.levels), item)
        self._is_packing = True
        try:
            try:
                packed = self._fast_pack(item)
            except Exception:
                # This packs more types, or says which value is wrong.
                return self._pack_slowly(self.codec, item)
            if len(packed) > self._depth.levels and self._depth.is_exceeded(packed):
                raise ValueError(f"nested more than {self._depth.levels} levels deep")
            return packed
        finally:
            self._is_packing = False

    @staticmethod
    def _pack_slowly(codec: Codec, item: tuple[Any, ...]) -> bytes:
        try:
            return codec.pack(item, "the message")
        except (TypeError, ValueError) as error:
            raise _explained(error, item) from None

    def pack_one(self, item: tuple[Any, ...]) -> tuple[bytes, list[bytes]]:
        """Pack an array of one message, with its long byte strings apart if it is large.

        Raises:
            TypeError, ValueError: it cannot be packed.
            TooLargeError: it is larger than this node allows.
        """
        packed = self.pack(item)
        if len(packed) >= LARGE:
            return self.pack_large(item)
        return _ARRAY_OF_ONE + packed, []

    def pack_all(self, messages: list[Any]) -> bytes:
        """Pack an array of messages, some of which may be packed already."""
        if set(map(type, messages)) == _TUPLES and not self._is_packing:
            try:
                return self._fast_pack(messages)
            except Exception:
                # Lone surrogates and big integers need the slower way.
                logger.debug("messages are packed one by one")
        packed = [message if type(message) is bytes else self.pack(message) for message in messages]
        return _array_header(len(packed)) + b"".join(packed)

    def pack_large(
        self, item: tuple[Any, ...], name: str = "the message"
    ) -> tuple[bytes, list[bytes]]:
        """Pack an array of one message, with its long byte strings apart.

        Raises:
            TypeError, ValueError: it cannot be packed.
            TooLargeError: it is larger than this node allows.
        """
        codec = self.new_codec(self._levels)
        try:
            data, frames = codec.pack_with_frames([item], LARGE, name)
        except (TypeError, ValueError) as error:
            raise _explained(error, item) from None
        if len(data) > self._max_message:
            raise TooLargeError(
                f"{name} {safe_repr(item[0], 200)} has {len(data):,} bytes, more than "
                f"max_message={self._max_message:,}: send it in parts or as bytes, or raise that "
                "in limits= of both nodes"
            )
        return data, [bytes(frame) for frame in frames]

    def check_size(self, batch: Batch) -> None:
        """Raise `ProtocolError` for a batch that is larger than a node may send."""
        if len(batch.data) > self._max_message + LARGEST:
            raise ProtocolError(f"{len(batch.data):,} bytes of messages are too large")

    def unpack(self, batch: Batch) -> tuple[tuple[Any, ...], ...]:
        """Unpack the messages of a batch; their identifiers are not checked.

        Raises:
            ProtocolError: they are malformed.
        """
        messages: Any = self.codec.unpack(batch.data, batch.frames)
        if type(messages) is not tuple or len(messages) != batch.count:
            raise ProtocolError("messages must be an array, as long as its envelope says")
        for message in messages:
            if type(message) is not tuple or not 2 <= len(message) <= 4:
                raise ProtocolError("a message must be an array of 2 to 4 elements")
            if type(message[0]) is not str or type(message[1]) is not tuple:
                raise ProtocolError("a message must have an identifier and an array of arguments")
            if len(message) > 2 and (
                type(message[2]) is not dict
                or (message[2] and set(map(type, message[2])) != _NAMES)
            ):
                raise ProtocolError("the names of a message's arguments must be text")
        return messages


def _array_header(count: int) -> bytes:
    """Msgpack's header of an array of less than 65,536 elements."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
