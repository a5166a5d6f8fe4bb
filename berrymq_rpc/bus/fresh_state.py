"""A fresh start for a bus that lasts as long as a test: nothing follows, and then all is as before.

The functions at the package's top level belong to one `Bus` object, and programs hold them by name:
so the object stays, and its state is exchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from .bus import Bus
from .queues import exchange_backlogs
from .registrations import is_sink

__all__ = ["fresh_state"]


@contextmanager
def fresh_state(bus: Bus, *, keep_followers: bool = False) -> Iterator[Bus]:
    """Give a bus the state of a new one with the same bounds, and its own back at the end.

    What is sent meanwhile reaches only what has followed meanwhile.

    Args:
        keep_followers: whether the functions and methods that follow the bus now follow it
            meanwhile, too. Queues and connections do not.
    """
    kept = dict(vars(bus))
    followers = bus.registrations() if keep_followers else []
    # Name by name, as other threads may be sending: none is missing at any time.
    max_retained, max_retained_bytes = bus.retained_bounds
    vars(bus).update(vars(Bus(max_retained, max_retained_bytes)))
    backlogs = exchange_backlogs(bus, None)
    try:
        for registration in followers:
            receiver = registration.receiver()
            if receiver is not None and not is_sink(registration.function):
                bus.regist_method(registration.identifier, receiver, registration.guard)
        yield bus
    finally:
        # The threads of a pool end.
        bus.set_multiplicity(0)
        vars(bus).update(kept)
        exchange_backlogs(bus, backlogs)
