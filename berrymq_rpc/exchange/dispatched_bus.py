"""A bus whose receivers are called on a thread of their own, as a node without asyncio has it."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, cast

from ..bus import Bus
from ..identifier import Identifier
from ..runtime.worker_thread import WorkerThread
from .delivery import travelling

__all__ = ["DispatchedBus", "estimated_size"]

#: Elements of a container that are looked at; the others are taken to be like them.
SAMPLE = 50

#: Bytes that a message takes beside its arguments, while it waits.
OVERHEAD = 500


class DispatchedBus:
    """A bus for a node: what the node publishes on it is published on a thread of its own.

    So a receiver may wait for what the node does. Identifiers are checked at once. All that is not
    here is the bus's own.

    Args:
        bus: the bus.
        thread: where receivers are called.
    """

    def __init__(self, bus: Bus, thread: WorkerThread) -> None:
        self._bus = bus
        self._thread = thread
        #: What the node has on the bus.
        self._forwarders: dict[Any, None] = {}
        self._followings: dict[tuple[Identifier, Any], None] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def as_bus(self) -> Bus:
        """Itself: it is a bus to all who only call its methods."""
        return cast(Bus, self)

    def relay(
        self,
        identifier: Identifier | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        origin: object,
        answer: Callable[[Any, BaseException | None], object] | None = None,
    ) -> int:
        parsed = travelling(identifier)
        more = {} if answer is None else {"answer": answer}
        self._thread.put(
            partial(self._bus.relay, parsed, args, kwargs, origin, **more),
            OVERHEAD + estimated_size(args) + (estimated_size(kwargs) if kwargs else 0),
        )
        return 0

    def answer(self, callback_identifier: Identifier | str, /, *outcome: Any, **named: Any) -> int:
        parsed = Identifier(callback_identifier)
        self._thread.put(
            partial(self._bus.answer, parsed, *outcome, **named),
            OVERHEAD + estimated_size((outcome, named)),
        )
        return 0

    # -- what the node has on the bus ------------------------------------------------------

    def add_forwarder(self, forwarder: Any) -> None:
        self._bus.add_forwarder(forwarder)
        self._forwarders[forwarder] = None

    def remove_forwarder(self, forwarder: Any) -> None:
        self._bus.remove_forwarder(forwarder)
        self._forwarders.pop(forwarder, None)

    def regist_method(self, identifier: Identifier | str, method: Any, guard: Any = None) -> None:
        self._bus.regist_method(identifier, method, guard)
        self._followings[Identifier(identifier), method] = None

    def unfollow(self, identifier: Identifier | str, receiver: Any) -> int:
        self._followings.pop((Identifier(identifier), receiver), None)
        return self._bus.unfollow(identifier, receiver)

    def detach(self) -> None:
        """Take off the bus all that the node has there, as the node is another process's."""
        for forwarder in list(self._forwarders):
            self.remove_forwarder(forwarder)
        for identifier, method in list(self._followings):
            self.unfollow(identifier, method)


def estimated_size(value: Any) -> int:
    """Bytes that a value takes in memory, as a few of its parts say.

    It is of what was unpacked, and so has no cycles.
    """
    size = sys.getsizeof(value, 100)
    match value:
        case dict():
            return size + _sampled(value.items(), len(value))
        case list() | tuple() | set() | frozenset():
            return size + _sampled(value, len(value))
        case _:
            return size


def _sampled(parts: Iterable[Any], count: int) -> int:
    if not count:
        return 0
    looked_at = min(count, SAMPLE)
    return sum(map(estimated_size, islice(parts, SAMPLE))) * count // looked_at
