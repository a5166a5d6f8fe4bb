"""The durable queues of a cluster, which the queues of a bus open."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from ...bus.durable import Stored, not_kept
from ...errors import (
    Error,
    OverloadedError,
    ProtocolError,
    ServiceClosedError,
)
from ...identifier import Identifier
from ...nats.connection import Connection
from ...nats.jetstream import (
    JetStream,
    time_text,
)
from ...nats.options import Durable
from ...nats.stored_publisher import StoredPublisher
from ...nats.subject import checked_name, escape
from ...runtime.fork import OwnerProcess
from ...runtime.log import Log
from ..batch import Batch, Source
from ..consumer import checked_ack_wait, checked_tries
from ..message_codec import MessageCodec
from ..record import RecordCodec
from ..subject import subject_of
from ..taken_message import check_no_loop
from .consumer import DurableConsumer, Unpacked
from .dead_letters import DeadLetters
from .delivered import Delivered
from .handover import Handover
from .history import DurableHistory
from .info import DurableQueueInfo
from .kept import KeptSubjects
from .places import Places
from .queue import ClusterQueue
from .report import FillWatch, list_queues
from .streams import SUFFIXES, DurableStreams, QueueSettings

__all__ = ["ClusterQueues", "message_id"]

logger = Log("berrymq_rpc.exchange")

T = TypeVar("T")

#: Messages that are sent and not stored yet, of all senders of this process.
MAX_UNSTORED = 2000


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

    def subject(self, identifier: str) -> str:
        """The subject of messages with an identifier."""

    def unpack_record(self, payload: bytes) -> tuple[Batch, tuple[tuple[Any, ...], ...]]:
        """Read what a node has published.

        Raises:
            ProtocolError: it is malformed.
        """

    def relay_dead(self, batch: Batch, message: tuple[Any, ...], dead: dict[str, Any]) -> None:
        """Publish a dead letter on the bus of this node."""

    def report_filling(self, **about: Any) -> None:
        """Report on the bus of this node that there is little room left."""


class ClusterQueues:
    """The durable queues of a cluster, as `bus.durable.DurableQueues` has them.

    Args:
        cluster: its namespace.
        host: see `DurableHost`.
        settings: how messages are kept; ``None`` for the defaults, or whatever is there already.
        place: the address of NATS.
        codec: of messages, with a translation table for no type.
        own_codec: of the messages of this node.
    """

    def __init__(
        self,
        cluster: str,
        host: DurableHost,
        settings: Durable | None,
        place: str,
        codec: MessageCodec,
        own_codec: MessageCodec,
    ) -> None:
        self.js = JetStream(host.connection, place)
        self.streams = DurableStreams(self.js, cluster, settings)
        self.host = host
        self.loop = host.connection.loop
        self.thread = threading.get_ident()
        self._cluster = cluster
        self._codec = codec
        self._codec_of_own = own_codec
        #: How many messages were to be published later.
        self._later = 0
        self._records = RecordCodec()
        #: Those that were declared. One that its user has forgotten closes itself.
        self._open: weakref.WeakSet[ClusterQueue] = weakref.WeakSet()
        self._fill_watch = FillWatch(self.js, self.streams, host.report_filling)
        self._looking: asyncio.Task[None] | None = None
        self._places = Places(MAX_UNSTORED)
        self._kept = KeptSubjects(host.connection, self.js, self.streams.stream)
        self._letters = DeadLetters(self.js, self.streams, codec, self._store, host.relay_dead)
        self._owner = OwnerProcess("durable queue")
        self._is_closed = False

    # -- event loops and threads -------------------------------------------------------------

    async def call(
        self, coroutine: Coroutine[Any, Any, T], on_unclaimed: Callable[[T], object] | None = None
    ) -> T:
        """Run a coroutine on the loop of the connection, from any loop.

        Args:
            on_unclaimed: called there with a result whose caller was cancelled as it came.
        """
        if asyncio.get_running_loop() is self.loop:
            return await coroutine
        return await self._hand_over(coroutine, on_unclaimed).wait()

    def run(
        self, coroutine: Coroutine[Any, Any, T], on_unclaimed: Callable[[T], object] | None = None
    ) -> T:
        """Run a coroutine on the loop of the connection, from a thread without a loop.

        Args:
            on_unclaimed: called there with a result whose caller was interrupted as it came.
        """
        try:
            check_no_loop("a durable Queue")
        except RuntimeError:
            coroutine.close()
            raise RuntimeError(
                "a durable Queue would block the event loop that runs in this thread: use "
                "AsyncQueue, whose methods are awaited"
            ) from None
        return self._hand_over(coroutine, on_unclaimed).result()

    def _hand_over(
        self, coroutine: Coroutine[Any, Any, T], on_unclaimed: Callable[[T], object] | None
    ) -> Handover[T]:
        try:
            self._owner.check()
        except Error:
            coroutine.close()
            raise
        try:
            return Handover(coroutine, self.loop, on_unclaimed)
        except RuntimeError:
            raise _closed() from None

    # -- publishing ------------------------------------------------------------------------

    async def reserve(self, identifier: Identifier) -> Stored | None:
        subject = self.host.subject(str(identifier))
        if (
            threading.get_ident() == self.thread
            and not self._is_closed
            and self._kept.known.get(subject, 0.0) > self.loop.time()
        ):
            # As mostly: nothing has to be asked for.
            if not self._places.take_now():
                await self._places.take()
        elif not await self.call(self._reserve(subject), self._unreserve):
            return None
        return Stored(self._release)

    async def _reserve(self, subject: str) -> bool:
        if self._is_closed:
            return False
        if not await self._kept.has(subject):
            return False
        await self._places.take()
        return True

    def _unreserve(self, has_place: bool) -> None:
        if has_place:
            self._places.release()

    def _release(self) -> None:
        if threading.get_ident() == self.thread:
            self._released()
        else:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._released)

    def _released(self) -> None:
        self._places.release()
        self.look()

    def look(self) -> None:
        """See whether the stream is nearly full, if that was not seen just now."""
        if (
            not self._is_closed
            and self._looking is None
            and self._fill_watch.is_due(self.loop.time())
        ):
            self._looking = self.loop.create_task(self._look(), name="durable queues: how full")

    async def _look(self) -> None:
        try:
            await self._fill_watch.look(self.loop.time())
        except (Error, OSError) as error:
            logger.debug("durable queues: how full they are is not known: %r", error)
        finally:
            self._looking = None

    # -- declaring -------------------------------------------------------------------------

    def open(
        self,
        identifier: Identifier,
        name: str,
        tries: int,
        ack_wait: float,
        since: datetime | None,
    ) -> ClusterQueue:
        if self._is_closed:
            raise _closed()
        checked_name(name, "a durable queue")
        if self._cluster.endswith(SUFFIXES):
            raise ValueError(
                f"the namespace {self._cluster!r} can have no durable queues: a name with "
                f"{' or '.join(SUFFIXES)} at its end is that of another namespace's stream"
            )
        seconds = checked_ack_wait(ack_wait)
        if checked_tries(tries) is None or seconds is None:
            raise ValueError("tries= and ack_wait= of a durable queue are numbers, not None")
        if since is not None and not isinstance(since, datetime):
            raise TypeError(f"since is a datetime with a time zone, not {since!r}")
        start = None if since is None else time_text(since)
        return ClusterQueue(self, QueueSettings(identifier, name, tries, seconds, start))

    def add(self, queue: ClusterQueue) -> None:
        self._open.add(queue)

    def discard(self, queue: ClusterQueue) -> None:
        if not self._is_closed:
            self._open.discard(queue)

    async def declare(self, settings: QueueSettings) -> None:
        filters = await self.streams.declare(settings)
        if not settings.is_of_dead:
            self._kept.note(filters)

    def forget_kept(self) -> None:
        self._kept.forget()

    def stream_of(self, settings: QueueSettings) -> str:
        return self.streams.stream_of(settings)

    def consume(self, settings: QueueSettings) -> DurableConsumer:
        async def give_up(delivered: Delivered, tries: int, error: str | None) -> None:
            if not settings.is_of_dead:
                await self._letters.write(settings.name, delivered, tries, error)
                return
            # It stays one of its own queue, for whoever replays that.
            logger.warning(
                "durable queue %s: a dead letter, %s, was delivered %d times and is not any more: "
                "%s",
                settings.name,
                delivered.identifier,
                tries,
                error,
            )

        async def exists() -> bool:
            stream = self.stream_of(settings)
            return await self.js.consumer(stream, settings.name) is not None

        return DurableConsumer(
            self.host.connection,
            self.stream_of(settings),
            settings.name,
            settings.tries,
            settings.ack_wait,
            unpack=self.unpack,
            call=self.call,
            exists=exists,
            give_up=give_up,
            split=self.split,
            on_check=self.look,
        )

    # -- messages --------------------------------------------------------------------------

    def unpack(self, payload: bytes) -> Unpacked:
        """Read a payload of a stream."""
        batch, messages = self.host.unpack_record(payload)
        if len(messages) > 1:
            # The identifier of a single one is checked as it is delivered.
            for message in messages:
                Identifier(message[0]).require_exportable()
        if not messages or batch.target is not None:
            raise ProtocolError("a record without messages")
        return batch, list(messages)

    async def split(self, batch: Batch, messages: list[tuple[Any, ...]]) -> list[int]:
        """Publish the messages of a batch one by one; the places of those without room."""
        waiting = []
        for place, message in enumerate(messages):
            number = batch.first + place
            data, frames = self._codec.pack_large(message)
            payload = self._records.pack(Batch(batch.source, number, 1, data, frames))
            subject = subject_of(self._cluster, Identifier(message[0]))
            waiting.append(self._store(subject, payload, message_id(batch.source, number)))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None and not isinstance(outcome, OverloadedError):
                raise outcome
        return [place for place, outcome in enumerate(outcomes) if outcome is not None]

    async def infos(self) -> list[DurableQueueInfo]:
        """All durable queues of the cluster."""
        return await self.call(list_queues(self.js, self.streams))

    def history(self, since: datetime | int) -> DurableHistory:
        """What is kept, from a time or a number on."""
        return DurableHistory(self, self.streams.stream, f"the cluster {self._cluster}", since)

    async def delete(self, name: str) -> bool:
        """Delete a durable queue; return whether it was there."""
        checked_name(name, "a durable queue")
        return await self.call(self._delete(name))

    async def _delete(self, name: str) -> bool:
        self._kept.forget()
        deleted = False
        for stream in (self.streams.stream, self.streams.dead_stream):
            deleted |= await self.js.delete_consumer(stream, name)
        return deleted

    async def publish_later(
        self, when: datetime, identifier: Identifier, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Have the durable queues get a message at a time."""
        data, frames = self._codec_of_own.pack_large((str(identifier), args, kwargs))
        await self.call(self._publish_later(when, identifier, data, frames))

    async def _publish_later(
        self, when: datetime, identifier: Identifier, data: bytes, frames: list[bytes]
    ) -> None:
        if not await self._kept.has(self.host.subject(str(identifier))):
            raise not_kept(identifier)
        await self.streams.declare_later()
        self._later += 1
        payload = self._records.pack(Batch(self.host.source, self._later, 1, data, frames))
        identity = f"later.{message_id(self.host.source, self._later)}"
        headers = self.streams.later_headers(identifier, when)
        await self._store(self.streams.later_subject(identity), payload, identity, headers)

    async def replay(self, name: str) -> int:
        """Send the dead letters of a queue again; return how many there were."""
        checked_name(name, "a durable queue")
        return await self.call(self._letters.replay(name, self.unpack, self._store_again))

    async def _store_again(
        self, identifier: Identifier, batch: Batch, item: tuple[Any, ...], identity: str
    ) -> None:
        subject = subject_of(self._cluster, identifier)
        if not await self._kept.has(subject):
            raise not_kept(identifier)
        data, frames = self._codec.pack_large(item)
        payload = self._records.pack(Batch(batch.source, batch.first, 1, data, frames))
        await self._store(subject, payload, identity)

    async def _store(
        self,
        subject: str,
        payload: bytes,
        identity: str,
        headers: Mapping[str, str] | None = None,
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
        for queue in list(self._open):
            queue.reset()

    def close(self) -> None:
        """Close all queues of this process."""
        self._is_closed = True
        self._kept.close()
        for queue in list(self._open):
            queue.end()

    async def wait_closed(self) -> None:
        """Wait until what the queues still do has ended."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
        await self._kept.wait_closed()
        await asyncio.gather(*(queue.wait_closed() for queue in list(self._open)))
        self._open.clear()


def message_id(source: Source, number: int) -> str:
    """By what JetStream recognizes a message that it has."""
    return f"{_id_prefix(source)}.{number}"


@lru_cache(1000)
def _id_prefix(source: Source) -> str:
    name, epoch = source
    return f"{escape(name)}.{epoch}"


def _closed() -> ServiceClosedError:
    return ServiceClosedError("the node has left the cluster: its durable queues are closed")
