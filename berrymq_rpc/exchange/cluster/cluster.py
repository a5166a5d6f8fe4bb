"""A node's part in a cluster: it publishes what its bus sends, and gets what is followed there.

A node with links is a gateway between them and the cluster: it subscribes to all messages, so that
each source's numbers are whole and its links get everything. A node without links subscribes to
what its bus follows, and to nothing else.

All subscriptions of a node are one queue group of NATS: a message that several of them match comes
once.
"""

import asyncio
from typing import Any

from ...bus.durable import Stored
from ...errors import RPCTimeoutError, TooLargeError
from ...nats.connection import LONGEST_PAUSE, Connection, Refusal
from ...nats.headers import pack_headers
from ...nats.options import Durable, Nats
from ...nats.stored_publisher import TIMEOUT, StoredPublisher
from ...nats.subject import escape
from ...runtime.log import Log
from ..batch import Batch, Source
from ..durable.queues import ClusterQueues, message_id
from ..mesh import MAX_EXAMPLE, Mesh
from ..send_buffer import MAX_BYTES, MAX_MESSAGES
from ..subject import inbox
from .bucket import stamp_headers
from .buffer import ClusterBuffer, Publication
from .intake import ClusterIntake
from .interest import CONFIRM_TIMEOUT, ClusterInterest
from .order import ClusterOrder
from .retained import ClusterRetained
from .watch import ClusterWatch

__all__ = ["Cluster"]

logger = Log("berrymq_rpc.exchange")
audit = Log("berrymq_rpc.security")

#: Bytes that are published before the server is asked whether it has them all, and seconds.
PING_BYTES = 64 << 10
PING_PAUSE = 0.5

#: Bytes that are published and not confirmed by the server; the rest waits.
MAX_UNCONFIRMED = 4 << 20

#: Publications that are taken out of the buffer at once.
GROUP = 64
GROUP_BYTES = 256 << 10

#: Seconds, besides those for which there was no server, that other nodes have to come back to it
#: before anything is published there: who has not subscribed yet would miss it.
HEAD_START = 0.25

#: In how many steps the time of a message that is to be stored passes while there is no server.
AGES = 6

#: Seconds between two events on the bus of one kind.
REPORT_PAUSE = 1.0


