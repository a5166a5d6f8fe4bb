"""What becomes of messages of a durable queue: what JetStream is told, or that they are dead."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from ...errors import ConnectionLostError, Error, NotFoundError
from ...nats.connection import Connection
from ...runtime.log import Log
from .delivered import Delivered

__all__ = ["GiveUp", "Settlement"]

logger = Log("berrymq_rpc.exchange")

#: Seconds after which a message whose work failed comes again, the first time and at most.
FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0

#: Seconds that JetStream has to confirm an acknowledgement.
CONFIRM_TIMEOUT = 5.0

#: Errors of works that are remembered, for the dead letters.
MAX_ERRORS = 1000

#: Characters of one.
MAX_ERROR = 300

#: Called with a message that is not delivered any more, how often it was, and its last error: moves
#: it to the dead letters.
GiveUp: TypeAlias = Callable[[Delivered, int, str | None], Coroutine[Any, Any, None]]


class Settlement:
    """Settles the messages of one open durable queue, as a `DeliveredHost`.

    All but `call` and `thread` belongs to the event loop of the connection.

    Args:
        connection: to NATS.
        name: of the queue.
        tries: how often a message is delivered.
        call: runs a coroutine on the loop of the connection, from any other.
        give_up: see `GiveUp`.
        put_back: has the next call of `get` take a message that was taken.

    Attributes:
        thread: that of the loop of the connection.
        is_closed: set when the queue is: what fails comes again elsewhere.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        tries: int,
        call: Callable[[Coroutine[Any, Any, bool]], Coroutine[Any, Any, bool]],
        give_up: GiveUp,
        put_back: Callable[[Delivered], None],
    ) -> None:
        self.call = call
        self.put_back = put_back
        self.thread = threading.get_ident()
        self.is_closed = False
        self._connection = connection
        self._loop = connection.loop
        self._name = name
        self._tries = tries
        self._give_up = give_up
        self._errors: dict[tuple[int, int], str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def settle(self, reply: str, word: bytes, confirm: bool = False) -> bool:
        """Tell JetStream what became of a message.

        Raises:
            ConnectionLostError: with `confirm`: there is no answer.
        """
        if not confirm:
            return self.tell(reply, word)
        try:
            await self._connection.request(reply, word, timeout=CONFIRM_TIMEOUT)
        except (TimeoutError, NotFoundError) as error:
            raise ConnectionLostError(
                f"JetStream did not confirm the acknowledgement: {error}"
            ) from None
        return True

    def tell(self, reply: str, word: bytes) -> bool:
        """Tell JetStream what became of a message, without its confirmation."""
        if self._connection.publish(reply, word):
            return True
        logger.warning(
            "durable queue %s: there is no NATS server to tell what became of a message: it comes "
            "again",
            self._name,
        )
        return False

    def give_back(self, reply: str, word: bytes) -> None:
        """Have a message delivered to another consumer, at once."""
        self._connection.publish(reply, word)

    async def fail(self, delivered: Delivered, error: BaseException) -> bool:
        """Have a message come again as its work failed, or give it up after its last try."""
        self._note_error(delivered.key, error)
        if delivered.tries >= self._tries and not self.is_closed:
            self.bury(delivered, delivered.tries)
            return True
        delay = min(FIRST_DELAY * 2 ** min(delivered.tries - 1, 20), LONGEST_DELAY)
        return await delivered.refuse(delay)

    def _note_error(self, key: tuple[int, int], error: BaseException) -> None:
        """Remember why the work on a message failed."""
        self._errors.pop(key, None)
        if len(self._errors) >= MAX_ERRORS:
            del self._errors[next(iter(self._errors))]
        try:
            text = repr(error)
        except Exception:
            text = type(error).__name__
        self._errors[key] = text[:MAX_ERROR]

    def bury(self, delivered: Delivered, tries: int) -> None:
        """Move a message that was delivered so often to the dead letters, in a task."""
        self.start(self._bury(delivered, tries))

    async def _bury(self, delivered: Delivered, tries: int) -> None:
        await self._give_up(delivered, tries, self._errors.get(delivered.key))
        self._errors.pop(delivered.key, None)
        await delivered.term(f"delivered {tries} times")

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something for the queue in a task; what it raises is logged."""
        task = self._loop.create_task(self._run(coroutine), name=f"durable queue {self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except (Error, OSError) as error:
            # The message comes again.
            logger.warning("durable queue %s: %r", self._name, error)

    async def wait_closed(self, timeout: float) -> None:
        """Wait until what it still does has ended, or end it.

        Args:
            timeout: seconds.
        """
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
