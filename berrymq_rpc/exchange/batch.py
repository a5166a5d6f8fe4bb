"""Batches: consecutive messages of one node, packed once, with the envelope that they travel in.

The envelope says where they come from::

    {"origin": the name of the node on whose bus they were sent, "epoch": when it started, in
     microseconds since 1970, "seq": the number of the first, "count": how many}

The numbers of an origin's messages begin with 1 in each epoch and increase by one. The answers of
``talk`` are numbered separately, and have two more elements: ``"to"``, the name and epoch of the
node that asked, and ``"error"``, if a receiver failed. Where the receiver may not get the messages
before these, ``"withheld"`` is how many. A message that the bus of its origin has retained travels
alone, with ``"retained"``: when that was, as `retained_batch` says. A single message, and an
answer, may have ``"trace"``: the context of its sender, as W3C's headers have it.

An envelope with ``"presence"`` is about whether a node is there, and `PresenceBatch` has what it
says; its number is not one of the messages.

The messages are an array in msgpack of ``[identifier, args[, kwargs[, reply_to]]]``. Where bytes
cannot travel, as in JSON, they and the long byte strings are text in base64.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..common.tracing import TRACE_FIELDS, Carrier

if TYPE_CHECKING:
    from ..bus.durable import Stored
    from ..bus.retained_store import Stamp

__all__ = [
    "MAX_COUNT",
    "MAX_DELAY",
    "MAX_NAME_LENGTH",
    "MAX_NUMBER",
    "Batch",
    "Presence",
    "PresenceBatch",
    "Source",
    "checked_name",
    "packed_parts",
    "parse_batch",
    "parse_stamp",
    "plain_batch",
    "presence_of",
    "trace_of",
]

#: A node during one run: its name and epoch.
Source: TypeAlias = tuple[str, int]

#: Characters of a node's name; a UUID has 36.
MAX_NAME_LENGTH = 100

#: One bit less than msgpack's integers have, so that sums of these fit as well.
MAX_NUMBER = 2**63 - 1

#: Characters of a field of a trace, which is passed on as it came.
MAX_TRACE_FIELD = 2048

#: Messages in one batch. Larger ones gain nothing, and hold up the receiver's event loop.
MAX_COUNT = 1000

#: Bytes that a batch takes in addition to its messages, as objects in memory and on the wire.
OVERHEAD = 200


class Batch:
    """Consecutive messages of one source. Immutable: all links share it.

    Args:
        source: the node that they come from.
        first: the number of the first.
        count: how many.
        data: the messages, packed.
        frames: the long byte strings in them.
        target: for an answer, the node that gets it.
        error: for an answer, what a receiver failed with: type, args and text, as on the wire.
        withheld: how many messages before the first are kept from the receiver.

    Attributes:
        identifier: of all its messages, where that is known without unpacking them.
        stamp: of a single message that was retained where it was sent: when that was.
        stored: of a single message of this node: what waits for the word of the cluster on it.
        trace: of a single message or an answer: the context of its sender.
    """

    __slots__ = (
        "count",
        "data",
        "error",
        "first",
        "frames",
        "identifier",
        "size",
        "source",
        "stamp",
        "stored",
        "target",
        "trace",
        "withheld",
    )

    #: What it says about a node, if that is what it is for.
    presence: "Presence | None" = None
    #: The function that takes it.
    method = "send_messages"

    def __init__(
        self,
        source: Source,
        first: int,
        count: int,
        data: bytes,
        frames: Sequence[bytes] = (),
        target: Source | None = None,
        error: Any = None,
        withheld: int = 0,
    ) -> None:
        self.source = source
        self.first = first
        self.count = count
        self.data = data
        self.frames = frames
        self.target = target
        self.error = error
        self.withheld = withheld
        self.identifier: str | None = None
        self.stored: Stored | None = None
        self.stamp: Stamp | None = None
        self.trace: Carrier | None = None
        self.size = len(data) + OVERHEAD
        if frames:
            self.size += sum(map(len, frames))

    @property
    def messages(self) -> int:
        """How many messages are lost with it."""
        return self.count

    def set_trace(self, trace: Carrier | None) -> "Batch":
        """Have it carry a context; return it."""
        self.trace = trace
        if trace:
            self.size += sum(len(name) + len(value) for name, value in trace.items())
        return self

    @property
    def last(self) -> int:
        """The number of the last message."""
        return self.first + self.count - 1

    def envelope(self) -> dict[str, Any]:
        """The envelope, as it travels."""
        name, epoch = self.source
        envelope: dict[str, Any] = {
            "origin": name,
            "epoch": epoch,
            "seq": self.first,
            "count": self.count,
        }
        if self.withheld:
            envelope["withheld"] = self.withheld
        if self.stamp is not None:
            envelope["retained"] = self.stamp
        if self.target is not None:
            envelope["to"] = self.target
            if self.error is not None:
                envelope["error"] = self.error
        if self.trace is not None:
            envelope["trace"] = self.trace
        return envelope

    def __repr__(self) -> str:
        numbers = f"{self.first}" if self.count == 1 else f"{self.first} to {self.last}"
        kind = "Messages" if self.target is None else "Answer"
        return f"<{kind} {numbers} of {self.source[0]}>"


class Presence(NamedTuple):
    """What is said about whether a node is there.

    Args:
        kind: one of `PRESENCE_KINDS`:

            * ``"node"``: I am this node, and this is my will, if there is one.
            * ``"lost"``: who still has a connection with this node?
            * ``"here"``: I have, or I am it. Also: it is back.
            * ``"bye"``: it has closed.
            * ``"will"``: it is lost, and this is its will.
        node: whom it is about.
        id: what the node chose at random when it started; only those know it whom it has told.
        round: how many of its wills were published before.
        delay: in a ``"node"``, seconds that it has to come back.
        is_held: in a ``"here"``, whether who says so will publish the will when the node is lost.
    """

    kind: str
    node: Source
    id: str
    round: int = 0
    delay: float = 0.0
    is_held: bool = False


#: See `Presence.kind`.
PRESENCE_KINDS = ("node", "lost", "here", "bye", "will")

#: Seconds that a lost node may have to come back.
MAX_DELAY = 86400.0


class PresenceBatch(Batch):
    """What is said about a node, with its will in ``"node"`` and ``"will"``, and no message else.

    Args:
        presence: what is said.
        source: of a ``"will"`` the lost node, otherwise who says it.
        first: of a ``"will"`` the number after the last message of the lost node, as far as it was
            heard; otherwise a number of its own.
        data, frames: the will, packed as a batch of one message is; nothing for none.
    """

    __slots__ = ("presence",)

    def __init__(
        self,
        presence: Presence,
        source: Source,
        first: int,
        data: bytes = b"",
        frames: Sequence[bytes] = (),
    ) -> None:
        super().__init__(source, first, 1, data, frames)
        self.presence = presence

    @property
    def messages(self) -> int:
        presence = self.presence
        return int(presence is not None and presence.kind == "will")

    def envelope(self) -> dict[str, Any]:
        envelope = super().envelope()
        envelope["presence"] = self.fields()
        return envelope

    def in_parts(self, *, in_text: bool) -> tuple[bytes | str, list[bytes | str]]:
        """Its messages and frames; as text in base64 where bytes cannot travel."""
        if not in_text:
            return self.data, list(self.frames)
        data, *frames = (b64encode(part).decode("ascii") for part in (self.data, *self.frames))
        return data, list(frames)

    def fields(self) -> dict[str, Any]:
        """The presence, as it travels."""
        presence = self.presence
        assert presence is not None
        fields: dict[str, Any] = {
            "kind": presence.kind,
            "node": presence.node,
            "id": presence.id,
            "round": presence.round,
        }
        if presence.delay:
            fields["delay"] = presence.delay
        if presence.is_held:
            fields["held"] = True
        return fields


def presence_of(fields: Any) -> Presence:
    """Check what a peer says about a node.

    Raises:
        TypeError, ValueError: a part is invalid.
    """
    if not isinstance(fields, Mapping):
        raise TypeError(f"presence must be a map, not {type(fields).__name__}")
    kind, node = fields.get("kind"), fields.get("node")
    if kind not in PRESENCE_KINDS:
        raise ValueError(f"kind must be one of {PRESENCE_KINDS}")
    if not isinstance(node, list | tuple) or len(node) != 2:
        raise TypeError("node must be an array of a name and an epoch")
    delay = fields.get("delay", 0.0)
    if not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY:
        raise ValueError(f"delay must be a number of seconds from 0 to {MAX_DELAY:,.0f}")
    return Presence(
        kind,
        _source(*node),
        checked_name(fields.get("id")),
        _number("round", fields.get("round", 0), 0),
        float(delay),
        fields.get("held") is True,
    )


def parse_batch(envelope: Any, data: Any = b"", frames: Any = ()) -> Batch:
    """Check what a peer has sent and make a batch of it; its messages are not unpacked yet.

    Raises:
        TypeError, ValueError: a part is invalid.
    """
    if not isinstance(envelope, Mapping):
        raise TypeError(f"envelope must be a map, not {type(envelope).__name__}")
    data, frames = packed_parts(data, frames)
    count: Any = envelope.get("count", 1)
    first: Any = envelope.get("seq")
    source = _source(envelope.get("origin"), envelope.get("epoch"))
    _check_numbers(first, count)
    if (fields := envelope.get("presence")) is not None:
        return PresenceBatch(presence_of(fields), source, first, data, frames)
    target, error = envelope.get("to"), envelope.get("error")
    trace = trace_of(envelope["trace"]) if "trace" in envelope and count == 1 else None
    withheld = _number("withheld", envelope.get("withheld", 0), 0)
    if withheld >= first:
        raise ValueError("withheld must be less than the number of the first message")
    if target is None:
        batch = Batch(source, first, count, data, frames, withheld=withheld)
        stamp = envelope.get("retained")
        if stamp is not None:
            if count != 1:
                raise ValueError("a message that is retained must travel alone")
            batch.stamp = parse_stamp(stamp)
        return batch.set_trace(trace)
    if not isinstance(target, list | tuple) or len(target) != 2:
        raise TypeError("to must be an array of a name and an epoch")
    if count != 1:
        raise ValueError("an answer must travel alone")
    if error is not None and not _is_failure(error):
        raise TypeError("error must be an array of a type, args and a text")
    return Batch(source, first, 1, data, frames, _source(*target), error).set_trace(trace)


def trace_of(value: Any) -> Carrier | None:
    """What can be used of a context; nothing of it costs the messages."""
    if not isinstance(value, Mapping):
        return None
    return {
        name: value[name]
        for name in TRACE_FIELDS
        if type(value.get(name)) is str and len(value[name]) <= MAX_TRACE_FIELD
    } or None


def packed_parts(data: Any, frames: Any) -> tuple[bytes, Sequence[bytes]]:
    """Check the messages and the long byte strings of a batch, which may be text in base64.

    Raises:
        TypeError, ValueError: one is neither.
    """
    if type(data) is not bytes:
        data = _bytes_of("messages", data)
    if not isinstance(frames, list | tuple):
        raise TypeError(f"frames must be an array, not {type(frames).__name__}")
    if frames and not all(type(frame) is bytes for frame in frames):
        frames = [_bytes_of("a frame", frame) for frame in frames]
    return data, frames


def plain_batch(name: Any, epoch: Any, first: Any, count: Any, data: bytes) -> Batch:
    """Check the envelope of messages without anything special and make a batch of them.

    Raises:
        TypeError, ValueError: a part is invalid.
    """
    _check_numbers(first, count)
    return Batch(_source(name, epoch), first, count, data)


def checked_name(name: Any) -> str:
    """Return the name of a node if it is valid.

    Raises:
        TypeError, ValueError: it is not.
    """
    if type(name) is not str:
        raise TypeError(f"the name of a node must be text, not {type(name).__name__}")
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(f"the name of a node must be 1 to {MAX_NAME_LENGTH} printable characters")
    return name


def parse_stamp(value: Any) -> "Stamp":
    """Check when a message was retained.

    Raises:
        TypeError, ValueError: it is malformed.
    """
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TypeError("a stamp must be an array of two numbers")
    when, number = value
    if type(when) is not int or type(number) is not int:
        raise TypeError("a stamp must have two whole numbers")
    if not 0 <= when <= MAX_NUMBER or not 0 <= number <= MAX_NUMBER:
        raise ValueError("the numbers of a stamp must be from 0 to 2**63 - 1")
    return when, number


def _bytes_of(name: str, value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if type(value) is not str:
        raise TypeError(f"{name} must be bytes, or text in base64, not {type(value).__name__}")
    try:
        return b64decode(value, validate=True)
    except ValueError as error:
        raise ValueError(f"{name} must be text in base64: {error}") from None


def _check_numbers(first: Any, count: Any) -> None:
    is_usual = type(first) is int is type(count) and first > 0 and 0 < count <= MAX_COUNT
    if is_usual and first + count - 1 <= MAX_NUMBER:
        return
    _number("seq", first, 1)
    if _number("count", count, 1) > MAX_COUNT:
        raise ValueError(f"a batch has at most {MAX_COUNT:,} messages, not {count:,}")
    if first + count - 1 > MAX_NUMBER:
        raise ValueError("the numbers of the messages are too large")


def _source(name: Any, epoch: Any) -> Source:
    return checked_name(name), _number("epoch", epoch, 0)


def _number(name: str, value: Any, least: int) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if not least <= value <= MAX_NUMBER:
        raise ValueError(f"{name} must be a whole number from {least} to 2**63 - 1")
    return value


def _is_failure(error: Any) -> bool:
    match error:
        case [str(), list() | tuple(), str()]:
            return True
        case _:
            return False
