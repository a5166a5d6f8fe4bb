"""The dialect of plain NATS requests, such as ``nats req calc.add '[1, 2]'``.

What arrives are frames: the method's name, the subject for the answer, headers and body. The body
is a JSON array of arguments, an object of named ones, ``{"args": [...], "kwargs": {...}}``, or
nothing; msgpack with the header ``Content-Type: application/msgpack``. What leaves is the subject,
headers and body of the answer, in the same form. An error has the headers of NATS's services
(ADR-32), ``Nats-Service-Error`` and ``Nats-Service-Error-Code``, and a body with the exception's
type, arguments and ``repr``:

====  =========================================================================================
code  when
====  =========================================================================================
400   the body cannot be read, or the arguments do not fit (`ParametersError`)
403   `PermissionDeniedError`
404   there is no such method (`NotFoundError`)
408   the ``Berrymq-Timeout`` of the request, in milliseconds, is over
413   the answer is larger than NATS takes (`TooLargeError`)
429   a bound is reached (`OverloadedError`)
500   the method raised
501   it is a stream, or waits for something: that takes a session
503   the server is closing
====  =========================================================================================
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..common.tracing import TRACE_FIELDS
from ..errors import (
    GenericError,
    NotFoundError,
    OverloadedError,
    ParametersError,
    PermissionDeniedError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from ..nats.headers import pack_headers, parse_headers
from ..nats.subject import unescape
from ..rpc.wire.codec import Codec
from ..rpc.wire.exception_codec import Failure
from ..rpc.wire.foreign_session import ForeignSession
from ..rpc.wire.limits import CONNECT_TIMEOUT, Limits
from ..rpc.wire.record import CALL, NOTIFY, InboundEvent
from ..rpc.wire.safe_repr import bounded, full_name
from ..rpc.wire.session import Frames
from .error_objects import writable
from .protocols.json_codec import TextError, decode, encode

__all__ = ["EndpointCounts", "MicroDialect", "MicroRequest", "MicroSession"]

#: What is sent with an error's headers besides its text.
_ROOM = 1024

#: Characters of an error's text in a header.
_MAX_TEXT = 300

#: Milliseconds that a request may ask for at most: a day.
_MAX_TIMEOUT = 86_400_000

_MSGPACK = "application/msgpack"
_MSGPACK_HEADERS = pack_headers({"Content-Type": _MSGPACK})

_CODES = {
    full_name(cls): code
    for cls, code in (
        (ParametersError, 400),
        (ProtocolError, 400),
        (PermissionDeniedError, 403),
        (NotFoundError, 404),
        (RPCTimeoutError, 408),
        (TooLargeError, 413),
        (OverloadedError, 429),
        (NotImplementedError, 501),
        (ServiceClosedError, 503),
    )
}
_GENERIC_ERROR = full_name(GenericError)


@dataclass(slots=True)
class EndpointCounts:
    """What was asked of one method.

    Attributes:
        requests, errors: how many.
        last_error: the code and the text of the last one.
        seconds: that the answers took together.
    """

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    seconds: float = 0.0


class MicroRequest:
    """One request: the id of its call."""

    __slots__ = ("began", "is_msgpack", "name", "reply")

    def __init__(self, name: str, reply: bytes, is_msgpack: bool, began: float) -> None:
        self.name = name
        self.reply = reply
        self.is_msgpack = is_msgpack
        self.began = began


class _Answer(NamedTuple):
    """What is to be sent, and to which request."""

    request: MicroRequest
    headers: bytes
    body: bytes
    error: str


class MicroSession(ForeignSession):
    """The requests of all plain clients; they can be answered, and not called."""

    dialect = "micro"
    peer_kind = "a plain NATS client"
    can_be_pushed = False

    def __init__(
        self,
        dialect: "MicroDialect",
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        super().__init__(limits, {}, ids=ids, connect_timeout=connect_timeout)
        self._dialect = dialect

    def _encode_call(self, *arguments: Any) -> Any:
        self._check_open()

    def _encode_notify(self, *arguments: Any) -> Any:
        self._check_open()

    def _is_notification(self, encoded: Any) -> bool:
        return False

    # -- what arrives ----------------------------------------------------------------------

    def receive(self, frames: Frames, now: float) -> list[InboundEvent]:
        self.last_heard = now
        subject, reply, raw_headers, body = map(bytes, frames)
        headers = parse_headers(raw_headers) if raw_headers else {}
        content_type = headers.get("content-type", "").partition(";")[0]
        is_msgpack = content_type.strip().lower() == _MSGPACK
        request = MicroRequest("", reply, is_msgpack, now)
        try:
            request.name = name = _name_of(subject)
            self._dialect.check(name)
            args, kwargs = self._arguments(body, is_msgpack)
            deadline = _deadline(headers.get("berrymq-timeout"), now)
        except (ProtocolError, NotFoundError, NotImplementedError) as error:
            self.malformed += isinstance(error, ProtocolError)
            if reply:
                self._fail(request, full_name(type(error)), (str(error),), str(error))
            return []
        metadata = {name: headers[name] for name in TRACE_FIELDS if name in headers} or None
        if reply:
            return [(CALL, request, name, args, kwargs, deadline, metadata)]
        return [(NOTIFY, None, name, args, kwargs, None, metadata)]

    def _arguments(self, body: bytes, is_msgpack: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not body:
            return (), {}
        if len(body) > self._max_size:
            raise ProtocolError(f"{len(body):,} bytes are more than the {self._max_size:,} allowed")
        limits = self.limits
        if is_msgpack:
            value = self._dialect.codec.unpack(body)
        else:
            try:
                value = decode(body, self._max_size, limits.max_depth, limits.max_values)
            except TextError as error:
                raise ProtocolError(str(error)) from None
        match value:
            case list() | tuple():
                return tuple(value), {}
            case dict() if value and value.keys() <= {"args", "kwargs"}:
                args, kwargs = value.get("args", ()), value.get("kwargs", {})
                if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
                    raise ProtocolError("args is an array, and kwargs an object")
            case dict():
                args, kwargs = (), value
            case _:
                raise ProtocolError("the body is an array or an object of arguments, or empty")
        if not all(isinstance(name, str) for name in kwargs):
            raise ProtocolError("the names of arguments are text")
        return tuple(args), kwargs

    # -- answers ---------------------------------------------------------------------------

    def result(self, call_id: Any, value: Any, *, acknowledge: bool = False) -> None:
        request: MicroRequest = call_id
        if request.is_msgpack:
            headers, body = _MSGPACK_HEADERS, self._dialect.codec.pack(value)
        else:
            headers, body = b"", encode(value, self.limits.max_depth)
        most = self._dialect.max_payload() - len(headers)
        if len(body) > most:
            raise TooLargeError(
                f"an answer of {len(body):,} bytes is over the {most:,} that the NATS server takes"
            )
        self._put(_Answer(request, headers, body, ""))

    def error(self, call_id: Any, failure: Failure) -> None:
        type_name, args, text, _ = failure
        if type_name == _GENERIC_ERROR and len(args) == 3 and isinstance(args[1], tuple):
            # Another server raised it: as that server described it.
            type_name, args, text = args
        self._fail(call_id, type_name, args, text)

    def _fail(self, request: MicroRequest, name: str, args: tuple[Any, ...], text: str) -> None:
        code = _CODES.get(name, 500)
        first = args[0] if args and isinstance(args[0], str) and code != 500 else text
        shown = bounded(" ".join(first.split()) or name, _MAX_TEXT)
        headers = {"Nats-Service-Error": shown, "Nats-Service-Error-Code": str(code)}
        described: dict[str, Any] = {
            "type": name,
            "args": [writable(arg) for arg in args],
            "repr": text,
        }
        body = self._described(described, request.is_msgpack)
        if len(body) + _ROOM > self._dialect.max_payload():
            described["args"] = []
            described["repr"] = shown
            body = self._described(described, request.is_msgpack)
        if request.is_msgpack:
            headers["Content-Type"] = _MSGPACK
        self._put(_Answer(request, pack_headers(headers), body, f"{code}:{shown}"))

    def _described(self, described: dict[str, Any], is_msgpack: bool) -> bytes:
        return self._dialect.codec.pack(described) if is_msgpack else encode(described)

    def _put(self, answer: _Answer) -> None:
        self.large_bytes += len(answer.body)
        self._out.append(answer)

    @property
    def pending_records(self) -> int:
        return len(self._out)

    def messages(self, now: float) -> list[Frames]:
        answers, self._out = self._out, []
        self.large_bytes = 0
        for answer in answers:
            self._dialect.count(answer.request, now, answer.error)
        return [(answer.request.reply, answer.headers, answer.body) for answer in answers]


class MicroDialect:
    """Makes the session of one server, and counts what was asked of each method.

    Args:
        codec: for msgpack.
        check: raises `NotImplementedError` for a method that takes a session.
        max_payload: bytes of headers and body that NATS takes.
        names: the methods that are counted one by one.
    """

    name = "micro"

    def __init__(
        self,
        codec: Codec,
        check: Callable[[str], object],
        max_payload: Callable[[], int],
        names: Iterator[str],
    ) -> None:
        self.codec = codec
        self.check = check
        self.max_payload = max_payload
        self.counts = {name: EndpointCounts() for name in names}

    def count(self, request: MicroRequest, now: float, error: str) -> None:
        """Count an answer."""
        counts = self.counts.get(request.name)
        if counts is not None:
            counts.requests += 1
            counts.seconds += now - request.began
            if error:
                counts.errors += 1
                counts.last_error = error

    def recognises(self, frames: Frames) -> bool:
        return True

    def session(
        self,
        limits: Limits,
        *,
        ids: Iterator[int] | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> MicroSession:
        return MicroSession(self, limits, ids=ids, connect_timeout=connect_timeout)


def _name_of(subject: bytes) -> str:
    try:
        return ".".join(map(unescape, subject.decode("ascii").split(".")))
    except ValueError:
        shown = subject[:_MAX_TEXT].decode("ascii", "replace")
        raise NotFoundError(f"no method {shown!r}") from None


def _deadline(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and 0 < len(text) <= 8):
        raise ProtocolError("Berrymq-Timeout is a whole number of milliseconds")
    return now + min(int(text), _MAX_TIMEOUT) / 1000
