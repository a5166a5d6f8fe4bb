"""Values to msgpack and back, in the native dialect.

What msgpack has a type for is packed as that: ``None``, booleans, whole numbers of 64 bits, floats,
text, bytes (`bytearray` and `memoryview` too), arrays (`tuple` and `list`), maps, and classes that
are derived from these. Other numbers, such as numpy's scalars, travel as the builtin number that is
equal to them; where there is none they do not travel. The rest are ext types:

========  ==============================================================================
code      what
========  ==============================================================================
0 to 122  the user's own, see `translation`
126       builtin values, see `ext_types`
127       a byte string that travels as a frame of its own: its number, as
          shortest big-endian bytes (0 is one byte)
-1        msgpack's timestamp, a `msgpack.Timestamp`
others    `msgpack.ExtType`, as they are
========  ==============================================================================

What arrives never runs code, except for the user's own unpackers.
"""

from collections.abc import Callable, Mapping
from typing import Any

from .depth import DepthLimit
from .limits import MAX_DEPTH
from .packing import Packing
from .translation import read_table
from .unpacking import Part, Unpacking

__all__ = ["Codec", "Part"]


class Codec(Packing, Unpacking):
    """Packs and unpacks values.

    It keeps no state between values, and serves one thread at a time, as msgpack's packer does.

    Args:
        translation_table: ``{code: (class, packer, unpacker)}`` for types of the user's own, see
            `translation`.
        use_list: whether arrays arrive as `list`, and not as `tuple`. Those in the keys of maps and
            in sets are tuples all the same.
        max_depth: levels of arrays and maps inside one another, from 1 to 1,000. Sets and the
            user's own types may be 16 levels deep, and the levels inside each are counted from
            zero.
        untranslated: called with the code and the data of a value of the user's own that has no
            entry; returns what arrives in its place, or raises `ProtocolError`. ``None`` for
            `msgpack.ExtType`.

    Raises:
        TypeError, ValueError: `translation_table` or `max_depth` cannot be used.
    """

    def __init__(
        self,
        translation_table: Mapping[int, Any] | None = None,
        *,
        use_list: bool = False,
        max_depth: int = MAX_DEPTH,
        untranslated: Callable[[int, bytes], Any] | None = None,
    ) -> None:
        table = read_table(translation_table)
        limit = DepthLimit(max_depth)
        Packing.__init__(self, table, limit)
        Unpacking.__init__(self, table, limit, use_list, untranslated)
