"""Msgpack to values: the half of a codec that unpacks. Nothing here trusts the bytes."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from msgpack import Unpacker, unpackb
from msgpack.exceptions import ExtraData, FormatError, OutOfData, StackError

from ...common.collection import rare_collection
from ...errors import ProtocolError
from .depth import Buffer, DepthLimit
from .ext_types import VALUE_CODE, decode
from .hashing import (
    MAX_COLLISIONS,
    MIN_CHECKED,
    comparisons,
    dict_collisions,
    set_collisions,
)
from .packing import FRAME_CODE, MAX_NESTED, new_ext
from .safe_repr import full_name, safe_str
from .translation import MAX_USER_CODE, Entry

__all__ = ["Message", "Part", "Unpacking"]

#: Bytes of a message that is too short to make much work, whatever it is.
SMALL = 1024

#: Ext values and maps of a message that are decoded one by one in Python, at 0.5 to 1 us each.
MAX_HOOKED = 100_000

#: What a set, or an object that is packed as another value, takes of `MAX_HOOKED`.
_NESTED_COST = 4

#: Most bytes of a message that is unpacked record by record when one is malformed, unless that is
#: the only one. It takes up to three times as long as to unpack it at once. Batches of records are
#: smaller.
MAX_DIVIDED = 256 << 10

#: Most malformed records of a message that are unpacked one by one: each takes 10 to 100 us.
MAX_BAD_PARTS = 500

#: Lone surrogates in the text of a message. Each takes 0.4 us.
MAX_SURROGATES = 50_000

#: Bytes of a frame's number.
_MAX_NUMBER = 4

_CONTAINERS = frozenset((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
_EXTS = frozenset((*range(0xC7, 0xCA), *range(0xD4, 0xD9)))
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")

#: Unpacks the data of an ext value, as part of a message.
Decoder: TypeAlias = Callable[[bytes, "Message"], Any]


class Part(NamedTuple):
    """One element of a message whose elements are unpacked one by one.

    Args:
        value: the element, or ``None``.
        error: why it could not be unpacked, or ``None``.
        head: of an array that could not be unpacked, the scalars that it begins with, three at
            most.
    """

    value: Any
    error: ProtocolError | None
    head: tuple[Any, ...]


class Unpacking:
    """Unpacks values.

    Args:
        table: the user's own types.
        limit: levels of arrays and maps.
        use_list: whether arrays become lists.
        untranslated: makes what arrives in place of a value of the user's own that has no entry;
            ``None`` for `msgpack.ExtType`.
    """

    def __init__(
        self,
        table: list[Entry],
        limit: DepthLimit,
        use_list: bool,
        untranslated: Callable[[int, bytes], Any] | None = None,
    ) -> None:
        self.limit = limit
        self.use_list = use_list
        self.decoders = self._builtin_decoders()
        if untranslated is not None:
            for code in range(MAX_USER_CODE + 1):
                self.decoders[code] = _as_decoder(untranslated, code)
        self.decoders.update((entry.code, _user_decoder(entry)) for entry in table)
        #: Levels of ext values that are being unpacked.
        self.nesting = 0
        self._levels = limit.levels
        self._small_ext = Message(self, (), is_small=True).ext

    def unpack(self, data: Buffer, frames: Sequence[Buffer] = ()) -> Any:
        """Unpack a value that takes up all of the bytes.

        Args:
            data: what `Packing.pack` made, or anything else.
            frames: the byte strings that travelled in frames of their own.

        Raises:
            ProtocolError: the bytes are malformed, or a value is over a bound.
        """
        if len(data) <= SMALL and not frames and not self.nesting:
            try:
                if len(data) <= self._levels or not self.limit.is_exceeded(data):
                    return unpackb(data, use_list=self.use_list, ext_hook=self._small_ext)
            except Exception:
                # Try the slow way, which takes any keys, and lone surrogates.
                return Message(self, frames).unpack(data, careful=True)
        with rare_collection(len(data)):
            return Message(self, frames).unpack(data)

    def unpack_each(self, data: Buffer, frames: Sequence[Buffer] = ()) -> list[Part]:
        """Unpack the elements of an array one by one, so that a malformed one fails alone.

        Never raises.

        Args:
            data: a packed array, or anything else.
            frames: the byte strings that travelled in frames of their own.

        Returns:
            A part for each element. Where the rest cannot be split, the last part is an error.
        """
        parts: list[Part] = []
        with rare_collection(len(data)):
            self._unpack_parts(data, Message(self, frames), parts)
        return parts

    def _unpack_parts(self, data: Buffer, message: "Message", parts: list[Part]) -> None:
        unpacker = Unpacker(max_buffer_size=0, read_size=max(len(data), 1))
        unpacker.feed(data)
        bad = start = 0
        try:
            count = unpacker.read_array_header()
            if count > 1 and len(data) > MAX_DIVIDED:
                raise ProtocolError("a malformed record in a large batch")
            for _ in range(count):
                start = unpacker.tell()
                if bad == MAX_BAD_PARTS:
                    raise ProtocolError(f"{bad:,} malformed records in a message")
                unpacker.skip()
                element = data[start : unpacker.tell()]
                try:
                    parts.append(Part(message.unpack(element), None, ()))
                except ProtocolError as error:
                    parts.append(Part(None, error, self.unpack_head(element)))
                    bad += 1
            start = unpacker.tell()
            if start < len(data):
                raise ProtocolError("bytes after the last record")
        except Exception as error:
            parts.append(Part(None, _described(error), self.unpack_head(data[start:])))

    def unpack_head(self, data: Buffer, count: int = 3) -> tuple[Any, ...]:
        """The scalars that a packed array begins with, whatever follows them. Never raises.

        Args:
            data: a packed array, the beginning of one, or anything else.
            count: how many at most.
        """
        unpacker = Unpacker(
            max_buffer_size=0, read_size=max(len(data), 1), unicode_errors="surrogatepass"
        )
        unpacker.feed(data)
        head: list[Any] = []
        try:
            for _ in range(min(count, unpacker.read_array_header())):
                first = data[unpacker.tell()]
                if first in _CONTAINERS or first in _EXTS:
                    break
                head.append(unpacker.unpack())
        except Exception:
            # The rest cannot be read, and is not needed.
            return tuple(head)
        return tuple(head)

    def _builtin_decoders(self) -> dict[int, Decoder]:
        return {VALUE_CODE: decode, FRAME_CODE: lambda data, message: message.frame(data)}


class Message:
    """One message that is being unpacked: its frames, and the work that it may still make.

    Args:
        unpacking: what unpacks it.
        frames: the byte strings in frames of their own.
        is_small: whether its size alone bounds the work.
    """

    __slots__ = ("_careful", "_collisions_left", "_frames", "_hooks_left", "_unpacking")

    def __init__(
        self, unpacking: Unpacking, frames: Sequence[Buffer], *, is_small: bool = False
    ) -> None:
        self._unpacking = unpacking
        self._frames = frames
        self._collisions_left: float = float("inf") if is_small else MAX_COLLISIONS
        self._hooks_left: float = float("inf") if is_small else MAX_HOOKED
        #: Whether keys of any type and lone surrogates are taken, at half the speed.
        self._careful = False

    def unpack(self, data: Buffer, *, careful: bool = False) -> Any:
        """Unpack the message, or a part of it; raises `ProtocolError` alone."""
        try:
            # Inside a user's unpacker there is one attempt: two for each level would make
            # thousands.
            self._careful = careful or self._unpacking.nesting > 0
            try:
                return self.nested(data)
            except _NeedsCareError:
                self._careful = True
                self._collisions_left = MAX_COLLISIONS
                self._hooks_left = MAX_HOOKED
                _check_surrogates(data)
                return self.nested(data)
        except ProtocolError:
            raise
        except Exception as error:
            raise _described(error) from error

    def nested(self, data: Buffer) -> Any:
        """Unpack the message, or a value that is packed inside of another."""
        unpacking = self._unpacking
        self._hooks_left -= _NESTED_COST
        if unpacking.limit.is_exceeded(data):
            raise ProtocolError(f"nested more than {unpacking.limit.levels} levels deep")
        if self._careful:
            return unpackb(
                data,
                use_list=unpacking.use_list,
                strict_map_key=False,
                unicode_errors="surrogatepass",
                object_pairs_hook=self._make_dict,
                ext_hook=self.ext,
            )
        try:
            return unpackb(data, use_list=unpacking.use_list, ext_hook=self.ext)
        except (ProtocolError, _NeedsCareError, ExtraData, FormatError, StackError):
            raise
        except Exception:
            # Text that is not UTF-8, a key that is not text, or truncated data.
            raise _NeedsCareError from None

    def ext(self, code: int, data: bytes) -> Any:
        """The value of an ext type: msgpack calls this."""
        unpacking = self._unpacking
        self._count_hook()
        decoder = unpacking.decoders.get(code)
        if decoder is None:
            return new_ext((code, data))
        if unpacking.nesting >= MAX_NESTED:
            raise ProtocolError(f"ext values nested more than {MAX_NESTED} levels deep")
        unpacking.nesting += 1
        try:
            return decoder(data, self)
        except (ProtocolError, _NeedsCareError):
            raise
        except Exception as error:
            raise ProtocolError(f"an ext value of type {code}: {_told(error)}") from error
        finally:
            unpacking.nesting -= 1

    def frame(self, data: bytes) -> bytes:
        """The byte string, in a frame of its own, that an ext value stands for."""
        number = int.from_bytes(data[:_MAX_NUMBER], "big")
        if not 0 < len(data) <= _MAX_NUMBER or number >= len(self._frames):
            raise ProtocolError("a frame with a long byte string is missing")
        return bytes(self._frames[number])

    def members(self, data: bytes) -> Sequence[Any]:
        """Unpack the array of a set."""
        members: Any = self.nested(data)
        if not isinstance(members, tuple | list):
            raise ProtocolError("a set that is not an array")
        if self._unpacking.use_list:
            members = self._frozen(members)
        self._check_hashes(members, set_collisions)
        return tuple(members)

    def _make_dict(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._count_hook()
        if self._unpacking.use_list:
            pairs = [
                (self._frozen(key) if type(key) is list else key, value) for key, value in pairs
            ]
        if len(pairs) > 1:
            self._check_hashes([key for key, _ in pairs], dict_collisions)
        return dict(pairs)

    def _frozen(self, items: Sequence[Any]) -> tuple[Any, ...]:
        """A list that is a key, or in one, as a tuple."""
        self._count_hook()
        return tuple(self._frozen(item) if type(item) is list else item for item in items)

    def _check_hashes(self, keys: Sequence[Any], count: Callable[[list[int], float], int]) -> None:
        # Those of text and bytes are random.
        keys = [key for key in keys if type(key) is not str and type(key) is not bytes]
        hashes = list(map(hash, keys))
        if len(keys) >= MIN_CHECKED:
            self._collisions_left -= count(hashes, self._collisions_left)
        self._collisions_left -= comparisons(keys, hashes, self._collisions_left)

    def _count_hook(self) -> None:
        self._hooks_left -= 1
        if self._hooks_left < 0:
            raise ProtocolError(f"more than {MAX_HOOKED:,} maps and ext values in a message")


def _check_surrogates(data: Buffer) -> None:
    if len(data) >= 2 * MAX_SURROGATES:
        count = sum(1 for _ in _SURROGATE.finditer(data))
        if count > MAX_SURROGATES:
            raise ProtocolError(f"more than {MAX_SURROGATES:,} lone surrogates in a message")


class _NeedsCareError(Exception):
    """The fast way cannot unpack it; the slow one may."""


def _as_decoder(untranslated: Callable[[int, bytes], Any], code: int) -> Decoder:
    return lambda data, message: untranslated(code, data)


def _user_decoder(entry: Entry) -> Decoder:
    unpacker = entry.unpacker
    if entry.nested:
        return lambda data, message: unpacker(message.nested(data))
    return lambda data, message: unpacker(data)


def _described(error: Exception) -> ProtocolError:
    if isinstance(error, ProtocolError):
        return error
    described = ProtocolError(f"no value in msgpack: {_told(error)}")
    described.__cause__ = error
    return described


def _told(error: Exception) -> str:
    if isinstance(error, OutOfData):
        return "it ends too early"
    if isinstance(error, ExtraData):
        return "bytes after its end"
    if isinstance(error, FormatError):
        return "the byte C1"
    return safe_str(error, 500) or full_name(type(error))
