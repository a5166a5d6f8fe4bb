"""A node's router on its event loop: who wakes whom, and what is due when."""

import asyncio
import time
from threading import get_ident
from typing import Any

from ..bus.diagram import DiagramNode
from ..bus.gateway import Gateway
from ..rpc import Limits
from .bundle import Bundle
from .line import Line
from .outbox import MAX_BYTES, MAX_MESSAGES, Outbox
from .router import Router
from .sequences import FIRST_PATIENCE

__all__ = ["Switchboard"]

#: What a line carries, and brings.
ALL = "*@*:*"


class Switchboard:
    """The lines of a node, and the router that fills them.

    Args:
        gateway: that of the bus whose messages go out, and where those that come are published.
        name: the node's; ``None`` for a random one.
        limits: bounds of what a message may be.
        maximum, maximum_bytes: what is kept for each line.
    """

    def __init__(
        self,
        gateway: Gateway,
        name: str | None = None,
        *,
        limits: Limits | None = None,
        maximum: int = MAX_MESSAGES,
        maximum_bytes: int = MAX_BYTES,
    ) -> None:
        self.router = Router(
            gateway, name, epoch=time.time_ns() // 1000, limits=limits, wake=self._wake
        )
        self.gateway = gateway
        self._maximum = maximum
        self._maximum_bytes = maximum_bytes
        self._lines: dict[Line, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """The node's name: the origin of what is sent on its bus."""
        return self.router.name

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines."""
        return tuple(self._lines)

    def start(self) -> None:
        """Number the bus's messages from now on, and belong to the running event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = get_ident()
            self.gateway.add_forwarder(self.router.forward)
            self.gateway.add_diagram_source(self.diagram_nodes)

    def stop(self) -> None:
        """Close all lines, and leave the bus."""
        if self._loop is None:
            return
        self.gateway.remove_forwarder(self.router.forward)
        self.gateway.remove_diagram_source(self.diagram_nodes)
        for line in self.lines:
            line.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def diagram_nodes(self) -> list[DiagramNode]:
        """The lines, for the picture of the bus. From any thread."""
        return [DiagramNode("connection", line.peer, (ALL,), (ALL,)) for line in self.lines]

    # -- lines -----------------------------------------------------------------------------

    def line(self, peer: str, *, brings: bool = True, node: str | None = None) -> Line:
        """A new line, to which messages go from now on.

        Args:
            peer: what to call the other side.
            brings: whether the peer is a node, and what comes from it has envelopes.
            node: its name, if it has told it. A line to a node of that name that is cut is
                closed, and what waited for it goes here: it was restarted.
        """
        self.start()
        former = self._former(node) if node is not None else None
        if former is None:
            outbox = Outbox(self._maximum, self._maximum_bytes)
            self.router.add(outbox, brings=brings)
        else:
            outbox = former.give_up()
            del self._lines[former]
        line = Line(self, peer, outbox)
        line.node = node
        self._lines[line] = None
        return line

    def _former(self, node: str) -> Line | None:
        for line in self._lines:
            if line.node == node and not line.is_up:
                return line
        return None

    async def drain(self, timeout: float) -> None:
        """Wait until those peers that are there have confirmed all, or the time is over."""
        waiting = [line.drain(timeout) for line in self._lines if line.is_up]
        if waiting:
            await asyncio.gather(*waiting)

    def leaf(self, line: Line) -> None:
        """What comes by a line has no envelopes: nothing that is missed can come by it."""
        self.router.leaf(line.outbox, time.monotonic())

    def discard(self, line: Line) -> None:
        """A line is closed."""
        if line in self._lines:
            del self._lines[line]
            self.router.remove(line.outbox, time.monotonic())

    # -- messages --------------------------------------------------------------------------

    def take(self, line: Line, bundle: Bundle) -> None:
        """Take a bundle. Raises `ProtocolError` if its messages are none."""
        router = self.router
        try:
            router.receive(line.outbox, bundle, time.monotonic())
        finally:
            if self._timer is None and router.sequences.held:
                self._set_timer()

    def receive_single(
        self, line: Line, identifier: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Take a message without an envelope, of which this node becomes the origin.

        Raises:
            TypeError, ValueError: it is no message.
        """
        self.router.publish(line.outbox, identifier, args, kwargs)

    def receive_enclosed(
        self,
        line: Line,
        identifier: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        envelope: Any,
    ) -> None:
        """Take one message that has an envelope.

        Raises:
            TypeError, ValueError: a part is not what it must be.
            ProtocolError: it cannot be passed on.
        """
        self.take(line, self.router.enclosed(identifier, args, kwargs, envelope))

    def tell(self, action: str, **kwargs: Any) -> None:
        """Say something about this node's lines on its bus."""
        self.router.tell(action, **kwargs)

    # -- time ------------------------------------------------------------------------------

    def wake(self) -> None:
        """See that `flush` runs soon."""
        if self._loop is not None:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what there is."""
        self.router.rest()
        self.router.collect()
        for line in self.lines:
            line.flush()

    def _wake(self) -> None:
        """The router's, from any thread."""
        loop = self._loop
        if loop is None:
            return
        try:
            if get_ident() == self._thread:
                loop.call_soon(self.flush)
            else:
                loop.call_soon_threadsafe(self.flush)
        except RuntimeError:
            # The loop was closed, and the node was not.
            self.gateway.remove_forwarder(self.router.forward)
            self.gateway.remove_diagram_source(self.diagram_nodes)

    def _set_timer(self) -> None:
        when = self.router.sequences.next_expiry()
        if when is not None and self._loop is not None:
            # What comes later may have less time.
            delay = min(max(0.0, when - time.monotonic()), FIRST_PATIENCE)
            self._timer = self._loop.call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self.router.expire(time.monotonic())
        self._set_timer()
