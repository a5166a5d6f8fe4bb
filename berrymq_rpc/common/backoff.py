"""The pauses between attempts that fail."""

__all__ = ["Backoff"]


class Backoff:
    """Pauses that double from `first` to `longest`, in seconds.

    An attempt that worked for longer than `longest` was a success: what fails after it begins with
    the first pause again.
    """

    __slots__ = ("_pause", "first", "longest")

    def __init__(self, first: float, longest: float) -> None:
        self.first = first
        self.longest = longest
        self._pause = first

    def next(self, worked_for: float = 0.0) -> float:
        """The seconds to pause now.

        Args:
            worked_for: how many seconds the attempt lasted before it failed.
        """
        if worked_for > self.longest:
            self.reset()
        pause = self._pause
        self._pause = min(2 * pause, self.longest)
        return pause

    def reset(self) -> None:
        """Begin with the first pause again: an attempt succeeded."""
        self._pause = self.first
