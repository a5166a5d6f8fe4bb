"""A node's part in a cluster: it publishes what its bus sends, and gets what is followed there.

A node with links is a gateway between them and the cluster: it subscribes to all messages, so that
each source's numbers are whole and its links get everything. A node without links subscribes to
what its bus follows, and to nothing else.

All subscriptions of a node are one queue group of NATS: a message that several of them match comes
once.
"""

import asyncio
import threading
import time
from collections import deque
from typing import Any

from ..bus.routing_table import Parts
from ..common.log_limiter import LogLimiter
from ..errors import ProtocolError, TooLargeError
from ..identifier import WILDCARD, Identifier
from ..nats.connection import LONGEST_PAUSE, Connection, Refusal, Subscription
from ..nats.options import Durable, Nats
from ..nats.stored_publisher import StoredPublisher
from ..nats.subject import escape
from ..runtime.log import Log
from .batch import Batch, Source
from .cluster_buffer import ClusterBuffer, Publication
from .cluster_order import ClusterOrder
from .cluster_record import RecordCodec
from .cluster_subject import all_subjects, inbox, patterns_of
from .durable_consumer import dead_of
from .durable_queues import ClusterQueues, message_id
from .durable_streams import DEAD, dead_subjects
from .mesh import MAX_EXAMPLE, Mesh
from .reorder import MAX_SOURCES
from .send_buffer import MAX_BYTES, MAX_MESSAGES

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

#: Seconds that the server has to confirm what was published or subscribed to.
CONFIRM_TIMEOUT = 5.0

