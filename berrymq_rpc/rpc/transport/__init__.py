"""Transports, which carry frames between processes: in memory, and by ZeroMQ.

Each transport is a module with `listen` and `dial`, which return a `Port` (see `port`). Here is the
registry by scheme: a new transport is a module and a line in `TRANSPORTS`.
`berrymq_rpc.testing.conformance` checks a transport.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import NamedTuple

from ...endpoint import Endpoint, without_password

__all__ = ["TRANSPORTS", "Transport", "endpoints_of", "is_memory", "transport_for"]


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


#: By scheme.
TRANSPORTS = {
    "tcp": Transport("tcp://host:port", _zeromq),
    "ipc": Transport("ipc://path", _zeromq),
    "mem": Transport("mem://name", _memory),
}

_FORMS = ", ".join(transport.form for transport in TRANSPORTS.values())
_FORMS = " or ".join(_FORMS.rsplit(", ", 1))


def endpoints_of(
    value: str | Iterable[str] | None, name: str, *, connecting: bool = False
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
    found = (value,) if isinstance(value, str) else tuple(value)
    for endpoint in found:
        if not isinstance(endpoint, str):
            raise TypeError(f"{name}: an endpoint is text such as {_FORMS}, not {endpoint!r}")
        scheme, separator, place = endpoint.partition("://")
        if not (separator and place and scheme in TRANSPORTS):
            shown = without_password(endpoint)
            raise ValueError(f"{name}: {shown!r} is not an endpoint: write {_FORMS}")
        try:
            parsed = Endpoint.parse(endpoint)
            if connecting:
                parsed.require_port()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def is_memory(endpoint: str) -> bool:
    """Whether the endpoint is within this process."""
    return endpoint.startswith("mem://")


def transport_for(endpoint: str) -> ModuleType:
    """The module that listens and dials at an endpoint that `endpoints_of` has checked."""
    return TRANSPORTS[endpoint.partition("://")[0]].load()