class Cluster:
    """The messages of a mesh in a cluster. An `Attachment` of the mesh.

    Args:
        settings: where NATS is.
        namespace: of the cluster.
        mesh: of the node.
        heartbeat: seconds after which a server that does not answer is lost.
        insecure: whether a server beyond this host may let everybody in.
        max_messages, max_bytes: what waits at most while there is no server.
        durable: how durable queues are kept.

    Attributes:
        publisher: publishes what is to be stored.
        queues: the durable queues.
        watch: who holds whose will.
        retained: what the cluster retains.
    """

    def __init__(
        self,
        settings: Nats,
        namespace: str,
        mesh: Mesh,
        *,
        heartbeat: float,
        insecure: bool = False,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
        durable: Durable | None = None,
    ) -> None:
        self.place = str(settings)
        self.namespace = namespace
        self.order = ClusterOrder()
        self._mesh = mesh
        self._router = router = mesh.router
        self.send_buffer = ClusterBuffer(
            namespace,
            router.source,
            router.plain_codec,
            router.new_filter(mesh.policy.receiving(None)),
            max_messages,
            max_bytes,
        )
        self._loop = asyncio.get_running_loop()
        self._connection = Connection(
            settings,
            name=f"berrymq_rpc node {mesh.name}",
            heartbeat=heartbeat,
            echo=False,
            insecure=insecure,
            restored=self._restored,
            lost=self._lost,
            refused=self._refused,
        )
        self.publisher = StoredPublisher(self._connection)
        self.queues = ClusterQueues(
            namespace, self, durable, self.place, router.plain_codec, router.codec
        )
        self.retained = ClusterRetained(
            self._connection, self.queues.js, namespace, mesh, durable, self.place
        )
        self._intake = ClusterIntake(
            mesh, self.send_buffer, self.order, self.place, self.retained.mark
        )
        self._interest = ClusterInterest(
            self._connection,
            namespace,
            f"{escape(router.source[0])}.{router.source[1]}",
            mesh,
            self.send_buffer,
            self._intake,
            self.retained.wanted,
        )
        self.watch = ClusterWatch(
            self._connection, namespace, router, mesh.wills, self._intake, heartbeat
        )
        #: Increased when the link to the server is lost.
        self._generation = 0
        self._unconfirmed = 0
        self._confirming: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._is_reported_lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._lost_at = 0.0
        #: While there is no link: at how many steps each was seen that waits to be stored.
        self._ages: dict[Stored, int] = {}
        self._ager: asyncio.TimerHandle | None = None
        #: Ends the time that other nodes have to come back.
        self._head_start: asyncio.TimerHandle | None = None
        self._drainers: list[asyncio.Future[None]] = []
        self._reported = 0
        self._report_at = 0.0
        self._is_attached = False
        self._is_closed = False

    @property
    def connection(self) -> Connection:
        """The connection to NATS."""
        return self._connection

    @property
    def received(self) -> int:
        """How many messages came from the server, those that were not taken included."""
        return self._intake.received

    @property
    def withheld(self) -> int:
        return self.send_buffer.withheld + self.retained.withheld

    def statistics(self) -> dict[str, int]:
        """Counts, as `Node.statistics` explains them."""
        return {
            "cluster_connected": int(self.is_connected),
            "cluster_received": self.received,
            "cluster_waiting": self.send_buffer.messages,
            "cluster_dropped": self.send_buffer.dropped,
            "cluster_retained_waiting": self.retained.waiting,
            "cluster_retained_refused": self.retained.refused,
            "will_holders": self.watch.holders,
        }

    @property
    def source(self) -> Source:
        """This node."""
        return self._router.source

    @property
    def is_connected(self) -> bool:
        """Whether there is a link to a NATS server."""
        return self._connection.is_connected

    async def start(self, timeout: float) -> None:
        """Connect, and wait until the server knows what is followed. Cancelled, it is closed.

        Args:
            timeout: seconds.

        Raises:
            AuthenticationError: the server refused this side.
            ConnectionLostError: no server answered in time.
            ValueError: the server lets everybody in, can be reached from other hosts, and
                `insecure` is not set.
        """
        try:
            await self._connection.connect(timeout)
            # Also for answers that come while there is no link that knows it yet.
            self._connection.subscribe(
                inbox(self.namespace, self._router.source), self._intake.receive_answer
            )
            self._mesh.attach(self)
            self._is_attached = True
            self._mesh.gateway.add_follow_listener(self._interest.followed)
            self._mesh.gateway.set_durable_queues(self.queues)
            self._interest.update()
            self.watch.start()
            self.retained.start(self._interest)
            await self._connection.flush(timeout)
        except BaseException:
            await self.close(0.0)
            raise

    async def close(self, timeout: float) -> None:
        """Send what waits, and leave the cluster. Cancelled, it is left all the same.

        Args:
            timeout: seconds for what waits, if there is a link.
        """
        if self._is_closed:
            return
        if self._is_attached:
            self._mesh.gateway.set_durable_queues(None)
        self.queues.close()
        try:
            if self._is_attached and self.is_connected and timeout > 0:
                self._end_head_start()
                await self.drain(timeout)
        finally:
            self._is_closed = True
            self.watch.close()
            self.retained.close()
            if self._is_attached:
                self._mesh.gateway.remove_follow_listener(self._interest.followed)
                self._mesh.detach()
            self._interest.close()
            tasks = [task for task in (self._confirming, self._restoring) if task is not None]
            for task in tasks:
                task.cancel()
            for timer in (self._timer, self._head_start, self._ager):
                if timer is not None:
                    timer.cancel()
            with self._router.lock:
                left = self.send_buffer.clear()
            if left:
                self._report_dropped("the node is closed")
            self._release_drainers()
            if timeout > 0:
                await self.queues.wait_closed()
            self.publisher.close()
            self._connection.abort()
            await self.queues.wait_closed()
            await self._connection.wait_closed()
            await self._interest.wait_closed()
            await self.retained.wait_closed()
            if tasks:
                await asyncio.wait(tasks)

    async def drain(self, timeout: float | None) -> bool:
        """Wait until the server has what was sent, and knows what is followed.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            Whether it has; not if the time is over or the cluster was left before.
        """
        deadline = None if timeout is None else self._loop.time() + timeout
        self._mesh.flush()
        while len(self.send_buffer) and not self._is_closed:
            waiter = self._loop.create_future()
            self._drainers.append(waiter)
            self._confirm()
            left = None if deadline is None else max(0.0, deadline - self._loop.time())
            done, _ = await asyncio.wait((waiter,), timeout=left)
            if not done:
                return False
        left = None if deadline is None else max(0.0, deadline - self._loop.time())
        if not await self.retained.drain(left):
            return False
        left = None if deadline is None else max(0.0, deadline - self._loop.time())
        return await self.settle(left)

    async def settle(self, timeout: float | None) -> bool:
        """Wait until the server knows what is followed.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            Whether it does; not if the time is over, the cluster was left, or there is no link.
        """
        if self._is_closed:
            return False
        deadline = None if timeout is None else self._loop.time() + timeout
        await self._interest.settled(timeout)
        left = CONFIRM_TIMEOUT if deadline is None else max(0.0, deadline - self._loop.time())
        return await self._connection.flush(left)

    def links_changed(self) -> None:
        self._interest.links_changed()

    def forget(self) -> None:
        self._is_closed = True
        self.watch.close()
        self.retained.forget()
        self._interest.close()
        self._mesh.gateway.set_durable_queues(None)

    # -- for durable queues ----------------------------------------------------------------

    def subject(self, identifier: str) -> str:
        return self.send_buffer.subject(identifier)

    def unpack_record(self, payload: bytes) -> tuple[Batch, tuple[tuple[Any, ...], ...]]:
        return self._intake.unpack(payload)

    def relay_dead(self, batch: Batch, message: tuple[Any, ...], dead: dict[str, Any]) -> None:
        self._intake.relay_dead(batch, message, dead)

    def report_filling(self, **about: Any) -> None:
        """Report on the bus of this node that the stream of durable queues is nearly full."""
        self._mesh.gateway.announce("queue:filling", about, self._mesh.name)

    # -- what goes -------------------------------------------------------------------------

    def flush(self) -> None:
        """Publish what waits, as far as it may be sent now."""
        buffer = self.send_buffer
        for error, message in buffer.take_refused():
            self._mesh.gateway.report(error, message, self, "cannot carry")
        if buffer.dropped > self._reported and self._loop.time() >= self._report_at:
            self._report_at = self._loop.time() + REPORT_PAUSE
            self._report_dropped(
                f"more than {buffer.max_messages:,} messages or {buffer.max_bytes:,} bytes wait"
            )
        if self._head_start is not None:
            return
        while self._connection.is_connected and self._unconfirmed < MAX_UNCONFIRMED:
            with self._router.lock:
                taken = buffer.take(GROUP, GROUP_BYTES)
            if not taken:
                break
            for publication in taken:
                assert isinstance(publication, Publication)
                self._publish(publication)
        if self._unconfirmed >= PING_BYTES:
            self._confirm()
        elif self._unconfirmed and self._timer is None and self._confirming is None:
            self._timer = self._loop.call_later(PING_PAUSE, self._confirm)

    def _publish(self, publication: Publication) -> None:
        self._unconfirmed += publication.size
        headers = None
        if publication.stamp is not None:
            headers = stamp_headers(publication.stamp)
            self.retained.sent(str(publication.identifier), publication.stamp)
        if publication.stored is not None:
            if publication.key is not None:
                self.publisher.publish_again(publication.key)
                return
            publication.key = self.publisher.publish(
                publication.subject,
                publication.payload,
                message_id(publication.source, publication.first),
                publication.stored.end,
                headers,
            )
            return
        packed = b"" if headers is None else pack_headers(headers)
        try:
            self._connection.publish(publication.subject, publication.payload, headers=packed)
        except TooLargeError as error:
            # The server that there is a link to now takes less than the one before.
            self.send_buffer.refuse(publication)
            logger.warning("%r: %r is not published: %s", self, publication, error)

    def _confirm(self) -> None:
        """Ask the server whether it has all that was published."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._confirming is None and not self._is_closed and self._connection.is_connected:
            with self._router.lock:
                position = self.send_buffer.ack_position
            self._confirming = self._loop.create_task(
                self._wait_for_confirmation(position, self._generation, self._unconfirmed),
                name=f"confirmation for {self!r}",
            )

    async def _wait_for_confirmation(self, position: int, generation: int, size: int) -> None:
        try:
            has_all = await self._connection.flush(CONFIRM_TIMEOUT)
        finally:
            self._confirming = None
        if generation == self._generation and has_all:
            self._unconfirmed -= size
            with self._router.lock:
                self.send_buffer.acknowledge(position)
        self._release_drainers()
        self.flush()

    def _release_drainers(self) -> None:
        drainers, self._drainers = self._drainers, []
        for waiter in drainers:
            if not waiter.done():
                waiter.set_result(None)

    # -- the link to the server --------------------------------------------------------------

    def _restored(self) -> None:
        self.send_buffer.max_payload = self._connection.max_payload
        self._ages = {}
        if self._ager is not None:
            self._ager.cancel()
        if self._connection.links > 1:
            self.watch.restored()
            self.retained.restored()
            self._restoring = self._loop.create_task(
                self._report_restored(self._generation), name=f"{self!r}: restored"
            )
            self.queues.restored()
            away = min(self._loop.time() - self._lost_at, LONGEST_PAUSE)
            self._head_start = self._loop.call_later(away + HEAD_START, self._end_head_start)

    async def _report_restored(self, generation: int) -> None:
        # Who hears of it may count on what is sent from now on: the server knows what is followed.
        if await self._connection.flush(CONFIRM_TIMEOUT) and generation == self._generation:
            self._is_reported_lost = False
            logger.info("%r: restored", self)
            self._mesh.report("restored", endpoint=self.place, style="cluster")

    def _end_head_start(self) -> None:
        if self._head_start is not None:
            self._head_start.cancel()
            self._head_start = None
            self.publisher.publish_again()
        self.flush()
        if self._unconfirmed:
            # It may be much: what the server has need not be sent again if it is lost again.
            self._confirm()

    def _lost(self, reason: str) -> None:
        self._generation += 1
        self._unconfirmed = 0
        self._lost_at = self._loop.time()
        if self._head_start is not None:
            self._head_start.cancel()
            self._head_start = None
        with self._router.lock:
            # What the socket had taken may be lost. Who has it drops the duplicate.
            self.send_buffer.retransmit()
        self._ager = self._loop.call_later(TIMEOUT / AGES, self._age)
        if not self._is_reported_lost:
            self._is_reported_lost = True
            self._mesh.report("lost", endpoint=self.place, style="cluster", reason=reason)

    def _age(self) -> None:
        """End the waits for what was to be stored, and could not be published in its time."""
        with self._router.lock:
            unstored = self.send_buffer.unstored()
        self._ages = {stored: self._ages.get(stored, 0) + 1 for stored in unstored}
        for stored, age in self._ages.items():
            if age >= AGES:
                stored.end(
                    RPCTimeoutError(
                        f"there is no NATS server at {self.place} to store the message. It still "
                        "waits, and may be stored when there is one"
                    )
                )
        self._ager = self._loop.call_later(TIMEOUT / AGES, self._age)

    def _refused(self, refusal: Refusal) -> None:
        """Report what the server does not allow."""
        audit.warning("%r: %s", self, refusal.error)
        self._mesh.report(
            "refused",
            endpoint=self.place,
            user=None,
            count=1,
            example=refusal.subject[:MAX_EXAMPLE],
            reason=str(refusal.error),
        )

    def _report_dropped(self, reason: str) -> None:
        count = self.send_buffer.dropped - self._reported
        self._reported = self.send_buffer.dropped
        logger.warning("%r: dropped %s messages: %s", self, f"{count:,}", reason)
        self._mesh.report("dropped", endpoint=self.place, count=count, reason=reason)

    def __repr__(self) -> str:
        return f"<Cluster {self.namespace} at {self.place}>"
