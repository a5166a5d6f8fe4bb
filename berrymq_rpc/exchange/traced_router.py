"""The router of a node whose messages are spans: each carries the context of its sender."""

from typing import Any

from ..bus import Message
from ..bus.durable import ConfirmedMessage
from ..bus.message import TalkMessage, parts_of
from ..common.tracing import installed
from .batch import Batch
from .router import Router

__all__ = ["TracedRouter", "router_type"]


class TracedRouter(Router):
    """A router that sends each message of a trace as a batch of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = installed()

    def forward(self, message: Message) -> None:
        carrier = None if self._tracing is None else self._tracing.carrier()
        if (
            not carrier
            or not self._send_buffers
            or message.origin is not None
            or isinstance(message, ConfirmedMessage)
            # Garbage collection has interrupted what gives numbers.
            or self._is_collecting
        ):
            super().forward(message)
            return
        item: tuple[Any, ...] = parts_of(message)
        if type(message) is TalkMessage and message.reply_to is not None:
            item = (*item, message.reply_to)
        with self.lock:
            try:
                data, frames = self.codec.pack_one(item)
            except Exception as error:
                self.refused += 1
                problem: Exception = error
            else:
                self.collect()
                batch = Batch(self.source, self._next, 1, data, frames)
                batch.identifier = item[0]
                batch.set_trace(carrier)
                self._next += 1
                self._put(batch)
                self._wake_up()
                return
        self._gateway.report(problem, message, self, "cannot carry")


def router_type() -> type[Router]:
    """What a node takes that is made now."""
    return Router if installed() is None else TracedRouter
