"""What sessions with peers of other libraries share.

Such a peer does not respect a window, and calls to it cannot be cancelled. Its calls are larger
than those of native peers, which send long byte strings as frames of their own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import TooLargeError
from .limits import CONNECT_TIMEOUT, FOREIGN_SIZE, Limits
from .session import Session

__all__ = ["ForeignSession"]


class ForeignSession(Session):
    """Calls in both directions with a peer of another library."""

    keeps_window = False
    acknowledges = False
    reads_streams = False

    def __init__(
        self,
        limits: Limits,
        error_table: Mapping[str, type[Exception]],
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        super().__init__(limits, ids=ids, connect_timeout=connect_timeout)
        self._error_table = error_table
        self._max_size = FOREIGN_SIZE * limits.max_message

    def _checked(self, data: bytes) -> bytes:
        if len(data) > self._max_size:
            raise TooLargeError(
                f"{len(data):,} bytes are more than the {self._max_size:,} that max_message "
                f"allows {self.peer_kind}"
            )
        return data

    def _abandon(self, call_id: int) -> None:
        # The call cannot be cancelled there, and may never be answered: give its slot back now.
        self.in_window -= 1

    @property
    def pending_records(self) -> int:
        # A cancelled call makes room without an answer, so the backlog must be looked at as well.
        waiting = len(self.backlog) if self.in_window < self.window else 0
        return len(self._out) + waiting

    def _take_out(self, now: float) -> list[Any]:
        """Remove and return what is to be sent now."""
        self._release(now)
        records, self._out = self._out, []
        self.large_bytes = 0
        return records
