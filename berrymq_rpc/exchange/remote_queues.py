"""All queues that a node keeps for other processes."""

from collections.abc import Hashable, Iterator, Mapping
from time import monotonic
from typing import Any

from ..bus.gateway import Gateway
from ..common.log_limiter import LogLimiter
from ..identifier import Identifier
from .policy import Grants, guard_of
from .quota import AllBytes, PeerBytes, share_of
from .remote_queue import DROPPED, RemoteQueue
from .stored_message import MessagePacker

__all__ = ["RemoteQueues"]


class RemoteQueues:
    """Opens queues on a bus, and closes each when its last owner leaves.

    Args:
        gateway: of the bus whose messages are kept.
        origin: the origin of events about the queues on the bus.
        max_messages, max_bytes: the bounds of each queue.
        total_bytes: bytes that all queues may take.
        peer_share: the part of it that one peer's queues may take.
        translation_table: for values of the user's own, as for `rpc.open_client`.
    """

    def __init__(
        self,
        gateway: Gateway,
        origin: str,
        max_messages: int,
        max_bytes: int,
        total_bytes: int,
        peer_share: float,
        translation_table: Mapping[int, Any] | None = None,
    ) -> None:
        self._gateway = gateway
        self._origin = origin
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._packer = MessagePacker(translation_table)
        self._of_all = AllBytes(total_bytes)
        self._peer_limit = share_of(total_bytes, peer_share)
        #: By their accounts.
        self._of_peers: dict[Hashable, PeerBytes] = {}
        #: For which connections each queue was opened, and the accounts of their peers.
        self._owners: dict[RemoteQueue, dict[object, Hashable]] = {}
        #: By what they were asked for with.
        self._shared: dict[tuple[Identifier, Grants | None], RemoteQueue] = {}
        self._shared_by: dict[RemoteQueue, tuple[Identifier, Grants | None]] = {}
        self._reports = LogLimiter()

    def open(
        self,
        identifier: Identifier,
        shared: bool,
        owner: object,
        account: Hashable,
        grants: Grants | None = None,
    ) -> RemoteQueue:
        """Open a queue that follows `identifier` from now on.

        Args:
            shared: whether it is the one queue of all who ask for a shared one of this identifier.
            owner: whom it is opened for.
            account: what tells its peer from others. A shared queue counts for the first of its
                owners.
            grants: what its user may get; ``None`` for everything. Users with different ones
                share no queue.
        """
        of_peer = self._of_peers.get(account)
        if of_peer is None:
            of_peer = self._of_peers[account] = PeerBytes(self._peer_limit, self._of_all)
        of_peer.opened += 1
        queue = self._shared.get((identifier, grants)) if shared else None
        if queue is None:
            queue = RemoteQueue(
                identifier,
                self._max_messages,
                self._max_bytes,
                bytes_of_peer=of_peer,
                packer=self._packer,
                on_dropped=self._report_dropped,
            )
            self._gateway.follow(identifier, queue.put, guard_of(grants))
            if shared:
                self._shared[identifier, grants] = queue
                self._shared_by[queue] = (identifier, grants)
            self._owners[queue] = {}
        self._owners[queue][owner] = account
        return queue

    def leave(self, queue: RemoteQueue, owner: object) -> None:
        """Undo one `open`.

        Args:
            owner: whom it was opened for.
        """
        owners = self._owners[queue]
        account = owners.pop(owner)
        if owners:
            queue.move(self._of_peers[next(iter(owners.values()))])
        else:
            del self._owners[queue]
            shared_by = self._shared_by.pop(queue, None)
            if shared_by is not None:
                del self._shared[shared_by]
            self._gateway.unfollow(queue.identifier, queue.put)
            queue.close()
        of_peer = self._of_peers[account]
        of_peer.opened -= 1
        if not of_peer.opened:
            with self._of_all.lock:
                del self._of_peers[account]
                del self._of_all.members[of_peer]

    @property
    def bytes(self) -> int:
        """Bytes that all queues take."""
        return self._of_all.bytes

    @property
    def peers(self) -> int:
        """How many peers have queues."""
        return len(self._of_peers)

    @property
    def waiting(self) -> int:
        """How many messages wait in all queues."""
        return sum(map(len, self._owners))

    @property
    def dropped(self) -> int:
        """How many messages all queues have dropped, closed ones included."""
        return self._of_all.dropped

    def __iter__(self) -> Iterator[RemoteQueue]:
        return iter(self._owners)

    def _report_dropped(self, queue: RemoteQueue) -> None:
        with self._of_all.lock:
            # Each goes to all queues that keep all messages, and may make each of them overflow.
            if not self._reports.admit(monotonic()):
                return
        about = {"identifier": str(queue.identifier), "count": queue.dropped}
        # As `Router.report` does it: no other node gets it.
        self._gateway.announce(DROPPED, about, self._origin)
