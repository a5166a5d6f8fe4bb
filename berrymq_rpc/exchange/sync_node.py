"""A node for programs and threads without asyncio."""

import asyncio
import atexit
import contextlib
import math
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from types import EllipsisType
from typing import Any, Self, TypeAlias, TypeVar

from ..bus import Bus, Empty, default_bus
from ..common.backoff import Backoff
from ..endpoint import Address, endpoint_of
from ..errors import ConnectionLostError, ServiceClosedError
from ..rpc.validation import checked_seconds
from ..runtime.fork import call_in_child
from ..runtime.log import Log
from ..runtime.loop_thread import LoopThread
from ..runtime.worker_thread import WorkerThread
from ..security import PublicKey
from .connection import Connection
from .functions import TTL
from .interconnection import Interconnection
from .node import Node
from .peer_client import endpoint_to_show
from .queue_connection import PulledMessage, QueueConnection
from .send_buffer import MAX_BYTES, MAX_MESSAGES
from .taken_message import TakenMessage, check_no_loop
from .threaded_bus import ThreadedBus

__all__ = ["GET_TIMEOUT", "SyncNode"]

logger = Log("berrymq_rpc.exchange")

T = TypeVar("T")

#: Makes a connection of a node.
Connect: TypeAlias = Callable[[Node], Coroutine[Any, Any, Connection]]

#: Seconds that a peer has to appear; ``None`` for no limit, ``...`` for what the node is set to.
Wait: TypeAlias = float | EllipsisType | None

#: Seconds between two attempts to connect: the first pause, and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

#: A message, and the connection whose queue gave it.
Taken: TypeAlias = tuple[QueueConnection, PulledMessage]

#: Seconds that `get` waits: berryMQ's default.
GET_TIMEOUT = 1000.0

#: Seconds that receivers have, at closing, for the messages that came before.
PATIENCE = 5.0

#: Seconds that the end of a program waits for peers to take the last messages.
EXIT_PATIENCE = 5.0

#: Seconds that closing takes at most: what was sent goes out before.
CLOSE_PATIENCE = 30.0

#: Seconds for the node's tasks to end when this time is over.
CANCEL_PATIENCE = 2.0


