"""Values to msgpack: the half of a codec that packs."""

from collections.abc import Callable
from typing import Any, NamedTuple

from msgpack import ExtType, Packer, packb

from .depth import Buffer, DepthLimit
from .ext_types import VALUE_CODE, find_encoder
from .pack_errors import explain, too_deep, unknown_type
from .plain_numbers import plain_number
from .safe_repr import full_name
from .translation import Entry

__all__ = ["FRAME_CODE", "MAX_NESTED", "PackEntry", "Packing", "new_ext"]

FRAME_CODE = 127

#: Ext values inside one another: a set in a set, user types in user types. Each level takes 40 KB
#: of the C stack when it is unpacked; a stack has 8 MB, on some systems 512 KB in a thread.
MAX_NESTED = 16

#: What `plain_number` makes; msgpack has asked for these because it cannot pack them.
_NUMBERS = frozenset((int, float, complex))

_PLAIN = frozenset((type(None), bool, int, float, str))

#: An `ExtType` of any code; the class itself refuses negative ones.
new_ext: Callable[[tuple[int, bytes]], Any] = ExtType._make


class PackEntry(NamedTuple):
    """How objects of a class are packed.

    Args:
        code: the ext type.
        encode: gives its data; the second argument packs a value inside it.
        inside: returns the value that is packed in place of the object, if there is one.
    """

    code: int
    encode: Callable[[Any, Callable[[Any], bytes]], bytes]
    inside: Callable[[Any], Any] | None = None


