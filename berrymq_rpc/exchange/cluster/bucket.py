"""The bucket: what a cluster retains, in a stream of JetStream that keeps the last of each subject.

A message is a record as others are, of one message, and the header `STAMP` says when it was
retained. What was forgotten has a subject of its own, with the identifier as text.
"""

import asyncio
import itertools
from base64 import b64decode
from collections.abc import Callable
from typing import Any, NamedTuple

from ...bus.retained_store import NEVER, Forgotten, Kept, Stamp
from ...errors import ConnectionLostError, ProtocolError
from ...identifier import Identifier
from ...nats.connection import Connection
from ...nats.headers import parse_headers
from ...nats.jetstream import (
    NANOSECONDS,
    WRONG_SEQUENCE,
    JetStream,
    JetStreamError,
    parse_delivery,
)
from ...nats.options import Durable
from ..batch import Batch
from ..message_codec import MessageCodec
from ..record import RecordCodec
from ..subject import covered_patterns, retained_subject, retained_subjects

__all__ = ["STAMP_BYTES", "RetainedBucket", "Stored", "stamp_headers", "stamp_of"]

#: The header that says when a message was retained: microseconds since 1970, and a number.
STAMP = "Berrymq-Retained"

#: Bytes that this header takes, at most.
STAMP_BYTES = 100

#: Tells JetStream not to store a message if another one came before it.
EXPECTED = "Nats-Expected-Last-Subject-Sequence"

#: Bytes of the stream, if `Durable` does not say fewer. Over it, the oldest are dropped.
MAX_BYTES = 256 << 20

#: Seconds without a message in which a fetch fails, and after which its consumer is gone.
PATIENCE = 5.0


class Stored(NamedTuple):
    """A message of the bucket.

    Args:
        identifier, args, kwargs: the message.
        origin: the name of the node that it comes from.
        stamp: when it was retained.
        sequence: its number in the stream.
    """

    identifier: Identifier
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    origin: str
    stamp: Stamp
    sequence: int


def stamp_headers(stamp: Stamp) -> dict[str, str]:
    """The headers of a message that is retained."""
    return {STAMP: f"{stamp[0]}.{stamp[1]}"}


def stamp_of(headers: bytes) -> Stamp | None:
    """The stamp in the headers of a message, if there is one."""
    when, dot, number = parse_headers(headers).get(STAMP.lower(), "").partition(".")
    if not dot or not (when + number).isdecimal() or len(when) + len(number) > 40:
        return None
    return int(when), int(number)


