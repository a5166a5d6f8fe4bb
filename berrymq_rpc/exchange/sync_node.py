"""A node for programs and threads without asyncio."""

import asyncio
import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from ..bus import Bus, default_bus
from ..errors import ServiceClosedError
from ..identifier import Identifier
from ..rpc.validation import checked_seconds
from ..runtime.fork import call_in_child
from ..runtime.log import Log
from ..runtime.meter import Meter
from ..security import PublicKey
from .functions import TTL
from .peer_client import Place, endpoint_of_node, endpoint_to_show
from .taken_message import TakenMessage, check_no_loop
from .threaded_node import (
    CANCEL_PATIENCE,
    Connect,
    Taken,
    ThreadedNode,
    Wait,
    closed_at_exit,
    not_connected,
)

__all__ = ["GET_TIMEOUT", "SyncNode"]

logger = Log("berrymq_rpc.exchange")

T = TypeVar("T")

#: Seconds that `get` waits: berryMQ's default.
GET_TIMEOUT = 1000.0

#: Seconds that the end of a program waits for peers to take the last messages.
EXIT_PATIENCE = 5.0


class SyncNode:
    """A node whose functions block until they are done, under berryMQ's names.

    Any thread may use it::

        with SyncNode() as node:
            node.connect_oneway(("localhost", 5555))
            node.send_message("greeting:hello", "you")

    It starts when one of its functions needs it, with `start`, or with the ``with`` statement if it
    has a ``cluster``, ends with `close_connection`, and may be used
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
        self._node: ThreadedNode | None = None
        self._lock = threading.Lock()
        #: Whether it ran at any time.
        self._has_started = False
        #: Whether the program is at its end.
        self._is_over = False
        _nodes.add(self)
        call_in_child(self._forked)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it listens; empty before `init_connection`."""
        running = self._running()
        return () if running is None else running.node.endpoints

    def statistics(self) -> dict[str, int]:
        """Counts, as `Node.statistics` gives them; empty while the node does not run."""
        running = self._running()
        return {} if running is None else running.loop_thread.run(running.statistics())

    @property
    def metrics(self) -> Meter | None:
        """What counts its calls and the messages of its bus, or ``None``."""
        running = self._running()
        return None if running is None else running.node.metrics

    def start(self) -> Self:
        """Start it now, if it does not run: a node with a ``cluster`` joins it.

        Raises:
            Exception: as `Node.start` does.
        """

        async def started(running: ThreadedNode) -> None:
            """It is started before this runs."""

        self._run("start", started)
        return self

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until what was sent on the bus has left this process, as `Node.drain` does.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            Whether it has; not if the node does not run.
        """
        if self._running() is None:
            return False
        return self._run("drain", lambda running: running.node.drain(timeout))

    def publish(
        self,
        identifier: Identifier | str,
        /,
        *args: Any,
        durable: bool | None = None,
        **kwargs: Any,
    ) -> int:
        """Send a message on the bus and wait, as `Bus.publish` does, for threads without asyncio.

        Receivers run in this thread; ``async def`` receivers on an event loop that runs in it until
        they have ended.

        Raises:
            Exception: as `Bus.publish` does.
        """
        check_no_loop("publish")
        self._check_not_over()
        self.start()
        return asyncio.run(self._bus.publish(identifier, *args, durable=durable, **kwargs))

    def init_connection(self, addr: Place = ("localhost", 0), *, insecure: bool = False) -> str:
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
        return self._run("init_connection", lambda running: running.listen(addr, insecure))

    def interconnect(
        self,
        addr: Place,
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
        addr: Place,
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
        addr: Place,
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
            lambda running: running.send(identifier, args, kwargs),
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
        taking: list[ThreadedNode] = []

        async def take(running: ThreadedNode) -> Taken:
            taking.append(running)
            return await running.get(block, timeout)

        _, message = self._run_connected(name, take)
        return TakenMessage(message, taking[0].loop_thread.run)

    def close_connection(self, addr: Place | None = None) -> None:
        """Close the connections to a node, or all of them and stop listening. Can be called again.

        Args:
            addr: the node's address; ``None`` for all.
        """
        check_no_loop("close_connection")
        running = self._running()
        if running is None:
            return
        if addr is not None:
            endpoint = endpoint_to_show(endpoint_of_node(addr))
            running.loop_thread.run(running.close_endpoint(endpoint))
            return
        with self._lock:
            if self._node is not running:
                return
            self._node = None
        running.close()

    def __enter__(self) -> Self:
        return self if self._options.get("cluster") is None else self.start()

    def __exit__(self, *exc: object) -> None:
        self.close_connection()

    def __repr__(self) -> str:
        running = self._running()
        cluster = None if running is None else running.node.cluster
        places = [*self.endpoints, *([] if cluster is None else [cluster])]
        return f"<SyncNode {', '.join(places) or 'nowhere'}>"

    def _connect(self, name: str, connect: Connect, wait: Wait) -> None:
        seconds = wait if wait is None or wait is ... else checked_seconds(wait, "wait")
        self._run(name, lambda running: running.open(connect, seconds))

    def _running(self) -> ThreadedNode | None:
        """The node, if it runs."""
        node = self._node
        return None if node is None or node.loop_thread.is_closed else node

    def _run(self, name: str, make: Callable[[ThreadedNode], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of the node, which is started if need be."""
        check_no_loop(name)
        self._check_not_over()
        with self._lock:
            running = self._running()
            if running is None:
                self._has_started = True
                running = self._node = ThreadedNode(self._bus, self._options)
        return running.loop_thread.run(make(running))

    def _run_connected(
        self, name: str, make: Callable[[ThreadedNode], Coroutine[Any, Any, T]]
    ) -> T:
        """Run a coroutine that needs a connection."""
        check_no_loop(name)
        self._check_not_over()
        running = self._running()
        if running is None:
            raise not_connected(name)
        return running.loop_thread.run(make(running))

    def _check_not_over(self) -> None:
        if self._is_over:
            raise closed_at_exit()

    def _leave_at_exit(self, deadline: float) -> None:
        """Close the connections to other nodes, before the program ends."""
        self._is_over = True
        if not self._has_started and self._options.get("cluster") is not None:
            logger.warning(
                "a SyncNode with a cluster was never started, so nothing of it was sent or came: "
                "use it with 'with', or call start()"
            )
        running = self._running()
        if running is not None:
            left = max(0.0, deadline - time.monotonic())
            with contextlib.suppress(ServiceClosedError, TimeoutError):
                running.loop_thread.run(running.leave(left), left + CANCEL_PATIENCE)

    def _close_at_exit(self, deadline: float) -> None:
        running, self._node = self._running(), None
        if running is not None:
            running.close(max(CANCEL_PATIENCE, deadline - time.monotonic()))

    def _forked(self) -> None:
        """Reset in the child of a fork, in which only the thread that forked runs."""
        self._lock = threading.Lock()
        if self._node is not None:
            # Keep it: the parent's event loop and sockets must not be closed here.
            _abandoned.append(self._node)
            self._node.gateway.detach()
            self._node = None


#: Those of the process from which this one was forked.
_abandoned: list[ThreadedNode] = []

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
