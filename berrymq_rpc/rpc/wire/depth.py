"""Check how deeply packed bytes nest arrays and maps, before any is unpacked."""

from typing import TypeAlias

import msgpack
from msgpack.exceptions import StackError

__all__ = ["Buffer", "DepthLimit"]

Buffer: TypeAlias = bytes | bytearray | memoryview

#: Levels that msgpack's unpacker has room for, built into its C code.
_STACK = 1024

#: Up to this size it costs less to count what may be headers than to skip through the values.
_COUNTED = 1024

_ARRAY_OF_ONE = b"\x91"
_HEADERS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))

# The unpacker in Python, used where there is no C compiler, has no such room: the recursion limit
# bounds it.
_HAS_ROOM = msgpack.Unpacker.__module__ != "msgpack.fallback"


class DepthLimit:
    """Checks whether packed bytes nest arrays and maps deeper than allowed.

    It takes 5 to 10 % of the time of unpacking (more where records are a few bytes each), and
    none up to `levels` bytes. False lengths are found as well, before msgpack allocates what they
    promise: its early versions do so for each of several nested arrays.

    Args:
        levels: how many are allowed, from 1 to 1,000.
    """

    def __init__(self, levels: int) -> None:
        if not 1 <= levels <= 1000:
            raise ValueError(f"max_depth must be from 1 to 1,000, not {levels!r}")
        self.levels = levels
        # Inside of so many arrays the unpacker has room for `levels` more, and says so at the
        # speed of C when they do not suffice.
        self._prefix = _ARRAY_OF_ONE * (_STACK - levels if _HAS_ROOM else 0)

    def is_exceeded(self, data: Buffer) -> bool:
        """Whether the first value in `data` has too many levels.

        Raises:
            Exception: of several of msgpack's classes, where it finds that the bytes are malformed
                or end too early. It does not always look.
        """
        size = len(data)
        if size <= self.levels:
            return False
        if size <= _COUNTED and size - len(bytes(data).translate(None, _HEADERS)) <= self.levels:
            return False
        unpacker = msgpack.Unpacker(max_buffer_size=0, read_size=len(self._prefix) + size)
        unpacker.feed(self._prefix)
        unpacker.feed(data)
        try:
            unpacker.skip()
        except StackError:
            return True
        return False
