"""How late an event loop runs its timers, sampled for a meter, and the histories that go on by it.

A loop that a handler holds runs nothing else meanwhile: its delay is what all calls wait in
addition.
"""

import asyncio
import weakref
from collections.abc import Callable

from .meter import Meter

__all__ = ["INTERVAL", "sample_loop"]

#: Seconds between two samples: too rare to be noticed, and some hundred in a minute.
INTERVAL = 0.5


class _Sampler:
    """Samples one loop for one meter."""

    def __init__(self, loop: asyncio.AbstractEventLoop, meter: Meter) -> None:
        self._loop = loop
        self._meter = meter
        self.users = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due = self._loop.time() + INTERVAL
        self._timer = self._loop.call_at(self._due, self._sample)

    def _sample(self) -> None:
        # A loop may run a timer early by the resolution of its clock.
        self._meter.delayed(max(0.0, self._loop.time() - self._due))
        self._meter.tick()
        self.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


#: Those of each loop.
_samplers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _Sampler]] = (
    weakref.WeakKeyDictionary()
)


def sample_loop(loop: asyncio.AbstractEventLoop, meter: Meter) -> Callable[[], None]:
    """Sample a loop until what is returned is called, once for all who ask. In the loop's thread.

    Returns:
        A function that ends it; calls after the first do nothing.
    """
    samplers = _samplers.setdefault(loop, {})
    sampler = samplers.get(id(meter))
    if sampler is None:
        # It holds the meter, so that no other has its id.
        sampler = samplers[id(meter)] = _Sampler(loop, meter)
        sampler.start()
    sampler.users += 1
    used = [sampler]

    def stop() -> None:
        if used:
            user = used.pop()
            user.users -= 1
            if not user.users:
                user.stop()
                del samplers[id(meter)]

    return stop
