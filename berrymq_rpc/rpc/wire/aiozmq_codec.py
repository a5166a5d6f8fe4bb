"""Values to msgpack and back, as plain aiozmq.rpc 1.0 peers do it.

========  ====================================================================
ext code  what
========  ====================================================================
0 to 122  the user's own, see `translation`
123       a tzinfo, pickled
124       a timedelta, pickled
125       a time, pickled
126       a datetime, pickled
127       a date, pickled
========  ====================================================================

Such a peer takes text and bytes alone as keys of a map, no lone surrogates, and none of the other
values that the native dialect carries: these are refused here, as there they would be lost without
a word. The pickles are read by `pickled_dates`, and never unpickled.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any

from msgpack import packb, unpackb

from .codec import Codec
from .limits import MAX_DEPTH
from .packing import PackEntry
from .pickled_dates import read_pickled_date, write_pickled_date
from .unpacking import Decoder

__all__ = ["AiozmqCodec"]

# A datetime is a date: in the order of their codes, as the peer looks for them.
_CODES: tuple[tuple[int, type], ...] = (
    (123, tzinfo),
    (124, timedelta),
    (125, time),
    (126, datetime),
    (127, date),
)

_SCALARS = frozenset((type(None), bool, int, float, str, bytes))

#: Elements of a tuple that it costs less to look at than to unpack for a test.
_FEW = 8


class AiozmqCodec(Codec):
    """Packs and unpacks values for a plain aiozmq.rpc peer.

    Args and errors are those of `Codec`. What arrives may have keys of any type.
    """

    def __init__(
        self,
        translation_table: Mapping[int, Any] | None = None,
        *,
        use_list: bool = False,
        max_depth: int = MAX_DEPTH,
    ) -> None:
        super().__init__(translation_table, use_list=use_list, max_depth=max_depth)
        self.fast_pack = self.pack

    def pack(self, value: Any, name: str = "value") -> bytes:
        """Pack a value.

        Args:
            value: anything.
            name: what to call it in an error, such as ``"args"``.

        Raises:
            TypeError: the peer could not unpack something in it; it says where and what.
            ValueError: it contains itself or is nested too deep, or the user's packer refused it.
        """

    def _find_builtin(self, cls: type) -> PackEntry | None:
        for code, base in _CODES:
            if issubclass(cls, base):
                return PackEntry(code, _encode)
        return None

    def _builtin_decoders(self) -> dict[int, Decoder]:
        return {code: lambda data, message: read_pickled_date(data) for code, _ in _CODES}


def _encode(value: Any, pack: Callable[[Any], bytes]) -> bytes:
    return write_pickled_date(value)
