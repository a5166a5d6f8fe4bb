"""The bus: what programs call to follow, to unfollow and to send."""

import operator
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ServiceClosedError
from ..identifier import Identifier
from ..runtime.meter import Meter, meter_of
from .backlog import Backlog
from .completion import Completion, track_route
from .decorators import (
    EntryExit,
    ExceptionReport,
    error_message,
    portable_route,
    with_action,
    wrap,
)
from .delivery import Delivery, ErrorHandler
from .diagram import Diagram
from .durable import ConfirmedMessage, Stored, not_kept
from .gateway import BusGateway, Gateway
from .message import Message, TalkMessage
from .message_iterator import Messages
from .registrations import (
    Receiver,
    Registration,
    is_coroutine_function,
    is_sink,
)
from .registry import Registry
from .retained_store import MAX_RETAINED, MAX_RETAINED_BYTES, RetainedStore
from .retention import Retention
from .routing_table import Route
from .thread_pool import PooledCall, ThreadPool

__all__ = ["Bus", "ErrorHandler"]

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


class Bus(Registry):
    """Sends messages to those who follow them, within one process. Any thread may use it.

    Receivers and guards are called with one argument, the `Message`.

    Args:
        max_retained: how many messages it retains at most; see `retain`.
        max_retained_bytes: bytes of these together, counted roughly.
        metrics: count its messages by identifier, and the receivers that raise; an `rpc.Meter`
            counts those of several buses, and what else it is given to.

    Raises:
        ValueError, TypeError: a bound is negative, or not an integer; or `metrics` is not what it
            may be.

    Attributes:
        gateway: connects the bus with other processes; programs do not need it.
    """

    def __init__(
        self,
        max_retained: int = MAX_RETAINED,
        max_retained_bytes: int = MAX_RETAINED_BYTES,
        metrics: "bool | Meter" = False,
    ) -> None:
        super().__init__()
        self._delivery = Delivery()
        self._diagram = Diagram()
        self._pool: ThreadPool | None = None
        store = RetainedStore(
            _checked_bound("max_retained", max_retained),
            _checked_bound("max_retained_bytes", max_retained_bytes),
        )
        self._retention = Retention(self._routing_table, self._delivery, store)
        self.gateway: Gateway = BusGateway(
            self._routing_table, self._delivery, self._diagram, self._retention
        )
        self._meter: Meter | None = None
        meter = meter_of(metrics)
        if meter is not None:
            self.measure(meter)

    @property
    def on_error(self) -> ErrorHandler | None:
        """Called as ``on_error(error, message, receiver)`` after an error was logged, or `None`.

        That is an exception of a receiver, a guard or a connection, and the call is made in the
        thread where it was raised. `receiver` is the callable that was registered.
        """
        return self._delivery.on_error

    @on_error.setter
    def on_error(self, handler: ErrorHandler | None) -> None:
        self._delivery.on_error = handler

    # -- sending -----------------------------------------------------------------------------

    def twitter(self, identifier: Identifier | str, /, *args: Any, **kwargs: Any) -> int:
        """Send a message to all receivers and queues that follow a matching identifier.

        Receivers run at once in this thread, in the order in which they were registered, or on a
        pool after `set_multiplicity`. ``async def`` receivers are started on the event loop that
        runs in this thread; without one, on that of a node on this bus, or else on one in a thread
        that the package starts for them. What a receiver raises is logged, handed to `on_error`,
        and stops neither the other receivers nor the sender.

        Args:
            identifier: what the message is about; wildcards reach all that they match.
            args: the message's positional arguments, of any type.
            kwargs: its keyword arguments.

        Returns:
            How many receivers and queues it reached; those that a guard skipped do not count.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier.
            RecursionError: receivers send messages to each other more than `MAX_DEPTH` levels deep;
                the text names the cycle. Raised only inside a receiver: it ends those that are part
                of the cycle, is logged and handed to `on_error` once, and does not reach the
                outermost sender.
        """
        try:
            route = self._routing_table.routes[identifier]
        except (KeyError, TypeError):
            route = self._routing_table.find(identifier)
        if not route.calls:
            return 0
        return self._delivery.run(route, Message(route.identifier, args, kwargs))

    async def publish(
        self,
        identifier: Identifier | str,
        /,
        *args: Any,
        durable: bool | None = None,
        **kwargs: Any,
    ) -> int:
        """Send a message as `twitter` does, and wait until all receivers have ended.

        Receivers that run in this thread block the event loop, as with `twitter`; those on the pool
        and ``async def`` receivers do not. Cancelling it ends the wait, not the receivers. If a
        durable queue of the cluster keeps the message, it is also waited until that has it.

        Args:
            durable: ``True``: a durable queue has to keep it. ``False``: none is waited for.

        Returns:
            How many receivers and queues it reached, those that raised included.

        Raises:
            ValueError, TypeError, RecursionError: as `twitter`.
            NotFoundError: with ``durable=True``: no durable queue keeps the message, and it was not
                sent.
            OverloadedError: the durable queues are full. Receivers have the message nevertheless.
            RPCTimeoutError: the cluster has not answered within a minute; it may have the message.
            ConnectionLostError: it cannot be asked which queues there are now; nothing was sent.
        """
        route = self._route(identifier)
        message: Message
        stored: Stored | None = None
        queues = self.gateway.durable_queues
        if queues is not None and durable is not False and not route.identifier.is_local:
            stored = await queues.reserve(route.identifier)
        if stored is not None:
            message = ConfirmedMessage(route.identifier, args, kwargs, stored)
            # Who follows may have changed.
            route = self._route(identifier)
        elif not durable:
            message = Message(route.identifier, args, kwargs)
        else:
            raise not_kept(route.identifier, has_cluster=queues is not None)
        completion: Completion | None = None
        sinks = 0
        if route.reached:
            completion = Completion()
            route, sinks = track_route(route, completion.on_end)
        try:
            reached = self._delivery.run(route, message)
        except BaseException:
            if stored is not None and not stored.is_claimed:
                stored.end()
            raise
        if completion is not None:
            await completion.wait(reached - sinks)
        if stored is not None:
            if not stored.is_claimed:
                stored.end(ServiceClosedError("the node has left the cluster: nothing was stored"))
            await stored.wait()
        return reached

    def talk(
        self,
        identifier: Identifier | str,
        callback_identifier: Identifier | str,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> int:
        """Send a message as `twitter` does; send what each receiver returns as an answer.

        Each answer is a message to `callback_identifier`, with ``args == (result,)``, even if the
        result is `None`. The answer of a receiver that raised has the exception as `Message.error`,
        and `None` as result. An ``async def`` receiver answers when it has ended. Queues do not
        answer, nor does a receiver that its guard skipped. Receivers in connected processes answer
        as well, unless `callback_identifier` is local.

        Returns:
            How many receivers and queues it reached in this process.

        Raises:
            ValueError, TypeError: one of the two is not an identifier.
            RecursionError: as `twitter`.
        """
        callback = Identifier(callback_identifier)
        route = self._route(identifier)
        gateway = self.gateway

        def answer(result: Any, error: BaseException | None) -> None:
            gateway.answer(callback, result, error)

        tracked, _ = track_route(route, answer)
        return self._delivery.run(tracked, TalkMessage(route.identifier, args, kwargs, callback))

    def auto_twitter(
        self, identifier: Identifier | str, entry: bool = False, exit: bool = False
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a function: its calls send messages with the arguments of the call.

        ``name:entry`` is sent before a call and ``name:exit`` after it, unless it raised. Works on
        functions, methods (the object is the first argument), ``async def``, and generators: a
        generator is entered when its first item is requested, and exited when it is exhausted.

        Args:
            identifier: the name and namespace of both messages; its action does not matter.
            entry: send ``name:entry`` only.
            exit: send ``name:exit`` only. With neither, or both, both messages are sent.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier.
        """
        parsed = Identifier(identifier)
        entry_identifier = with_action(parsed, "entry") if entry or not exit else None
        exit_identifier = with_action(parsed, "exit") if exit or not entry else None

        def decorate(function: AnyCallable) -> AnyCallable:
            def around(args: tuple[Any, ...], kwargs: dict[str, Any]) -> EntryExit:
                return EntryExit(self.twitter, entry_identifier, exit_identifier, args, kwargs)

            wrapped: AnyCallable = wrap(function, around)
            sent = [part for part in (entry_identifier, exit_identifier) if part is not None]
            self._diagram.add_sender(wrapped, sent)
            return wrapped

        return decorate

    def twitter_exception(
        self, identifier: Identifier | str, reraise: bool = False, with_traceback: bool = True
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a function: an exception that it raises is sent as a message.

        The lines of the traceback are the message's one argument; its keyword arguments `type`,
        `value` and `traceback` are the exception's class, the exception, and its traceback.
        `Message.error` is the exception as well. Other processes get text instead of these objects.
        Works on the kinds of functions that `auto_twitter` does. `KeyboardInterrupt`, cancellation
        and all else that is not an `Exception` is raised, and not sent.

        Args:
            identifier: the message's identifier.
            reraise: also raise the exception; otherwise the call returns `None` (a generator ends).
            with_traceback: send the traceback; otherwise only the exception's own line.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier.
        """
        parsed = Identifier(identifier)

        def send(error: Exception) -> None:
            route = self._route(parsed)
            if route.calls:
                message, portable = error_message(parsed, error, with_traceback)
                self._delivery.run(portable_route(route, portable), message)

        def decorate(function: AnyCallable) -> AnyCallable:
            wrapped: AnyCallable = wrap(
                function, lambda args, kwargs: ExceptionReport(send, reraise)
            )
            self._diagram.add_sender(wrapped, [parsed])
            return wrapped

        return decorate

    # -- receiving ---------------------------------------------------------------------------

    def messages(self, *identifiers: Identifier | str, maxsize: int = 0) -> Messages:
        """Receive messages in a loop: ``async for message in bus.messages("oven:*"): ...``.

        Messages are kept from this call on, so that none is lost before the loop begins or while it
        works. That ends when the loop does, is cancelled, or left by ``break``; an object that is
        kept in a variable is closed by `Messages.close`, `Messages.aclose`, or ``with``. Messages
        may be sent from any thread.

        Args:
            identifiers: which messages to receive, one or several; each message comes once.
            maxsize: how many messages wait for the loop at most; when one more comes, the oldest is
                dropped, counted (`Messages.dropped`) and, at a bounded rate, logged. 0 for any
                number.

        Raises:
            ValueError: one is not an identifier, or `maxsize` is negative.
            TypeError: no identifier is given, one is not text, or `maxsize` is not an integer.
        """
        return Messages(self, identifiers, maxsize)

    # -- state -------------------------------------------------------------------------------

    def retain(self, identifier: Identifier | str) -> None:
        """Keep the last message of each identifier that `identifier` covers, from now on.

        Who follows later, or opens a queue, hears them at once: before `following_function` and
        the like return, in their thread, after its guard, the one that was sent first first, and
        before what is sent meanwhile. `Message.retained` is true then. A message that is sent with
        wildcards is kept as such, if `identifier` covers all that it reaches: ``oven:*`` keeps
        what was sent as ``oven``, ``oven:log`` does not.

        Over `max_retained` messages, or `max_retained_bytes`, those are dropped that changed first,
        counted and logged. Answers of `talk` are not kept; of what `twitter_exception` sends, the
        text is. Other nodes keep the messages as well.

        Args:
            identifier: which messages; it cannot be undone, but see `forget`.

        Raises:
            ValueError, TypeError: it is not an identifier.
        """
        self._retention.retain(Identifier(identifier))

    def retained(self, identifier: Identifier | str = "*@*:*") -> list[Message]:
        """The messages that are retained and match, the one that was sent first first.

        Args:
            identifier: which; by default all.

        Raises:
            ValueError, TypeError: it is not an identifier.
        """
        return [kept.message for kept in self._retention.retained(Identifier(identifier))]

    @property
    def retained_bounds(self) -> tuple[int, int]:
        """How many messages it retains at most, and bytes of these, as it was made with."""
        store = self._retention.store
        return store.max_messages, store.max_bytes

    def forget(self, identifier: Identifier | str) -> int:
        """Drop the messages that are retained and that `identifier` covers.

        Later messages are retained as before. Other nodes forget them as well, even those that are
        away now.

        Returns:
            How many were dropped here.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier.
        """
        return self._retention.forget(Identifier(identifier))

    # -- how receivers run -------------------------------------------------------------------

    def set_multiplicity(self, number: int) -> None:
        """Run receivers on a pool of threads, so that senders need not wait for them.

        The pool starts receivers in the order in which messages are sent and receivers were
        registered. Several run at a time, so they may end, and a receiver may get the messages of
        one sender, in another order. Guards run in the sender's thread; it also fills the queues,
        in order; ``async def`` receivers still run on an event loop. When 10,000 receivers wait
        for a thread, senders run further ones themselves (`Overflow.CALLER_RUNS`).

        What the pool has accepted is done even if it is replaced. At the exit of the interpreter
        it has 5 seconds for that.

        Args:
            number: how many threads at most; with 0 or 1, receivers run in the sender's thread,
                as they do without this call.

        Raises:
            ValueError, TypeError: `number` is negative, or not an integer.
        """
        try:
            number = operator.index(number)
        except TypeError:
            raise TypeError(f"multiplicity must be a number of threads, not {number!r}") from None
        if number < 0:
            raise ValueError(f"multiplicity must be a number of threads, not {number}")
        replaced = self._pool
        self._pool = pool = ThreadPool(number) if number > 1 else None
        if pool is None:
            self._routing_table.set_call(_direct_call)
        else:
            delivery = self._delivery

            def pooled(registration: Registration) -> Receiver:
                if is_sink(registration.function) or is_coroutine_function(registration.function):
                    return registration.call
                return PooledCall(registration, pool, delivery)

            self._routing_table.set_call(pooled)
        if replaced is not None:
            replaced.close()

    @property
    def multiplicity(self) -> int:
        """How many receivers run at a time, as set by `set_multiplicity`; 1 without it."""
        return 1 if self._pool is None else self._pool.size

    # -- diagrams ----------------------------------------------------------------------------

    def show_followers(self) -> dict[str, list[str]]:
        """The names of what follows, by identifier, in alphabetical order."""
        return self._diagram.followers(self._routing_table.registrations())

    def show_network(self, format: str = "dot") -> str:
        """A diagram of who sends and who follows what, as text.

        It shows identifiers, the functions and classes that follow them, queues, connections to
        other processes, and functions decorated with `auto_twitter` or `twitter_exception`. Dashed
        lines lead from what is sent to wildcards that match it, and to receivers with a guard.

        Args:
            format: ``"dot"``, the language of Graphviz: ``dot -Tsvg`` makes an image of it.

        Raises:
            ValueError: the format is unknown.
        """
        if format != "dot":
            raise ValueError(f"the format of a diagram must be 'dot', not {format!r}")
        return self._diagram.dot(self._routing_table.registrations())

    def network(self, limit: int | None = None) -> dict[str, list[dict[str, Any]]]:
        """What `show_network` draws, in plain values.

        Args:
            limit: of how many registrations at most, the oldest; ``None`` for all.

        Returns:
            ``{"nodes": [...], "edges": [...]}``. A node has an ``id``, a ``kind`` (one of
            ``"identifier"``, ``"function"``, ``"class"``, ``"queue"`` and ``"connection"``), a
            ``label``, and the number of ``objects`` that it stands for. An edge has the ids
            ``from`` and ``to``; a ``kind``: ``"follows"`` from an identifier to what follows it,
            ``"sends"`` to an identifier from what sends it, or ``"matches"`` from one that is sent
            to a wildcard; the name of the method that follows as ``label``; and whether it is
            ``guarded``.
        """
        return self._diagram.data(self._routing_table.registrations()[:limit])

    # -- what there is ---------------------------------------------------------------------------

    def registrations(self) -> list[Registration]:
        """Who follows what, oldest first; each has `identifier`, `guard` and `receiver()`.

        One is there for each receiver, identifier and guard. Those of objects that are gone are
        not.
        """
        return self._routing_table.registrations()

    @property
    def metrics(self) -> Meter | None:
        """What counts its messages, or `None`."""
        return self._meter

    def measure(self, meter: Meter | None = None) -> Meter:
        """Begin to count its messages, if that was not asked for as it was made.

        Args:
            meter: what counts from now on; ``None`` for what does already, or else a new one.

        Returns:
            What counts.
        """
        if meter is None:
            meter = self._meter or Meter()
        if meter is not self._meter:
            self._meter = meter
            self._delivery.meter = meter
            self._routing_table.measure(meter)
        return meter

    def statistics(self) -> dict[str, int]:
        """Counts of what there is at this moment.

        ``registrations``; ``routes_cached``, identifiers whose receivers are known without a
        lookup; ``changes_waiting``, of registrations; ``async_receivers`` that are running;
        ``pool_threads``, and ``receivers_running`` and ``receivers_waiting`` on the pool;
        ``queues`` that are open in this process, those that share their messages being one,
        ``messages_waiting`` in them and ``messages_dropped`` by them;
        ``messages_retained`` and ``retained_bytes``. Counts of what has happened:
        ``retained_dropped``, messages over a bound; ``retained_outdated``, those of other nodes
        that came after a newer one.

        With ``metrics``, also ``messages_published`` by this process, ``messages_relayed`` from
        other processes, and ``receiver_errors``: receivers and guards that raised. These are the
        meter's, for all that it counts.
        """
        pool = self._pool
        backlogs = {
            backlog
            for registration in self.registrations()
            if isinstance(backlog := getattr(registration.receiver(), "__self__", None), Backlog)
        }
        counts = {
            **self._routing_table.statistics(),
            "queues": len(backlogs),
            "messages_waiting": sum(map(len, backlogs)),
            "messages_dropped": sum(backlog.dropped for backlog in backlogs),
            "async_receivers": len(self._delivery.async_receivers),
            "pool_threads": 0,
            "receivers_running": 0,
            "receivers_waiting": 0,
            **self._retention.store.statistics(),
        }
        if pool is not None:
            counts |= pool.statistics()
        return counts if self._meter is None else counts | self._meter.message_totals()

    def _route(self, identifier: Identifier | str) -> Route:
        try:
            return self._routing_table.routes[identifier]
        except (KeyError, TypeError):
            return self._routing_table.find(identifier)


def _checked_bound(name: str, value: int) -> int:
    try:
        bound = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if bound < 0:
        raise ValueError(f"{name} must not be negative, as {bound} is")
    return bound


_direct_call = operator.attrgetter("call")
