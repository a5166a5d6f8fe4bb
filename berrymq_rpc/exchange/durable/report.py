"""What operators ask about durable queues: what waits in them, and how full their streams are."""

import json
from collections.abc import Callable
from typing import Any

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
    """Reports on the bus that the stream of durable queues, or of dead letters, is nearly full.

    Args:
        js: JetStream.
        streams: of the cluster.
        report: called with what is known: the stream, its bytes and their bound, and the queue in
            which most messages wait; ``None`` for the stream of the dead letters.
    """

    def __init__(
        self, js: JetStream, streams: DurableStreams, report: Callable[..., object]
    ) -> None:
        self._js = js
        self._streams = streams
        self._report = report
        self._next_look = 0.0
        #: Of each stream.
        self._next_reports: dict[str, float] = {}

    def is_due(self, now: float) -> bool:
        """Whether to look now; not again within a second."""
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_PAUSE
        return True

    async def look(self, now: float) -> None:
        """Look how full the streams are, that of the dead letters included."""
        for stream in (self._streams.stream, self._streams.dead_stream):
            await self._look_at(stream, now)

    async def _look_at(self, stream: str, now: float) -> None:
        info = await self._js.stream(stream)
        if info is None:
            return
        taken, bound = int(info["state"].get("bytes", 0)), int(info["config"].get("max_bytes", -1))
        if bound <= 0 or taken < NEARLY_FULL * bound:
            self._next_reports[stream] = now
            return
        if now < self._next_reports.get(stream, now):
            return
        self._next_reports[stream] = now + REPORT_PAUSE
        about: dict[str, Any] = {"stream": stream, "bytes": taken, "max_bytes": bound}
        if stream == self._streams.dead_stream:
            # They are kept whether anybody reads them or not; the oldest go first.
            waiting = int(info["state"].get("messages", 0))
            about |= {"queue": None, "waiting": waiting}
            logger.warning("the stream of dead letters is nearly full: %s", json.dumps(about))
        else:
            queues = [q for q in await list_queues(self._js, self._streams) if not q.is_of_dead]
            fullest = max(queues, key=lambda q: q.waiting + q.unacknowledged, default=None)
            waiting = 0 if fullest is None else fullest.waiting + fullest.unacknowledged
            about |= {"queue": None if fullest is None else fullest.name, "waiting": waiting}
            logger.warning("durable queues are nearly full: %s", json.dumps(about))
        self._report(**about)
