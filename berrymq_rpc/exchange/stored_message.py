"""Messages as a queue for other processes stores them: packed when they are sent."""

import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from ..bus import Message
from ..identifier import Identifier
from ..rpc.wire.codec import Codec
from ..rpc.wire.translation import Untranslated

__all__ = ["OVERHEAD", "MessagePacker", "StoredMessage"]

#: Bytes that a stored message takes in addition to its content.
OVERHEAD = 300

#: Byte strings of at least so many bytes are kept as they are, and not copied.
MIN_FRAME = 4096


class StoredMessage:
    """A message that waits for a consumer, or is on its way to one.

    Attributes:
        id: the text of the message's identifier.
        number: its place among all messages of the queue.
        size: bytes that it takes.
        redelivered: whether it was sent to a consumer before that did not confirm it.
        dropped: how many messages were dropped just before this one, while it is on its way.
        tries: how often it was sent to a consumer.
        retained: whether it was sent before its queue was opened.
    """

    __slots__ = (
        "data",
        "dropped",
        "frames",
        "id",
        "number",
        "redelivered",
        "retained",
        "size",
        "tries",
    )

    def __init__(self, identifier: str, data: bytes, frames: Sequence[Any] = ()) -> None:
        self.id = identifier
        self.data = data
        self.frames = frames
        self.number = 0
        self.size = len(data) + OVERHEAD
        if frames:
            self.size += sum(map(len, frames))
        self.redelivered = False
        self.retained = False
        self.dropped = 0
        self.tries = 0


class MessagePacker:
    """Packs messages for storage, and unpacks stored ones. Any thread may use it.

    A packed message takes less memory than its objects, is what it was when it was sent, whatever
    becomes of the objects, and is known to be exportable.

    Args:
        translation_table: for values of the user's own, as for `rpc.open_client`.
    """

    def __init__(self, translation_table: Mapping[int, Any] | None = None) -> None:
        self._codec = Codec(translation_table, untranslated=Untranslated.of)
        #: The latest message, and what was packed of it: all queues that keep it share that.
        self._latest: tuple[weakref.ref[Message], bytes, Sequence[Any]] | None = None
        # Reentrant: an object that is garbage-collected while packing may send a message.
        self._lock = threading.RLock()

    def pack(self, message: Message) -> StoredMessage:
        """Pack a message.

        Raises:
            TypeError, ValueError: one of its arguments cannot be packed.
        """
        latest = self._latest
        if latest is not None and latest[0]() is message:
            return StoredMessage(message.id, latest[1], latest[2])
        arguments = (message.args, message.kwargs)
        frames: Sequence[Any] = ()
        with self._lock:
            try:
                data = self._codec.pack(arguments)
            except Exception:
                # Pack each by itself, so that the error names it.
                self._codec.pack(message.args, "args")
                self._codec.pack(message.kwargs, "kwargs")
                raise
            if len(data) >= MIN_FRAME:
                data, frames = self._codec.pack_with_frames(arguments, MIN_FRAME)
            self._latest = weakref.ref(message, self._forget), data, frames
        return StoredMessage(message.id, data, frames)

    def _forget(self, ended: "weakref.ref[Message]") -> None:
        """Keep nothing of a message that its receivers have left."""
        latest = self._latest
        if latest is not None and latest[0] is ended:
            self._latest = None

    def arguments(self, stored: StoredMessage) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Unpack the positional and keyword arguments of a stored message."""
        with self._lock:
            args, kwargs = self._codec.unpack(stored.data, stored.frames)
        return args, kwargs

    def message(self, stored: StoredMessage) -> Message:
        """Unpack a stored message."""
        return Message(Identifier(stored.id), *self.arguments(stored))
