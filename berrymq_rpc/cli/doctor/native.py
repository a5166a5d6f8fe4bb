"""The native dialect as the doctor speaks it: a greeting, and pings."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import ProtocolError
from ...rpc.wire.codec import Codec
from ...rpc.wire.native_records import ARRAY_32, HEAD, PAYLOAD, PREFIX, VERSION
from ...rpc.wire.record import GOODBYE, HELLO, PING, PONG
from .check import Check, failed, latency, milliseconds, ok, warning
from .conversation import Conversation, Lost, Refused

__all__ = ["Heard", "checks_of_greeting", "hello", "ping", "pings", "read"]

#: How many pings are sent, one after another.
PINGS = 10

#: Calls in flight below which a client waits for itself, and bytes below which records of some
#: thousand values do not fit.
SMALL_WINDOW = 8
SMALL_MESSAGE = 64 << 10

#: More than any limit is.
LARGE = 1 << 63

#: Versions of a greeting that are looked at.
MAX_VERSIONS = 20

#: The limits that a greeting has, as whole numbers.
LIMITS = ("window", "max_message", "max_frame", "max_waiting", "stream_window", "heartbeat")

_codec = Codec()


class Heard(NamedTuple):
    """What a message of the peer had.

    Args:
        clock: the peer's, in seconds.
        properties: of its greeting, if it is in there.
        pongs: the numbers of its pongs.
        goodbye: the reason of its goodbye, if it is in there.
    """

    clock: float
    properties: Mapping[str, Any] | None
    pongs: tuple[int, ...]
    goodbye: str | None


def _message(*records: tuple[Any, ...]) -> list[bytes]:
    head = HEAD.pack(PREFIX, VERSION, int(time.monotonic() * 1e6), ARRAY_32, len(records))
    return [head + b"".join(map(_codec.fast_pack, records))]


def hello() -> list[bytes]:
    """A greeting, and the first ping."""
    return _message((HELLO, {"versions": [VERSION]}), (PING, 1))


def ping(number: int) -> list[bytes]:
    """A further ping."""
    return _message((PING, number))


def read(frames: list[bytes]) -> Heard | None:
    """Read a message; ``None`` for one of another protocol."""
    head = frames[0]
    if len(head) < HEAD.size or head[: len(PREFIX)] != PREFIX:
        return None
    properties, goodbye = None, None
    pongs: list[int] = []
    try:
        for record in _codec.unpack(head[PAYLOAD:], frames[1:]):
            match tuple(record):
                case (kind, dict() as found) if kind == HELLO:
                    properties = found
                case (kind, int() as number) if kind == PONG:
                    pongs.append(number)
                case (kind, str() as reason) if kind == GOODBYE:
                    goodbye = reason
    except (ProtocolError, TypeError):
        return None
    _, _, clock, _, _ = HEAD.unpack_from(head)
    return Heard(clock * 1e-6, properties, tuple(pongs), goodbye)


def checks_of_greeting(properties: Mapping[str, Any], own_version: str) -> list[Check]:
    """Check the versions and limits of a peer by its greeting.

    Args:
        properties: of the greeting; a peer can send anything.
        own_version: of this package.
    """
    versions = properties.get("versions")
    array = versions if isinstance(versions, list | tuple) else ()
    known = [each for each in array if isinstance(each, int)][:MAX_VERSIONS]
    details = {"peer": known, "own": [VERSION], "package": own_version}
    if VERSION in known:
        text = f"both speak version {VERSION} of the protocol; here is berrymq_rpc {own_version}"
        checks = [ok("version", text, **details)]
    else:
        shown = ", ".join(map(str, known)) or "none"
        text = f"this side speaks version {VERSION} of the protocol, the peer {shown}"
        older = not known or max(known) < VERSION
        advice = f"upgrade berrymq_rpc at the {'peer' if older else 'side of this command'}"
        checks = [failed("version", text, advice, **details)]
    limits = {name: properties[name] for name in LIMITS if _is_number(properties.get(name))}
    if not limits:
        return [*checks, warning("limits", "the peer tells no limits", "is it of this package?")]
    text = ", ".join(f"{name} {value:,}" for name, value in limits.items())
    small = []
    if limits.get("window", SMALL_WINDOW) < SMALL_WINDOW:
        small.append("few calls run at a time: the others wait in the client")
    if limits.get("max_message", SMALL_MESSAGE) < SMALL_MESSAGE:
        small.append("larger arguments and results fail with TooLargeError")
    if small:
        advice = f"{'; '.join(small)}. The server's Limits say so: raise them if it may have more"
        return [*checks, warning("limits", text, advice, **limits)]
    return [*checks, ok("limits", text, **limits)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGE


async def pings(talk: Conversation, timeout: float) -> list[Check]:
    """Measure round trips, and how evenly the peer's clock and the network go."""
    times: list[float] = []
    ways: list[float] = []
    for number in range(2, PINGS + 2):
        began = time.monotonic()
        try:
            answer = await talk.ask(ping(number), timeout)
            while True:
                heard = None if isinstance(answer, Lost | Refused) else read(answer)
                if isinstance(answer, Lost | Refused) or (heard and number in heard.pongs):
                    break
                answer = await talk.next(timeout)
        except TimeoutError:
            text = f"ping {len(times) + 1} was not answered within {timeout:g} s"
            return [failed("latency", text, "is the server frozen, or held up by a function?")]
        if heard is None:
            text = f"the connection was lost after {len(times)} pings"
            return [failed("latency", text, "is something on the way that cuts connections?")]
        ended = time.monotonic()
        times.append(ended - began)
        ways.append(ended - heard.clock)
    # The clocks start anywhere: only how their difference changes says something.
    spread = max(ways) - min(ways)
    clock = ok(
        "clock",
        "deadlines travel by the caller's own clock, and need no time of day (the difference of "
        f"both clocks held within {milliseconds(spread)})",
        spread=round(spread, 6),
    )
    return [clock, latency(times, "pings")]
