"""Who follows what on a bus, and the routes that messages take by it.

The receivers that an identifier reaches are looked up once, and kept as a `Route` by the text that
was sent; to find it again takes no lock. Each change of who follows throws all routes away. So a
message reaches those who followed when it was sent, whatever its receivers change.

Changes wait in a queue, and whoever holds the lock makes them. That is for garbage collection: it
ends followings, and runs ``__del__`` methods that may use the bus, in any thread and between any
two instructions, those of a change included. Then the lock is held by the very thread that asks
for the change, and the change is made when the interrupted one is complete.
"""

import itertools
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import TypeAlias

from ..identifier import Identifier
from .index import Index
from .message import Message
from .registrations import (
    ClassMethodRegistration,
    FunctionRegistration,
    Guard,
    MethodRegistration,
    Receiver,
    Registration,
    check_callable,
    receiver_key,
)
from .route import Route

__all__ = ["MAX_ROUTES", "Directory", "Forwarder"]

# Routes kept. One takes some 400 bytes, so all of them a few MB; a program that makes up an
# identifier for each message (``"user-7125:login"``) must not keep them all.
MAX_ROUTES = 10_000

Forwarder: TypeAlias = Callable[[Message], object]
Routes: TypeAlias = dict[str | Identifier, Route]


class Directory:
    """Who follows what. Safe for any number of threads.

    Attributes:
        routes: by what was sent, the routes that are known.
        relayed_routes: the same for messages from other processes, which reach no local name.
    """

    def __init__(self) -> None:
        self.routes: Routes = {}
        self.relayed_routes: Routes = {}
        self._index = Index()
        self._call: Callable[[Registration], Receiver] = attrgetter("call")
        self._forwarders: tuple[Forwarder, ...] = ()
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._changes: deque[Callable[[], object]] = deque()
        self._busy = False
        self._collected = _forgetter(weakref.ref(self))

    def follow(self, identifier: Identifier, receiver: Receiver, guard: Guard | None) -> None:
        """Let a receiver follow. Arguments and exceptions are those of `Bus.regist_function`."""
        check_callable(receiver, "receiver")
        number = next(self._numbers)
        registration: Registration
        if isinstance(receiver, types.MethodType):
            of_class = issubclass(type(receiver.__self__), type)
            kind = ClassMethodRegistration if of_class else MethodRegistration
            registration = kind(receiver, identifier, guard, number, self._collected)
        else:
            registration = FunctionRegistration(receiver, identifier, guard, number)
        self._change(lambda: self._index.add(registration))

    def unfollow(self, identifier: Identifier, receiver: Receiver) -> int:
        """End a receiver's followings of an identifier; how many there were."""
        key = receiver_key(receiver)
        ended: list[int] = []
        self._change(lambda: ended.append(self._index.remove(identifier, key)))
        return sum(ended)

    def forget(self, registration: Registration) -> None:
        """End a following whose object is gone. Called by garbage collection."""
        # It must not wait for a thread that may itself wait for what this one holds.
        self._change(lambda: self._index.discard(registration), blocking=False)

    def add_forwarder(self, forwarder: Forwarder) -> None:
        """Put a forwarder after the present ones."""

        def add() -> None:
            self._forwarders = (*self._forwarders, forwarder)

        self._change(add)

    def remove_forwarder(self, forwarder: Forwarder) -> None:
        """Take a forwarder away, if it is there."""

        def remove() -> None:
            self._forwarders = tuple(kept for kept in self._forwarders if kept != forwarder)

        self._change(remove)

    def set_call(self, call: Callable[[Registration], Receiver]) -> None:
        """Say how registrations are called from now on: by what this returns for each."""

        def change() -> None:
            self._call = call

        self._change(change)

    def find(self, sent: Identifier | str, relayed: bool = False) -> Route:
        """The route of what was sent, found anew, and kept for the next time.

        Raises:
            ValueError, TypeError: it is no identifier, or it was relayed and is local.
        """
        identifier = Identifier(sent)
        if relayed and identifier.is_local:
            raise ValueError(f"{str(identifier)!r} is local: no other process may send it")
        with self._lock:
            # Not a context manager: a program may make up an identifier for each message.
            interrupted, self._busy = self._busy, True
            try:
                found = self._index.find(identifier)
                if relayed:
                    found = [item for item in found if not item.identifier.is_local]
                calls = tuple(map(self._call, found))
                if not identifier.is_local:
                    calls = (*self._forwarders, *calls)
                route = Route(identifier, calls, len(found))
                routes = self.relayed_routes if relayed else self.routes
                if len(routes) >= MAX_ROUTES:
                    routes.clear()
                routes[sent] = route
            finally:
                self._busy = interrupted
        if self._changes:
            self._settle(blocking=False)
        return route

    def registrations(self) -> list[Registration]:
        """All registrations, oldest first."""
        with self._lock:
            interrupted, self._busy = self._busy, True
            try:
                found = self._index.all()
            finally:
                self._busy = interrupted
        if self._changes:
            self._settle(blocking=False)
        return found

    def __len__(self) -> int:
        return len(self._index)

    def _change(self, change: Callable[[], object], blocking: bool = True) -> None:
        """Make a change of who follows what; when this returns, the next message meets it."""
        self._changes.append(change)
        self._settle(blocking)

    def _settle(self, blocking: bool) -> None:
        """Make the changes that wait, or leave them to whoever has the lock now."""
        while self._lock.acquire(blocking):
            try:
                if self._busy:
                    # This thread was interrupted in the middle of a change or a lookup.
                    return
                self._busy = True
                try:
                    while self._changes:
                        self._changes.popleft()()
                finally:
                    self._busy = False
                    self.routes, self.relayed_routes = {}, {}
            finally:
                self._lock.release()
            # Another thread may have come with a change, and gone without the lock.
            if not self._changes:
                return


def _forgetter(reference: "weakref.ref[Directory]") -> Callable[[MethodRegistration], None]:
    """What ends a following when its object is gone, and does not keep the directory alive."""

    def collected(registration: MethodRegistration) -> None:
        directory = reference()
        if directory is not None:
            directory.forget(registration)

    return collected
