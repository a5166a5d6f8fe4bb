"""Who holds the will of a node in a cluster, where nodes have no connections with each other.

A node with a will looks for a few others, chosen by NATS, that hold it, and tells each now and then
that it is there. Who does not hear of it any more has lost it, as the peer of a connection has. A
holder that does not answer any more is replaced.
"""

import asyncio
from collections.abc import Hashable

from ...errors import OverloadedError, ProtocolError, ServiceClosedError, TooLargeError
from ...nats.connection import LONGEST_PAUSE, Connection
from ...runtime.log import Log
from ..batch import Batch, Presence, PresenceBatch, Source
from ..record import RecordCodec
from ..router import Router
from ..subject import presence_subject, watch_inbox, watch_subject
from ..wills import Wills, introduction_of
from .intake import ClusterIntake

__all__ = ["HOLDERS", "ClusterWatch"]

logger = Log("berrymq_rpc.exchange")

#: How many nodes hold a will: one has to be left when its node is lost.
HOLDERS = 3

#: How often in a heartbeat a node says that it is there.
BEATS = 2

#: Heartbeats of silence after which it is lost, or a holder is replaced.
SILENCE = 1.5

#: The queue group of those that may be chosen.
GROUP = "nodes"

#: Whose bytes the wills of a cluster take: NATS does not say who has published something.
ACCOUNT = "cluster"


class ClusterWatch:
    """The wills of a cluster's nodes that a node holds, and who holds its own.

    Args:
        connection: to NATS.
        namespace: of the cluster.
        router: of the node.
        wills: those that it holds, and its own.
        intake: takes what all nodes are told.
        heartbeat: seconds, as of connections.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        router: Router,
        wills: Wills,
        intake: ClusterIntake,
        heartbeat: float,
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._source = router.source
        self._router = router
        self._wills = wills
        self._intake = intake
        self._pause = heartbeat / BEATS
        self._silence = heartbeat * SILENCE
        self._records = RecordCodec()
        self._loop = connection.loop
        #: When each node whose will is held here was heard of, and each that holds this one's.
        self._held: dict[Source, float] = {}
        self._holders: dict[Source, float] = {}
        #: When this node has said last that it is there.
        self._said = self._loop.time()
        self._has_warned = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def holders(self) -> int:
        """How many nodes hold this node's will."""
        return len(self._holders)

    def start(self) -> None:
        """Begin to hold wills, and look for those that hold this node's."""
        subscribe, namespace = self._connection.subscribe, self._namespace
        subscribe(presence_subject(namespace), self._intake.receive_presence)
        subscribe(watch_inbox(namespace, self._source), self._receive)
        subscribe(watch_subject(namespace), self._receive, GROUP)
        self._wills.set_cut_off(ACCOUNT, lambda: not self._connection.is_connected)
        self._beat()

    def close(self) -> None:
        """Do nothing any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._held.clear()
        self._holders.clear()

    def restored(self) -> None:
        """Begin to count anew: there was no link, and others may have none yet."""
        # This node's will may have been published meanwhile.
        self._wills.own.round += 1
        later = self._loop.time() + LONGEST_PAUSE
        self._held = dict.fromkeys(self._held, later)
        self._holders = dict.fromkeys(self._holders, later)

    def _beat(self) -> None:
        """Say that this node is there, and look who is not any more."""
        self._timer = self._loop.call_later(self._pause, self._beat)
        if not self._connection.is_connected:
            return
        now, said = self._loop.time(), self._said
        self._said = now
        since = now - self._silence
        if said < since:
            # This process was frozen: what has waited for it is not read yet.
            self.restored()
            since = now - self._silence
        for source, heard in list(self._held.items()):
            if heard < since:
                del self._held[source]
                self._wills.end(_way(source))
        if not self._wills.own.is_there:
            return
        for source, heard in list(self._holders.items()):
            if heard < since:
                del self._holders[source]
        for source in self._holders:
            self._tell(source, self._wills.own.id)
        if len(self._holders) < HOLDERS:
            self._publish(watch_subject(self._namespace), self._wills.introduction())

    def _tell(self, to: Source, id: str, *, is_held: bool = False) -> None:
        """Tell a node that this one is there, or holds the will of the other."""
        number = self._wills.own.round
        node = to if is_held else self._source
        if is_held:
            number = self._wills.round_of(id)
        presence = Presence("here", node, id, number, is_held=is_held)
        batch = PresenceBatch(presence, self._source, self._wills.number())
        self._publish(watch_inbox(self._namespace, to), batch)

    def _publish(self, subject: str, batch: PresenceBatch) -> None:
        try:
            self._connection.publish(subject, self._records.pack(batch))
        except TooLargeError as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("no node of the cluster holds this node's will: %s", error)

    def _receive(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Take what a node tells this one. It runs in the read."""
        try:
            batch = self._records.parse(payload).batch
            presence = batch.presence
            if presence is None:
                raise ProtocolError("a message came where nodes look for each other")
            if self._is_closed or batch.source == self._source:
                return
            if presence.kind == "node":
                self._hold(batch)
            elif presence.kind != "here":
                raise ProtocolError("nothing is asked of one node alone")
            elif presence.id == self._wills.own.id:
                self._answered(batch.source, presence)
            elif presence.node == batch.source:
                self._heard(presence)
        except ServiceClosedError:
            # This node holds nothing any more.
            return
        except (ProtocolError, TypeError, ValueError) as error:
            self._router.count_malformed(error)

    def _hold(self, batch: Batch) -> None:
        """Hold the will of a node that looks for somebody."""
        mine = introduction_of(batch)
        try:
            self._wills.hold(_way(mine.source), mine, None, ACCOUNT, is_reached=True)
        except OverloadedError as error:
            # It asks again, and another node may have room.
            logger.warning("the will of node %s is not held: %s", mine.source[0], error)
            return
        assert mine.presence is not None
        self._held[mine.source] = self._loop.time()
        self._tell(mine.source, mine.presence.id, is_held=True)

    def _heard(self, presence: Presence) -> None:
        """Take it that a node is there; if its will is not held here any more, it hears nothing."""
        if presence.node not in self._held or self._wills.table.get(presence.id) is None:
            self._held.pop(presence.node, None)
            return
        self._held[presence.node] = max(self._loop.time(), self._held[presence.node])
        self._wills.heard(presence)
        self._tell(presence.node, presence.id, is_held=True)

    def _answered(self, holder: Source, presence: Presence) -> None:
        """Take it that another node holds this one's will."""
        self._wills.heard(presence)
        if holder in self._holders or len(self._holders) < HOLDERS:
            self._holders[holder] = self._loop.time()


def _way(source: Source) -> Hashable:
    """What the table of wills knows a node of the cluster by."""
    return ACCOUNT, source
