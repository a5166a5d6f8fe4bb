"""What travels between nodes: messages of one origin that follow each other, packed once.

An envelope tells whose they are::

    {"origin": the name of the node on whose bus they were sent, "epoch": when it started, in
     microseconds since 1970, "seq": the number of the first, "count": how many}

The numbers of an origin's messages begin with 1 in each epoch, and each has the next one. The
answers of ``talk`` have numbers of their own, and two elements more: ``"to"``, the name and epoch
of the node that asked, and ``"error"``, where a receiver failed instead.

The messages are an array in msgpack of ``[identifier, args[, kwargs[, reply_to]]]``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

__all__ = [
    "MAX_COUNT",
    "MAX_NAME_LENGTH",
    "MAX_NUMBER",
    "Bundle",
    "Source",
    "checked_name",
    "read_envelope",
]

#: A node in one of its lives: its name and epoch.
Source: TypeAlias = tuple[str, int]

#: Characters of a node's name; a UUID has 36.
MAX_NAME_LENGTH = 100

#: Msgpack's integers are larger by one bit; sums of these stay within.
MAX_NUMBER = 2**63 - 1

#: Messages in one bundle. Larger ones gain nothing, and hold up the receiver's event loop.
MAX_COUNT = 1000

#: Bytes that a bundle takes beside its messages, as objects in memory and on the wire.
OVERHEAD = 200


class Bundle:
    """Messages of one source that follow each other. Shared by all lines, and never changed.

    Args:
        source: whose they are.
        first: the number of the first.
        count: how many.
        data: the messages, packed.
        frames: the long byte strings in them.
        target: of an answer, who gets it.
        error: of an answer, what a receiver failed with: type, args and text, as on the wire.
    """

    __slots__ = ("count", "data", "error", "first", "frames", "size", "source", "target")

    def __init__(
        self,
        source: Source,
        first: int,
        count: int,
        data: bytes,
        frames: Sequence[bytes] = (),
        target: Source | None = None,
        error: Any = None,
    ) -> None:
        self.source = source
        self.first = first
        self.count = count
        self.data = data
        self.frames = frames
        self.target = target
        self.error = error
        self.size = len(data) + sum(map(len, frames)) + OVERHEAD

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
        if self.target is not None:
            envelope["to"] = self.target
            if self.error is not None:
                envelope["error"] = self.error
        return envelope

    def __repr__(self) -> str:
        numbers = f"{self.first}" if self.count == 1 else f"{self.first} to {self.last}"
        kind = "Messages" if self.target is None else "Answer"
        return f"<{kind} {numbers} of {self.source[0]}>"


def read_envelope(envelope: Any, data: Any = b"", frames: Any = ()) -> Bundle:
    """The bundle that a peer has sent. Its messages are not looked at yet.

    Raises:
        TypeError, ValueError: a part is not what it must be.
    """
    if not isinstance(envelope, Mapping):
        raise TypeError(f"envelope is a map, not {type(envelope).__name__}")
    if type(data) is not bytes:
        raise TypeError(f"messages are bytes, not {type(data).__name__}")
    if not isinstance(frames, list | tuple) or not all(type(frame) is bytes for frame in frames):
        raise TypeError("frames is an array of bytes")
    count = envelope.get("count", 1)
    first = _number("seq", envelope.get("seq"), 1)
    if not 0 < _number("count", count, 1) <= MAX_COUNT:
        raise ValueError(f"{count:,} messages in a bundle are over {MAX_COUNT:,}")
    if first + count - 1 > MAX_NUMBER:
        raise ValueError("the numbers of the messages are too large")
    source = _source(envelope.get("origin"), envelope.get("epoch"))
    target, error = envelope.get("to"), envelope.get("error")
    if target is None:
        return Bundle(source, first, count, data, frames)
    if not isinstance(target, list | tuple) or len(target) != 2:
        raise TypeError("to is an array of a name and an epoch")
    if count != 1:
        raise ValueError("an answer travels alone")
    if error is not None and not _is_failure(error):
        raise TypeError("error is an array of a type, args and a text")
    return Bundle(source, first, 1, data, frames, _source(*target), error)


def checked_name(name: Any) -> str:
    """The name of a node.

    Raises:
        TypeError, ValueError: it is none.
    """
    if type(name) is not str:
        raise TypeError(f"the name of a node is a text, not {type(name).__name__}")
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(
            f"the name of a node is a text of 1 to {MAX_NAME_LENGTH} characters that can be printed"
        )
    return name


def _source(name: Any, epoch: Any) -> Source:
    return checked_name(name), _number("epoch", epoch, 0)


def _number(name: str, value: Any, least: int) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} is a whole number, not {type(value).__name__}")
    if not least <= value <= MAX_NUMBER:
        raise ValueError(f"{name} is a whole number from {least} to 2**63 - 1")
    return value


def _is_failure(error: Any) -> bool:
    match error:
        case [str(), list() | tuple(), str()]:
            return True
        case _:
            return False
