"""The dialect of a bridge's listeners, and the sessions of their peers.

Unlike on the port of an RPC server, any first message counts as JSON-RPC, so that malformed ones
are answered.
"""

from collections.abc import Callable, Iterator

from ...errors import ProtocolError
from ...rpc.wire.limits import CONNECT_TIMEOUT, Limits
from ...rpc.wire.record import InboundEvent
from ...rpc.wire.session import Buffer, Frames
from ..dialect import JSONRPCDialect, JSONRPCSession
from ..message import IncomingMessage

__all__ = ["ListenerDialect", "PostDialect"]

#: Frames before the text: each proxy adds one; more are an attack.
MAX_ROUTE = 16


class ListenerSession(JSONRPCSession):
    """Calls in both directions with a peer of a listener."""

    _route: Frames = ()

    def __init__(
        self,
        dialect: "ListenerDialect",
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        super().__init__(limits, {}, ids=ids, connect_timeout=connect_timeout)
        self._dialect = dialect

    def _route_of(self, frames: Frames) -> Frames:
        route = frames[:-1]
        if route:
            if len(route) > MAX_ROUTE or len(route[-1]):
                raise ProtocolError(f"not a JSON-RPC message: it has {len(frames)} frames")
            route = tuple(map(bytes, route))
        self._route = route
        return route

    def _read(self, text: Buffer, answered: Callable[[bytes], object]) -> IncomingMessage:
        dialect = self._dialect
        message = dialect.message_type(
            text,
            max_size=dialect.max_size,
            max_depth=self.limits.max_depth,
            max_values=self.limits.max_values,
            max_batch=dialect.max_batch,
            done=answered,
        )
        dialect.calls += len(message.calls)
        dialect.malformed += message.malformed
        return message


class PostSession(ListenerSession):
    """Calls of a peer that can only be answered.

    After a text, its message has the headers that are metadata of its calls, a name and a value in
    turn. A text without an answer is answered by an empty text. Only answers are ever sent, so
    `_out` holds their texts.
    """

    can_be_pushed = False

    def _is_notification(self, encoded: object) -> bool:
        return False

    def receive(self, frames: Frames, now: float) -> list[InboundEvent]:
        text, *headers = frames
        message = self._read(text, self._answered_by)
        if message.is_answered and not message.text():
            self._answered_by(b"")
        return self._events(message, now, _metadata(headers) if headers else None)

    def _answered_by(self, text: bytes) -> None:
        self.large_bytes += len(text)
        self._out.append(text)

    @property
    def pending_records(self) -> int:
        return len(self._out)

    def messages(self, now: float) -> list[Frames]:
        texts, self._out = self._out, []
        self.large_bytes = 0
        return [(text,) for text in texts]


def _metadata(headers: Frames) -> dict[str, str]:
    """The headers that came with a text: a name and a value in turn."""
    texts = [bytes(header).decode("utf-8", "replace") for header in headers]
    return dict(zip(texts[::2], texts[1::2], strict=True))


class ListenerDialect(JSONRPCDialect):
    """Makes the sessions of one listener, and counts for all of them.

    Args:
        max_size: bytes of a text from a peer, and of the text that answers it.
        max_batch: requests in a batch.
        message_type: reads the texts.

    Attributes:
        calls: how many calls and notifications arrived.
        malformed: how many malformed messages arrived.
    """

    session_type: type[ListenerSession] = ListenerSession

    def __init__(
        self,
        max_size: int,
        max_batch: int,
        message_type: type[IncomingMessage] = IncomingMessage,
    ) -> None:
        super().__init__({})
        self.max_size = max_size
        self.max_batch = max_batch
        self.message_type = message_type
        self.calls = 0
        self.malformed = 0

    def recognises(self, frames: Frames) -> bool:
        return True

    def session(
        self,
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> ListenerSession:
        return self.session_type(self, limits, ids=ids, connect_timeout=connect_timeout)


class PostDialect(ListenerDialect):
    """The same for peers that can only be answered."""

    session_type = PostSession
