"""Dead letters: the messages that durable queues have given up, and how they are sent again."""

import json
from base64 import b64decode
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from ...errors import NotFoundError, ProtocolError, TooLargeError
from ...identifier import Identifier
from ...nats.headers import parse_headers
from ...nats.jetstream import JetStream
from ...runtime.log import Log
from ..batch import Batch
from ..message_codec import MessageCodec
from ..record import RecordCodec
from .delivered import Delivered
from .streams import DEAD, DurableStreams

__all__ = ["DeadLetters", "Store", "dead_of", "room_of_letter"]

logger = Log("berrymq_rpc.exchange")

#: The name of the header with what became of a dead letter.
HEADER = "Berrymq-Dead"

#: Bytes of the headers of a dead letter, at most: names of 64 characters, and numbers; and of each
#: character of its identifier.
LETTER_BYTES = 512
ESCAPED_BYTES = 12


class Store(Protocol):
    """Publishes a payload with an id, until it is stored."""

    async def __call__(
        self,
        subject: str,
        payload: bytes,
        identity: str,
        headers: Mapping[str, str] | None = None,
    ) -> None: ...


class DeadLetters:
    """Writes the dead letters of this process's queues.

    Args:
        js, streams: JetStream, and the streams of the cluster.
        codec: of messages, with a translation table for no type.
        store: publishes them.
        relay: publishes one on the bus of this node.
    """

    def __init__(
        self,
        js: JetStream,
        streams: DurableStreams,
        codec: MessageCodec,
        store: Store,
        relay: Callable[[Batch, tuple[Any, ...], dict[str, Any]], None],
    ) -> None:
        self._js = js
        self._streams = streams
        self._codec = codec
        self._records = RecordCodec()
        self._store = store
        self._relay = relay

    async def write(self, queue: str, delivered: Delivered, tries: int, error: str | None) -> None:
        """Keep a message as a dead letter, for 30 days.

        Args:
            queue: the name of the queue that has given it up.
            tries: how often that delivered it.
            error: what its last consumer raised.
        """
        batch, info = delivered.batch, delivered.info
        dead = {
            "identifier": str(delivered.identifier),
            "queue": queue,
            "tries": tries,
            "error": error,
        }
        item = (f"{DEAD}:{queue}", delivered.args, delivered.kwargs)
        data, frames = self._codec.pack_large(item)
        letter = Batch(batch.source, batch.first, 1, data, frames)
        payload = self._records.pack(letter)
        await self._streams.declare_dead()
        subject = self._streams.dead_subject(queue)
        sequence, place = delivered.key
        identity = f"dead.{info.stream}.{queue}.{sequence}.{place}"
        try:
            await self._store(subject, payload, identity, {HEADER: json.dumps(dead)})
        except TooLargeError:
            # It was just small enough without that.
            dead["error"] = None
            await self._store(subject, payload, identity, {HEADER: json.dumps(dead)})
        logger.warning(
            "durable queue %s: %s was delivered %d times, and is a dead letter now: %s",
            queue,
            delivered.identifier,
            tries,
            error,
        )
        self._relay(letter, item, dead)

    async def replay(
        self,
        queue: str,
        unpack: Callable[[bytes], tuple[Batch, list[tuple[Any, ...]]]],
        send: Callable[[Identifier, Batch, tuple[Any, ...], str], Coroutine[Any, Any, None]],
    ) -> int:
        """Send the dead letters of a queue again, to its and all other queues that keep them.

        Those that were sent are dead letters no more. One that dies again meanwhile is left.

        Args:
            queue: its name.
            unpack: reads a payload.
            send: publishes a message with an id until it is stored.

        Returns:
            How many there were.

        Raises:
            NotFoundError: no durable queue keeps such a message any more.
            Exception: as `JetStream.request` does.
        """
        stream = self._streams.dead_stream
        info = await self._js.stream(stream)
        last = 0 if info is None else int(info["state"].get("last_seq", 0))
        subject = self._streams.dead_subject(queue)
        count = sequence = 0
        while sequence < last:
            found = await self._js.message(stream, sequence + 1, subject)
            if found is None:
                break
            sequence = int(found["seq"])
            if sequence > last:
                break
            try:
                batch, (message, *_) = unpack(b64decode(found.get("data", "")))
                dead = dead_of(b64decode(found.get("hdrs", ""))) or {}
                identifier = Identifier(dead.get("identifier", "")).require_exportable()
            except (ProtocolError, ValueError, TypeError) as error:
                logger.warning("a dead letter of %s is malformed: %.200s", queue, error)
                continue
            item = (str(identifier), *message[1:])
            try:
                await send(identifier, batch, item, f"replay.{stream}.{sequence}")
            except NotFoundError:
                raise NotFoundError(
                    f"no durable queue keeps {str(identifier)!r} any more: {count} dead letters "
                    "were sent before"
                ) from None
            await self._js.delete_message(stream, sequence)
            count += 1
        return count


def room_of_letter(identifier: str) -> int:
    """Bytes by which a dead letter without an error is larger than the message, at most."""
    return LETTER_BYTES + ESCAPED_BYTES * len(identifier)


def dead_of(headers: bytes) -> dict[str, Any] | None:
    """What became of a dead letter, from its headers."""
    if HEADER.encode() not in headers:
        return None
    text = parse_headers(headers).get(HEADER.lower(), "")
    try:
        dead = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return dead if isinstance(dead, dict) else None
