"""What all listeners are, and what those that carry a stream of texts have in common."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from .outbox import Outbox
from .peer import Desk, Peer

__all__ = ["EOF_GRACE", "SEND_TIMEOUT", "Listener", "stream_peer", "write_all"]

logger = logging.getLogger("berrymq_rpc.jsonrpc.bridge")

#: Seconds that a peer may take to read what a socket can hold. One that takes longer is frozen, or
#: means harm.
SEND_TIMEOUT = 30.0

#: Seconds that calls may still take whose peer has closed its sending half: whether it still
#: reads cannot be told from whether it is gone.
EOF_GRACE = 1.0


class Listener(ABC):
    """One address at which peers are served."""

    #: What it is reached at, with its real port.
    url: str

    @abstractmethod
    async def close(self, grace: float) -> None:
        """Let nobody in any more, send what was answered, and close.

        Args:
            grace: seconds that this may take.
        """


async def write_all(outbox: Outbox, write: Callable[[bytes], Awaitable[None]]) -> None:
    """Send what comes into an outbox until it is closed.

    Raises:
        TimeoutError: the peer does not read.
        Exception: as `write` does.
    """
    while (text := await outbox.next()) is not None:
        async with asyncio.timeout(SEND_TIMEOUT):
            await write(text)
        outbox.sent(text)


def stream_peer(desk: Desk, address: str | None, outbox: Outbox, scheme: str = "tcp") -> Peer:
    """A peer whose texts leave by an outbox."""
    return Peer(
        desk,
        address=address,
        scheme=scheme,
        send=outbox.put,
        queued=lambda: outbox.size,
        room=outbox.room,
    )
