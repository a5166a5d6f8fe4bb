"""The bus: what programs call to follow, to unfollow and to send."""

import types
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from ..identifier import Identifier
from .backlog import Backlogs
from .directory import Directory, Forwarder
from .follower import Following, add_following
from .log import bus_logger, describe
from .message import Message, RelayedMessage
from .registration import (
    FunctionRegistration,
    Guard,
    MethodRegistration,
    Receiver,
    Refusal,
    check_callable,
)
from .route import MAXIMUM_DEPTH, Route, explain, sending, stop
from .tasks import Tasks

__all__ = ["Bus", "ErrorHandler"]

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])
ErrorHandler: TypeAlias = Callable[[BaseException, Message, Any], object]


class Bus:
    """Messages in one process: who follows what, and sending. Safe for any number of threads.

    Receivers, guards and forwarders are called with one argument, the `Message`.

    Attributes:
        on_error: `None`, or what is called as ``on_error(error, message, receiver)`` after an
            exception of a receiver, guard or forwarder was logged; in the thread where it was
            raised. `receiver` is the callable that was registered.
    """

    def __init__(self) -> None:
        self.on_error: ErrorHandler | None = None
        self._directory = Directory()
        self._tasks = Tasks()
        self.backlogs = Backlogs()

    def following(
        self,
        identifier: Identifier | str,
        guard: Guard | None = None,
        *,
        guard_condition: Guard | None = None,
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a method: each object of its class follows `identifier` from its creation on.

        The class needs ``metaclass=Follower`` or the base class `FollowerBase`. A method may carry
        several of these. With `classmethod` or `staticmethod`, the class follows.

        Args:
            identifier: which messages to receive.
            guard: called with the message first; the method is skipped if it returns false.
            guard_condition: berryMQ's name for `guard`.

        Raises:
            ValueError, TypeError: `identifier` is no identifier, or a guard cannot be called.
        """
        following = Following(self, Identifier(identifier), _one_guard(guard, guard_condition))

        def mark(function: AnyCallable) -> AnyCallable:
            add_following(function, following)
            return function

        return mark

    def following_function(
        self,
        identifier: Identifier | str,
        guard: Guard | None = None,
        *,
        guard_condition: Guard | None = None,
    ) -> Callable[[AnyCallable], AnyCallable]:
        """Decorate a function: it follows `identifier` from now on.

        Arguments and exceptions are those of `following`.
        """
        parsed = Identifier(identifier)
        guard = _one_guard(guard, guard_condition)

        def follow(function: AnyCallable) -> AnyCallable:
            self._directory.follow(parsed, function, guard)
            return function

        return follow

    def regist_method(
        self, identifier: Identifier | str, method: Receiver, guard: Guard | None = None
    ) -> None:
        """Let a bound method follow `identifier` for as long as its object lives.

        The object is held weakly: nothing else may be needed to end the following. Doing it again
        with the same identifier, method and guard changes nothing.

        Raises:
            ValueError, TypeError: `identifier` is no identifier, the method or guard cannot be
                called, or the method's object cannot be referred to weakly.
        """
        self._directory.follow(Identifier(identifier), method, _one_guard(guard, None))

    def regist_function(
        self, identifier: Identifier | str, function: Receiver, guard: Guard | None = None
    ) -> None:
        """Let a function, or any other callable, follow `identifier`.

        It is held strongly, until `unfollow`; a bound method is held as by `regist_method`. Doing
        it again with the same identifier, function and guard changes nothing.

        Raises:
            ValueError, TypeError: as `regist_method`.
        """
        self._directory.follow(Identifier(identifier), function, _one_guard(guard, None))

    def unfollow(self, identifier: Identifier | str, receiver: Receiver) -> int:
        """End the following of `identifier` by `receiver`, whatever its guards.

        A message on its way may still reach the receiver.

        Args:
            identifier: the one that is followed; not one that merely matches it.
            receiver: the function, or the bound method.

        Returns:
            How many followings were ended, 0 if there was none.
        """
        return self._directory.unfollow(Identifier(identifier), receiver)

    def twitter(self, identifier: Identifier | str, /, *args: Any, **kwargs: Any) -> int:
        """Send a message to all who follow a matching identifier.

        Receivers run here and now, in the order in which they were registered; ``async def``
        receivers are started on the event loop that runs in this thread. What a receiver raises
        is logged, handed to `on_error`, and stops neither the others nor the sender.

        Args:
            identifier: what the message is about; wildcards reach all whom they match.
            args: the message's arguments, of any kind.
            kwargs: those with names.

        Returns:
            How many receivers and queues it reached; those that a guard skipped, and ``async def``
            receivers without a loop, do not count.

        Raises:
            ValueError, TypeError: `identifier` is no identifier.
            RecursionError: receivers that send have called each other more than `MAXIMUM_DEPTH`
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
        return self._dispatch(route, Message(route.identifier, args, kwargs))

    def relay(
        self,
        identifier: Identifier | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        origin: object,
    ) -> int:
        """Send on a message that came from another process. For ``exchange``, not for programs.

        It is `twitter`, save that the message's `origin` is set, and that no receiver with a local
        name hears of it, by a wildcard of the sender either.

        Raises:
            ValueError, TypeError: `identifier` is no identifier, or is local.
        """
        try:
            route = self._directory.relayed_routes[identifier]
        except (KeyError, TypeError):
            route = self._directory.find(identifier, relayed=True)
        if not route.calls:
            return 0
        return self._dispatch(route, RelayedMessage(route.identifier, args, kwargs, origin))

    def add_forwarder(self, forwarder: Forwarder) -> None:
        """Call `forwarder` with each message that is not local. For ``exchange``, not for programs.

        Forwarders are called in the sender's thread and before any receiver, so that they see a
        message before those that its receivers send. They do not count as reached, see messages
        that nobody follows too, and are held strongly. They must not block.
        """
        check_callable(forwarder, "forwarder")
        self._directory.add_forwarder(forwarder)

    def remove_forwarder(self, forwarder: Forwarder) -> None:
        """End what `add_forwarder` began; nothing happens if it did not."""
        self._directory.remove_forwarder(forwarder)

    def report(self, error: BaseException, message: Message, receiver: Any, problem: str) -> None:
        """Log an error and hand it to `on_error`. For ``exchange``, not for programs.

        Args:
            problem: what happened, for the log, such as ``"failed"``.
        """
        logger = bus_logger()
        logger.error("receiver %s %s: %r", describe(receiver), problem, message, exc_info=error)
        if self.on_error is None:
            return
        try:
            self.on_error(error, message, receiver)
        except Exception:
            logger.exception("on_error itself failed")

    def _dispatch(self, route: Route, message: Message) -> int:
        """Call all of a route; how many receivers it reached."""
        stack = sending.stack
        depth = len(stack)
        if depth >= MAXIMUM_DEPTH:
            stop(stack, route)
        stack.append(route)
        reached = route.reached
        try:
            for call in route.calls:
                try:
                    result = call(message)
                    if result is not None and not self._accept(result, call, message):
                        reached -= 1
                except RecursionError as error:
                    # All that is within this one is part of the cycle. Were it reported and gone
                    # on with here, two such receivers would make 2**MAXIMUM_DEPTH calls; and the
                    # frames to report it with may be lacking.
                    if depth:
                        explain(error, stack)
                        raise
                    self.report(error, message, _registered(call), "failed")
                except Exception as error:
                    self.report(error, message, _registered(call), "failed")
        finally:
            if not depth:
                stack.clear()
            elif depth > 1:
                stack.pop()
            else:
                # What `stop` has added ends here.
                del stack[1:]
        return reached

    def _accept(self, result: object, call: Receiver, message: Message) -> bool:
        """Deal with what a call has returned; whether its receiver was reached."""
        if isinstance(result, Refusal):
            if isinstance(result.error, RecursionError):
                raise result.error
            if result.error is not None:
                self.report(result.error, message, _registered(call), "has a guard that failed")
            return False
        if isinstance(result, types.CoroutineType):
            receiver = _registered(call)

            def failed(error: BaseException) -> None:
                self.report(error, message, receiver, "failed")

            return self._tasks.start(result, f"receiver of {message.id}", failed)
        return True


def _registered(call: Receiver) -> Any:
    """The receiver as it was registered."""
    if isinstance(call, types.MethodType):
        registration = call.__self__
        if isinstance(registration, FunctionRegistration | MethodRegistration):
            return registration.receiver()
    return call


def _one_guard(guard: Guard | None, guard_condition: Guard | None) -> Guard | None:
    if guard is not None and guard_condition is not None:
        raise TypeError("guard and guard_condition are the same: give one of them")
    chosen = guard_condition if guard is None else guard
    if chosen is not None:
        check_callable(chosen, "guard")
    return chosen
