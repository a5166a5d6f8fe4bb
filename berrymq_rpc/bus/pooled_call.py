"""Receivers that run on the pool, and what runs there for one message."""

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from .answering import Answering, Ended
from .message import Message
from .pool import Pool
from .registrations import Receiver, Refusal, Registration
from .route import Chain, explain, sending

if TYPE_CHECKING:
    from .delivery import Delivery

__all__ = ["PooledCall"]


class PooledCall:
    """The call of a receiver that runs on the pool; its guard runs at once, in the sender's thread.

    When too many calls wait for the pool already, the receiver runs at once as well.

    Args:
        ended: as that of `Answering`, or `None`.
    """

    __slots__ = ("_delivery", "_pool", "ended", "registration")

    def __init__(
        self,
        registration: Registration,
        pool: Pool,
        delivery: "Delivery",
        ended: Ended | None = None,
    ) -> None:
        self.registration = registration
        self.ended = ended
        self._pool = pool
        self._delivery = delivery

    def answering(self, ended: Ended) -> "PooledCall":
        """The same call, which tells how its receiver ends."""
        return PooledCall(self.registration, self._pool, self._delivery, ended)

    def __call__(self, message: Message) -> Any:
        """Let the receiver run on the pool.

        Raises:
            RecursionError: this is part of a cycle that was found by another thread of the pool.
        """
        if sending.chain is not None and sending.chain.is_ended:
            raise _cut_off()
        call = self.registration.admit(message)
        if isinstance(call, Refusal):
            return call
        if self.ended is not None:
            call = Answering(call, self.ended)
        if self._pool.submit(Job(self._delivery, call, message)):
            return None
        return call(message)


class Job:
    """One call that waits for a thread of the pool.

    It goes on at the depth of the thread that sent the message, so that receivers that send
    messages to each other without end are stopped as they are in one thread. There, the error ends
    all that is part of the cycle; here it ends the `Chain`, and so what waits for the pool of it.
    """

    __slots__ = ("_call", "_chain", "_context", "_delivery", "_message", "_stack")

    def __init__(self, delivery: "Delivery", call: Receiver, message: Message) -> None:
        self._delivery = delivery
        self._call = call
        self._message = message
        self._stack = tuple(sending.stack)
        self._chain = sending.chain or Chain()
        self._context = copy_context()

    def run(self) -> None:
        """Call the receiver. Raises nothing."""
        self._context.run(self._run)

    def _run(self) -> None:
        stack, call = sending.stack, self._call
        stack[:] = self._stack
        sending.chain = self._chain
        is_nested = len(stack) > 1
        try:
            if is_nested and self._chain.is_ended:
                if isinstance(call, Answering):
                    call.ended(None, _cut_off())
                return
            result = call(self._message)
            if result is not None:
                self._delivery.accept(result, call, self._message)
        except RecursionError as error:
            is_first = self._chain.end()
            if is_nested:
                explain(error, stack)
            if is_first or not is_nested:
                self._delivery.report_call(error, self._message, call)
        except BaseException as error:
            # Neither SystemExit nor KeyboardInterrupt ends anything in a thread of the pool.
            self._delivery.report_call(error, self._message, call)
        finally:
            stack.clear()
            sending.chain = None


def _cut_off() -> RecursionError:
    return RecursionError("it is part of a cycle of receivers that send messages to each other")