#: Seconds, besides those for which there was no server, that other nodes have to come back to it
#: before anything is published there: who has not subscribed yet would miss it.
HEAD_START = 0.25

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
        #: How many messages came from the server, those that were not taken included.
        self.received = 0
        self._mesh = mesh
        self._router = router = mesh.router
        self._insecure = insecure
        self.send_buffer = ClusterBuffer(
            namespace,
            router.source,
            router.plain_codec,
            router.new_filter(mesh.policy.receiving(None)),
            max_messages,
            max_bytes,
        )
        self._filter = router.new_filter(mesh.policy.sending(None))
        self._records = RecordCodec()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
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
        self.queues = ClusterQueues(namespace, self, durable, self.place, router.plain_codec)
        self._dead: Subscription | None = None
        #: How many identifiers that are followed match dead letters.
        self._dead_followed = 0
        self._group = f"{escape(router.source[0])}.{router.source[1]}"
        #: Changes of what is followed, in the order in which they were made.
        self._changes: deque[tuple[Parts, bool]] = deque()
        self._will_update = False
        #: How many identifiers that are followed need each pattern.
        self._needed: dict[str, int] = {}
        self._subscriptions: dict[str, Subscription] = {}
        #: Whether subscriptions have changed since the server was asked for a confirmation.
        self._has_changed = False
        self._settling: asyncio.Task[None] | None = None
        #: Of all messages, while this node is a gateway or becomes one.
        self._all: Subscription | None = None
        self._talk: Subscription | None = None
        #: Whether all messages come: the numbers of each source are whole.
        self._is_whole = False
        self._switch: asyncio.Task[None] | None = None
        #: Increased when the link to the server is lost.
        self._generation = 0
        self._unconfirmed = 0
        self._confirming: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lost_at = 0.0
        #: Ends the time that other nodes have to come back.
        self._head_start: asyncio.TimerHandle | None = None
        self._drainers: list[asyncio.Future[None]] = []
        self._reported = 0
        self._report_at = 0.0
        self._refusals = LogLimiter()
        self._unreported_refusals = 0
        self._is_attached = False
        self._is_closed = False

    @property
    def connection(self) -> Connection:
        """The connection to NATS."""
        return self._connection

    @property
    def withheld(self) -> int:
        return self.send_buffer.withheld

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
            self._check_exposure()
            # Also for answers that come while there is no link that knows it yet.
            self._talk = self._connection.subscribe(
                inbox(self.namespace, self._router.source), self._received_answer
            )
            self._mesh.attach(self)
            self._is_attached = True
            self._mesh.gateway.add_follow_listener(self._followed)
            self._mesh.gateway.set_durable_queues(self.queues)
            self._update()
            await self._connection.flush(timeout)
        except BaseException:
            await self.close(0.0)
            raise

    def _check_exposure(self) -> None:
        settings = self._connection.settings
        if (
            self._insecure
            or settings.address.is_loopback
            or self._connection.requires_authentication
        ):
            return
        raise ValueError(
            f"the NATS server at {settings} lets everybody in who reaches it: give it users, or "
            "pass insecure=True if the network is trusted"
        )

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
            if self._is_attached:
                self._mesh.gateway.remove_follow_listener(self._followed)
                self._mesh.detach()
            tasks = [
                task
                for task in (self._switch, self._confirming, self._settling)
                if task is not None
            ]
            for task in tasks:
                task.cancel()
            for timer in (self._timer, self._head_start):
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
        if self._is_closed:
            return False
        if self._will_update:
            self._update()
        if self._switch is not None:
            left = None if deadline is None else max(0.0, deadline - self._loop.time())
            await asyncio.wait((self._switch,), timeout=left)
        left = CONFIRM_TIMEOUT if deadline is None else max(0.0, deadline - self._loop.time())
        return await self._connection.flush(left)

    # -- what is followed ------------------------------------------------------------------

    def _followed(self, parts: Parts, is_followed: bool) -> None:
        """Note a change of what is followed. In any thread, while the bus is locked."""
        if self._is_closed or parts[1].startswith("_"):
            return
        self._changes.append((parts, is_followed))
        if self._will_update:
            return
        self._will_update = True
        try:
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._update)
            else:
                self._loop.call_soon_threadsafe(self._update)
        except RuntimeError:
            # The loop was closed, and the node was not.
            self._changes.clear()

    def _update(self) -> None:
        """Subscribe to what is followed now."""
        self._will_update = False
        if self._is_closed:
            return
        touched: set[str] = set()
        while self._changes:
            parts, is_followed = self._changes.popleft()
            if parts[1] in (DEAD, WILDCARD) and parts[0] in (None, WILDCARD):
                self._dead_followed += 1 if is_followed else -1
            for pattern in patterns_of(self.namespace, parts):
                self._needed[pattern] = self._needed.get(pattern, 0) + (1 if is_followed else -1)
                touched.add(pattern)
        if self._dead_followed and self._dead is None:
            self._dead = self._connection.subscribe(
                dead_subjects(self.namespace), self._received_dead, self._group
            )
        elif not self._dead_followed and self._dead is not None:
            self._connection.unsubscribe(self._dead)
            self._dead = None
        for pattern in touched:
            if not self._needed[pattern]:
                del self._needed[pattern]
            if self._all is None:
                self._set_subscribed(pattern)
        if self._has_changed and self._settling is None:
            self._settling = self._loop.create_task(
                self._settle(), name=f"subscriptions of {self!r}"
            )

    async def _settle(self) -> None:
        """Wait until the server has the subscriptions."""
        while self._has_changed:
            self._has_changed = False
            while not await self._connection.flush(CONFIRM_TIMEOUT):
                # There is no link: a new one has the subscriptions from its beginning.
                await asyncio.sleep(REPORT_PAUSE)
        self.order.settle()
        self._settling = None

    def _set_subscribed(self, pattern: str) -> None:
        if (pattern in self._needed) == (pattern in self._subscriptions):
            return
        self._has_changed = True
        self.order.unsettle()
        if pattern in self._needed:
            self._subscriptions[pattern] = self._subscribe(pattern)
            return
        self._connection.unsubscribe(self._subscriptions.pop(pattern))
        # What is published from now on is not missed.
        if "*" in pattern:
            self.order.forget_subjects()
        else:
            self.order.forget_subject(pattern)

    def _subscribe(self, pattern: str) -> Subscription:
        return self._connection.subscribe(pattern, self._received, self._group)

    def links_changed(self) -> None:
        """Become a gateway with the first link, and none with the last one."""
        if self._switch is None and bool(self._mesh.links) != self._is_whole:
            self._switch = self._loop.create_task(self._change_scope(), name=f"scope of {self!r}")

    async def _change_scope(self) -> None:
        """Subscribe to all messages, or to what is followed only, as the node has links or not."""
        while (wanted := bool(self._mesh.links)) != self._is_whole:
            if wanted:
                if self._all is None:
                    self._all = self._subscribe(all_subjects(self.namespace))
            else:
                for pattern in self._needed:
                    self._set_subscribed(pattern)
            while not await self._connection.flush(CONFIRM_TIMEOUT):
                # There is no link: a new one has the subscriptions from its beginning.
                await asyncio.sleep(REPORT_PAUSE)
            self._is_whole = wanted
            # From here on all that comes was subscribed to in the new way.
            if wanted:
                for subscription in self._subscriptions.values():
                    self._connection.unsubscribe(subscription)
                self._subscriptions.clear()
                self._router.reorder.add_link(self.send_buffer)
            else:
                assert self._all is not None
                subscription, self._all = self._all, None
                self.order.forget_subjects()
                for pattern in {*self._needed, *self._subscriptions}:
                    self._set_subscribed(pattern)
                self._connection.unsubscribe(subscription)
                self._update()
                self._mesh.leave_order(self.send_buffer)
        self._switch = None

    def forget(self) -> None:
        self._is_closed = True
        self._changes.clear()
        self._mesh.gateway.set_durable_queues(None)

    # -- what comes ------------------------------------------------------------------------

    def _received(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Take what another node has published."""
        router = self._router
        try:
            batch, previous, via = self._records.parse(payload)
            if batch.target is not None:
                raise ProtocolError("an answer is no message for all")
            self.received += batch.count
            if batch.source == router.source:
                return
            router.check_size(batch)
        except ProtocolError as error:
            router.count_malformed(error)
            return
        try:
            messages = router.unpack(batch)
        except ProtocolError:
            # It is counted.
            return
        if not self._is_about(subject, messages):
            router.count_malformed(ProtocolError(f"a message that is not about {subject}"))
            return
        if not reply:
            # What JetStream is to keep may be published again by any node.
            self._note_via(batch.source, via)
        batches = [batch]
        if self._filter is not None:
            filtered = router.permitted(self._filter, batch)
            batches = filtered.parts
            if filtered.left_out:
                self._deny(filtered.left_out, filtered.example)
        if self._is_whole:
            if (taken := self.order.end(batch.source)) is not None:
                # Its numbers are whole from here on.
                first = max(taken + 1, batch.first)
                router.reorder.join(batch.source, first, time.monotonic())
            self._mesh.take(self.send_buffer, batches)
        else:
            self._take_some(subject, batch, previous, messages if batches else None)

    def _take_some(
        self,
        subject: str,
        batch: Batch,
        previous: int,
        messages: tuple[tuple[Any, ...], ...] | None,
    ) -> None:
        """Take messages of a source of which only some come."""
        source, order = batch.source, self.order
        if order.taken(source) is None:
            order.begin(source, self._router.reorder.taken(source))
        skip, missed = order.receive(source, subject, batch.first, batch.count, previous)
        if missed is not None:
            self._router.report_missed(source, *missed, 1)
        if messages is not None and skip < batch.count:
            self._router.deliver(self.send_buffer, source, messages[skip:])

    def _is_about(self, subject: str, messages: tuple[tuple[Any, ...], ...]) -> bool:
        """Whether all messages are what their subject says: NATS's permissions are for subjects."""
        identifiers = {message[0] for message in messages}
        if len(identifiers) != 1:
            return False
        try:
            return self.send_buffer.subject(identifiers.pop()) == subject
        except (ValueError, TypeError):
            return False

    def _note_via(self, source: Source, via: Source) -> None:
        """Remember by which node the answers to a source go."""
        vias = self.send_buffer.vias
        if via == source:
            if vias:
                vias.pop(source, None)
        elif vias.get(source) != via:
            if len(vias) >= MAX_SOURCES:
                del vias[next(iter(vias))]
            vias[source] = via

    def _received_answer(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Take an answer of `talk` for this node, or for one behind it."""
        try:
            batch = self._records.parse(payload).batch
            if batch.target is None:
                raise ProtocolError("messages for all came to one node alone")
        except ProtocolError as error:
            self._router.count_malformed(error)
            return
        batches = [batch]
        try:
            if self._filter is not None:
                filtered = self._router.permitted(self._filter, batch)
                batches = filtered.parts
                if filtered.left_out:
                    self._deny(filtered.left_out, filtered.example)
            self._mesh.take(self.send_buffer, batches)
        except ProtocolError:
            # It is counted.
            return

    def _received_dead(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Take a dead letter that another node has written."""
        dead = dead_of(headers)
        try:
            batch, messages = self.unpack_record(payload)
            if dead is None or len(messages) != 1 or Identifier(messages[0][0]).name != DEAD:
                raise ProtocolError("not a dead letter")
        except (ProtocolError, ValueError, TypeError) as error:
            self._router.count_malformed(error)
            return
        grants = self._mesh.policy.sending(None)
        if grants is not None and not grants.covers_text(messages[0][0]):
            self._deny(1, messages[0][0])
            return
        self.relay_dead(batch, messages[0], dead)

    def subject(self, identifier: str) -> str:
        return self.send_buffer.subject(identifier)

    def unpack_record(self, payload: bytes) -> tuple[Batch, tuple[tuple[Any, ...], ...]]:
        batch = self._records.parse(payload).batch
        self._router.check_size(batch)
        return batch, self._router.unpack(batch)

    def relay_dead(self, batch: Batch, message: tuple[Any, ...], dead: dict[str, Any]) -> None:
        identifier, args, *rest = message
        kwargs = rest[0] if rest else {}
        self._mesh.gateway.relay(identifier, args, kwargs, batch.source[0], None, dead)

    def report_filling(self, **about: Any) -> None:
        """Report on the bus of this node that the stream of durable queues is nearly full."""
        self._mesh.gateway.relay("queue:filling", (), about, self._mesh.name)

    def _deny(self, count: int, example: str) -> None:
        """Count and report messages that came from the cluster and may not."""
        self._mesh.denied += count
        self._unreported_refusals += count
        if not self._refusals.admit(time.monotonic()):
            return
        count, self._unreported_refusals = self._unreported_refusals, 0
        example = example[:MAX_EXAMPLE]
        audit.warning("%d messages by %s refused, such as %s: not allowed", count, self, example)
        self._mesh.report("refused", endpoint=self.place, user=None, count=count, example=example)

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
        if publication.stored is not None:
            if publication.key is not None:
                self.publisher.publish_again(publication.key)
                return
            publication.key = self.publisher.publish(
                publication.subject,
                publication.payload,
                message_id(publication.source, publication.first),
                publication.stored.end,
            )
            return
        try:
            self._connection.publish(publication.subject, publication.payload)
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
        if self._connection.links > 1:
            logger.info("%r: restored", self)
            self._mesh.report("restored", endpoint=self.place, style="cluster")
            self.queues.restored()
            away = min(self._loop.time() - self._lost_at, LONGEST_PAUSE)
            self._head_start = self._loop.call_later(away + HEAD_START, self._end_head_start)

    def _end_head_start(self) -> None:
        if self._head_start is not None:
            self._head_start.cancel()
            self._head_start = None
            self.publisher.publish_again()
        self.flush()

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
        self._mesh.report("lost", endpoint=self.place, style="cluster", reason=reason)

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
