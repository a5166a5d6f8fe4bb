"""The dialects that a client or server speaks, made from its settings."""

import os
import random
from collections.abc import Iterable, Mapping
from typing import Any

from .wire.aiozmq_codec import AiozmqCodec
from .wire.aiozmq_dialect import AiozmqDialect
from .wire.codec import Codec
from .wire.native_session import NativeDialect
from .wire.session import Dialect

__all__ = ["DIALECTS", "make_dialects"]

#: Names of the dialects, in the order in which a message is tried.
DIALECTS = ("native", "aiozmq", "jsonrpc")


def make_dialects(
    names: Iterable[str],
    codec: Codec,
    translation_table: Mapping[int, Any] | None,
    error_table: Mapping[str, type[Exception]] | None,
    *,
    max_depth: int,
    use_list: bool,
) -> list[Dialect]:
    """The dialects of these names.

    Raises:
        ValueError: a name is that of no dialect, or there is none.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in wanted if name not in DIALECTS]
    if unknown or not wanted:
        raise ValueError(f"the dialects are {', '.join(DIALECTS)}, not {wanted!r}")
    errors = dict(error_table or {})
    made: list[Dialect] = []
    if "native" in wanted:
        made.append(NativeDialect(codec, errors))
    if "aiozmq" in wanted:
        sender = (os.getpid(), random.randrange(0x10000))
        aiozmq_codec = AiozmqCodec(translation_table, use_list=use_list, max_depth=max_depth)
        made.append(AiozmqDialect(aiozmq_codec, errors, sender))
    if "jsonrpc" in wanted:
        # Here, as it imports from this package.
        from ..jsonrpc.dialect import JSONRPCDialect

        made.append(JSONRPCDialect(errors))
    return made
