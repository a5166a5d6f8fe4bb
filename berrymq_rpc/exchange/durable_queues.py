"""The durable queues of a cluster: declared in JetStream, and opened by the queues of a bus.

One stream has the messages of all durable queues of a cluster's namespace, and one consumer each
queue. The subjects of the stream are those that its queues have declared. Dead letters are in a
stream of their own, for 30 days.
"""

import asyncio
import concurrent.futures
import json
import math
import threading
from collections.abc import Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol, TypeVar

from ..bus import Empty
from ..bus.durable import Stored
from ..errors import NotFoundError, ProtocolError, RPCTimeoutError, ServiceClosedError
from ..identifier import WILDCARD, Identifier
from ..nats.connection import Connection
from ..nats.jetstream import (
    NANOSECONDS,
    STREAM_NAME_IN_USE,
    JetStream,
    JetStreamError,
    covers,
    time_text,
    union,
)
from ..nats.options import Durable
from ..nats.stored_publisher import StoredPublisher
from ..nats.subject import checked_name, escape
from ..runtime.log import Log
from .batch import Batch, Source
from .cluster_record import RecordCodec
from .cluster_subject import patterns_of, subject_of
from .consumer import MAX_UNACKNOWLEDGED, checked_ack_wait, checked_tries
from .durable_consumer import Delivered, DurableConsumer, Unpacked
from .message_codec import MessageCodec
from .taken_message import check_no_loop

__all__ = ["DEAD", "ClusterQueues", "dead_subjects"]

logger = Log("berrymq_rpc.exchange")

T = TypeVar("T")

#: The name of the identifiers of dead letters.
DEAD = "dead"

#: Seconds for which dead letters are kept.
DEAD_AGE = 30 * 86_400

#: Seconds in which JetStream recognizes a message that it has.
DUPLICATE_WINDOW = 120

#: Messages that are sent and not stored yet, of all senders of this process.
MAX_UNSTORED = 2000

#: Seconds for which a queue that keeps a subject is believed to be there.
KNOWN_FOR = 10.0

#: Attempts to add subjects to the stream, as other nodes do at the same time.
ATTEMPTS = 20

#: Bytes of the stream of dead letters.
DEAD_BYTES = 1 << 30


class DurableHost(Protocol):
    """What durable queues need of the node's part in the cluster."""

    @property
    def connection(self) -> Connection:
        """The connection to NATS."""

    @property
    def publisher(self) -> StoredPublisher:
        """Publishes for streams."""

    @property
    def source(self) -> Source:
        """This node."""

    def unpack_record(self, payload: bytes) -> tuple[Batch, tuple[tuple[Any, ...], ...]]:
        """Read what a node has published.

        Raises:
            ProtocolError: it is malformed.
        """

    def relay_dead(self, batch: Batch, message: tuple[Any, ...], dead: dict[str, Any]) -> None:
        """Publish a dead letter on the bus of this node."""


def dead_subjects(cluster: str) -> str:
    """The pattern of the dead letters of a cluster."""
    return f"berrymq-dead.{escape(cluster)}.*"


