"""JetStream: the requests that declare streams and consumers, and what publishes and pulls mean.

These are calls of our own over `Connection`, as those of nats-py have a queue and a task for each
subscription, and stall (``fetch`` after an empty one).
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..errors import ConnectionLostError, Error, NotFoundError, OverloadedError, ProtocolError
from .connection import Connection
from .headers import pack_headers

__all__ = [
    "NANOSECONDS",
    "NO_ROOM",
    "WRONG_SEQUENCE",
    "Delivery",
    "JetStream",
    "JetStreamError",
    "PubAck",
    "covers",
    "is_usual_ack",
    "parse_ack",
    "parse_delivery",
    "time_text",
    "union",
]

#: In a second: JetStream's durations are whole numbers of these.
NANOSECONDS = 1_000_000_000

#: Seconds that JetStream has to answer. In a cluster, a stream's leader may have to be found.
TIMEOUT = 5.0

#: Seconds for which a question is asked again. Servers of a cluster answer none while they elect a
#: leader, which takes 4 to 9 s; and after the end of one they may have to elect two in turn.
ELECTIONS = 20.0

#: Requests that change nothing, and may be made again.
QUESTIONS = ("STREAM.INFO.", "STREAM.NAMES", "STREAM.MSG.GET.", "CONSUMER.INFO.", "CONSUMER.LIST.")

#: Consumers of one answer; there may be more of them.
PAGE = 256

#: JetStream's own numbers of errors.
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
WRONG_SEQUENCE = 10071
STORE_FAILED = 10077
NOT_ENABLED = (10039, 10076)

#: There is no room: of the account, of the server for all streams, in files and in memory.
NO_ROOM = (10002, 10023, 10028, 10047)

#: What an error calls a publish, which is no request to the API.
PUBLISH = "publish"

#: What the reason of `STORE_FAILED` begins with where the stream itself is full. Others, such as a
#: store that is closed as the server stops, pass.
FULL = "maximum "

#: It passes: there is no leader now, or the one before has a message with that id in hand.
PASSING = (10007, 10008, 10009, 10158)


class JetStreamError(Error):
    """JetStream refused a request.

    Attributes:
        code: JetStream's own number of the error, such as 10065.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class PubAck(NamedTuple):
    """JetStream's word that it has a message.

    Args:
        stream: which has it.
        sequence: the message's number there.
        duplicate: whether it had a message with this id already.
    """

    stream: str
    sequence: int
    duplicate: bool


class Delivery(NamedTuple):
    """What the reply subject of a message says that a consumer got.

    Args:
        stream, consumer: whose it is.
        tries: how often it was delivered, this time included.
        sequence: its number in the stream.
    """

    stream: str
    consumer: str
    tries: int
    sequence: int


def parse_delivery(reply: str) -> Delivery:
    """Read the reply subject of a message of a consumer.

    Raises:
        ProtocolError: it is none.
    """
    tokens = reply.split(".")
    try:
        if not reply.startswith("$JS.ACK.") or len(tokens) < 9:
            raise ValueError("it does not begin with $JS.ACK")
        # A newer form has the domain and a hash of the account before the stream.
        at = 2 if len(tokens) == 9 else 4
        stream, consumer, tries, sequence = tokens[at : at + 4]
        # Half the time of `Delivery(...)`.
        return tuple.__new__(Delivery, (stream, consumer, int(tries), int(sequence)))
    except ValueError as error:
        raise ProtocolError(f"not a message of a consumer: {error}") from None


#: JetStream's usual answer to a publish, which says nothing else than where the message is.
_USUAL_ACK = re.compile(rb'\{"stream": ?"[A-Za-z0-9_-]+", ?"seq": ?[1-9][0-9]*\}')


def is_usual_ack(payload: bytes) -> bool:
    """Whether an answer to a publish says that it is stored, in the way in which nearly all do.

    If not, `parse_ack` finds out what it says.
    """
    return _USUAL_ACK.fullmatch(payload) is not None


def parse_ack(payload: bytes) -> PubAck:
    """Read the answer to a publish.

    Raises:
        OverloadedError: the stream is full.
        ConnectionLostError: JetStream cannot take it now; it may have it.
        JetStreamError: it was refused for another reason.
        ProtocolError: the answer is malformed.
    """
    answer = _parsed(payload)
    _raise_error(answer, PUBLISH)
    stream, sequence = answer.get("stream"), answer.get("seq")
    if not isinstance(stream, str) or not isinstance(sequence, int):
        raise ProtocolError("JetStream's answer to a publish is malformed")
    return PubAck(stream, sequence, bool(answer.get("duplicate")))


