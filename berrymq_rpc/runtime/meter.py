"""What users switch measuring on with: `Meter`."""

import threading
from time import monotonic
from typing import Any, TypeAlias

from ..common.measures import MAX_IDENTIFIERS, MAX_METHODS, Measures
from .fork import call_in_child

__all__ = ["Meter", "Metrics", "meter_of"]


class Meter(Measures):
    """Counts the calls and messages of all that it is given to as ``metrics=``.

    Any thread may use it. What it has counted is in `statistics`, on the live page, in
    ``berrymq top`` and at ``/metrics``; `snapshot` has it as plain values.

    Args:
        max_methods, max_identifiers: how many methods and identifiers have figures of their own;
            what is over is counted together, under ``"(other)"``. Those that peers choose take half
            of the places at most.

    Raises:
        TypeError, ValueError: a number is invalid.
    """

    def __init__(
        self, *, max_methods: int = MAX_METHODS, max_identifiers: int = MAX_IDENTIFIERS
    ) -> None:
        limits: dict[str, object] = {"max_methods": max_methods, "max_identifiers": max_identifiers}
        for name, value in limits.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        # Code that runs at any point, such as a signal handler or a finalizer, may send messages.
        super().__init__(threading.RLock(), max_methods, max_identifiers)
        self.tick()
        call_in_child(self._forked)

    def _forked(self) -> None:
        self.replace_lock(threading.RLock())

    def tick(self, now: float | None = None) -> None:
        """Continue the histories, if a period is over.

        Args:
            now: seconds by `time.monotonic`; ``None`` for the time of the call.
        """
        super().tick(monotonic() if now is None else now)

    def snapshot(self) -> dict[str, Any]:
        """All figures up to now as plain values, which JSON can carry."""
        self.tick()
        return super().snapshot()


#: What users give as ``metrics=``.
Metrics: TypeAlias = "bool | Meter"


def meter_of(metrics: object) -> Meter | None:
    """The meter that was asked for; ``None``: nothing is measured.

    Args:
        metrics: ``True`` for a new one, ``False`` or ``None`` for none, or a `Meter`.

    Raises:
        TypeError: it is something else.
    """
    if metrics is True:
        return Meter()
    if metrics is False or metrics is None:
        return None
    if isinstance(metrics, Meter):
        return metrics
    raise TypeError(f"metrics must be True, False or an rpc.Meter, not {metrics!r}")
