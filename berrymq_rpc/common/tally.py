"""Count events of one kind, and say which of them to log."""

__all__ = ["Tally"]


class Tally:
    """A count that asks for a log record at the 1st, 2nd, 4th, 8th event and so on.

    So a flood costs a few lines, and each line tells how many there were::

        if dropped.add():
            logger.warning("message dropped (%d so far)", dropped.count)

    Attributes:
        count: how many events there were.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def add(self, events: int = 1) -> bool:
        """Count `events` more; return whether to log, as a power of two was reached."""
        before = self.count
        self.count += events
        return self.count.bit_length() > before.bit_length()

    def __repr__(self) -> str:
        return f"<Tally of {self.count}>"
