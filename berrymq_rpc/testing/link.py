"""The way between a client and a server under test, and what a test sets to go wrong on it."""

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

from .link_faults import LinkFaults, link_faults

__all__ = ["Link", "MemoryLink", "Towards", "UnsupportedFault", "checked_towards"]

Towards: TypeAlias = Literal["client", "server"]


class UnsupportedFault(Exception):
    """A fault that this transport cannot make. The pytest plugin skips the test then."""


class Link(ABC):
    """The way between one client and its server, from `Kit.link`.

    All methods act at once, and may be called from any thread.
    """

    #: The address that the client connects to.
    endpoint: str

    @property
    @abstractmethod
    def delay(self) -> float:
        """Seconds that everything is under way, in each direction; 0 at first."""

    @delay.setter
    @abstractmethod
    def delay(self, seconds: float) -> None: ...

    @abstractmethod
    def drop(self, count: int = 1, *, towards: Towards) -> None:
        """Lose the next `count` messages towards one side, ``"server"`` or ``"client"``.

        A message has all the calls and answers of a moment. Neither side notices: a call without a
        timeout waits for as long as its server lives.
        """

    @abstractmethod
    def duplicate(self, count: int = 1, *, towards: Towards) -> None:
        """Deliver the next `count` messages towards one side twice."""

    @abstractmethod
    def cut(self) -> None:
        """Break the connection once: what is under way is lost, and both sides notice.

        The client connects again by itself.
        """

    @abstractmethod
    def down(self) -> None:
        """Break the connection, and let no client connect until `up`."""

    @abstractmethod
    def up(self) -> None:
        """End what `down` began."""

    # -- for the server that is at its end -----------------------------------------------------

    @abstractmethod
    def kill(self) -> None:
        """The server is killed: its peers notice."""

    @abstractmethod
    def freeze(self) -> None:
        """The server is frozen until `thaw`: it reads nothing, and what it sends stays with it."""

    @abstractmethod
    def thaw(self) -> None:
        """End what `freeze` began."""

    @abstractmethod
    def revive(self) -> None:
        """The server that was killed runs again."""

    async def close(self) -> None:
        """Free what the link takes."""


def checked_towards(towards: object) -> Towards:
    """Raise `ValueError` for what is neither side."""
    __tracebackhide__ = True
    if towards not in ("client", "server"):
        raise ValueError(f"towards is 'server' or 'client', not {towards!r}")
    return "server" if towards == "server" else "client"


class MemoryLink(Link):
    """The way over ``mem://``: an address of its own at which the server listens."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        # Kept: the faults last as long as this object.
        self._faults: LinkFaults = link_faults(endpoint)

    @property
    def delay(self) -> float:
        return self._faults.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._faults.delay = seconds

    def drop(self, count: int = 1, *, towards: Towards) -> None:
        __tracebackhide__ = True
        towards = checked_towards(towards)
        self._faults.drop(count, towards="listener" if towards == "server" else "dialler")

    def duplicate(self, count: int = 1, *, towards: Towards) -> None:
        __tracebackhide__ = True
        towards = checked_towards(towards)
        self._faults.duplicate(count, towards="listener" if towards == "server" else "dialler")

    def cut(self) -> None:
        self._faults.cut()

    def down(self) -> None:
        self._faults.down()

    def up(self) -> None:
        self._faults.up()

    def kill(self) -> None:
        self._faults.kill()

    def freeze(self) -> None:
        self._faults.freeze()

    def thaw(self) -> None:
        self._faults.thaw()

    def revive(self) -> None:
        """Do nothing: the server listens again at the same address."""