class ClusterQueues:
    """The durable queues of a cluster, as `bus.durable.DurableQueues` has them.

    Args:
        cluster: its namespace.
        host: see `DurableHost`.
        settings: how messages are kept; ``None`` for the defaults, or whatever is there already.
        place: the address of NATS.
        codec: of messages.
    """

    def __init__(
        self,
        cluster: str,
        host: DurableHost,
        settings: Durable | None,
        place: str,
        codec: MessageCodec,
    ) -> None:
        self.stream = f"BERRYMQ_{cluster}"
        self.dead_stream = f"{self.stream}_DEAD"
        self.js = JetStream(host.connection, place)
        self.host = host
        self.loop = host.connection.loop
        self._thread = threading.get_ident()
        self._cluster = cluster
        self._settings = settings
        self._codec = codec
        self._records = RecordCodec()
        self._sources: set[ClusterQueue] = set()
        self._places = asyncio.Semaphore(MAX_UNSTORED)
        #: Patterns that queues keep, each believed until then.
        self._known: dict[str, float] = {}
        self._is_closed = False

    # -- event loops and threads -------------------------------------------------------------

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the connection, from any loop."""
        if asyncio.get_running_loop() is self.loop:
            return await coroutine
        return await asyncio.wrap_future(self._submit(coroutine))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the connection, from a thread without a loop."""
        try:
            check_no_loop("a durable Queue")
        except RuntimeError:
            coroutine.close()
            raise RuntimeError(
                "a durable Queue would block the event loop that runs in this thread: use "
                "AsyncQueue, whose methods are awaited"
            ) from None
        future = self._submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise _closed() from None

    # -- publishing ------------------------------------------------------------------------

    async def reserve(self, identifier: Identifier) -> Stored | None:
        if not await self.call(self._reserve(subject_of(self._cluster, identifier))):
            return None
        return Stored(self._release)

    async def _reserve(self, subject: str) -> bool:
        if self._is_closed:
            return False
        if not await self._is_kept(subject):
            return False
        await self._places.acquire()
        return True

    def _release(self) -> None:
        if threading.get_ident() == self._thread:
            self._places.release()
        else:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._places.release)

    async def _is_kept(self, subject: str) -> bool:
        """Whether a durable queue keeps a subject."""
        now = self.loop.time()
        if any(until > now and covers(known, subject) for known, until in self._known.items()):
            return True
        try:
            if not await self.js.keeps(self.stream, subject):
                return False
            consumers = await self.js.consumers(self.stream)
        except NotFoundError:
            # There is no JetStream.
            return False
        until = self.loop.time() + KNOWN_FOR
        self._known = {
            pattern: until for each in consumers for pattern in _filters(each.get("config"))
        }
        return any(covers(known, subject) for known in self._known)

    # -- declaring -------------------------------------------------------------------------

    def open(
        self,
        identifier: Identifier,
        name: str,
        tries: int,
        ack_wait: float,
        since: datetime | None,
    ) -> "ClusterQueue":
        if self._is_closed:
            raise _closed()
        checked_name(name, "a durable queue")
        if checked_tries(tries) is None:
            raise ValueError("tries is a whole number from 1 on, not None")
        if checked_ack_wait(ack_wait) is None or ack_wait is math.inf:
            raise ValueError("ack_wait is a number of seconds, not None")
        start = None if since is None else time_text(since)
        return ClusterQueue(self, identifier, name, tries, ack_wait, start)

    def add(self, source: "ClusterQueue") -> None:
        """Close a queue with the others."""
        self._sources.add(source)

    def discard(self, source: "ClusterQueue") -> None:
        """Forget a queue that is closed."""
        self._sources.discard(source)

    async def declare(self, queue: "ClusterQueue") -> str:
        """Have the cluster keep the messages of a queue; return the stream that does.

        Raises:
            ValueError: the queue, or the stream, exists with other settings.
            NotFoundError: JetStream is not enabled.
        """
        is_dead = queue.identifier.name == DEAD
        if is_dead:
            stream, filters = self.dead_stream, [self._dead_filter(queue.identifier)]
            await self._declare_dead()
        else:
            identifier = queue.identifier
            parts = (identifier.namespace, identifier.name, identifier.action)
            stream, filters = self.stream, patterns_of(self._cluster, parts)
            await self._declare_stream(filters, queue.since)
        await self._declare_consumer(queue, stream, filters, is_dead)
        if not is_dead:
            # Another node may have written the subjects of the stream without these meanwhile.
            await self._declare_stream(filters, None)
            until = self.loop.time() + KNOWN_FOR
            self._known.update(dict.fromkeys(filters, until))
        return stream

    def _dead_filter(self, identifier: Identifier) -> str:
        if identifier.namespace not in (None, WILDCARD):
            raise ValueError("dead letters have no namespace: they are 'dead:NAME'")
        if identifier.action == WILDCARD:
            return dead_subjects(self._cluster)
        return self._dead_subject(identifier.action)

    def _dead_subject(self, name: str) -> str:
        return f"{dead_subjects(self._cluster)[:-1]}{escape(name)}"

    async def _declare_stream(self, filters: list[str], since: str | None) -> None:
        for attempt in range(ATTEMPTS):
            info = await self.js.stream(self.stream)
            if info is None:
                with suppress(JetStreamError):
                    await self.js.create_stream(self._stream_config(filters))
                continue
            config = info["config"]
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
            await self.js.update_stream({**config, "subjects": subjects})
            # Another node may do the same; who comes last has to have seen both.
            await asyncio.sleep(0.01 * (attempt + 1))
        raise RPCTimeoutError(
            f"the subjects of the stream {self.stream} change all the time: {filters} could not be "
            "added"
        )

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
            "duplicate_window": _window(settings) * NANOSECONDS,
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

    async def _declare_dead(self) -> None:
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
        if await self.js.stream(self.dead_stream) is None:
            try:
                await self.js.create_stream(config)
            except JetStreamError as error:
                if error.code != STREAM_NAME_IN_USE:
                    raise

    async def _declare_consumer(
        self, queue: "ClusterQueue", stream: str, filters: list[str], is_dead: bool
    ) -> None:
        config: dict[str, Any] = {
            "durable_name": queue.name,
            "ack_policy": "explicit",
            "ack_wait": int(queue.ack_wait * NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": MAX_UNACKNOWLEDGED,
            "filter_subjects": sorted(filters),
            "deliver_policy": "all" if is_dead else "new",
            "metadata": {
                "berrymq.identifier": str(queue.identifier),
                "berrymq.tries": str(queue.tries),
            },
        }
        if queue.since is not None:
            config["deliver_policy"] = "by_start_time"
            config["opt_start_time"] = queue.since
        info = await self.js.consumer(stream, queue.name)
        if info is None:
            try:
                await self.js.create_consumer(stream, config)
                return
            except JetStreamError:
                # Another node may have made it in the meantime.
                info = await self.js.consumer(stream, queue.name)
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

    # -- messages --------------------------------------------------------------------------

    def unpack(self, payload: bytes) -> Unpacked:
        """Read a payload of a stream."""
        batch, messages = self.host.unpack_record(payload)
        for message in messages:
            Identifier(message[0]).require_exportable()
        if not messages or batch.target is not None:
            raise ProtocolError("a record without messages")
        return batch, list(messages)

    async def split(self, batch: Batch, messages: list[tuple[Any, ...]]) -> None:
        """Publish the messages of a batch one by one."""
        waiting = []
        for place, message in enumerate(messages):
            number = batch.first + place
            data, frames = self._codec.pack_large(message)
            payload = self._records.pack(Batch(batch.source, number, 1, data, frames))
            subject = subject_of(self._cluster, Identifier(message[0]))
            waiting.append(self._store(subject, payload, message_id(batch.source, number)))
        await asyncio.gather(*waiting)

    async def bury(self, name: str, delivered: Delivered, error: str | None) -> None:
        """Move a message to the dead letters of a queue."""
        dead = {
            "identifier": str(delivered.identifier),
            "queue": name,
            "tries": delivered.tries - 1,
            "error": error,
        }
        item = (f"{DEAD}:{name}", delivered.args, delivered.kwargs)
        data, frames = self._codec.pack_large(item)
        batch = delivered.batch
        letter = Batch(batch.source, batch.first, 1, data, frames)
        payload = self._records.pack(letter)
        await self._declare_dead()
        sequence = f"{delivered.info.stream}.{name}.{delivered.info.sequence}"
        headers = {"Berrymq-Dead": json.dumps(dead)}
        await self._store(self._dead_subject(name), payload, f"dead.{sequence}", headers)
        logger.warning(
            "durable queue %s: %s was delivered %d times, and is a dead letter now: %s",
            name,
            delivered.identifier,
            delivered.tries - 1,
            error,
        )
        self.host.relay_dead(letter, item, dead)

    async def _store(
        self, subject: str, payload: bytes, identity: str, headers: dict[str, str] | None = None
    ) -> None:
        stored: asyncio.Future[None] = self.loop.create_future()

        def on_stored(error: Exception | None) -> None:
            if stored.done():
                return
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)

        self.host.publisher.publish(subject, payload, identity, on_stored, headers)
        await stored

    # -- the link to the server --------------------------------------------------------------

    def restored(self) -> None:
        """Pull anew: JetStream has forgotten what it was asked for."""
        for source in self._sources:
            source.reset()

    def close(self) -> None:
        """Close all queues of this process."""
        self._is_closed = True
        for source in list(self._sources):
            source.end()

    async def wait_closed(self) -> None:
        """Wait until what the queues still do has ended."""
        await asyncio.gather(*(source.wait_closed() for source in list(self._sources)))
        self._sources.clear()


