"""The durable queues of a node's cluster, for its page: asked for when somebody looks."""

import asyncio
from typing import Any

from ...errors import Error
from ...exchange import Node
from ...monitor import Monitor
from ...runtime.log import Log

__all__ = ["DurableWatch"]

logger = Log("berrymq_rpc.jsonrpc.bridge")

#: Seconds between two questions, and for which whoever looks waits for the answer; the next one
#: gets it otherwise.
PAUSE = 2.0
PATIENCE = 0.5


class DurableWatch:
    """Answers a monitor's snapshots, with the durable queues in them.

    Args:
        node: is in a cluster.
        monitor: makes the snapshots.
    """

    def __init__(self, node: Node, monitor: Monitor) -> None:
        self._node = node
        self._monitor = monitor
        self._asking: asyncio.Task[None] | None = None
        self._next = 0.0

    async def snapshot(self) -> dict[str, Any]:
        """Answer what runs."""
        now = asyncio.get_running_loop().time()
        if now >= self._next and (self._asking is None or self._asking.done()):
            self._next = now + PAUSE
            self._asking = asyncio.create_task(self._ask(), name="durable queues")
            await asyncio.wait((self._asking,), timeout=PATIENCE)
        return self._monitor.snapshot()

    async def _ask(self) -> None:
        try:
            infos = await self._node.durable_queues()
        except (Error, ValueError) as error:
            # There is no NATS server now, or it has no JetStream: there is nothing to show.
            logger.debug("the durable queues are not known: %s", error)
            self._monitor.durable_queues = []
        else:
            self._monitor.durable_queues = [
                {
                    "kind": "durable",
                    "identifier": info.identifier or "*@*:*",
                    "peer": f"dead:{info.name}" if info.is_of_dead else info.name,
                    "depth": info.waiting + info.unacknowledged,
                    "limit": None,
                    "bytes": None,
                    "dropped": 0,
                    "consumers": info.consumers,
                }
                for info in infos
            ]

    async def close(self) -> None:
        """Ask no longer."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
