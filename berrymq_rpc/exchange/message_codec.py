"""Messages of a bundle to msgpack and back, within the bounds of a node."""

import logging
from typing import Any

from ..errors import ProtocolError, TooLargeError
from ..rpc.wire.codec import Codec
from ..rpc.wire.depth import DepthLimit
from ..rpc.wire.limits import Limits
from .bundle import Bundle

__all__ = ["BUNDLE_BYTES", "LARGE", "MessageCodec"]

logger = logging.getLogger("berrymq_rpc.exchange")

#: Bytes of one bundle. Larger ones gain nothing, and hold up who takes them.
BUNDLE_BYTES = 64 << 10

#: Bytes of several messages that are taken, over the bound on a single one.
LARGEST = 2 * BUNDLE_BYTES

#: Bytes from which on a message may have byte strings that travel beside it, and is a bundle.
LARGE = 8 << 10

_TUPLES = {tuple}


class MessageCodec:
    """Packs and unpacks messages, which are ``(identifier, args[, kwargs[, reply_to]])``.

    It serves one thread at a time, `pack_large` and `unpack` excepted.

    Args:
        limits: bounds of what a message may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._max_message = limits.max_message
        # A bundle is a level above its messages, which are as deep as the records of calls.
        self._levels = min(limits.max_depth + 1, 1000)
        self.codec = Codec(max_depth=self._levels)
        self._fast_pack = self.codec.fast_pack
        self._depth = DepthLimit(self._levels - 1)
        self._is_packing = False

    def pack(self, item: tuple[Any, ...]) -> bytes:
        """Pack a message.

        Raises:
            TypeError, ValueError: it cannot travel.
        """
        if self._is_packing:
            # Interrupted by garbage collection in the midst of packing: the packer is in use.
            return Codec(max_depth=self._depth.levels).pack(item, "the message")
        self._is_packing = True
        try:
            try:
                piece = self._fast_pack(item)
            except Exception:
                # It can do more, or says which value is wrong.
                return self.codec.pack(item, "the message")
            if len(piece) > self._depth.levels and self._depth.is_exceeded(piece):
                raise ValueError(f"nested more than {self._depth.levels} levels deep")
            return piece
        finally:
            self._is_packing = False

    def pack_all(self, pieces: list[Any]) -> bytes:
        """An array of messages that are packed, or are plain tuples that can be."""
        if set(map(type, pieces)) == _TUPLES and not self._is_packing:
            try:
                return self._fast_pack(pieces)
            except Exception:
                # Lone surrogates, and big integers, are packed in another way.
                logger.debug("messages are packed one by one")
        packed = [piece if type(piece) is bytes else self.pack(piece) for piece in pieces]
        return _array_header(len(packed)) + b"".join(packed)

    def pack_large(
        self, item: tuple[Any, ...], name: str = "the message"
    ) -> tuple[bytes, list[bytes]]:
        """An array of one message, and the long byte strings in it.

        Raises:
            TypeError, ValueError: it cannot travel.
            TooLargeError: it is larger than this node allows.
        """
        codec = Codec(max_depth=self._levels)
        data, frames = codec.pack_with_frames([item], LARGE, name)
        if len(data) > self._max_message:
            raise TooLargeError(
                f"{len(data):,} bytes are more than max_message={self._max_message:,} allows"
            )
        return data, [bytes(frame) for frame in frames]

    def check_size(self, bundle: Bundle) -> None:
        """Raises `ProtocolError` for a bundle that is larger than any of a node's."""
        if len(bundle.data) > self._max_message + LARGEST:
            raise ProtocolError(f"{len(bundle.data):,} bytes of messages are too large")

    def unpack(self, bundle: Bundle) -> tuple[tuple[Any, ...], ...]:
        """The messages of a bundle; whether the identifiers are any is not looked at.

        Raises:
            ProtocolError: they are none.
        """
        messages: Any = self.codec.unpack(bundle.data, bundle.frames)
        if type(messages) is not tuple or len(messages) != bundle.count:
            raise ProtocolError("messages are an array, as long as its envelope says")
        for message in messages:
            if type(message) is not tuple or not 2 <= len(message) <= 4:
                raise ProtocolError("a message is an array of 2 to 4")
            if type(message[0]) is not str or type(message[1]) is not tuple:
                raise ProtocolError("a message has an identifier and an array of arguments")
            if len(message) > 2 and (
                type(message[2]) is not dict or not all(type(k) is str for k in message[2])
            ):
                raise ProtocolError("the names of a message's arguments are text")
        return messages


def _array_header(count: int) -> bytes:
    """Msgpack's, for less than 65,536 elements."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
