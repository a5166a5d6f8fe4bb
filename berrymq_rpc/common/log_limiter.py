"""Which log records of one kind are written, so that no flood of events fills the log."""

__all__ = ["BURST", "INTERVAL", "QUIET", "LogLimiter"]

#: Records of a kind that are written at once, with the whole traceback where there is one.
BURST = 10

#: Seconds between two records after these.
INTERVAL = 1.0

#: Seconds without an event of the kind after which it begins anew.
QUIET = 60.0


class LogLimiter:
    """Admits 10 records, then one a second, and counts those that are left out.

    ::

        if limiter.admit(now):
            write(text, limiter.left_out)

    After a minute without an event it admits 10 again.

    Attributes:
        left_out: after `admit` has returned ``True``, how many records were left out since the one
            written before; otherwise, how many were left out so far since then.
        is_early: whether the record that `admit` answered last is one of the first 10.
    """

    __slots__ = ("_events", "_left_out", "_next", "_quiet_at", "is_early", "left_out")

    def __init__(self) -> None:
        self.left_out = 0
        self.is_early = True
        self._left_out = 0
        self._events = 0
        self._next = float("-inf")
        self._quiet_at = float("inf")

    def admit(self, now: float) -> bool:
        """Take one event; return whether its record is to be written.

        Args:
            now: seconds, by a clock that does not go back.
        """
        if now >= self._quiet_at:
            self._events = 0
        self._quiet_at = now + QUIET
        self.is_early = self._events < BURST
        if not self.is_early and now < self._next:
            self._left_out += 1
            self.left_out = self._left_out
            return False
        self._events += 1
        self._next = now + INTERVAL
        self.left_out, self._left_out = self._left_out, 0
        return True

    def __repr__(self) -> str:
        return f"<LogLimiter: {self.left_out} left out>"