class Packing:
    """Packs values.

    Args:
        table: the user's own types.
        limit: levels of arrays and maps.
    """

    #: Packs a value by one call of C. It may raise any exception; then use `pack`, which can do
    #: more and says what is wrong. It bounds the depth at 1,024 only.
    fast_pack: Callable[[Any], bytes]

    def __init__(self, table: list[Entry], limit: DepthLimit) -> None:
        self._limit = limit
        self._table = [(entry.cls, _user_entry(entry)) for entry in table]
        self._packers = dict(self._table)
        self._packing = 0
        self.fast_pack = Packer(autoreset=True, use_bin_type=True, default=self._pack_ext).pack

    def pack(self, value: Any, name: str = "value") -> bytes:
        """Pack a value.

        Args:
            value: anything.
            name: what to call it in an error, such as ``"args"``.

        Raises:
            TypeError: something in it is of a type that does not travel; it says where and what.
            ValueError: it contains itself or is nested too deep, or the user's packer refused it.
        """
        try:
            # When a user's packer calls this, the fast one is in use.
            data = self._pack_apart(value) if self._packing else self.fast_pack(value)
        except MemoryError:
            raise
        except Exception:
            # Outside of this handler, so that the error which says what is wrong is alone.
            data = b""
        if not data:
            data = self._pack_slowly(value, name)
        self._check_levels(data, name)
        return data

    def pack_with_frames(
        self, value: Any, threshold: int, name: str = "value"
    ) -> tuple[bytes, list[Buffer]]:
        """Pack a value, but not the long byte strings in it.

        They are found in tuples, lists and the values of dicts. One that can change (a
        `bytearray`) is copied.

        Args:
            value: anything.
            threshold: bytes from which on a byte string is long.
            name: what to call the value in an error.

        Returns:
            The packed value, and the byte strings in the order of their numbers.

        Raises:
            TypeError, ValueError: as `pack` does.
        """
        frames: list[Buffer] = []
        try:
            replaced = self._detach(value, threshold, frames, 0)
        except Exception:
            # A subclass with methods of its own. `pack` says what is wrong with it.
            frames.clear()
            replaced = value
        return self.pack(replaced, name), frames

    def _detach(self, value: Any, threshold: int, frames: list[Buffer], level: int) -> Any:
        if isinstance(value, bytes | bytearray | memoryview):
            return _detached(value, threshold, frames)
        if level > self._limit.levels:
            return value
        if isinstance(value, dict):
            items: Any = value.items()
        elif isinstance(value, tuple | list) and not isinstance(value, ExtType):
            items = enumerate(value)
        else:
            return value
        replaced: dict[Any, Any] = {}
        for key, item in items:
            if type(item) not in _PLAIN:
                new = self._detach(item, threshold, frames, level + 1)
                if new is not item:
                    replaced[key] = new
        if not replaced:
            return value
        if isinstance(value, dict):
            return {**value, **replaced}
        return [replaced.get(index, item) for index, item in enumerate(value)]

    def _pack_slowly(self, value: Any, name: str) -> bytes:
        try:
            return self._pack_apart(value)
        except MemoryError:
            raise
        except Exception as error:
            failure = error
        described = explain(
            value,
            name,
            failure,
            attempt=self._pack_apart,
            inside=self._inside,
            max_depth=self._limit.levels,
        )
        # What a user's packer has raised is its cause; there is nothing else to know.
        raise described from described.__cause__

    def _pack_apart(self, value: Any) -> bytes:
        """Pack by a packer of its own, lone surrogates included."""
        packed: bytes
        try:
            packed = packb(value, use_bin_type=True, default=self._pack_ext)
        except UnicodeEncodeError:
            packed = packb(
                value, use_bin_type=True, default=self._pack_ext, unicode_errors="surrogatepass"
            )
        return packed

    def _pack_inside(self, value: Any) -> bytes:
        """Pack the content of an ext value."""
        data = self._pack_apart(value)
        self._check_levels(data, "what is inside")
        return data

    def _check_levels(self, data: bytes, name: str) -> None:
        try:
            exceeded = self._limit.is_exceeded(data)
        except Exception as error:
            raise TypeError(
                f"{name}: a list or dict in it has another length than it says"
            ) from error
        if exceeded:
            raise too_deep(name, self._limit.levels) from None

    def _pack_ext(self, value: Any) -> Any:
        """Make the `ExtType` for an object that msgpack has no type for; called by msgpack."""
        cls = type(value)
        entry = self._packers.get(cls)
        if entry is None:
            entry = self._find_entry(cls)
            if entry is None:
                return self._pack_number(value)
            self._packers[cls] = entry
        if self._packing >= MAX_NESTED:
            raise ValueError(f"sets and translated types nested more than {MAX_NESTED} levels deep")
        self._packing += 1
        try:
            return new_ext((entry.code, entry.encode(value, self._pack_inside)))
        finally:
            self._packing -= 1

    def _pack_number(self, value: Any) -> Any:
        """What a number of another library travels as: the builtin one that it is equal to."""
        number = plain_number(value) if type(value) not in _NUMBERS else None
        if number is None:
            raise unknown_type(value)
        is_packed = type(number) is not complex and not (
            type(number) is int and not -1 << 63 <= number < 1 << 64
        )
        # msgpack asks once for each value.
        return number if is_packed else self._pack_ext(number)

    def _find_entry(self, cls: type) -> PackEntry | None:
        for base, entry in self._table:
            if issubclass(cls, base):
                return entry
        return self._find_builtin(cls)

    def _find_builtin(self, cls: type) -> PackEntry | None:
        encoder = find_encoder(cls)
        if encoder is None:
            return None
        return PackEntry(VALUE_CODE, encoder, list if issubclass(cls, set | frozenset) else None)

    def _inside(self, value: Any) -> Any:
        """Return the value that a set, or an object of a nested translation, is packed as."""
        entry = self._packers.get(type(value))
        return value if entry is None or entry.inside is None else entry.inside(value)


def _detached(value: Buffer, threshold: int, frames: list[Buffer]) -> Any:
    if isinstance(value, memoryview):
        if value.nbytes < threshold or not value.c_contiguous:
            return value
        frame: Buffer = value if value.readonly else bytes(value)
    elif len(value) < threshold:
        return value
    else:
        frame = bytes(value) if isinstance(value, bytearray) else value
    number = len(frames)
    frames.append(frame)
    return new_ext((FRAME_CODE, number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")))


def _user_entry(entry: Entry) -> PackEntry:
    packer = entry.packer
    if entry.nested:
        return PackEntry(entry.code, lambda value, pack: pack(packer(value)), packer)

    def encode(value: Any, pack: Callable[[Any], bytes]) -> bytes:
        data = packer(value)
        if not isinstance(data, bytes):
            raise TypeError(
                f"the packer of {full_name(entry.cls)} must return bytes, "
                f"not {full_name(type(data))}"
            )
        return data

    return PackEntry(entry.code, encode)
