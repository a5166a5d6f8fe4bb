"""What a message runs through, and how deep messages lie in one another."""

import threading
from typing import NoReturn

from ..identifier import Identifier
from .registrations import Receiver

__all__ = ["MAX_DEPTH", "Chain", "Route", "Sending", "explain", "sending", "stop"]

# How deep messages that receivers send may lie in one another. Python stops at 1,000 frames by
# default; a level takes three of them here and some in the receiver.
MAX_DEPTH = 100

# How many identifiers of a cycle an error names.
SHOWN = 8


class Route:
    """What a message of one identifier runs through.

    Attributes:
        identifier: the identifier, parsed.
        calls: what is called with the message, forwarders first.
        reached: how many of the calls are receivers, and not forwarders.
    """

    __slots__ = ("calls", "identifier", "reached")

    def __init__(self, identifier: Identifier, calls: tuple[Receiver, ...], reached: int) -> None:
        self.identifier = identifier
        self.calls = calls
        self.reached = reached

    @property
    def forwarders(self) -> tuple[Receiver, ...]:
        """The calls that come first, and do not count."""
        return self.calls[: len(self.calls) - self.reached]

    @property
    def receivers(self) -> tuple[Receiver, ...]:
        """The calls that count."""
        return self.calls[len(self.calls) - self.reached :]


class Chain:
    """All that follows, on threads of a pool, from one receiver of a message.

    Attributes:
        is_ended: whether a cycle was found in it; nothing further follows then.
    """

    __slots__ = ("is_ended",)

    def __init__(self) -> None:
        self.is_ended = False

    def end(self) -> bool:
        """End it; `False` if it was ended already."""
        with _ending:
            is_first, self.is_ended = not self.is_ended, True
        return is_first


_ending = threading.Lock()


class Sending(threading.local):
    """What this thread is sending, the innermost last, on any bus.

    In a thread of a pool it begins with what the sender of the message was sending.
    """

    def __init__(self) -> None:
        self.stack: list[Route | None] = []
        self.chain: Chain | None = None


sending = Sending()


def stop(stack: list[Route | None], route: Route) -> NoReturn:
    """End a recursion: no further message is sent before the thread is back at its first one."""
    cycle = _cycle(stack, route)
    # The receivers on the way may go on after this exception; what they send must fail too.
    stack.extend([None] * MAX_DEPTH)
    raise RecursionError(f"receivers send messages to each other, {MAX_DEPTH} deep: {cycle}")


def explain(error: RecursionError, stack: list[Route | None]) -> None:
    """Add to Python's own error, of a receiver on top of the stack, which messages led there."""
    route = stack[-1]
    # Without a route there, the error comes from `stop`, and says so itself.
    if route is not None and not hasattr(error, "__notes__"):
        error.add_note(f"receivers send messages to each other: {_cycle(stack[:-1], route)}")


def _cycle(stack: list[Route | None], route: Route) -> str:
    sent = [str(outer.identifier) for outer in stack if outer is not None]
    text = str(route.identifier)
    if text not in sent:
        return f"the last are {' -> '.join([*sent[-SHOWN:], text])}"
    sent = sent[len(sent) - 1 - sent[::-1].index(text) :]
    left_out = ["..."] if len(sent) > SHOWN else []
    return f"the cycle is {' -> '.join([*sent[:SHOWN], *left_out, text])}"
