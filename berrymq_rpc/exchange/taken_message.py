"""Messages from a queue at another node, for programs and threads without asyncio."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from .queue_connection import PulledMessage, QueuedMessage

__all__ = ["TakenMessage", "check_no_loop"]

T = TypeVar("T")


class TakenMessage(QueuedMessage):
    """A message that `SyncNode.get` has taken; its functions block.

    With an ``ack_wait`` it goes back to its queue unless it is acknowledged.
    """

    __slots__ = ("_pulled", "_runner")

    def __init__(
        self, pulled: PulledMessage, runner: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        super().__init__(
            pulled._identifier,
            pulled.args,
            pulled.kwargs,
            origin=pulled.origin,
            redelivered=pulled.redelivered,
            dropped=pulled.dropped,
            retained=pulled.retained,
        )
        self._pulled = pulled
        #: Runs a coroutine where the message came from.
        self._runner = runner

    def ack(self) -> bool:
        """Acknowledge it. Returns and raises as `PulledMessage.ack`."""
        return self._run("ack", self._pulled.ack())

    def nak(self, delay: float = 0.0) -> bool:
        """Refuse it. Arguments, returns and raises as `PulledMessage.nak`."""
        return self._run("nak", self._pulled.nak(delay))

    def in_progress(self) -> bool:
        """Begin its ``ack_wait`` again. Returns and raises as `PulledMessage.in_progress`."""
        return self._run("in_progress", self._pulled.in_progress())

    def __enter__(self) -> Self:
        self._run("with", self._pulled.__aenter__())
        return self

    def __exit__(self, *exc: Any) -> None:
        self._run("with", self._pulled.__aexit__(*exc))

    def _run(self, name: str, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            check_no_loop(name)
        except RuntimeError:
            coroutine.close()
            raise
        outcome: T = self._runner(coroutine)
        return outcome


def check_no_loop(name: str) -> None:
    """Raise `RuntimeError` if an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{name}() would block the event loop that runs in this thread: use berrymq_rpc.Node, "
        "whose methods are awaited, or asyncio.to_thread"
    )
