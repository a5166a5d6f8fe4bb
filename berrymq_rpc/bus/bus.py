"""The bus: what programs call to follow, to unfollow and to send."""

import operator
from collections.abc import Callable
from typing import Any, TypeVar

from ..identifier import Identifier
from .announcing import Announcement, Complaint, error_message, portable_route, with_action
from .backlog import Backlogs
from .completion import Completion
from .delivery import Delivery, ErrorHandler
from .diagram import Diagram
from .gateway import BusGateway, Gateway
from .message import Message, TalkMessage
from .pool import Pool
from .pooled_call import PooledCall
from .registrations import (
    Receiver,
    Registration,
    is_coroutine_function,
    is_sink,
)
from .registry import Registry
from .route import Route
from .telling import telling_route
from .wrapping import wrap

__all__ = ["Bus", "ErrorHandler"]

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


class Bus(Registry):
    """Messages in one process: who follows what, and sending. Safe for any number of threads.

    Receivers, guards and forwarders are called with one argument, the `Message`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._delivery = Delivery()
        self._diagram = Diagram()
        self._pool: Pool | None = None
        self.backlogs = Backlogs()
        #: Connects the bus with other processes.
        self.gateway: Gateway = BusGateway(self._directory, self._delivery, self._diagram)

    @property
    def on_error(self) -> ErrorHandler | None:
        """`None`, or what is called as ``on_error(error, message, receiver)`` after an exception
        of a receiver, guard or forwarder was logged; in the thread where it was raised.

        `receiver` is the callable that was registered.
        """
        return self._delivery.on_error

    @on_error.setter
    def on_error(self, handler: ErrorHandler | None) -> None:
        self._delivery.on_error = handler

    # -- sending -----------------------------------------------------------------------------

    def twitter(self, identifier: Identifier | str, /, *args: Any, **kwargs: Any) -> int:
        """Send a message to all who follow a matching identifier.

        Receivers run here and now, in the order in which they were registered, or on a pool after
        `set_multiplicity`. ``async def`` receivers are started on the event loop that runs in this
        thread; without one, on that of a node on this bus, or else on one in a thread that the
        package starts for them. What a receiver raises is logged, handed to `on_error`, and stops
        neither the others nor the sender.

        Args:
            identifier: what the message is about; wildcards reach all whom they match.
            args: the message's arguments, of any kind.
            kwargs: those with names.

        Returns:
            How many receivers and queues it reached; those that a guard skipped do not count.

        Raises:
            ValueError, TypeError: `identifier` is no identifier.
            RecursionError: receivers that send have called each other more than `MAX_DEPTH`
                deep; the message names the cycle. Raised inside of a receiver only: it ends those
                that are part of the cycle, is logged and handed to `on_error` once, and the
                outermost sender sees nothing of it.
        """
        try:
            route = self._directory.routes[identifier]
        except (KeyError, TypeError):
            route = self._directory.find(identifier)
        if not route.calls:
            return 0
        return self._delivery.run(route, Message(route.identifier, args, kwargs))

    async def publish(self, identifier: Identifier | str, /, *args: Any, **kwargs: Any) -> int:
        """Send a message as `twitter` does, and wait until all receivers have ended.

        Those that run in this thread block the event loop, as with `twitter`; those on the pool
        and ``async def`` receivers do not. Cancelling it ends the waiting, and no receiver.

        Returns:
            How many receivers and queues it reached, those that raised included.

        Raises:
            ValueError, TypeError, RecursionError: as `twitter`.
        """
        route = self._route(identifier)
        completion = Completion()
        told, silent = telling_route(route, completion.ended)
        reached = self._delivery.run(told, Message(route.identifier, args, kwargs))
        await completion.wait(reached - silent)
        return reached

    def talk(
        self,
        identifier: Identifier | str,
        callback_identifier: Identifier | str,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> int:
        """Send a message as `twitter` does; what each receiver returns is sent back.

        Each answer is a message to `callback_identifier`, with ``args == (result,)``, `None` too.
        That of a receiver that raised has the exception as `Message.error`, and `None` as result.
        An ``async def`` receiver answers when it has ended. A queue does not answer, nor does a
        receiver that its guard skipped. Receivers in other processes that are connected answer as
        well, unless `callback_identifier` is local.

        Returns:
            How many receivers and queues it reached in this process.

        Raises:
            ValueError, TypeError: one of the two is no identifier.
            RecursionError: as `twitter`.
        """
        callback = Identifier(callback_identifier)
        route = self._route(identifier)
        gateway = self.gateway

        def answer(result: Any, error: BaseException | None) -> None:
            gateway.answer(callback, result, error)

        told, _ = telling_route(route, answer)
        return self._delivery.run(told, TalkMessage(route.identifier, args, kwargs, callback))

    def auto_twitter(
        self, identifier: Identifier | str, entry: bool = False, exit: bool = False
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a function: its calls send messages with the arguments of the call.

        ``name:entry`` is sent before a call and ``name:exit`` after it, unless it raised. Works on
        functions and methods (of which the object itself is the first argument), ``async def``,
        and generators: these are entered when the first item is asked for, and left when there are
        no more.

        Args:
            identifier: gives the name and namespace of both; its action does not matter.
            entry: send ``name:entry`` only.
            exit: send ``name:exit`` only. Neither, or both: send both.

        Raises:
            ValueError, TypeError: `identifier` is no identifier.
        """
        parsed = Identifier(identifier)
        entered = with_action(parsed, "entry") if entry or not exit else None
        left = with_action(parsed, "exit") if exit or not entry else None

        def decorate(function: AnyCallable) -> AnyCallable:
            def around(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Announcement:
                return Announcement(self.twitter, entered, left, args, kwargs)

            wrapped: AnyCallable = wrap(function, around)
            self._diagram.add_sender(wrapped, [sent for sent in (entered, left) if sent])
            return wrapped

        return decorate

    def twitter_exception(
        self, identifier: Identifier | str, reraise: bool = False, with_traceback: bool = True
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a function: an exception that it raises is sent as a message.

        The message has the lines of the traceback as its one argument, and `type`, `value` and
        `traceback` as keyword arguments: the exception's class, itself, and its traceback; it is
        the message's `error` as well. Other processes get text in their place. Works on the kinds
        of functions that `auto_twitter` does. `KeyboardInterrupt`, cancellation and whatever else
        is no `Exception` passes unsent.

        Args:
            identifier: the message's.
            reraise: raise the exception further; else the call returns `None` (a generator ends).
            with_traceback: whether the message has the traceback, or the exception's line only.

        Raises:
            ValueError, TypeError: `identifier` is no identifier.
        """
        parsed = Identifier(identifier)

        def send(error: Exception) -> None:
            route = self._route(parsed)
            if route.calls:
                message, portable = error_message(parsed, error, with_traceback)
                self._delivery.run(portable_route(route, portable), message)

        def decorate(function: AnyCallable) -> AnyCallable:
            wrapped: AnyCallable = wrap(function, lambda args, kwargs: Complaint(send, reraise))
            self._diagram.add_sender(wrapped, [parsed])
            return wrapped

        return decorate

    # -- how receivers run -------------------------------------------------------------------

    def set_multiplicity(self, number: int) -> None:
        """Let receivers run on a pool of threads, so that senders need not wait for them.

        Receivers are taken up in the order in which messages are sent and receivers were
        registered. Several run at a time, so they may end, and a receiver may see the messages of
        one sender, in another order. Guards run in the sender's thread; queues are filled by it,
        in order; ``async def`` receivers run on an event loop as ever. When 10,000 receivers wait
        for a thread, senders run further ones themselves.

        What the pool has accepted is done even if it is replaced. At the end of the interpreter it
        has 5 seconds for that.

        Args:
            number: how many threads at most; 0 or 1: the sender's, as at the beginning.

        Raises:
            ValueError, TypeError: it is negative, or no integer.
        """
        number = operator.index(number)
        if number < 0:
            raise ValueError(f"the multiplicity is a number of threads, not {number}")
        replaced = self._pool
        self._pool = pool = Pool(number) if number > 1 else None
        if pool is None:
            self._directory.set_call(_direct_call)
        else:
            delivery = self._delivery

            def pooled(registration: Registration) -> Receiver:
                if is_sink(registration.function) or is_coroutine_function(registration.function):
                    return registration.call
                return PooledCall(registration, pool, delivery)

            self._directory.set_call(pooled)
        if replaced is not None:
            replaced.close()

    # -- diagrams ----------------------------------------------------------------------------

    def show_followers(self) -> dict[str, list[str]]:
        """Who hears what: by identifier, in order, the names of those that follow it."""
        return self._diagram.followers(self._directory.registrations())

    def show_network(self, format: str = "dot") -> str:
        """A picture of who sends and hears what, as text.

        It shows identifiers, the functions and classes that follow them, queues, connections to
        other processes, and functions decorated with `auto_twitter` or `twitter_exception`. Dashed
        lines lead from what is sent to wildcards that match it, and to receivers with a guard.

        Args:
            format: ``"dot"``, the language of Graphviz: ``dot -Tsvg`` makes an image of it.

        Raises:
            ValueError: no such format.
        """
        if format != "dot":
            raise ValueError(f"a picture is made as 'dot', not {format!r}")
        return self._diagram.dot(self._directory.registrations())

    def _route(self, identifier: Identifier | str) -> Route:
        try:
            return self._directory.routes[identifier]
        except (KeyError, TypeError):
            return self._directory.find(identifier)


_direct_call = operator.attrgetter("call")
