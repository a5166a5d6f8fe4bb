"""A message as a queue for other processes keeps it: packed when it was sent."""

import threading
from collections.abc import Sequence
from typing import Any

from ..bus import Message
from ..identifier import Identifier
from ..rpc.wire.codec import Codec

__all__ = ["OVERHEAD", "Packer", "Parcel"]

#: Bytes that a parcel takes beside those of the message.
OVERHEAD = 300

#: Byte strings of so many bytes are kept as they are, and not copied.
MINIMUM_FRAME = 4096


class Parcel:
    """A message that waits for a consumer, or is on its way to one.

    Attributes:
        id: the text of the message's identifier.
        number: its place among all that came into the mailbox.
        size: bytes that it takes.
        redelivered: whether it was sent to a consumer before, who did not say that it came.
        dropped: how many messages were dropped before this one, while it is on its way.
    """

    __slots__ = ("data", "dropped", "frames", "id", "number", "redelivered", "size")

    def __init__(self, identifier: str, data: bytes, frames: Sequence[Any] = ()) -> None:
        self.id = identifier
        self.data = data
        self.frames = frames
        self.number = 0
        self.size = len(data) + OVERHEAD
        if frames:
            self.size += sum(map(len, frames))
        self.redelivered = False
        self.dropped = 0


class Packer:
    """Makes parcels of messages, and messages of parcels. Any thread may use it.

    What is packed takes less memory than the objects, is what a consumer would get at the moment
    of sending, whatever becomes of the objects, and can travel.
    """

    def __init__(self) -> None:
        self._codec = Codec()
        # Reentrant: an object that is collected in the middle of it may send a message.
        self._lock = threading.RLock()

    def pack(self, message: Message) -> Parcel:
        """Pack a message.

        Raises:
            TypeError, ValueError: one of its arguments cannot travel.
        """
        arguments = (message.args, message.kwargs)
        frames: Sequence[Any] = ()
        with self._lock:
            try:
                data = self._codec.pack(arguments)
            except Exception:
                # Each for itself, so that the error names it.
                self._codec.pack(message.args, "args")
                self._codec.pack(message.kwargs, "kwargs")
                raise
            if len(data) >= MINIMUM_FRAME:
                data, frames = self._codec.pack_with_frames(arguments, MINIMUM_FRAME)
        return Parcel(message.id, data, frames)

    def arguments(self, parcel: Parcel) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments of a parcel's message."""
        with self._lock:
            args, kwargs = self._codec.unpack(parcel.data, parcel.frames)
        return args, kwargs

    def message(self, parcel: Parcel) -> Message:
        """The message of a parcel."""
        return Message(Identifier(parcel.id), *self.arguments(parcel))
