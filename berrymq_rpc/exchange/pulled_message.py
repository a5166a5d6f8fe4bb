"""What ``get`` of a queue connection gives."""

from typing import Any

from ..bus import Message
from ..identifier import Identifier

__all__ = ["PulledMessage"]


class PulledMessage(Message):
    """A message from a queue at another node."""

    __slots__ = ("_dropped", "_origin", "_redelivered")

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        origin: str,
        redelivered: bool,
        dropped: int = 0,
    ) -> None:
        super().__init__(identifier, args, kwargs)
        self._origin = origin
        self._redelivered = redelivered
        self._dropped = dropped

    @property
    def origin(self) -> str:
        """The endpoint of the node that kept it."""
        return self._origin

    @property
    def redelivered(self) -> bool:
        """Whether the node has sent it before, to a consumer who did not say that it came.

        It may have been dealt with then.
        """
        return self._redelivered

    @property
    def dropped(self) -> int:
        """How many messages the queue has dropped before this one, and after the last that it told
        of: it was full, or they could not travel.
        """
        return self._dropped