class JetStream:
    """Requests to JetStream. All raise what `request` raises.

    Args:
        connection: to NATS.
        place: the address of NATS, for errors.
    """

    def __init__(self, connection: Connection, place: str) -> None:
        self._connection = connection
        self._place = place

    @property
    def server_version(self) -> tuple[int, ...]:
        """The version of the NATS server, such as ``(2, 12, 1)``; empty if it is not known."""
        text = str(self._connection.server_info.get("version"))
        numbers = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", text)
        return tuple(map(int, numbers.groups())) if numbers else ()

    async def request(self, name: str, body: object = None) -> dict[str, Any]:
        """Ask JetStream; what changes nothing is asked again while there is no answer.

        Args:
            name: what comes after ``$JS.API.``.
            body: what is sent, as JSON; ``None`` for nothing.

        Raises:
            NotFoundError: JetStream is not enabled there.
            OverloadedError: there is no room for it.
            JetStreamError: it refuses the request.
            AuthenticationError: this side may not ask that.
            ConnectionLostError: there is no connection, no answer in time, or no leader now.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        loop = self._connection.loop
        began = loop.time()
        while True:
            try:
                reply = await self._connection.request(f"$JS.API.{name}", payload, timeout=TIMEOUT)
            except NotFoundError:
                raise not_enabled(self._place) from None
            except TimeoutError:
                waited = loop.time() - began
                if name.startswith(QUESTIONS) and waited < ELECTIONS:
                    continue
                raise ConnectionLostError(
                    f"JetStream at {self._place} did not answer {name} within {waited:.3g} s"
                ) from None
            break
        answer = _parsed(reply.payload)
        error = answer.get("error")
        if isinstance(error, dict) and error.get("err_code") in NOT_ENABLED:
            raise not_enabled(self._place)
        _raise_error(answer, name)
        return answer

    async def stream(self, name: str) -> dict[str, Any] | None:
        """The configuration and state of a stream; ``None`` if there is none of that name."""
        return await self._found(f"STREAM.INFO.{name}", STREAM_NOT_FOUND)

    async def create_stream(self, config: dict[str, Any]) -> None:
        """Make a stream; one with exactly this configuration may be there already."""
        await self.request(f"STREAM.CREATE.{config['name']}", config)

    async def update_stream(self, config: dict[str, Any]) -> None:
        """Change a stream."""
        await self.request(f"STREAM.UPDATE.{config['name']}", config)

    async def keeps(self, stream: str, subject: str) -> bool:
        """Whether a stream has a subject among its own."""
        answer = await self.request("STREAM.NAMES", {"subject": subject})
        return stream in (answer.get("streams") or ())

    async def consumer(self, stream: str, name: str) -> dict[str, Any] | None:
        """The configuration and state of a consumer; ``None`` if there is none of that name."""
        return await self._found(
            f"CONSUMER.INFO.{stream}.{name}", CONSUMER_NOT_FOUND, STREAM_NOT_FOUND
        )

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """All consumers of a stream; none if there is no such stream.

        Raises:
            ConnectionLostError: as for `request`; or some have no leader, so that nothing is known
                of them: the server that led them was killed, and the others elect another.
        """
        found: list[dict[str, Any]] = []
        while True:
            page = await self._found(
                f"CONSUMER.LIST.{stream}", STREAM_NOT_FOUND, body={"offset": len(found)}
            )
            missing = [] if page is None else page.get("missing")
            if isinstance(missing, list) and missing:
                names = ", ".join(map(repr, missing[:3]))
                raise ConnectionLostError(
                    f"JetStream at {self._place} knows nothing of {len(missing)} queues, whose "
                    f"servers do not answer it: {names}"
                )
            consumers = [] if page is None else page.get("consumers") or []
            found += [each for each in consumers if isinstance(each, dict)]
            if len(consumers) < PAGE:
                return found

    async def create_consumer(self, stream: str, config: dict[str, Any]) -> None:
        """Make a consumer; one with exactly this configuration may be there already."""
        body = {"stream_name": stream, "config": config, "action": "create"}
        await self.request(f"CONSUMER.CREATE.{stream}.{config['durable_name']}", body)

    async def delete_consumer(self, stream: str, name: str) -> bool:
        """Delete a consumer; return whether it was there."""
        answer = await self._found(
            f"CONSUMER.DELETE.{stream}.{name}", CONSUMER_NOT_FOUND, STREAM_NOT_FOUND
        )
        return answer is not None

    async def message(self, stream: str, sequence: int, subject: str) -> dict[str, Any] | None:
        """The first message on a subject from a number on; ``None`` if there is none."""
        body = {"seq": sequence, "next_by_subj": subject}
        answer = await self._found(
            f"STREAM.MSG.GET.{stream}", MESSAGE_NOT_FOUND, STREAM_NOT_FOUND, body=body
        )
        found = None if answer is None else answer.get("message")
        return found if isinstance(found, dict) else None

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> PubAck:
        """Store a message, once, and wait until it is stored.

        Raises:
            TooLargeError: it is larger than the server takes.
            Exception: as `parse_ack` and `request` do. After a `ConnectionLostError` it may be
                stored.
        """
        packed = pack_headers(headers)
        try:
            reply = await self._connection.request(
                subject, payload, timeout=TIMEOUT, headers=packed
            )
        except NotFoundError:
            raise not_enabled(self._place) from None
        except TimeoutError:
            raise ConnectionLostError(
                f"JetStream at {self._place} did not answer a publish within {TIMEOUT:g} s"
            ) from None
        return parse_ack(reply.payload)

    async def last_message(self, stream: str, subject: str) -> dict[str, Any] | None:
        """The last message on a subject; ``None`` if there is none."""
        answer = await self._found(
            f"STREAM.MSG.GET.{stream}",
            MESSAGE_NOT_FOUND,
            STREAM_NOT_FOUND,
            body={"last_by_subj": subject},
        )
        found = None if answer is None else answer.get("message")
        return found if isinstance(found, dict) else None

    async def purge(self, stream: str, subject: str, sequence: int) -> None:
        """Delete the messages on subjects of a pattern, those before a number."""
        body = {"filter": subject, "seq": sequence}
        await self.request(f"STREAM.PURGE.{stream}", body)

    async def create_push_consumer(self, stream: str, config: dict[str, Any]) -> int:
        """Make a consumer that is gone when nobody listens; return how many messages come."""
        body = {"stream_name": stream, "config": config, "action": "create"}
        answer = await self.request(f"CONSUMER.CREATE.{stream}.{config['name']}", body)
        waiting = answer.get("num_pending")
        if not isinstance(waiting, int):
            raise ProtocolError("JetStream's answer about a consumer is malformed")
        return waiting

    async def delete_message(self, stream: str, sequence: int) -> None:
        """Delete a message by its number."""
        body = {"seq": sequence, "no_erase": True}
        await self.request(f"STREAM.MSG.DELETE.{stream}", body)

    async def _found(self, name: str, *missing: int, body: object = None) -> dict[str, Any] | None:
        try:
            return await self.request(name, body)
        except JetStreamError as error:
            if error.code in missing:
                return None
            raise


def not_enabled(place: str) -> NotFoundError:
    """The error of a server without JetStream."""
    return NotFoundError(
        f"JetStream is not enabled at {place}, so there are no durable queues: start nats-server "
        "with -js"
    )


def time_text(when: datetime) -> str:
    """A time as JetStream has it.

    Raises:
        ValueError: it has no time zone.
    """
    if when.tzinfo is None:
        raise ValueError(f"the time {when} has no time zone: write datetime(..., tzinfo=UTC)")
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def covers(pattern: str, subject: str) -> bool:
    """Whether a pattern matches all that a subject or another pattern does. None has a ``>``."""
    wide, narrow = pattern.split("."), subject.split(".")
    return len(wide) == len(narrow) and all(
        w in ("*", n) for w, n in zip(wide, narrow, strict=True)
    )


def union(patterns: Sequence[str]) -> list[str]:
    """The fewest patterns that match what these match, and do not overlap, as a stream wants it.

    Two that overlap in part become the narrowest pattern over both.
    """
    found: list[str] = []
    for pattern in patterns:
        joined = pattern
        while True:
            overlapping = [other for other in found if _overlap(joined, other)]
            if not overlapping:
                break
            found = [other for other in found if other not in overlapping]
            for other in overlapping:
                joined = _over_both(joined, other)
        found.append(joined)
    return sorted(found)


def _overlap(one: str, other: str) -> bool:
    tokens, others = one.split("."), other.split(".")
    return len(tokens) == len(others) and all(
        a == b or "*" in (a, b) for a, b in zip(tokens, others, strict=True)
    )


def _over_both(one: str, other: str) -> str:
    tokens = zip(one.split("."), other.split("."), strict=True)
    return ".".join(a if a == b else "*" for a, b in tokens)


def _parsed(payload: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(payload)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ProtocolError("JetStream's answer is malformed")
    return answer


def _raise_error(answer: dict[str, Any], name: str) -> None:
    error = answer.get("error")
    if error is None:
        return
    if not isinstance(error, dict):
        raise ProtocolError("JetStream's answer is malformed")
    code = error.get("err_code")
    number = code if isinstance(code, int) else 0
    text = str(error.get("description", "no reason is given"))[:300]
    is_full = number == STORE_FAILED and text.startswith(FULL)
    if is_full or (name == PUBLISH and number in NO_ROOM):
        raise OverloadedError(
            f"the stream of durable queues is full ({text}): start more consumers, or give it "
            "Durable(max_bytes=...)"
        )
    if number in PASSING or number == STORE_FAILED:
        raise ConnectionLostError(f"JetStream cannot take {name} now: {text} (error {number})")
    raise JetStreamError(f"JetStream refuses {name}: {text} (error {number})", number)
