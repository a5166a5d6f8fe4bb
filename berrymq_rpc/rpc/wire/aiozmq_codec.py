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

Such a peer takes only text and bytes as keys of a map, no lone surrogates, and no other value of
the native dialect: these are refused here, because the peer would lose them silently. The pickles
are read by `pickled_dates`, and never unpickled.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any

from msgpack import packb, unpackb
from msgpack.exceptions import StackError

from .codec import Codec
from .depth import Buffer
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
        untranslated: Callable[[int, bytes], Any] | None = None,
    ) -> None:
        super().__init__(
            translation_table, use_list=use_list, max_depth=max_depth, untranslated=untranslated
        )
        self._pack_in_c = self.fast_pack
        self.fast_pack = self._pack_checked

    def pack_with_frames(
        self, value: Any, threshold: int, name: str = "value"
    ) -> tuple[bytes, list[Buffer]]:
        """Pack a value. This dialect has no separate frames, so the list is empty."""
        return self.pack(value, name), []

    def _pack_checked(self, value: Any) -> bytes:
        data = self._pack_in_c(value)
        _check(value, data)
        return data

    def _pack_apart(self, value: Any) -> bytes:
        data: bytes
        try:
            data = packb(value, use_bin_type=True, default=self._pack_ext)
        except UnicodeEncodeError as error:
            raise TypeError("text with lone surrogates cannot be sent to this peer") from error
        _check(value, data)
        return data

    def _find_builtin(self, cls: type) -> PackEntry | None:
        for code, base in _CODES:
            if issubclass(cls, base):
                return PackEntry(code, _encode)
        return None

    def _builtin_decoders(self) -> dict[int, Decoder]:
        return {code: lambda data, message: read_pickled_date(data) for code, _ in _CODES}


def _encode(value: Any, pack: Callable[[Any], bytes]) -> bytes:
    return write_pickled_date(value)


def _check(value: Any, data: bytes) -> None:
    """Raise `TypeError` for what the peer could pack but not unpack."""
    if type(value) in _SCALARS:
        return
    if type(value) is tuple and len(value) <= _FEW and all(type(i) in _SCALARS for i in value):
        return
    try:
        unpackb(data, ext_hook=_ignore)
    except StackError:
        # The bound on the depth, which is lower, comes next.
        return
    except ValueError:
        raise TypeError("this peer takes only text and bytes as keys of a map") from None


def _ignore(code: int, data: bytes) -> None:
    return None