class RetainedBucket:
    """What is asked of the stream. All raise what `JetStream.request` does.

    Args:
        js: JetStream.
        connection: to NATS.
        cluster: the namespace of the cluster.
        settings: how messages are kept; ``None`` for the defaults.
        codec: of the messages.
        name: the node's, the origin of its own messages.

    Attributes:
        stream: the name of the stream.
    """

    def __init__(
        self,
        js: JetStream,
        connection: Connection,
        cluster: str,
        settings: Durable | None,
        codec: MessageCodec,
        name: str,
    ) -> None:
        self.stream = f"BERRYMQ_{cluster}_RETAINED"
        self._js = js
        self._connection = connection
        self._cluster = cluster
        self._settings = Durable() if settings is None else settings
        self._codec = codec
        self._name = name
        self._records = RecordCodec()
        self._numbers = itertools.count()

    async def created(self) -> str | None:
        """When the stream was made, as JetStream says it; ``None`` if there is none."""
        info = await self._js.stream(self.stream)
        return None if info is None else str(info.get("created"))

    async def declare(self) -> str | None:
        """Make the stream if there is none. Returns what `created` does."""
        if (created := await self.created()) is not None:
            return created
        config = {
            "name": self.stream,
            "subjects": [
                retained_subjects(self._cluster, kind) for kind in ("message", "forgotten")
            ],
            "retention": "limits",
            "max_msgs_per_subject": 1,
            "max_bytes": min(MAX_BYTES, self._settings.max_bytes),
            "num_replicas": self._settings.replicas,
            "storage": "file",
            "discard": "old",
        }
        try:
            await self._js.create_stream(config)
        except JetStreamError:
            # Another node may have made it in the meantime, with other settings.
            if (created := await self.created()) is not None:
                return created
            raise
        return await self.created()

    def subject(self, identifier: Identifier) -> str:
        """Where messages of an identifier are retained."""
        return retained_subject(self._cluster, "message", identifier)

    def pack(self, kept: Kept) -> bytes:
        """Pack a message.

        Raises:
            TypeError, ValueError, TooLargeError: it cannot be packed.
        """
        message = kept.message
        item = (str(kept.identifier), message.args, message.kwargs)
        data, frames = self._codec.pack_one(item)
        origin = message.origin if type(message.origin) is str else self._name
        return self._records.pack(Batch((origin, 0), 1, 1, data, frames))

    async def put(self, kept: Kept, payload: bytes, expected: int) -> int | None:
        """Store a message if the last one on its subject has the number that is expected.

        Returns:
            Its number; ``None`` if another one is there.

        Raises:
            TooLargeError: it is larger than the server takes.
        """
        headers = {**stamp_headers(kept.stamp), EXPECTED: str(expected)}
        try:
            ack = await self._js.publish(self.subject(kept.identifier), payload, headers)
        except JetStreamError as error:
            if error.code == WRONG_SEQUENCE:
                return None
            raise
        return ack.sequence

    async def get(self, identifier: Identifier) -> Stored | None:
        """What is stored of an identifier; what is malformed there is older than all else."""
        subject = self.subject(identifier)
        message = await self._js.last_message(self.stream, subject)
        if message is None:
            return None
        sequence = message.get("seq")
        number = sequence if isinstance(sequence, int) else 0
        try:
            payload = b64decode(message.get("data") or "", validate=True)
            headers = b64decode(message.get("hdrs") or "", validate=True)
            return self.parse(subject, payload, headers, number)
        except (TypeError, ValueError, ProtocolError):
            return Stored(identifier, (), {}, self._name, NEVER, number)

    async def forget(self, forgotten: Forgotten) -> None:
        """Store that messages were forgotten, and delete them."""
        identifier, stamp = forgotten
        subject = retained_subject(self._cluster, "forgotten", identifier)
        payload = str(identifier).encode()
        ack = await self._js.publish(subject, payload, stamp_headers(stamp))
        for pattern in covered_patterns(self._cluster, identifier):
            await self._js.purge(self.stream, pattern, ack.sequence)

    async def fetch(
        self, patterns: list[str], take: Callable[[str, bytes, bytes, int], object]
    ) -> None:
        """Have the last message of each subject handed over that one of some patterns matches.

        Args:
            take: called in the read with subject, payload, headers and number; it must not raise.
        """
        taken = 0
        progress = asyncio.Event()

        def receive(subject: str, reply: str, payload: bytes, headers: bytes) -> None:
            nonlocal taken
            try:
                sequence = parse_delivery(reply).sequence
            except ProtocolError:
                # A word of JetStream itself.
                return
            taken += 1
            progress.set()
            take(subject, payload, headers, sequence)

        name = f"retained-{next(self._numbers)}-{self._connection.inbox.rpartition('.')[2]}"
        inbox = f"{self._connection.inbox}.k.{name}"
        subscription = self._connection.subscribe(inbox, receive)
        config = {
            "name": name,
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "filter_subjects": patterns,
            "deliver_subject": inbox,
            "inactive_threshold": int(PATIENCE * NANOSECONDS),
            "mem_storage": True,
            "num_replicas": 1,
        }
        try:
            waiting = await self._js.create_push_consumer(self.stream, config)
            while taken < waiting:
                progress.clear()
                async with asyncio.timeout(PATIENCE):
                    await progress.wait()
        except TimeoutError:
            raise ConnectionLostError(
                f"JetStream has sent {taken:,} of {waiting:,} messages of {self.stream}"
            ) from None
        finally:
            self._connection.unsubscribe(subscription)

    def parse(self, subject: str, payload: bytes, headers: bytes, sequence: int) -> Stored:
        """Read a message of the bucket.

        Raises:
            ProtocolError: it is malformed, or is not about its subject.
        """
        batch = self._records.parse(payload).batch
        self._codec.check_size(batch)
        stamp = stamp_of(headers)
        (message,) = self._codec.unpack(batch)
        try:
            identifier = Identifier(message[0]).require_exportable()
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        if stamp is None or self.subject(identifier) != subject:
            raise ProtocolError(f"a retained message that is not about {subject}")
        kwargs = message[2] if len(message) > 2 else {}
        return Stored(identifier, message[1], kwargs, batch.source[0], stamp, sequence)

    def parse_forgotten(self, subject: str, payload: bytes, headers: bytes) -> Forgotten:
        """Read what was forgotten; raises as `parse`."""
        stamp = stamp_of(headers)
        try:
            identifier = Identifier(payload.decode()).require_exportable()
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        if stamp is None or retained_subject(self._cluster, "forgotten", identifier) != subject:
            raise ProtocolError(f"what was forgotten is not about {subject}")
        return Forgotten(identifier, stamp)
