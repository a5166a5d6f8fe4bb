"""The bytes of one peer's calls that wait, within the bounds of that peer and of all."""

import enum
from typing import Protocol

from ..errors import OverloadedError
from .wire.limits import Limits

__all__ = ["MESSAGE", "AllCallBytes", "CallBytes", "Room"]

#: Bytes that a message, or a call, that waits for its turn takes beyond those that it arrived with.
MESSAGE = 500


class Room(enum.Enum):
    """Whether there is room for a message that waits to be read."""

    #: It waits, and will be served.
    SERVED = enum.auto()
    #: It waits, as it may answer calls of this side; the calls in it will be refused.
    REFUSED = enum.auto()
    #: It is not taken.
    NONE = enum.auto()


class AllCallBytes(Protocol):
    """What is counted for all peers together: a `dispatcher.Dispatcher`."""

    limits: Limits
    #: Bytes of calls of all peers that wait.
    queued_bytes: int


class CallBytes:
    """Counts what the calls of one peer take that wait.

    Args:
        of_all: where they are counted together with those of the other peers.
    """

    __slots__ = ("_calls", "_of_all", "_unread")

    def __init__(self, of_all: AllCallBytes) -> None:
        self._of_all = of_all
        #: Bytes of the calls that were read, and of the messages that were not.
        self._calls = 0
        self._unread = 0

    def hold(self, cost: int) -> None:
        """Count the bytes of a call that waits, or, below 0, of one that does so no more."""
        self._calls += cost
        self._of_all.queued_bytes += cost

    def clear(self) -> None:
        """No call waits any more that was read."""
        self.hold(-self._calls)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more are within the bounds."""
        limits = self._of_all.limits
        return (
            self._calls + self._unread + size <= limits.max_queued_call_bytes
            and self._of_all.queued_bytes + size <= limits.max_all_queued_call_bytes
        )

    def no_room(self, *, is_congested: bool) -> OverloadedError:
        """Make the error for a call that there is no room for.

        Args:
            is_congested: whether the peer does not read its answers.
        """
        limits = self._of_all.limits
        if self._of_all.queued_bytes + MESSAGE > limits.max_all_queued_call_bytes:
            return OverloadedError(
                f"max_all_queued_call_bytes={limits.max_all_queued_call_bytes:,} bytes of calls of "
                "all peers wait"
            )
        reason = f"max_queued_call_bytes={limits.max_queued_call_bytes:,} bytes of calls wait for "
        if is_congested:
            reason += (
                f"this peer to read its answers, over max_queued_bytes={limits.max_queued_bytes:,} "
                "bytes of them"
            )
        else:
            reason += "their turn"
        return OverloadedError(reason)

    def reserve(self, size: int) -> Room:
        """Count the bytes of a message that waits to be read, if there is room."""
        of_all = self._of_all
        limits = of_all.limits
        has_room = self.has_room(0)
        if (
            self._unread > 2 * limits.max_queued_call_bytes + limits.largest_frame
            or of_all.queued_bytes > 2 * limits.max_all_queued_call_bytes + limits.largest_frame
        ):
            return Room.NONE
        self._unread += size
        of_all.queued_bytes += size
        return Room.SERVED if has_room else Room.REFUSED

    def release(self, size: int) -> None:
        """Count the bytes of such a message as read."""
        self._unread -= size
        self._of_all.queued_bytes -= size

    def release_all(self) -> None:
        """No message waits any more: the peer is gone."""
        self.release(self._unread)
