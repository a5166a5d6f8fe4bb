"""How calls of this side become spans, where tracing was on when their client was made."""

import asyncio
from dataclasses import replace

from ..common.tracing import Span, Tracing
from .call import Call
from .options import CallOptions

__all__ = ["begin_call", "follow"]

#: The dialect that carries metadata.
NATIVE = "native"


def begin_call(
    tracing: Tracing, method: str, dialect: str, options: CallOptions
) -> tuple[Span, CallOptions]:
    """Begin the span of a call, and have its context travel where that is possible."""
    span = tracing.call(method, dialect)
    if dialect == NATIVE and span.carrier:
        metadata = {**(options.metadata or {}), **span.carrier}
        try:
            options = replace(options, metadata=metadata)
        except ValueError:
            # The user's own fill it: the trace ends here, and the call is made all the same.
            return span, options
    return span, options


def follow(span: Span, call: Call) -> Call:
    """End a span with a call, or with the stream that this turns out to be."""
    if call.done():
        _ended(span, call)
    else:
        span.at(call.connection.session.endpoint)
        call.on_end = span.end
        call.add_done_callback(lambda call: _ended(span, call))
    return call


def _ended(span: Span, call: Call) -> None:
    if call.is_stream:
        # Its future says only that it cannot be awaited.
        return
    # To ask by `exception` would count as having seen it: nobody would hear of one that is lost.
    span.end(asyncio.CancelledError() if call.cancelled() else call._exception)
