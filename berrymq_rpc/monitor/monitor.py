"""The monitor: makes one plain value of what runs, out of what each part counts."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ..bus import Bus
from ..bus.queues import Backlog
from .graph import graph_of
from .plain_text import plain_text

__all__ = ["MAX_ITEMS", "STATE", "VERSION", "Monitor"]

#: The version of the shape of a snapshot. A reader that knows it may meet further keys.
VERSION = 1

#: Entries of each list of a snapshot, and of its graph: more can neither be read nor drawn.
MAX_ITEMS = 200

#: The method by which a page asks for the snapshot.
STATE = "rpc.state"

#: Rates of a history, the latest: two minutes.
HISTORY = 60

#: Seconds for which a snapshot is kept: those who watch at the same time get the same one.
MAX_AGE = 0.5


class Counting(Protocol):
    """What counts: a server, a client, a node, a bridge."""

    def statistics(self) -> Mapping[str, int]:
        """The counts by their names."""


class Viewed(Counting, Protocol):
    """What has connections: a node, a bridge."""

    def overview(self, limit: int | None = None) -> dict[str, list[dict[str, Any]]]:
        """What it has, in lists of plain values."""


class Measuring(Protocol):
    """What counts calls and messages by their names: a `runtime.meter.Meter`."""

    def snapshot(self) -> dict[str, Any]:
        """The figures, in the form of `common.measures.Measures.snapshot`."""


class Named(Viewed, Protocol):
    """A node."""

    @property
    def name(self) -> str:
        """Its name at other nodes."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it listens."""

    @property
    def cluster(self) -> str | None:
        """The address of its cluster."""


class Listening(Viewed, Protocol):
    """A bridge."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it listens."""


