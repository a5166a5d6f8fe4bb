"""`Interval` sends a message again and again, on a fixed schedule."""

import contextlib
import math
from time import monotonic
from typing import TYPE_CHECKING

from ...identifier import Identifier
from ..bus import Bus
from .adapter import Adapter, running_loop
from .schedule import Schedule

if TYPE_CHECKING:
    import asyncio

__all__ = ["Interval"]


class Interval(Adapter):
    """Sends ``name:tick`` every so many seconds, with the number of the tick, from 1 on.

    Tick `n` is sent `n` times `seconds` after the start, so that delays do not add up. When a
    receiver, or a busy event loop, takes longer than an interval, the ticks that are over by then
    are skipped and counted: the numbers have a gap, and ticks never come bunched.

    Made where an event loop runs, it sends on that loop, until it is closed or the loop ends.
    Otherwise it sends on a thread of its own, until it is closed or the program ends. It need not
    be kept in a variable. It is a context manager, with or without ``async``, that closes it.

    Args:
        name: the name of the messages, such as ``"tick"`` or ``"tick@plant"``.
        seconds: from one tick to the next, more than 0.
        bus: the bus to send to; ``None`` for the default one.

    Attributes:
        seconds: from one tick to the next.

    Raises:
        ValueError: `name` is not a name, or `seconds` is not more than 0.
        TypeError: `name` is not text, or `seconds` not a number.
    """

    def __init__(self, name: Identifier | str, seconds: float, bus: Bus | None = None) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"seconds must be a number, not {seconds!r}")
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds must be a number above 0, not {seconds!r}")
        super().__init__(name, bus, "Interval('tick', 1.0)")
        self.seconds = float(seconds)
        self._tick = self._action("tick")
        self._handle: asyncio.TimerHandle | None = None
        if self._loop is None:
            self._schedule = Schedule(monotonic(), self.seconds)
            self._start_thread()
        else:
            self._schedule = Schedule(self._loop.time(), self.seconds)
            self._handle = self._loop.call_at(self._schedule.due, self._on_timer)

    @property
    def count(self) -> int:
        """The number of the last tick that was sent or skipped."""
        return self._schedule.count

    @property
    def skipped(self) -> int:
        """How many ticks were not sent, as the one before took too long."""
        return self._schedule.skipped

    def _work(self) -> None:
        schedule = self._schedule
        while not self._stop.wait(max(0.0, schedule.due - monotonic())):
            schedule.advance(monotonic())
            self._send(self._tick, schedule.count)

    def _on_timer(self) -> None:
        loop, schedule = self._loop, self._schedule
        if loop is None or self._stop.is_set() or not self._owner.is_this:
            return
        schedule.advance(loop.time())
        # Before sending: a receiver may raise what ends the loop, and the loop may run again.
        self._handle = loop.call_at(schedule.due, self._on_timer)
        self._send(self._tick, schedule.count)

    def _end(self) -> None:
        super()._end()
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        # The loop holds the timer, and so this object; only its own thread may change it.
        if running_loop() is loop:
            self._cancel_timer()
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._cancel_timer)

    def _cancel_timer(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"at tick {self.count}"
        return f"<Interval {self.name} {self.seconds:g} s {state}>"
