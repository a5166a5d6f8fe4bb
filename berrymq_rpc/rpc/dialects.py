"""The dialects that a client or server speaks, made from its options."""

import os
import random

from .options import Options
from .wire.aiozmq_codec import AiozmqCodec
from .wire.aiozmq_dialect import AiozmqDialect
from .wire.codec import Codec
from .wire.native_session import NativeDialect
from .wire.session import Dialect

__all__ = ["make_dialects"]


def make_dialects(options: Options, codec: Codec) -> list[Dialect]:
    """Return the dialects that the options name."""
    errors = dict(options.error_table or {})
    made: list[Dialect] = []
    if "native" in options.dialects:
        made.append(NativeDialect(codec, errors))
    if "aiozmq" in options.dialects:
        sender = (os.getpid(), random.randrange(0x10000))
        aiozmq_codec = AiozmqCodec(
            options.translation_table,
            use_list=options.use_list,
            max_depth=options.limits.max_depth,
            untranslated=options.untranslated,
        )
        made.append(AiozmqDialect(aiozmq_codec, errors, sender))
    if "jsonrpc" in options.dialects:
        # Here, as it imports from this package.
        from ..jsonrpc.dialect import JSONRPCDialect

        made.append(JSONRPCDialect(errors))
    return made
