"""The records of the native dialect, and the events that a session returns.

A record is a msgpack array whose first element is its kind:

=====  ============  ==============================================================
kind   name          the elements after the kind
=====  ============  ==============================================================
0      HELLO         map of properties
1      CALL          id, method, args[, kwargs[, deadline[, metadata]]]
2      NOTIFY        method, args[, kwargs[, metadata]]
3      ACCEPTED      ids, ids that have left the window
4      RESULT        id, value[, whether an ACKNOWLEDGE is wanted]
5      ERROR         id, type, args, text[, traceback]
6      CANCEL        id
7      ITEM          id, value
8      CREDIT        id, number of items
9      ACKNOWLEDGE   id
10     PING          number
11     PONG          the number of the PING
12     GOODBYE       reason
13     END           id
14     CLOSED        id, reason, whether the method had begun
=====  ============  ==============================================================

``docs/reference/protocol.rst`` says what each means and shows its bytes.
"""

from typing import Any, Final, TypeAlias

__all__ = [
    "ACCEPTED",
    "ACKNOWLEDGE",
    "CALL",
    "CANCEL",
    "CLOSED",
    "CREDIT",
    "END",
    "ERROR",
    "GOODBYE",
    "HELLO",
    "ITEM",
    "NOTIFY",
    "NO_KWARGS",
    "PING",
    "PONG",
    "RESULT",
    "InboundEvent",
]

HELLO: Final = 0
CALL: Final = 1
NOTIFY: Final = 2
ACCEPTED: Final = 3
RESULT: Final = 4
ERROR: Final = 5
CANCEL: Final = 6
ITEM: Final = 7
CREDIT: Final = 8
ACKNOWLEDGE: Final = 9
PING: Final = 10
PONG: Final = 11
GOODBYE: Final = 12
END: Final = 13
CLOSED: Final = 14


#: A request of a peer, the same for all dialects. A plain tuple, as each call makes one.
#:
#: 0. kind: `CALL`, `NOTIFY`, `CANCEL`, `CREDIT`, `ACKNOWLEDGE` or `GOODBYE`
#: 1. the id of the call that it is about; ``None`` for `NOTIFY` and `GOODBYE`
#: 2. the full name of the method; for `GOODBYE` the reason
#: 3. the positional arguments; for `CREDIT` the number of items alone
#: 4. the named arguments
#: 5. this side's clock, in seconds, at which the caller gives up, or ``None``
#: 6. the metadata, or ``None``; never empty
InboundEvent: TypeAlias = tuple[
    int, Any, str, tuple[Any, ...], dict[str, Any], float | None, dict[str, Any] | None
]

#: The named arguments of a call without any: shared, never changed.
NO_KWARGS: Final[dict[str, Any]] = {}
