"""The streams and consumers of durable queues in JetStream, and how they are declared.

One stream has the messages of all durable queues of a cluster's namespace, and one consumer each
queue. The subjects of the stream are those that its queues have declared. Dead letters are in a
stream of their own, for 30 days.
"""

import asyncio
from datetime import datetime
from typing import Any, NamedTuple

from ...errors import NotFoundError, OverloadedError, RPCTimeoutError
from ...identifier import WILDCARD, Identifier
from ...nats.jetstream import (
    NANOSECONDS,
    NO_ROOM,
    JetStream,
    JetStreamError,
    covers,
    time_text,
    union,
)
from ...nats.options import Durable
from ...nats.subject import escape
from ..consumer import MAX_UNACKNOWLEDGED
from ..subject import patterns_of, subject_of

__all__ = ["DEAD", "NEARLY_FULL", "DurableStreams", "QueueSettings", "dead_subjects", "filters_of"]

#: The name of the identifiers of dead letters.
DEAD = "dead"

#: What the names of the streams of dead letters, and of messages for later, end with.
SUFFIXES = ("_DEAD", "_LATER")

#: Seconds for which dead letters are kept.
DEAD_AGE = 30 * 86_400

#: Bytes of the stream of dead letters.
DEAD_BYTES = 1 << 30

#: The first tokens of messages that are to be published later, and of those that now are.
LATER = "berrymq-later"
DUE = "berrymq-due"

#: The part of a stream's bytes from which on it counts as nearly full.
NEARLY_FULL = 0.8

#: Seconds in which JetStream recognizes a message that it has.
DUPLICATE_WINDOW = 120

#: The first version of the NATS server that publishes messages later.
SCHEDULES_SINCE = (2, 12)

#: Attempts to add subjects to the stream, as other nodes do at the same time.
ATTEMPTS = 20


class QueueSettings(NamedTuple):
    """What a durable queue is declared with.

    Args:
        identifier, name, tries, ack_wait: as for `Queue`.
        since: the time to begin at, as JetStream has it, or ``None``.
    """

    identifier: Identifier
    name: str
    tries: int
    ack_wait: float
    since: str | None = None

    @property
    def is_of_dead(self) -> bool:
        """Whether it is a queue of dead letters."""
        return self.identifier.name == DEAD


def dead_subjects(cluster: str) -> str:
    """The pattern of the dead letters of a cluster."""
    return f"berrymq-dead.{escape(cluster)}.*"


