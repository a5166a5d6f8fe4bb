"""Figures by name, such as a method's, with a bound on how many names there are."""

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

__all__ = ["OTHER", "Series"]

#: The name that stands for all that have no place of their own. No method or identifier has it.
OTHER = "(other)"


class Figures(Protocol):
    """What is kept for a name."""

    def merge(self, other: Self, /) -> None:
        """Add what another has."""


F = TypeVar("F", bound=Figures)


class Series(Generic[F]):
    """Keeps figures for each of a limited number of names.

    Names that peers choose may take half of the places, so that those of this process's own
    program find one. What finds none is counted under `OTHER`.

    Args:
        make: makes the figures of a name.
        limit: how many names there may be beside `OTHER`.

    Attributes:
        left_out: how often something was counted under `OTHER`.
    """

    __slots__ = ("_chosen", "_figures", "_limit", "_make", "left_out")

    def __init__(self, make: Callable[[], F], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._figures: dict[str, F] = {}
        #: The names that peers chose.
        self._chosen: set[str] = set()
        self.left_out = 0

    def find(self, name: str, *, is_own: bool = True) -> F:
        """The figures of a name, or those of `OTHER`.

        Args:
            is_own: whether this process's program chose the name, and not a peer.
        """
        found = self._figures.get(name)
        if found is not None:
            return found
        places = self._limit - len(self._figures) + (OTHER in self._figures)
        if places <= 0 or (not is_own and len(self._chosen) >= self._limit // 2):
            return self.other()
        if not is_own:
            self._chosen.add(name)
        found = self._figures[name] = self._make()
        return found

    def get(self, name: str) -> F | None:
        """The figures of a name that has a place."""
        return self._figures.get(name)

    def known(self, name: str) -> F:
        """The figures of a name that has a place, or else those of `OTHER`."""
        found = self._figures.get(name)
        return self.other() if found is None else found

    def other(self) -> F:
        """The figures of `OTHER`, which something is about to be counted under."""
        self.left_out += 1
        found = self._figures.get(OTHER)
        if found is None:
            found = self._figures[OTHER] = self._make()
        return found

    def merge(self, other: "Series[F]", rename: Callable[[str], str] = str) -> None:
        """Add what another has, within the bound.

        Args:
            rename: answers the name for each of the other's.
        """
        left_out = self.left_out + other.left_out
        for theirs, figures in other.items():
            name = rename(theirs)
            mine = self.other() if name == OTHER else self.find(name)
            mine.merge(figures)
        self.left_out = left_out

    def items(self) -> list[tuple[str, F]]:
        """Names and figures, in the order in which they came."""
        return list(self._figures.items())

    def __len__(self) -> int:
        return len(self._figures)

    def __repr__(self) -> str:
        return f"<Series of {len(self)} names>"
