"""The options of clients, servers and calls: frozen values, checked once and passed whole."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..common.tracing import Tracing
from ..endpoint import check_exposure
from ..nats.options import is_nats
from ..runtime.meter import Meter, meter_of
from ..security import CurveServer, Security, checked_security
from .transport.mdns.service import Announced
from .transport.port import IPC_MODE, MAX_SERVERS
from .validation import (
    Authorize,
    check_count,
    checked_authorize,
    checked_error_table,
    checked_exceptions,
    checked_mode,
    checked_seconds,
    checked_threads,
    checked_timeout,
)
from .wire.limits import CONNECT_TIMEOUT, Limits
from .wire.metadata import checked_metadata
from .wire.translation import refuse_untranslated

__all__ = [
    "DIALECTS",
    "GRACE",
    "SLOW_HANDLER",
    "CallOptions",
    "ClientOptions",
    "Options",
    "ServerOptions",
]

#: Names of the dialects, in the order in which a message is tried.
DIALECTS = ("native", "aiozmq", "jsonrpc")

#: Seconds that calls in progress have when a server closes.
GRACE = 5.0

#: Seconds that a handler may hold the event loop before it is named: as in asyncio's debug mode.
SLOW_HANDLER = 0.1


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a call is made.

    Args:
        timeout: seconds for the call, and for each item of a stream; ``None`` for no limit.
        metadata: what travels beside the arguments, in the native dialect alone.

    Raises:
        TypeError, ValueError: an option is invalid.
    """

    timeout: float | None = None
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _set(self, timeout=checked_timeout(self.timeout))
        if self.metadata is not None:
            _set(self, metadata=checked_metadata(self.metadata) or None)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What clients and servers have in common; `open_client` and `start_server` explain it.

    Args:
        connect, bind: as `endpoints_of` gives them.
        security: who may connect, and how this side proves who it is; ``None`` for neither.
        ipc_mode: of the file of an ``ipc://`` endpoint that is bound.
        authorize: decides on each call of a peer.
        metrics: what counts the calls; ``None`` for nothing, once it is checked.
        tracing: makes a span for each call of both sides; ``None`` for none.
        untranslated: see `Codec`; a node passes on what it has no entry for, others refuse it.

    Raises:
        TypeError, ValueError: an option is invalid.
    """

    connect: tuple[str, ...] = ()
    bind: tuple[str, ...] = ()
    loop: asyncio.AbstractEventLoop | None = None
    dialects: Iterable[str] = DIALECTS
    error_table: Mapping[str, type[Exception]] | None = None
    translation_table: Mapping[int, Any] | None = None
    untranslated: Callable[[int, bytes], Any] = refuse_untranslated
    use_list: bool = False
    limits: Limits = field(default_factory=Limits)
    connect_timeout: float = CONNECT_TIMEOUT
    threads: int | None = None
    slow_handler: float = SLOW_HANDLER
    log_exceptions: bool = False
    exclude_log_exceptions: Sequence[type[BaseException]] = ()
    send_traceback: bool = False
    insecure: bool = False
    ipc_mode: int = IPC_MODE
    security: Security | None = None
    authorize: Authorize | None = None
    metrics: "bool | Meter | None" = None
    tracing: Tracing | None = None

    def __post_init__(self) -> None:
        security = self.security
        for endpoint in self.bind:
            # A client without a key is refused.
            check_exposure(endpoint, self.insecure or security is not None)
        if security is not None and any(
            e.startswith("mem://") for e in (*self.connect, *self.bind)
        ):
            raise ValueError(
                "security is for other processes: mem:// is within this one, so leave it away there"
            )
        if security is not None and any(map(is_nats, (*self.connect, *self.bind))):
            raise ValueError(
                "keys are for tcp:// and ipc://: at NATS, its server decides who may connect. See "
                "rpc.Nats"
            )
        if (
            isinstance(security, CurveServer)
            and len(security.keys) not in (1, len(self.bind))
            # A node has its options before it has an endpoint.
            and (self.bind or self.connect)
        ):
            raise ValueError(
                f"{len(security.keys)} keys for {len(self.bind)} endpoints: bind one for each key"
            )
        _set(
            self,
            dialects=_checked_dialects(self.dialects),
            error_table=checked_error_table(self.error_table),
            connect_timeout=checked_seconds(self.connect_timeout, "connect_timeout"),
            threads=checked_threads(self.threads),
            slow_handler=checked_seconds(self.slow_handler, "slow_handler"),
            ipc_mode=checked_mode(self.ipc_mode),
            authorize=checked_authorize(self.authorize),
            exclude_log_exceptions=checked_exceptions(self.exclude_log_exceptions),
            security=checked_security(self.security),
            metrics=meter_of(self.metrics),
        )


@dataclass(frozen=True, kw_only=True)
class ClientOptions(Options):
    """The options of a client.

    Args:
        call: how its calls are made.
        max_servers: at one ``nats://`` or ``mdns://`` address, with how many servers it connects.
        avoided_services: ids of announced servers that it does not connect with: a node's own.
    """

    call: CallOptions = field(default_factory=CallOptions)
    max_servers: int = MAX_SERVERS
    avoided_services: Collection[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_servers", self.max_servers)


@dataclass(frozen=True, kw_only=True)
class ServerOptions(Options):
    """The options of a server.

    Args:
        grace: seconds that calls in progress have when it closes.
        announce: as what it is announced on the local network; ``None`` for not at all.
    """

    grace: float = GRACE
    announce: Announced | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.announce is not None:
            # Here, as it needs zeroconf.
            from .transport.mdns.announcement import check_announced

            check_announced(self.announce.name, self.bind)
        _set(self, grace=checked_seconds(self.grace, "grace", zero=True))


def _checked_dialects(names: Iterable[str]) -> tuple[str, ...]:
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if not wanted or any(name not in DIALECTS for name in wanted):
        known = ", ".join(map(repr, DIALECTS))
        given = ", ".join(map(repr, wanted)) or "none"
        raise ValueError(f"a dialect is one of {known}, not {given}")
    return wanted


def _set(options: Any, **checked: Any) -> None:
    """Put checked values into options that are being made."""
    for name, value in checked.items():
        object.__setattr__(options, name, value)