class SyncNode:
    """A node whose functions block until they are done, under berryMQ's names.

    Any thread may use it::

        with SyncNode() as node:
            node.connect_oneway(("localhost", 5555))
            node.send_message("greeting:hello", "you")

    It starts when one of its functions needs it, ends with `close_connection`, and may be used
    again after that. It runs on a thread of its own. Receivers of other processes' messages are
    called on a second thread, one after another, so that they may use these functions too.

    It is closed at the end of the program. The child of a fork has none of its connections, and
    may make its own.

    Args:
        bus: the bus; ``None`` for the default one.
        options: as for `Node`, except its address.

    All functions raise `RuntimeError` in a coroutine or callback of asyncio: they would block the
    event loop. Use `Node` there.
    """

    def __init__(self, bus: Bus | None = None, **options: Any) -> None:
        self._bus = default_bus if bus is None else bus
        self._options = options
        self._life: _Life | None = None
        self._lock = threading.Lock()
        #: Whether the program is at its end.
        self._is_over = False
        _nodes.add(self)
        call_in_child(self._forked)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it listens; empty before `init_connection`."""
        life = self._life
        return () if life is None or life.loop_thread.is_closed else life.node.endpoints

    def statistics(self) -> dict[str, int]:
        """Counts, as `Node.statistics` gives them; empty while the node does not run."""
        life = self._life
        if life is None or life.loop_thread.is_closed:
            return {}
        return life.loop_thread.run(life.statistics())

    def init_connection(self, addr: Address = ("localhost", 0), *, insecure: bool = False) -> str:
        """Listen for other nodes.

        It may be called again, to add an address; nothing happens if it listens there already.

        Args:
            addr: an endpoint such as ``"tcp://127.0.0.1:5555"``, ``"127.0.0.1:5555"`` or
                ``("127.0.0.1", 5555)``. Port 0 is any free one.
            insecure: allow an address beyond this host without authentication.

        Returns:
            The endpoint, with the port.

        Raises:
            OSError: the address cannot be bound, as when it is in use.
            ValueError, TypeError: it is not an address, or is reached from other hosts.
        """
        return self._run("init_connection", lambda life: life.listen(addr, insecure))

    def interconnect(
        self,
        addr: Address,
        ttl: float = TTL,
        *,
        wait: Wait = ...,
        server: PublicKey | None = None,
    ) -> None:
        """Style 01: this process and a node carry all messages to each other.

        Args:
            addr: the node's address, as for `init_connection`.
            ttl: seconds for which the peer keeps the connection when this process is gone.
            wait: seconds that the node has to appear, if it is not up yet; ``None`` waits until it
                is. By default it has the `connect_timeout` of this node, 5 s.
            server: the node's public key, as for `Node.connect_oneway`.

        Raises:
            ConnectionLostError: no server has answered there.
            Exception: as `Node.interconnect` does.
        """
        self._connect(
            "interconnect", lambda node: node.interconnect(addr, ttl, server=server), wait
        )

    def connect_oneway(
        self,
        addr: Address,
        ttl: float = TTL,
        *,
        wait: Wait = ...,
        server: PublicKey | None = None,
    ) -> None:
        """Style 02: `send_message` reaches a node from now on.

        Arguments and exceptions are those of `interconnect`.
        """
        self._connect(
            "connect_oneway", lambda node: node.connect_oneway(addr, ttl, server=server), wait
        )

    def connect_via_queue(
        self,
        addr: Address,
        identifier: str,
        ttl: float = TTL,
        *,
        shared: bool = False,
        ack_wait: float | None = None,
        tries: int | None = None,
        wait: Wait = ...,
        server: PublicKey | None = None,
    ) -> None:
        """Style 03: a node keeps messages in a queue for `get`, and `send_message` reaches it.

        Args:
            addr: as for `interconnect`.
            identifier: which messages to keep, such as ``"job:*"``.
            ttl: as for `interconnect`.
            shared: whether all processes that ask for a shared queue of this identifier have one
                queue there, which gives each message to one of them. Otherwise each gets all
                messages.
            wait, server: as for `interconnect`.
            ack_wait, tries: as for `Node.connect_via_queue`. With an `ack_wait`,
                ``with node.get() as message:`` acknowledges the message when the work is done.

        Raises:
            Exception: as `Node.connect_via_queue` does.
        """
        self._connect(
            "connect_via_queue",
            lambda node: node.connect_via_queue(
                identifier,
                addr,
                ttl,
                shared=shared,
                ack_wait=ack_wait,
                tries=tries,
                server=server,
            ),
            wait,
        )

    def send_message(self, identifier: str, /, *args: Any, **kwargs: Any) -> str:
        """Send a message to each node of `connect_oneway` and `connect_via_queue`.

        Interconnected nodes get what `twitter` sends.

        Returns:
            ``"ok"``, or the first other status of a node.

        Raises:
            RuntimeError: there is no such connection.
            Exception: as `Connection.send_message` does. All other nodes were sent it nevertheless.
        """
        return self._run_connected(
            "send_message",
            lambda life: life.send(identifier, args, kwargs),
        )

    def get(self, block: bool = True, timeout: float | None = GET_TIMEOUT) -> TakenMessage:
        """Take a message from the queue of `connect_via_queue`; of several, from any.

        If the connection has an ``ack_wait``::

            with node.get() as message:
                work(message)

        acknowledges the message at a good end of the block, and refuses it at an exception.

        Args:
            block: whether to wait for one.
            timeout: seconds to wait; ``None`` for no limit.

        Raises:
            Empty: there is none, or the time to wait is over.
            RuntimeError: there is no such connection.
            ConnectionLostError: the peer is gone, or did not come in time.
            ServiceClosedError: the connection was closed, or the peer is closing.
        """
        return self._get("get", block, timeout)

    def get_nowait(self) -> TakenMessage:
        """Take a message, or raise `Empty`; otherwise as `get`."""
        return self._get("get_nowait", False, None)

    def _get(self, name: str, block: bool, timeout: float | None) -> TakenMessage:
        taking: list[_Life] = []

        async def take(life: _Life) -> Taken:
            taking.append(life)
            return await life.get(block, timeout)

        _, message = self._run_connected(name, take)
        return TakenMessage(message, taking[0].loop_thread.run)

    def close_connection(self, addr: Address | None = None) -> None:
        """Close the connections to a node, or all of them and stop listening. Can be called again.

        Args:
            addr: the node's address; ``None`` for all.
        """
        check_no_loop("close_connection")
        life = self._life
        if life is None or life.loop_thread.is_closed:
            return
        if addr is not None:
            endpoint = endpoint_to_show(endpoint_of(addr))
            life.loop_thread.run(life.close_endpoint(endpoint))
            return
        with self._lock:
            if self._life is not life:
                return
            self._life = None
        life.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close_connection()

    def __repr__(self) -> str:
        return f"<SyncNode {', '.join(self.endpoints) or 'nowhere'}>"

    def _connect(self, name: str, connect: Connect, wait: Wait) -> None:
        seconds = wait if wait is None or wait is ... else checked_seconds(wait, "wait")
        self._run(name, lambda life: life.open(connect, seconds))

    def _run(self, name: str, make: Callable[["_Life"], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of this node's life, which is started if need be."""
        check_no_loop(name)
        self._check_not_over()
        with self._lock:
            life = self._life
            if life is None or life.loop_thread.is_closed:
                life = self._life = _Life(self._bus, self._options)
        return life.loop_thread.run(make(life))

    def _run_connected(self, name: str, make: Callable[["_Life"], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine that needs a connection."""
        check_no_loop(name)
        self._check_not_over()
        life = self._life
        if life is None or life.loop_thread.is_closed:
            raise _not_connected(name)
        return life.loop_thread.run(make(life))

    def _check_not_over(self) -> None:
        if self._is_over:
            raise ServiceClosedError("the node is closed: the program is at its end")

    def _leave_at_exit(self, deadline: float) -> None:
        """Close the connections to other nodes, before the program ends."""
        self._is_over = True
        life = self._life
        if life is not None and not life.loop_thread.is_closed:
            left = max(0.0, deadline - time.monotonic())
            with contextlib.suppress(ServiceClosedError, TimeoutError):
                life.loop_thread.run(life.leave(left), left + CANCEL_PATIENCE)

    def _close_at_exit(self, deadline: float) -> None:
        life, self._life = self._life, None
        if life is not None and not life.loop_thread.is_closed:
            life.close(max(CANCEL_PATIENCE, deadline - time.monotonic()))

    def _forked(self) -> None:
        """Reset in the child of a fork, in which only the thread that forked runs."""
        self._lock = threading.Lock()
        if self._life is not None:
            # Keep it: the parent's event loop and sockets must not be closed here.
            _abandoned.append(self._life)
            self._life.gateway.detach()
            self._life = None


class _Life:
    """A node and its threads, from first use to close."""

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
        try:
            self.node: Node = self.loop_thread.run(self._start(options))
        except BaseException:
            self.close()
            raise

    async def _start(self, options: dict[str, Any]) -> Node:
        return await Node(None, self._bus, gateway=self.gateway, **options).start()

    async def listen(self, addr: Address, insecure: bool) -> str:
        asked = endpoint_of(addr)
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
        return self.node.statistics()

    async def open(self, connect: Connect, wait: Wait) -> None:
        if wait is ...:
            connection = await connect(self.node)
        else:
            connection = await _wait_for_node(self.node, connect, wait)
        self._connections.append(connection)

    async def send(self, identifier: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        # A node with several connections gets one message.
        targets = {
            connection.endpoint: connection
            for connection in self._open_connections()
            if not isinstance(connection, Interconnection)
        }
        if not targets:
            raise _not_connected("send_message")
        outcomes = await asyncio.gather(
            *(target.send_message(identifier, *args, **kwargs) for target in targets.values()),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return next((str(status) for status in outcomes if status != "ok"), "ok")

    async def get(self, block: bool, timeout: float | None) -> Taken:
        queues = [c for c in self._open_connections() if isinstance(c, QueueConnection)]
        if not queues:
            raise _not_connected("get")
        if len(queues) == 1:
            return queues[0], await queues[0].get(block, timeout)
        return await _get_from_any(queues, block, timeout)

    async def leave(self, patience: float) -> None:
        """Close the connections to other nodes within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.gather(*(c.close() for c in self._open_connections()))

    async def close_endpoint(self, endpoint: str) -> None:
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

    def _report_dropped(self, receivers: WorkerThread) -> None:
        logger.warning(
            "receivers are too slow: %s messages wait, %d dropped so far",
            f"{len(receivers):,}",
            receivers.dropped,
        )
        # As `Router.report` does it: no other node gets it.
        self.gateway.relay("receiver:dropped", (), {"count": receivers.dropped}, self.node.name)

    def _unclaimed(self, result: Any) -> None:
        """The caller was interrupted as the result came: the next one gets the message."""
        match result:
            case (QueueConnection() as connection, PulledMessage() as message):
                connection.put_back(message)


async def _wait_for_node(node: Node, connect: Connect, wait: float | None) -> Connection:
    """Connect to a peer as soon as it is up.

    Raises:
        ConnectionLostError: it was not in time; what the last attempt has raised.
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


def _not_connected(name: str) -> RuntimeError:
    needed = (
        "connect_via_queue()"
        if name != "send_message"
        else "connect_oneway() or connect_via_queue()"
    )
    return RuntimeError(f"{name}() needs a connection: call {needed} first")


#: Lives that belong to the process from which this one was forked.
_abandoned: list[_Life] = []

_nodes: weakref.WeakSet[SyncNode] = weakref.WeakSet()


def _close_all() -> None:
    deadline = time.monotonic() + EXIT_PATIENCE
    nodes = list(_nodes)
    # First all connections: nodes of this program may be connected with each other, and would
    # report that as a loss.
    for node in nodes:
        node._leave_at_exit(deadline)
    for node in nodes:
        node._close_at_exit(deadline)


atexit.register(_close_all)
