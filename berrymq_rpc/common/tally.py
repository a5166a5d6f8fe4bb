"""Count events of one kind, and say which of them to report on the bus."""

__all__ = ["Tally"]


class Tally:
    """A count that asks for a report at the 1st, 2nd, 4th, 8th event and so on.

    A report is an event on the bus, which itself may fill queues. So the longer a flood lasts, the
    fewer there are. What is logged has a rate instead; see `common.log_limiter`. ::

        if dropped.add():
            on_dropped(dropped.count)

    Attributes:
        count: how many events there were.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def add(self, events: int = 1) -> bool:
        """Count `events` more; return whether to report, as a power of two was reached."""
        before = self.count
        self.count += events
        return self.count.bit_length() > before.bit_length()

    def __repr__(self) -> str:
        return f"<Tally of {self.count}>"
