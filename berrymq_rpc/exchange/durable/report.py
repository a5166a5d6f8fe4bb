"""What operators ask about durable queues: what waits in them, and how full their streams are."""

import json
from collections.abc import Callable

from ...nats.jetstream import NANOSECONDS, JetStream
from ...runtime.log import Log
from .info import DurableQueueInfo
from .streams import NEARLY_FULL, DurableStreams

__all__ = ["FillWatch", "list_queues"]

logger = Log("berrymq_rpc.exchange")

#: Seconds between two looks, and between two reports while it stays so.
LOOK_PAUSE = 1.0
REPORT_PAUSE = 60.0


async def list_queues(js: JetStream, streams: DurableStreams) -> list[DurableQueueInfo]:
    """All durable queues of a cluster, by their names.

    Raises:
        Exception: as `JetStream.request` does.
    """
    found = []
    for stream in (streams.stream, streams.dead_stream):
        for each in await js.consumers(stream):
            config = each.get("config") or {}
            metadata = config.get("metadata") or {}
            tries = str(metadata.get("berrymq.tries", ""))
            found.append(
                DurableQueueInfo(
                    str(each.get("name", "")),
                    str(metadata.get("berrymq.identifier", "")),
                    int(each.get("num_pending", 0)),
                    int(each.get("num_ack_pending", 0)),
                    int(each.get("num_redelivered", 0)),
                    int(each.get("num_waiting", 0)),
                    int(tries) if tries.isdecimal() else 0,
                    config.get("ack_wait", 0) / NANOSECONDS,
                    stream == streams.dead_stream,
                )
            )
    return sorted(found)


class FillWatch:
    """Reports on the bus that the stream of durable queues is nearly full.

    Args:
        js: JetStream.
        streams: of the cluster.
        report: called with what is known: the stream, its bytes and their bound, and the queue in
            which most messages wait.
    """

    def __init__(
        self, js: JetStream, streams: DurableStreams, report: Callable[..., object]
    ) -> None:
        self._js = js
        self._streams = streams
        self._report = report
        self._next_look = 0.0
        self._next_report = 0.0

    def is_due(self, now: float) -> bool:
        """Whether to look now; not again within a second."""
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_PAUSE
        return True

    async def look(self, now: float) -> None:
        """Look how full the stream is."""
        info = await self._js.stream(self._streams.stream)
        if info is None:
            return
        taken, bound = int(info["state"].get("bytes", 0)), int(info["config"].get("max_bytes", -1))
        if bound <= 0 or taken < NEARLY_FULL * bound:
            self._next_report = now
            return
        if now < self._next_report:
            return
        self._next_report = now + REPORT_PAUSE
        queues = [q for q in await list_queues(self._js, self._streams) if not q.is_of_dead]
        fullest = max(queues, key=lambda q: q.waiting + q.unacknowledged, default=None)
        about = {
            "stream": self._streams.stream,
            "bytes": taken,
            "max_bytes": bound,
            "queue": None if fullest is None else fullest.name,
            "waiting": 0 if fullest is None else fullest.waiting + fullest.unacknowledged,
        }
        logger.warning("durable queues are nearly full: %s", json.dumps(about))
        self._report(**about)