class Monitor:
    """Looks at what runs in this process, and answers it as one plain value.

    It belongs to the event loop of the node and the bridge.

    Args:
        bus: whose followers, queues and messages; ``None`` for none.
        node: the node on it.
        servers: clients and servers, by the names that they have in ``counts``.
        bridge: the bridge.
        meter: has the figures of calls and messages, which are empty without one.
        title: the name in the snapshot where there is no node.
        max_items: entries of each list at most.
        clock: seconds that do not go back.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        node: Named | None = None,
        servers: Mapping[str, Counting] | None = None,
        bridge: Listening | None = None,
        meter: Measuring | None = None,
        title: str = "berrymq_rpc",
        max_items: int = MAX_ITEMS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._node = node
        self._bridge = bridge
        self._meter = meter
        self._title = title
        self._max_items = max_items
        self._clock = clock
        self._wall_clock = wall_clock
        self._counting: dict[str, Counting] = dict(servers or {})
        if node is not None:
            self._counting["node"] = node
        if bridge is not None:
            self._counting["bridge"] = bridge
        self._began = clock()
        #: Those of the node's cluster, as whoever asks for them has found them.
        self.durable_queues: list[dict[str, Any]] = []
        self._kept: dict[str, Any] | None = None
        self._kept_at = 0.0

    def snapshot(self) -> dict[str, Any]:
        """What runs, in values that JSON and msgpack have.

        Each list has at most `max_items` entries, and ``omitted`` says how many more there are.
        Texts have at most 200 characters, all of which can be seen. Identifiers that never leave
        the process are left out, and so are tokens, keys, and the contents of messages.

        Returns:
            A dict, not to be changed. ``docs/reference/monitor.rst`` lists its keys.
        """
        now = self._clock()
        if self._kept is None or now - self._kept_at >= MAX_AGE:
            self._kept = self._make(now)
            self._kept_at = now
        return self._kept

    def _make(self, now: float) -> dict[str, Any]:
        node, bridge = self._node, self._bridge
        figures = {} if self._meter is None else self._meter.snapshot()
        views = [part.overview(self._max_items + 1) for part in (node, bridge) if part is not None]
        counts = {name: dict(part.statistics()) for name, part in self._counting.items()}
        graph: dict[str, Any] = {"nodes": [], "edges": [], "omitted": 0}
        queues = [queue for view in views for queue in view.get("queues", ())]
        if self._bus is not None:
            counts["bus"] = self._bus.statistics()
            graph = graph_of(self._bus, self._max_items, figures.get("messages", ()))
            queues[:0] = _local_queues(self._bus)
        queues += self.durable_queues
        lists = {
            "connections": [each for view in views for each in view["connections"]],
            "identifiers": _identifiers(figures.get("messages", {})),
            "queues": queues,
            "calls": [
                *_calls(figures.get("served", {}), "in"),
                *_calls(figures.get("made", {}), "out"),
            ],
        }
        totals = {
            "connections": _count(counts, "node", "connections") + _count(counts, "bridge", "peers")
        }
        omitted = {
            name: max(0, max(len(items), totals.get(name, 0)) - self._max_items)
            for name, items in lists.items()
        } | {"graph": graph.pop("omitted")}
        return {
            "version": VERSION,
            "time": self._wall_clock(),
            "uptime": now - self._began,
            "name": plain_text(self._title if node is None else node.name),
            "endpoints": [] if node is None else list(map(plain_text, node.endpoints)),
            "urls": [] if bridge is None else list(map(plain_text, bridge.urls)),
            "cluster": None if node is None or node.cluster is None else plain_text(node.cluster),
            **{name: _plain(items[: self._max_items]) for name, items in lists.items()},
            "graph": graph,
            "loop": _loop(figures.get("loop_delay")),
            "counts": counts,
            "drops": dict(_drops(counts)),
            "omitted": omitted,
        }


#: Parts of the names of counts that count what was lost or refused.
_LOST = ("dropped", "refused", "missed", "lost", "dead", "denied", "expired", "malformed")


def _drops(counts: Mapping[str, Mapping[str, int]]) -> Iterable[tuple[str, int]]:
    for part, named in counts.items():
        for name, count in named.items():
            if count and any(word in name for word in _LOST):
                yield f"{part}.{name}", count


def _count(counts: Mapping[str, Mapping[str, int]], part: str, name: str) -> int:
    return counts.get(part, {}).get(name, 0)


def _plain(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: plain_text(value) if isinstance(value, str) else value for key, value in each.items()}
        for each in items
    ]


def _identifiers(messages: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of each identifier, those with the most messages first."""
    found = [
        {
            "identifier": name,
            "messages": each["published"] + each["relayed"],
            "rate": each["rate"],
            "history": each["history"][-HISTORY:],
        }
        for name, each in messages.items()
        if not name.startswith("_")
    ]
    return sorted(found, key=lambda each: (-each["messages"], each["identifier"]))


def _calls(methods: Mapping[str, Any], direction: str) -> list[dict[str, Any]]:
    """The figures of each method, those with the most calls first."""
    found = []
    for name, each in methods.items():
        if name.startswith("rpc."):
            # Those who watch call them all the time.
            continue
        outcomes = {outcome: count for outcome, count in each.items() if type(count) is int}
        calls = sum(outcomes.values())
        found.append(
            {
                "direction": direction,
                "method": name,
                "calls": calls,
                "errors": calls - outcomes["ok"],
                "outcomes": outcomes,
                "p50": each["seconds"]["p50"],
                "p99": each["seconds"]["p99"],
                "rate": each["rate"],
                "history": each["history"][-HISTORY:],
            }
        )
    return sorted(found, key=lambda each: (-each["calls"], each["method"]))


def _loop(delay: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not delay or not delay["count"]:
        return None
    return {"p50": delay["p50"], "p99": delay["p99"], "max": delay["greatest"]}


def _local_queues(bus: Bus) -> Iterable[dict[str, Any]]:
    """The queues of this process."""
    for registration in bus.registrations():
        backlog = getattr(registration.receiver(), "__self__", None)
        if isinstance(backlog, Backlog) and not registration.identifier.is_local:
            yield {
                "kind": "local",
                "identifier": str(backlog.identifier),
                "peer": None,
                "depth": len(backlog),
                "limit": backlog.maxsize or None,
                "bytes": None,
                "dropped": backlog.dropped,
                "consumers": backlog.waiting,
            }