class ClusterQueue:
    """One open durable queue, as `bus.durable.DurableSource` has it.

    Args:
        queues: of the cluster.
        identifier, name, tries, ack_wait: as for `Queue`.
        since: the time to begin at, as JetStream has it, or ``None``.
    """

    def __init__(
        self,
        queues: ClusterQueues,
        identifier: Identifier,
        name: str,
        tries: int,
        ack_wait: float,
        since: str | None,
    ) -> None:
        self.identifier = identifier
        self.name = name
        self.tries = tries
        self.ack_wait = ack_wait
        self.since = since
        self._queues = queues
        self._stream = ""
        self._consumer: DurableConsumer | None = None
        self._declaring: asyncio.Lock | None = None
        self._is_closed = False

    @property
    def fetched(self) -> int:
        return 0 if self._consumer is None else self._consumer.fetched

    @property
    def waiting(self) -> int:
        return 0 if self._consumer is None else self._consumer.waiting

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._queues.run(coroutine)

    async def ready(self) -> None:
        await self._queues.call(self._ready())

    async def _ready(self) -> DurableConsumer:
        if self._is_closed:
            raise Empty
        if self._consumer is not None:
            return self._consumer
        if self._declaring is None:
            self._declaring = asyncio.Lock()
        queues = self._queues
        async with self._declaring:
            if self._consumer is None:
                self._stream = await queues.declare(self)
                if self._is_closed:
                    raise Empty

                async def give_up(delivered: Delivered, error: str | None) -> None:
                    await queues.bury(self.name, delivered, error)

                self._consumer = DurableConsumer(
                    queues.host.connection,
                    self._stream,
                    self.name,
                    self.tries,
                    self.ack_wait,
                    unpack=queues.unpack,
                    call=queues.call,
                    give_up=give_up,
                    split=queues.split,
                )
                queues.add(self)
            return self._consumer

    async def get(self, block: bool, timeout: float | None) -> Delivered:
        return await self._queues.call(self._get(timeout))

    async def _get(self, timeout: float | None) -> Delivered:
        consumer = await self._ready()
        return await consumer.get(timeout)

    def get_nowait(self) -> Delivered:
        if threading.get_ident() == self._queues._thread:
            return self._get_nowait()

        async def take() -> Delivered:
            return self._get_nowait()

        return self._queues.run(take())

    def _get_nowait(self) -> Delivered:
        if self._consumer is None:
            raise Empty
        return self._consumer.get_nowait()

    async def size(self) -> int:
        return await self._queues.call(self._size())

    async def _size(self) -> int:
        await self._ready()
        info = await self._queues.js.consumer(self._stream, self.name)
        if info is None:
            raise NotFoundError(f"the durable queue {self.name!r} was deleted")
        return int(info.get("num_pending", 0)) + int(info.get("num_ack_pending", 0))

    async def delete(self) -> bool:
        return await self._queues.call(self._delete())

    async def _delete(self) -> bool:
        dead = self.identifier.name == DEAD
        stream = self._queues.dead_stream if dead else self._queues.stream
        return await self._queues.js.delete_consumer(stream, self.name)

    def reset(self) -> None:
        """Pull anew."""
        if self._consumer is not None:
            self._consumer.reset()

    def close(self) -> None:
        if threading.get_ident() == self._queues._thread:
            self.end()
        else:
            with suppress(RuntimeError):
                self._queues.loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Close it, on the loop of the connection."""
        self._is_closed = True
        if self._consumer is not None:
            self._consumer.close()
        if not self._queues._is_closed:
            self._queues.discard(self)

    async def wait_closed(self) -> None:
        """Wait until what it still does has ended."""
        if self._consumer is not None:
            await self._consumer.wait_closed()


def message_id(source: Source, number: int) -> str:
    """By what JetStream recognizes a message that it has."""
    name, epoch = source
    return f"{escape(name)}.{epoch}.{number}"


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
    """JetStream wants it to be no longer than messages are kept."""
    if settings.keep is None:
        return DUPLICATE_WINDOW
    return max(1, min(DUPLICATE_WINDOW, int(settings.keep.total_seconds())))


def _filters(config: Any) -> list[str]:
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


def _closed() -> ServiceClosedError:
    return ServiceClosedError("the node has left the cluster")
