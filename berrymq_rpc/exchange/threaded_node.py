"""A node on threads of its own, for callers without asyncio."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from types import EllipsisType
from typing import Any, TypeAlias

from ..bus import Bus, Empty
from ..common.backoff import Backoff
from ..errors import AuthenticationError, ConnectionLostError, ServiceClosedError
from ..runtime.log import Log
from ..runtime.loop_thread import LoopThread
from ..runtime.worker_thread import WorkerThread
from .connection import Connection
from .interconnection import Interconnection
from .node import Node
from .peer_client import Place, endpoint_of_node
from .queue_connection import PulledMessage, QueueConnection
from .send_buffer import MAX_BYTES, MAX_MESSAGES
from .threaded_bus import ThreadedBus

__all__ = [
    "CANCEL_PATIENCE",
    "Connect",
    "Taken",
    "ThreadedNode",
    "Wait",
    "closed_at_exit",
    "not_connected",
]

logger = Log("berrymq_rpc.exchange")

#: Makes a connection of a node.
Connect: TypeAlias = Callable[[Node], Coroutine[Any, Any, Connection]]

#: Seconds that a peer has to appear; ``None`` for no limit, ``...`` for what the node is set to.
Wait: TypeAlias = float | EllipsisType | None

#: Seconds between two attempts to connect: the first pause, and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

#: A message, and the connection whose queue gave it.
Taken: TypeAlias = tuple[QueueConnection, PulledMessage]

#: Seconds that receivers have, at closing, for the messages that came before.
PATIENCE = 5.0

#: Seconds that closing takes at most: what was sent goes out before.
CLOSE_PATIENCE = 30.0

#: Seconds for the node's tasks to end when this time is over.
CANCEL_PATIENCE = 2.0


class ThreadedNode:
    """A node and its two threads: one of its event loop, and one that calls receivers.

    The coroutines are for the event loop: run them by `loop_thread`.

    Args:
        bus: the bus.
        options: as for `Node`, except its address.

    Raises:
        Exception: as `Node` and its `start` do.
    """

    def __init__(self, bus: Bus, options: dict[str, Any]) -> None:
        self.loop_thread = LoopThread("node", self._unclaimed)
        self._receivers = WorkerThread(
            "receivers",
            max_items=MAX_MESSAGES,
            max_bytes=MAX_BYTES,
            on_dropped=self._report_dropped,
            logger=logger,
        )
        self._bus = bus
        self.gateway = ThreadedBus(bus.gateway, self._receivers)
        #: In the order in which they were made; `Node.connections` has none.
        self._connections: list[Connection] = []
        #: Endpoints as they were asked for, such as with a host name, and as they are bound.
        self._listening: dict[str, str] = {}
        #: Whether connections are closed as the program ends.
        self._is_leaving = False
        try:
            self.node: Node = self.loop_thread.run(self._start(options))
        except BaseException:
            self.close()
            raise

    async def _start(self, options: dict[str, Any]) -> Node:
        return await Node(None, self._bus, gateway=self.gateway, **options).start()

    async def listen(self, addr: Place, insecure: bool) -> str:
        """Listen at an address, unless it listens there already; return the endpoint."""
        asked = endpoint_of_node(addr)
        if asked in self.node.endpoints:
            return asked
        if asked not in self._listening:
            (endpoint,) = await self.node.listen(addr, insecure=insecure)
            if asked.endswith((":0", ":*")):
                # Each time another port.
                return endpoint
            self._listening[asked] = endpoint
        return self._listening[asked]

    async def statistics(self) -> dict[str, int]:
        """Counts, as `Node.statistics` gives them."""
        return self.node.statistics()

    async def open(self, connect: Connect, wait: Wait) -> None:
        """Make a connection, as soon as the peer is up."""
        if wait is ...:
            connection = await connect(self.node)
        else:
            connection = await _wait_for_node(self.node, connect, wait)
        self._connections.append(connection)

    async def send(self, identifier: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Send a message as `SyncNode.send_message` does."""
        # A node with several connections gets one message.
        targets = {
            connection.endpoint: connection
            for connection in self._open_connections()
            if not isinstance(connection, Interconnection)
        }
        if not targets:
            raise self._no_connection("send_message")
        outcomes = await asyncio.gather(
            *(target.send_message(identifier, *args, **kwargs) for target in targets.values()),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return next((str(status) for status in outcomes if status != "ok"), "ok")

    async def get(self, block: bool, timeout: float | None) -> Taken:
        """Take a message as `SyncNode.get` does."""
        queues = [c for c in self._open_connections() if isinstance(c, QueueConnection)]
        if not queues:
            raise self._no_connection("get")
        if len(queues) == 1:
            return queues[0], await queues[0].get(block, timeout)
        return await _get_from_any(queues, block, timeout)

    async def leave(self, patience: float) -> None:
        """Close the connections to other nodes within so many seconds, as the program ends."""
        self._is_leaving = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.gather(*(c.close() for c in self._open_connections()))

    async def close_endpoint(self, endpoint: str) -> None:
        """Close the connections to a node."""
        gone = [c for c in self._open_connections() if c.endpoint == endpoint]
        await asyncio.gather(*(connection.close() for connection in gone))

    def close(self, patience: float = CLOSE_PATIENCE) -> None:
        """Close everything. Receivers have some seconds for what came before.

        Args:
            patience: seconds that the node may take.
        """

        async def finish() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self.node.close()

        try:
            end = finish if hasattr(self, "node") else None
            self.loop_thread.close(end, patience + CANCEL_PATIENCE)
        finally:
            if left := self._receivers.stop(PATIENCE):
                logger.warning("%d messages were dropped: their receivers took too long", left)

    def _open_connections(self) -> list[Connection]:
        self._connections = [c for c in self._connections if not c.closed]
        return self._connections

    def _no_connection(self, name: str) -> Exception:
        return closed_at_exit() if self._is_leaving else not_connected(name)

    def _report_dropped(self, receivers: WorkerThread) -> None:
        logger.warning(
            "receivers are too slow: %s messages wait, %d dropped so far",
            f"{len(receivers):,}",
            receivers.dropped,
        )
        # As `Router.report` does it: no other node gets it.
        self.gateway.announce("receiver:dropped", {"count": receivers.dropped}, self.node.name)

    def _unclaimed(self, result: Any) -> None:
        """The caller was interrupted as the result came: the next one gets the message."""
        match result:
            case (QueueConnection() as connection, PulledMessage() as message):
                connection.put_back(message)


async def _wait_for_node(node: Node, connect: Connect, wait: float | None) -> Connection:
    """Connect to a peer as soon as it is up.

    Raises:
        ConnectionLostError: it was not in time; what the last attempt has raised.
        AuthenticationError: it refuses this side, or this side the peer.
        Exception: as `connect` does.
    """
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
    lost: ConnectionLostError | None = None
    timeout = asyncio.timeout(None if wait == math.inf else wait)
    try:
        async with timeout:
            while True:
                try:
                    return await connect(node)
                except AuthenticationError:
                    # It is up.
                    raise
                except ConnectionLostError as error:
                    lost = error
                await asyncio.sleep(backoff.next())
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise lost or ConnectionLostError(f"no node has answered within {wait:g} s") from error


async def _get_from_any(queues: list[QueueConnection], block: bool, timeout: float | None) -> Taken:
    """Get the first message of any queue; others that come at the same time go back."""
    tasks = {asyncio.create_task(queue.get(block, timeout)): queue for queue in queues}
    taken: Taken | None = None
    problems: list[BaseException] = []
    try:
        waiting = set(tasks)
        while waiting and taken is None:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is not None:
                    problems.append(error)
                elif taken is None:
                    taken = tasks.pop(task), task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task, queue in tasks.items():
            if not task.cancelled() and task.exception() is None:
                queue.put_back(task.result())
    if taken is not None:
        return taken
    raise next((error for error in problems if not isinstance(error, Empty)), problems[0])


def closed_at_exit() -> ServiceClosedError:
    """The error of what is asked for while the program ends."""
    return ServiceClosedError("the node is closed: the program is at its end")


def not_connected(name: str) -> RuntimeError:
    """The error of a function that needs a connection where there is none."""
    needed = (
        "connect_via_queue()"
        if name != "send_message"
        else "connect_oneway() or connect_via_queue()"
    )
    return RuntimeError(f"{name}() needs a connection: call {needed} first")
