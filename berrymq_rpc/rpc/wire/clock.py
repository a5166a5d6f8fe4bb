"""The difference between a peer's clock and ours, from the times that its messages carry."""

__all__ = ["PeerClock"]

#: Two monotonic clocks drift apart by less than this (NTP slews by at most 500 ppm). The least
#: difference seen may therefore grow by as much; without the allowance a connection of some
#: days would take fresh messages for old ones.
DRIFT = 0.0005


class PeerClock:
    """Translates a peer's monotonic clock, in microseconds, to ours in seconds.

    A message can be late but never early, so the least difference between arrival and sending
    is the best estimate of the offset: so a process that was frozen knows that what it finds in its
    buffers is old.
    """

    __slots__ = ("_least", "_seen_at")

    def __init__(self) -> None:
        self._least: float | None = None
        self._seen_at = 0.0

    def observe(self, sent: int, now: float) -> None:
        """Record that a message sent at `sent` (the peer's microseconds) was read at `now`."""
        difference = now - sent * 1e-6
        if self._least is None or difference <= self._least + DRIFT * (now - self._seen_at):
            self._least = difference
            self._seen_at = now

    def local(self, time: int, now: float) -> float:
        """The peer's `time` in microseconds as seconds of our clock, once it was observed."""
        assert self._least is not None
        return time * 1e-6 + self._least + DRIFT * (now - self._seen_at)
