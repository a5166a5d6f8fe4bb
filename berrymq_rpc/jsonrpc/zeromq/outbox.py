"""Sends to the peers of a ROUTER, each at the pace at which it reads."""

from collections import deque
from collections.abc import Sequence
from logging import Logger
from typing import Any

import zmq

from ...common.tally import Tally

__all__ = ["Outbox"]

#: Bytes that are kept for one peer that does not read, beside what ZeroMQ keeps.
MAX_KEPT = 5 << 20


class Outbox:
    """What could not be sent at once waits here, up to a bound; beyond it is dropped and counted.

    Args:
        socket: a ROUTER.
        logger: is told of what is dropped.
    """

    def __init__(self, socket: Any, logger: Logger) -> None:
        # Without it, ZeroMQ drops what a peer has no room for, and what is for one that is gone.
        socket.router_mandatory = 1
        self._socket = socket
        self._logger = logger
        self._kept: dict[bytes, deque[Sequence[bytes]]] = {}
        self._sizes: dict[bytes, int] = {}
        self._dropped = Tally()

    @property
    def dropped(self) -> int:
        """Messages dropped, as their peers did not read or were gone."""
        return self._dropped.count

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._kept)

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send a message to the peer that its first frame names.

        Returns:
            Whether the peer is there.
        """
        peer = frames[0]
        if peer in self._kept:
            self._keep(peer, frames)
            return True
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self._keep(peer, frames)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._drop("it is gone")
            return False
        return True

    def _keep(self, peer: bytes, frames: Sequence[bytes]) -> None:
        size = sum(map(len, frames)) + 500
        if self._sizes.get(peer, 0) + size > MAX_KEPT:
            self._drop("it does not read")
            return
        self._sizes[peer] = self._sizes.get(peer, 0) + size
        self._kept.setdefault(peer, deque()).append(frames)

    def _drop(self, reason: str) -> None:
        if self._dropped.add():
            self._logger.warning(
                "a message to a peer was dropped, as %s (%d so far)", reason, self.dropped
            )

    def retry(self) -> None:
        """Send what waits, as far as there is room."""
        for peer, queue in list(self._kept.items()):
            try:
                while queue:
                    self._socket.send_multipart(queue[0], zmq.NOBLOCK)
                    queue.popleft()
            except zmq.Again:
                self._sizes[peer] = sum(sum(map(len, frames)) + 500 for frames in queue)
                continue
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                for _ in queue:
                    self._drop("it is gone")
            del self._kept[peer], self._sizes[peer]