class DurableStreams:
    """Declares what the durable queues of a cluster need.

    Args:
        js: JetStream.
        cluster: the namespace of the cluster.
        settings: how messages are kept; ``None`` for the defaults, or whatever is there already.

    Attributes:
        stream, dead_stream, later_stream: the names of the streams.
    """

    def __init__(self, js: JetStream, cluster: str, settings: Durable | None) -> None:
        self.stream = f"BERRYMQ_{cluster}"
        self.dead_stream, self.later_stream = (f"{self.stream}{suffix}" for suffix in SUFFIXES)
        self._js = js
        self._cluster = cluster
        self._settings = settings

    def stream_of(self, queue: QueueSettings) -> str:
        """The stream that has a queue's messages."""
        return self.dead_stream if queue.is_of_dead else self.stream

    def later_headers(self, identifier: Identifier, when: datetime) -> dict[str, str]:
        """The headers of a message that is to be published later."""
        subject = subject_of(self._cluster, identifier).partition(".")[2]
        return {
            "Nats-Schedule": f"@at {time_text(when)}",
            "Nats-Schedule-Target": f"{DUE}.{subject}",
            # It is copied at once.
            "Nats-Schedule-TTL": "1h",
        }

    def later_subject(self, identity: str) -> str:
        """The subject of one message that is to be published later."""
        return f"{LATER}.{escape(self._cluster)}.{escape(identity)}"

    def dead_subject(self, name: str) -> str:
        """The subject of the dead letters of a queue."""
        return f"{dead_subjects(self._cluster)[:-1]}{escape(name)}"

    async def declare(self, queue: QueueSettings) -> list[str]:
        """Have JetStream keep the messages of a queue; return the patterns of their subjects.

        Raises:
            ValueError: the queue, or the stream, exists with other settings.
            NotFoundError: JetStream is not enabled.
        """
        if queue.is_of_dead:
            filters = [self._dead_filter(queue.identifier)]
            await self.declare_dead()
            await self._declare_consumer(queue, filters)
            return filters
        identifier = queue.identifier
        filters = patterns_of(
            self._cluster, (identifier.namespace, identifier.name, identifier.action)
        )
        await self._declare_stream(filters, queue.since)
        await self._declare_consumer(queue, filters)
        # Another node may have written the subjects of the stream without these meanwhile.
        await self._declare_stream(filters, None)
        return filters

    def _dead_filter(self, identifier: Identifier) -> str:
        if identifier.namespace not in (None, WILDCARD):
            raise ValueError("dead letters have no namespace: they are 'dead:NAME'")
        if identifier.action == WILDCARD:
            return dead_subjects(self._cluster)
        return self.dead_subject(identifier.action)

    async def _declare_stream(self, filters: list[str], since: str | None) -> None:
        for attempt in range(ATTEMPTS):
            config = (await self._found(self._stream_config(filters)))["config"]
            self._check_stream(config)
            if since is not None and config.get("retention") != "limits":
                raise ValueError(
                    "since= needs messages that are kept though they were read: give the nodes of "
                    "the cluster durable=Durable(keep=...) before the first durable queue"
                )
            present = list(config.get("subjects") or ())
            if all(any(covers(each, wanted) for each in present) for wanted in filters):
                return
            subjects = union([*present, *filters])
            await self._js.update_stream({**config, "subjects": subjects})
            # Another node may do the same; who comes last has to have seen both.
            await asyncio.sleep(0.01 * (attempt + 1))
        raise RPCTimeoutError(
            f"the subjects of the stream {self.stream} change all the time: {filters} could not be "
            "added"
        )

    async def _found(self, config: dict[str, Any]) -> dict[str, Any]:
        """A stream as it is there; it is made if it is not.

        Raises:
            OverloadedError: there is no room for it.
            JetStreamError: it cannot be made for another reason.
        """
        name = config["name"]
        if (info := await self._js.stream(name)) is not None:
            return info
        problem: JetStreamError | None = None
        try:
            await self._js.create_stream(config)
        except JetStreamError as error:
            # Another node may have made it in the meantime.
            problem = error
        if (info := await self._js.stream(name)) is not None:
            return info
        if problem is not None and problem.code in NO_ROOM:
            raise OverloadedError(
                f"JetStream has no room for the stream {name} of {config['max_bytes']:,} bytes: "
                f"give Node(durable=Durable(max_bytes=...)) fewer, or the server more ({problem})"
            ) from None
        raise problem or JetStreamError(f"the stream {name} was deleted as it was declared")

    def _stream_config(self, subjects: list[str]) -> dict[str, Any]:
        settings = self._settings or Durable()
        return {
            "name": self.stream,
            "subjects": union(subjects),
            **_kept(settings),
            "storage": "file",
            "discard": "new",
            "max_msgs": -1,
            "max_consumers": -1,
            "max_msg_size": -1,
            "duplicate_window": _window(settings),
        }

    def _check_stream(self, config: dict[str, Any]) -> None:
        if self._settings is None:
            return
        _compare(
            f"the stream {self.stream}",
            config,
            _kept(self._settings),
            "delete it, or give Node(durable=) the same settings",
        )

    async def declare_dead(self) -> None:
        """Have JetStream keep dead letters."""
        config = {
            "name": self.dead_stream,
            "subjects": [dead_subjects(self._cluster)],
            "retention": "limits",
            "max_age": DEAD_AGE * NANOSECONDS,
            "max_bytes": DEAD_BYTES,
            "num_replicas": (self._settings or Durable()).replicas,
            "storage": "file",
            "discard": "old",
            "duplicate_window": DUPLICATE_WINDOW * NANOSECONDS,
        }
        await self._found(config)

    async def declare_later(self) -> None:
        """Have JetStream keep messages that are to be published later.

        When it is time for one, JetStream puts it into the same stream again, on another subject,
        of which the stream of the queues has a copy.

        Raises:
            NotFoundError: the server is too old; or there is no durable queue.
            OverloadedError: there is little room left. The stream itself would drop the oldest.
        """
        config = {
            "name": self.later_stream,
            "subjects": [f"{LATER}.{escape(self._cluster)}.*", f"{DUE}.{escape(self._cluster)}.>"],
            "retention": "limits",
            "max_bytes": (self._settings or Durable()).max_bytes,
            "num_replicas": (self._settings or Durable()).replicas,
            "storage": "file",
            # JetStream wants it so for schedules.
            "discard": "old",
            "allow_msg_schedules": True,
            "allow_msg_ttl": True,
        }
        self._check_schedules()
        info = await self._found(config)
        if not info["config"].get("allow_msg_schedules"):
            # Made by an older server, which ignored that; now there is one that does not.
            await self._js.update_stream({**info["config"], **config})
        bound = int(info["config"].get("max_bytes", -1))
        if 0 < bound * NEARLY_FULL < int(info["state"].get("bytes", 0)):
            raise OverloadedError(
                f"the stream {self.later_stream} is nearly full: too many delayed messages wait"
            )
        await self._copy_from(self.later_stream)

    def _check_schedules(self) -> None:
        """Raise `NotFoundError` if the server is too old."""
        version = self._js.server_version
        if version and version < SCHEDULES_SINCE:
            text = ".".join(map(str, version))
            raise NotFoundError(
                f"delayed messages need a NATS server of version 2.12 or newer, and this is "
                f"{text}: update it"
            )

    async def _copy_from(self, later: str) -> None:
        """Have the stream of the queues get what is due."""
        due, plain = f"{DUE}.{escape(self._cluster)}", f"berrymq.{escape(self._cluster)}"
        source = {
            "name": later,
            "subject_transforms": [
                {"src": f"{due}.*.*", "dest": f"{plain}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}"},
                {
                    "src": f"{due}.*.*.*",
                    "dest": f"{plain}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}",
                },
            ],
        }
        for attempt in range(ATTEMPTS):
            info = await self._js.stream(self.stream)
            if info is None:
                raise NotFoundError(
                    "there is no durable queue in this namespace: open one first, with "
                    "Queue(identifier, durable=NAME)"
                )
            sources = list(info["config"].get("sources") or ())
            if any(each.get("name") == later for each in sources):
                return
            await self._js.update_stream({**info["config"], "sources": [*sources, source]})
            await asyncio.sleep(0.01 * (attempt + 1))
        raise RPCTimeoutError(f"the stream {self.stream} changes all the time")

    async def _declare_consumer(self, queue: QueueSettings, filters: list[str]) -> None:
        stream = self.stream_of(queue)
        config: dict[str, Any] = {
            "durable_name": queue.name,
            "ack_policy": "explicit",
            "ack_wait": int(queue.ack_wait * NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": MAX_UNACKNOWLEDGED,
            "filter_subjects": sorted(filters),
            "deliver_policy": "all" if queue.is_of_dead else "new",
            "metadata": {
                "berrymq.identifier": str(queue.identifier),
                "berrymq.tries": str(queue.tries),
            },
        }
        if queue.since is not None:
            config["deliver_policy"] = "by_start_time"
            config["opt_start_time"] = queue.since
        info = await self._js.consumer(stream, queue.name)
        if info is None:
            try:
                await self._js.create_consumer(stream, config)
                return
            except JetStreamError:
                # Another node may have made it in the meantime.
                info = await self._js.consumer(stream, queue.name)
                if info is None:
                    raise
        present = dict(info["config"])
        metadata = present.get("metadata") or {}
        found = {
            "identifier": metadata.get("berrymq.identifier"),
            "tries": metadata.get("berrymq.tries"),
            "ack_wait": present.get("ack_wait", 0) / NANOSECONDS,
        }
        wanted = {
            "identifier": str(queue.identifier),
            "tries": str(queue.tries),
            "ack_wait": queue.ack_wait,
        }
        _compare(
            f"the durable queue {queue.name!r}",
            found,
            wanted,
            "use the same settings, or delete it first: await queue.delete()",
        )


def _kept(settings: Durable) -> dict[str, Any]:
    """How a stream keeps messages."""
    age = 0 if settings.keep is None else int(settings.keep.total_seconds() * NANOSECONDS)
    return {
        "retention": "interest" if settings.keep is None else "limits",
        "max_age": age,
        "max_bytes": settings.max_bytes,
        "num_replicas": settings.replicas,
    }


def _window(settings: Durable) -> int:
    """In nanoseconds. JetStream wants it to be no longer than messages are kept."""
    age = int(_kept(settings)["max_age"])
    window = DUPLICATE_WINDOW * NANOSECONDS
    return min(window, age) if age else window


def filters_of(config: Any) -> list[str]:
    """The subjects that a consumer filters by."""
    if not isinstance(config, dict):
        return []
    single = config.get("filter_subject")
    several = config.get("filter_subjects") or ()
    return [each for each in (single, *several) if isinstance(each, str) and each]


def _compare(what: str, found: dict[str, Any], wanted: dict[str, Any], advice: str) -> None:
    """Raise `ValueError` for settings that differ."""
    differences = [
        f"{name}={found.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differences:
        raise ValueError(f"{what} exists with {', '.join(differences)}: {advice}")
