"""What comes to a node from its cluster: messages, answers, and dead letters."""

import time
from collections.abc import Callable
from typing import Any

from ...bus.retained_store import Stamp
from ...common.log_limiter import LogLimiter
from ...errors import ProtocolError
from ...identifier import Identifier
from ...runtime.log import Log
from ..batch import Batch, Source
from ..durable.dead_letters import dead_of
from ..durable.streams import DEAD
from ..mesh import MAX_EXAMPLE, Mesh
from ..record import RecordCodec
from ..reorder import MAX_SOURCES
from .bucket import stamp_of
from .buffer import ClusterBuffer
from .order import ClusterOrder

__all__ = ["ClusterIntake"]

audit = Log("berrymq_rpc.security")


class ClusterIntake:
    """Takes what other nodes have published. Its callbacks run in the read.

    Args:
        mesh: of the node.
        send_buffer: by which the mesh knows the cluster.
        order: what was taken of each source.
        place: the address of NATS.
        on_retained: called with the identifier and the stamp of each message that is retained where
            it was sent.

    Attributes:
        received: how many messages came, those that were not taken included.
        is_whole: whether all messages come: the numbers of each source are whole.
    """

    def __init__(
        self,
        mesh: Mesh,
        send_buffer: ClusterBuffer,
        order: ClusterOrder,
        place: str,
        on_retained: Callable[[str, Stamp], object],
    ) -> None:
        self._on_retained = on_retained
        self.received = 0
        self.order = order
        self.is_whole = False
        self._mesh = mesh
        self._router = mesh.router
        self._send_buffer = send_buffer
        self._place = place
        self._filter = mesh.router.new_filter(mesh.policy.sending(None))
        self._records = RecordCodec()
        self._refusals = LogLimiter()
        self._unreported_refusals = 0

    def receive(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Take what another node has published."""
        router = self._router
        try:
            batch, previous, via = self._records.parse(payload)
            if batch.target is not None:
                raise ProtocolError("an answer is no message for all")
            self.received += batch.count
            if batch.source == router.source and batch.presence is None:
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
        if batch.presence is not None:
            self._take_will(batch, messages[0][0])
            return
        if not reply:
            # What JetStream is to keep may be published again by any node.
            self._note_via(batch.source, via)
        if headers and batch.count == 1 and (stamp := stamp_of(headers)) is not None:
            batch.stamp = stamp
            self._on_retained(messages[0][0], stamp)
        batches = [batch]
        if self._filter is not None:
            filtered = router.permitted(self._filter, batch)
            batches = filtered.parts
            if filtered.left_out:
                self._deny(filtered.left_out, filtered.example)
        if self.is_whole:
            if (taken := self.order.end(batch.source)) is not None:
                # Its numbers are whole from here on.
                first = max(taken + 1, batch.first)
                router.reorder.join(batch.source, first, time.monotonic())
            self._mesh.take(self._send_buffer, batches)
        else:
            self._take_some(subject, batch, previous, messages if batches else None)

    def _take_will(self, batch: Batch, identifier: str) -> None:
        if self._filter is not None and not self._filter.grants.covers_text(identifier):
            self._deny(1, identifier)
            return
        self._take_presence(batch)

    def receive_presence(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Take what another node says about one that is lost or back."""
        try:
            batch = self._records.parse(payload).batch
            if batch.presence is None or batch.data:
                raise ProtocolError("a message came where nodes tell who is lost")
        except ProtocolError as error:
            self._router.count_malformed(error)
            return
        self._take_presence(batch)

    def _take_presence(self, batch: Batch) -> None:
        try:
            self._mesh.wills.receive(self._send_buffer, batch)
        except ProtocolError as error:
            self._router.count_malformed(error)

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
            self._router.deliver(self._send_buffer, batch, messages[skip:])

    def _is_about(self, subject: str, messages: tuple[tuple[Any, ...], ...]) -> bool:
        """Whether all messages are what their subject says: NATS's permissions are for subjects."""
        identifiers = {message[0] for message in messages}
        if len(identifiers) != 1:
            return False
        try:
            return self._send_buffer.subject(identifiers.pop()) == subject
        except (ValueError, TypeError):
            return False

    def _note_via(self, source: Source, via: Source) -> None:
        """Remember by which node the answers to a source go."""
        vias = self._send_buffer.vias
        if via == source:
            if vias:
                vias.pop(source, None)
        elif vias.get(source) != via:
            if len(vias) >= MAX_SOURCES:
                del vias[next(iter(vias))]
            vias[source] = via

    def receive_answer(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
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
            self._mesh.take(self._send_buffer, batches)
        except ProtocolError:
            # It is counted.
            return

    def receive_dead(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Take a dead letter that another node has written."""
        dead = dead_of(headers)
        try:
            batch, messages = self.unpack(payload)
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

    def _deny(self, count: int, example: str) -> None:
        """Count and report messages that came from the cluster and may not."""
        self._mesh.denied += count
        self._unreported_refusals += count
        if not self._refusals.admit(time.monotonic()):
            return
        count, self._unreported_refusals = self._unreported_refusals, 0
        example = example[:MAX_EXAMPLE]
        place = self._place
        audit.warning("%d messages by %s refused, such as %s: not allowed", count, place, example)
        self._mesh.report("refused", endpoint=place, user=None, count=count, example=example)

    def unpack(self, payload: bytes) -> tuple[Batch, tuple[tuple[Any, ...], ...]]:
        """Read a record.

        Raises:
            ProtocolError: it is malformed.
        """
        batch = self._records.parse(payload).batch
        self._router.check_size(batch)
        return batch, self._router.unpack(batch)

    def relay_dead(self, batch: Batch, message: tuple[Any, ...], dead: dict[str, Any]) -> None:
        """Publish a dead letter on the bus."""
        identifier, args, *rest = message
        kwargs = rest[0] if rest else {}
        self._mesh.gateway.relay(identifier, args, kwargs, batch.source[0], None, dead)
