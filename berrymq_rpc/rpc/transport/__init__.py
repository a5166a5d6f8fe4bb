"""Transports, which carry frames between processes: in memory, by ZeroMQ, and over NATS.

Each transport is a module with `listen` and `dial`, which return a `Port` (see `port`). Here is the
registry by scheme: a new transport is a module and a line in `TRANSPORTS`.
`berrymq_rpc.testing.conformance` checks a transport.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import NamedTuple, TypeAlias

from ...endpoint import Endpoint, is_port, without_password
from ...nats.options import Nats, NatsEndpoint, is_nats, nats_of

__all__ = [
    "TRANSPORTS",
    "Place",
    "Transport",
    "endpoints_of",
    "finds_several",
    "is_memory",
    "transport_for",
]

#: An endpoint as text, or a service at NATS with more settings.
Place: TypeAlias = str | Nats


class Transport(NamedTuple):
    """The transport of a scheme.

    Args:
        form: how its endpoints are written.
        load: returns the module, imported when the first of its endpoints is used.
    """

    form: str
    load: Callable[[], ModuleType]


def _memory() -> ModuleType:
    from . import memory

    return memory


def _zeromq() -> ModuleType:
    from . import zeromq

    return zeromq


def _nats() -> ModuleType:
    from . import nats

    return nats


def _mdns() -> ModuleType:
    from . import mdns

    return mdns


#: By scheme.
TRANSPORTS = {
    "tcp": Transport("tcp://host:port", _zeromq),
    "ipc": Transport("ipc://path", _zeromq),
    "mem": Transport("mem://name", _memory),
    "nats": Transport("nats://host:port/service", _nats),
    "nats+tls": Transport("nats+tls://host:port/service", _nats),
    "mdns": Transport("mdns://name", _mdns),
}

_FORMS = ", ".join(transport.form for transport in TRANSPORTS.values())
_FORMS = " or ".join(_FORMS.rsplit(", ", 1))


def endpoints_of(
    value: Place | Iterable[Place] | None, name: str, *, connecting: bool = False
) -> tuple[str, ...]:
    """The endpoints that the argument `name` gave: one, several or none.

    Args:
        connecting: they are to be connected to, so each has a port that is not 0.

    Raises:
        TypeError: one of them is not text.
        ValueError: one of them is malformed, or there is no transport for it.
    """
    if value is None:
        return ()
    found: list[str] = []
    if not isinstance(value, str | Nats | Iterable):
        raise TypeError(f"{name}: an endpoint is text such as {_FORMS}, not {value!r}")
    for endpoint in (value,) if isinstance(value, str | Nats) else tuple(value):
        if is_nats(endpoint):
            found.append(_nats_endpoint(endpoint, name, connecting))
            continue
        if not isinstance(endpoint, str):
            raise TypeError(f"{name}: an endpoint is text such as {_FORMS}, not {endpoint!r}")
        scheme, separator, place = endpoint.partition("://")
        if not (separator and place and scheme in TRANSPORTS):
            shown = without_password(endpoint)
            raise ValueError(f"{name}: {shown!r} is not an endpoint: {_advice(scheme, shown)}")
        try:
            parsed = Endpoint.parse(endpoint)
            if scheme == "mdns" and not connecting:
                raise ValueError(
                    f"{endpoint} is where clients connect: bind tcp://0.0.0.0:5555, say, with "
                    f"security=, and give announce={parsed.path!r}"
                )
            if connecting:
                parsed.require_port()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        found.append(endpoint)
    return tuple(found)


def _advice(scheme: str, shown: str) -> str:
    """What to write instead of a text that is not an endpoint."""
    if scheme in ("http", "https", "ws", "wss"):
        return (
            f"{scheme}:// is served by a jsonrpc.bridge.Bridge and called by "
            f"jsonrpc.http.open_http_client; here write {_FORMS}"
        )
    host, colon, port = shown.rpartition(":")
    if host and colon and (port == "*" or is_port(port)) and not set("/: ") & set(host):
        return f"write tcp://{shown}"
    return f"write {_FORMS}"


def _nats_endpoint(place: Place, name: str, connecting: bool) -> NatsEndpoint:
    try:
        settings = nats_of(place)
        service = settings.address.service
        if service is None or (connecting and service == "*"):
            raise ValueError(f"{settings} names no service: write nats://host:4222/service")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    return NatsEndpoint(settings)


def finds_several(endpoint: str) -> bool:
    """Whether several servers may be found at one endpoint."""
    return is_nats(endpoint) or endpoint.startswith("mdns://")


def is_memory(endpoint: str) -> bool:
    """Whether the endpoint is within this process."""
    return endpoint.startswith("mem://")


def transport_for(endpoint: str) -> ModuleType:
    """The module that listens and dials at an endpoint that `endpoints_of` has checked."""
    return TRANSPORTS[endpoint.partition("://")[0]].load()
