"""The consumers of all queues of a node: opening, handing messages over, and dead letters."""

import asyncio
import secrets
from collections.abc import Callable, Hashable
from itertools import count
from typing import Any

from ..bus.gateway import Gateway
from ..common.tally import Tally
from ..identifier import Identifier
from ..rpc import Context
from ..runtime.log import Log
from .consumer import Consumer
from .policy import Grants
from .remote_queue import RemoteQueue
from .remote_queues import RemoteQueues
from .stored_message import StoredMessage

__all__ = ["DEAD", "Consumers"]

logger = Log("berrymq_rpc.exchange")

#: The name of the messages that were delivered as often as they may be.
DEAD = "dead"


class Consumers:
    """Opens queues for consumers, and gives them messages.

    Args:
        gateway: of the bus, which gets the dead letters.
        queues: the queues.
        max_unacknowledged: messages that a consumer may have got and not acknowledged.
    """

    def __init__(self, gateway: Gateway, queues: RemoteQueues, max_unacknowledged: int) -> None:
        self._gateway = gateway
        self._queues = queues
        self._max_unacknowledged = max_unacknowledged
        # A number of before a restart must not be taken for one of after it. Below 2**53, so that
        # a peer that speaks JSON may have it in a float.
        self._numbers = count(secrets.randbits(48))
        self._dead = Tally()
        #: With the owners that their queues know them by.
        self._consumers: dict[Consumer, object] = {}

    @property
    def dead(self) -> int:
        """How many messages were delivered as often as they may be."""
        return self._dead.count

    @property
    def unacknowledged(self) -> int:
        """How many messages consumers have got and not acknowledged."""
        return sum(consumer.unacknowledged for consumer in self._consumers)

    @property
    def waiting(self) -> int:
        """How many calls of `get` wait."""
        stalled = sum(consumer.stalled for consumer in self._consumers)
        return stalled + sum(queue.consumers for queue in self._queues)

    def open(
        self,
        identifier: Identifier,
        shared: bool,
        ack_wait: float | None,
        tries: int | None,
        account: Hashable,
        grants: Grants | None = None,
    ) -> Consumer:
        """Open a queue for a consumer; undo it by `close`.

        Args:
            identifier, shared, account, grants: as for `RemoteQueues.open`.
            ack_wait, tries: as for `Consumer`.
        """
        owner = object()
        queue = self._queues.open(identifier, shared, owner, account, grants)
        consumer = Consumer(
            queue, ack_wait, tries, self._max_unacknowledged, self._numbers, self._bury
        )
        self._consumers[consumer] = owner
        return consumer

    def close(self, consumer: Consumer) -> None:
        """Let go what a consumer has got, and close its queue if no other has it."""
        owner = self._consumers.pop(consumer)
        consumer.close()
        consumer.queue.dismiss(consumer)
        self._queues.leave(consumer.queue, owner)

    def hand_over(
        self,
        consumer: Consumer,
        stored: StoredMessage,
        call: Context,
        receiver: Callable[..., Any],
    ) -> dict[str, Any]:
        """Make the answer of a message, which goes back if the caller does not receive it.

        Args:
            call: which is answered.
            receiver: what answers, for `Bus.on_error`.
        """
        queue = consumer.queue
        number = consumer.deliver(stored, call.peer)
        server = asyncio.current_task()

        def delivered(arrived: bool) -> None:
            if arrived:
                stored.dropped = 0
                if consumer.ack_wait is None:
                    consumer.acknowledge(number)
            elif asyncio.current_task() is not server:
                consumer.refuse(number, reason="its consumer is gone")
            elif call.cancelled:
                # This runs within the task that answers: the answer has never left.
                consumer.take_back(number)
            elif consumer.acknowledge(number):
                # It cannot be packed. Put back, it would block the queue forever.
                queue.discard(stored)
                error = ValueError("the arguments cannot be sent")
                self._gateway.report(error, queue.message(stored), receiver, "cannot send")

        call.on_delivery(delivered)
        args, kwargs = queue.arguments(stored)
        answer: dict[str, Any] = {"id": stored.id, "args": args, "kwargs": kwargs}
        if consumer.ack_wait is not None:
            answer["number"] = number
            answer["redelivered"] = stored.redelivered
        elif stored.redelivered:
            answer["redelivered"] = True
        if stored.retained:
            answer["retained"] = True
        if stored.dropped:
            answer["dropped"] = stored.dropped
        return answer

    def _bury(self, queue: RemoteQueue, stored: StoredMessage, reason: str) -> None:
        """Send what has no deliveries left to the bus, where another queue may keep it."""
        message = queue.message(stored)
        is_logged = self._dead.add()
        if message.name == DEAD:
            # A queue of dead letters, or of all messages: it would come here forever.
            queue.discard(stored, f"{stored.id} was delivered {stored.tries} times")
            return
        name = queue.identifier.name
        identifier = f"{DEAD}:{'all' if name == '*' else name}"
        if is_logged:
            logger.warning(
                "remote queue %s: %s was delivered %d times, at last %s; it goes to %s (%d so far)",
                queue.identifier,
                stored.id,
                stored.tries,
                reason,
                identifier,
                self.dead,
            )
        about = {
            "identifier": stored.id,
            "queue": str(queue.identifier),
            "tries": stored.tries,
            "error": reason,
        }
        self._gateway.relay(identifier, message.args, message.kwargs, None, dead=about)
