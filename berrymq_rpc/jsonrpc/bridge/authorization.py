"""The first text on a TCP connection where a token is wanted.

::

    --> {"jsonrpc": "2.0", "method": "authorize", "params": ["sesame"], "id": 1}
    <-- {"jsonrpc": "2.0", "result": true, "id": 1}

Anything else is answered with an error, and the connection is closed.
"""

from typing import Any

from ...errors import PermissionDeniedError
from ...rpc.dispatcher import Dispatcher
from ..error_objects import to_error
from ..items import RPCError
from ..message import IncomingMessage, IncomingRequest
from ..protocols.version2 import JSONRPCv2
from .tokens import Tokens

__all__ = ["AUTHORIZE", "authorize"]

AUTHORIZE = "authorize"

#: Bytes, values and levels of that text: more are not read from a peer that is not known.
_MAX_SIZE = 16 << 10
_MAX_VALUES = 20
_MAX_DEPTH = 4


def authorize(text: bytes, tokens: Tokens, dispatcher: Dispatcher) -> tuple[bytes, str | bool]:
    """Read the first text of a peer.

    Args:
        text: what it has sent.
        tokens: those that are valid.
        dispatcher: describes errors.

    Returns:
        The text that answers it, which may be empty; and whether the peer may go on, or the name
        of its user.
    """
    answers: list[bytes] = []
    message = IncomingMessage(
        text,
        max_size=_MAX_SIZE,
        max_depth=_MAX_DEPTH,
        max_values=_MAX_VALUES,
        max_batch=_MAX_VALUES,
        done=answers.append,
    )
    request = message.calls[0] if len(message.calls) == 1 else None
    token = _token_of(request) if request is not None else None
    user = tokens.user_of([token.encode("utf-8", "surrogatepass")]) if token is not None else False
    if request is not None and user is not False:
        if not request.is_notification:
            request.result(True)
    else:
        reason = (
            'the first text must be {"method": "authorize", "params": [token]}'
            if token is None
            else "the token is wrong"
        )
        error = to_error(dispatcher.describe(PermissionDeniedError(reason)))
        for call in message.calls:
            if not call.is_notification:
                call.error(RPCError(error.code, error.message, data=error.data))
        if not answers:
            answers.append(JSONRPCv2.error_message(error))
    return (answers[-1] if answers else b""), user


def _token_of(request: IncomingRequest) -> str | None:
    if request.method != AUTHORIZE:
        return None
    given: list[Any] = [*request.args]
    if request.kwargs.keys() == {"token"}:
        given = [request.kwargs["token"]]
    return given[0] if len(given) == 1 and isinstance(given[0], str) else None
