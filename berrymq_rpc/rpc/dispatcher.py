"""What is shared by all peers whose calls a client or server serves: methods, bounds, counts."""

import asyncio
from collections.abc import Callable
from typing import Any

from ..common.measures import CANCELLED, EXPIRED, REFUSED
from ..common.start_context import StartContext
from ..errors import RPCTimeoutError
from ..runtime.daemon_executor import DaemonExecutor
from ..runtime.fork import OwnerProcess
from ..runtime.log import Log
from ..runtime.meter import Meter, meter_of
from .call import Call
from .describe import describe as describe_methods
from .metering import NewCall, new_call_for
from .method import Kind, Method
from .method_table import HandlerTable
from .options import Options
from .traced_method import is_traced, traced
from .turns import Turns
from .wire.codec import Codec
from .wire.exception_codec import Failure, describe

__all__ = ["DESCRIBE", "Dispatcher", "call_back", "outcome_of_refusal"]

logger = Log("berrymq_rpc.rpc")

#: The method that every peer offers beside its handler's.
DESCRIBE = "rpc.describe"


class Dispatcher:
    """The serving half of a client or server, which the `Inbound` of each of its peers shares.

    Args:
        table: what is exported.
        options: the bounds, and how handlers are run and logged.
        codec: says which arguments of an exception can travel.
    """

    def __init__(
        self,
        table: HandlerTable,
        options: Options,
        codec: Codec,
    ) -> None:
        self.table = table
        self.limits = options.limits
        self.slow_handler = options.slow_handler
        #: What each call's context is a copy of.
        self.start_context = StartContext()
        #: The peers that have sent more than was served in a turn.
        self.turns = Turns()
        #: Decides on each call, where a server wants that.
        self.authorize = options.authorize
        #: Why calls are refused, once this side is closing.
        self.closing: str | None = None
        #: Calls of all peers that run and hold a slot of their peer's window, and those that run
        #: without one. Plain functions end before anything else can look.
        self.in_flight = 0
        self.waiting = 0
        #: Bytes of calls of all peers that wait.
        self.queued_bytes = 0
        #: Calls and notifications of all peers so far. They are counted by messages, so that it
        #: costs a single call nothing.
        self.calls = 0
        #: What is counted for `statistics`.
        self.notifications_dropped = 0
        self.malformed = 0
        #: What counts the calls; ``None`` where nothing does.
        self.meter: Meter | None = None
        #: Makes the calls to peers.
        self.new_call: NewCall = Call
        self._options = options
        self._owner = OwnerProcess("server")
        self._executor: DaemonExecutor | None = None
        self._codec = codec
        #: The table does not change.
        self._described: dict[str, Any] | None = None
        #: By name; a table that forwards calls finds further ones.
        self.methods = dict(table.methods)
        # A table that forwards calls has its own.
        self.methods.setdefault(DESCRIBE, Method.of(DESCRIBE, self._describe))
        #: Makes a span for each call, or ``None``.
        self.tracing = options.tracing
        #: The same for the calls to peers, which are a node's own where it serves its functions.
        self.peer_tracing = options.tracing if all(map(is_traced, self.methods.values())) else None
        if self.tracing is not None:
            for name, method in self.methods.items():
                self.methods[name] = traced(method, self.tracing)
        #: Those that end when they return and that everybody may call: the method, its function,
        #: and the least and greatest number of positional arguments.
        self.simple: dict[str, tuple[Method, Callable[..., Any], int, float]] = {
            name: (method, method.function, method.signature.minimum, method.signature.maximum)
            for name, method in self.methods.items()
            if method.kind is Kind.SYNC and method.allow is None and self.authorize is None
        }
        self.measure(meter_of(options.metrics))

    def measure(self, meter: Meter | None) -> None:
        """Have a meter count all calls from now on."""
        self.meter = meter
        self.new_call = new_call_for(meter)

    def count(self, name: str, outcome: int, seconds: float | None) -> None:
        """Count a call that has ended, if something counts them.

        Args:
            seconds: how long it ran; ``None`` for one that was not begun.
        """
        if self.meter is not None:
            self.meter.served.ended(name, outcome, seconds, name in self.methods)

    def _describe(self) -> dict[str, Any]:
        if self._described is None:
            self._described = describe_methods(self.table)
        return self._described

    # -- calls ---------------------------------------------------------------------------

    def find(self, name: str) -> Method:
        """Return the method of a name.

        Raises:
            NotFoundError: there is none.
        """
        method = self.methods.get(name)
        if method is None:
            method = self.table.find(name)
            if self.tracing is not None:
                method = traced(method, self.tracing)
        return method

    def drop_notification(self, name: str, reason: object) -> None:
        """Count a notification that is not served, and log some of them."""
        self.notifications_dropped += 1
        self.count(name, outcome_of_refusal(reason), None)
        logger.warning(
            "notification %.100r dropped (%d so far): %s", name, self.notifications_dropped, reason
        )

    def call_expired(self, name: str, args: Any, kwargs: Any) -> None:
        """Note a call whose deadline had passed before its turn."""
        self.count(name, EXPIRED, None)
        self.table.call_expired(name, args, kwargs)

    # -- threads ---------------------------------------------------------------------------

    def executor_for(self, method: Method) -> DaemonExecutor | None:
        """The threads that a method runs on, if it is ``thread=True``."""
        if method.kind is Kind.THREAD and self._executor is None:
            self._executor = DaemonExecutor(self._options.threads, "berrymq_rpc")
        return self._executor

    def close(self) -> None:
        """Let the threads end; those that still run are not waited for."""
        self.turns.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    # -- errors ----------------------------------------------------------------------------

    def describe(self, error: BaseException) -> Failure:
        """An exception as it travels. Never raises."""
        return describe(error, self._codec, traceback=self._options.send_traceback)

    @property
    def is_left(self) -> bool:
        """Whether this is the child of a fork: what a method raises here ends the child."""
        return not self._owner.is_this

    def log_error(self, name: str, error: BaseException, *, answered: bool) -> None:
        """Log what a handler raised, if the caller will not see it or the server wants it."""
        if isinstance(error, asyncio.CancelledError):
            return
        if answered and not self._options.log_exceptions:
            return
        if isinstance(error, tuple(self._options.exclude_log_exceptions)):
            return
        # Names outside the table are the peer's choice.
        about = name if name in self.methods else None
        logger.error("handler %s failed", name, exc_info=error, about=about)

    def log_malformed(self, peer: str, error: BaseException) -> None:
        """Count a message that could not be read, and log some of them."""
        self.malformed += 1
        logger.warning(
            "malformed message from peer %s (%d so far): %.200s", peer, self.malformed, error
        )


def outcome_of_refusal(reason: object) -> int:
    """How a call has ended that was not begun."""
    if isinstance(reason, RPCTimeoutError):
        return EXPIRED
    return CANCELLED if isinstance(reason, asyncio.CancelledError) else REFUSED


def call_back(callback: Callable[[bool], object] | None, delivered: bool) -> None:
    """Let a handler know whether its result arrived."""
    if callback is not None:
        try:
            callback(delivered)
        except KeyboardInterrupt:
            raise
        except BaseException:
            logger.exception("an on_delivery callback failed")
