"""A command's own node in a cluster, for as long as the command runs."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from ..bus import Bus, Message
from ..errors import AuthenticationError, ConnectionLostError, Error, RPCTimeoutError
from ..exchange import Node
from ..nats.options import settings_of
from ..nats.subject import checked_name
from .arguments import is_cluster
from .client import insecure_option
from .failure import Failed, OutputClosed, Refused, TimedOut, Unreachable, reason_of
from .keys import in_options

__all__ = [
    "DEFAULT_NAMESPACE",
    "ClusterOptions",
    "Visit",
    "cluster_errors",
    "cluster_options",
    "namespace_option",
]


DEFAULT_NAMESPACE = "default"

#: The stream of what is retained, in the subjects by which NATS is asked for it.
_RETAINED = re.compile(r"\bBERRYMQ_[\w-]+_RETAINED\b")


class ClusterOptions(NamedTuple):
    """How to join a cluster.

    Args:
        namespace: whose messages are meant.
        insecure: whether its server may let everybody in, or get a password without TLS.
    """

    namespace: str = DEFAULT_NAMESPACE
    insecure: bool = False


def _namespace(text: str) -> str:
    try:
        return checked_name(text, "a cluster's namespace")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


namespace_option = click.option(
    "--namespace",
    type=_namespace,
    default=DEFAULT_NAMESPACE,
    show_default=True,
    help="The namespace of the cluster.",
)


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--namespace`` and ``--insecure``; the command gets both as `cluster`."""

    @wraps(function)
    def command(*, endpoint: str, namespace: str, insecure: bool, **options: Any) -> Any:
        if not is_cluster(endpoint):
            source = click.get_current_context().get_parameter_source("namespace")
            if source is not ParameterSource.DEFAULT:
                raise click.UsageError(
                    "--namespace is for a cluster: an address such as nats://host:4222, without a "
                    "service"
                )
        return function(**options, endpoint=endpoint, cluster=ClusterOptions(namespace, insecure))

    return namespace_option(insecure_option(command))


@contextmanager
def cluster_errors(place: str) -> Iterator[None]:
    """Turn any exception raised within it into a `Failed` with a text and an exit code.

    Args:
        place: the address of the cluster.
    """
    try:
        yield
    except (click.ClickException, OutputClosed):
        raise
    except AuthenticationError as error:
        raise Refused(_at(place, error), reason=reason_of(error)) from error
    except ConnectionLostError as error:
        raise Unreachable(_at(place, error)) from error
    except RPCTimeoutError as error:
        raise TimedOut(_at(place, error)) from error
    except ValueError as error:
        raise Failed(_at(place, in_options(error))) from error
    except (Error, OSError) as error:
        raise Failed(_at(place, error)) from error
    except ModuleNotFoundError as error:
        raise Failed(str(error)) from error


def _at(place: str, problem: object) -> str:
    text = str(problem)
    return text if place in text else f"{place}: {text}"


class Visit:
    """A node in a cluster, and what NATS refuses it. Made by `Visit.to`.

    Attributes:
        node: the node.
        bus: its bus.
    """

    def __init__(self, place: str, node: Node) -> None:
        self.node = node
        self.bus = node.bus
        self._place = place
        self._refusal: str | None = None
        self._errors: list[BaseException] = []
        self._waiting: asyncio.Future[Any] | None = None
        self.bus.regist_method("connection:refused", self._refused)
        self.bus.on_error = self._failed

    @classmethod
    @asynccontextmanager
    async def to(
        cls, place: str, options: ClusterOptions, wait: float, bus: Bus | None = None
    ) -> AsyncIterator["Visit"]:
        """Join a cluster for as long as this is entered.

        Args:
            place: its address.
            options: how to join it.
            wait: seconds for the NATS server to appear.
            bus: that of the node; ``None`` for a new one.

        Raises:
            Failed: the cluster cannot be joined.
        """
        node = Node(
            bus=Bus() if bus is None else bus,
            cluster=settings_of(place),
            namespace=options.namespace,
            connect_timeout=wait,
            insecure=options.insecure,
        )
        visit = cls(place, node)
        with cluster_errors(place):
            await node.start()
        try:
            yield visit
        finally:
            await node.close()

    def is_own(self, message: Message) -> bool:
        """Whether a message is an event of this node, and no other one has sent it."""
        return message.origin in (None, self.node.name)

    async def settled(self, timeout: float) -> None:
        """Wait until the server has what was sent, and knows what is followed.

        Raises:
            Failed: it has not, or does not allow it.
        """
        with cluster_errors(self._place):
            has_all = await self.node.drain(timeout)
        self.check()
        if not has_all:
            raise TimedOut(f"{self._place}: NATS has not confirmed within {timeout:g} s")

    async def unless_refused(self, awaited: Any) -> Any:
        """Wait for something, unless NATS refuses this side meanwhile.

        Raises:
            Failed: NATS refuses something.
            Exception: as `awaited` does.
        """
        self._waiting = asyncio.ensure_future(awaited)
        try:
            if self._refusal is not None:
                self._waiting.cancel()
            return await self._waiting
        except asyncio.CancelledError:
            self.check()
            raise
        finally:
            self._waiting = None

    def check(self) -> None:
        """See whether NATS has refused something, or a message could not be sent.

        Raises:
            Failed: it was so.
        """
        if self._refusal is not None:
            raise Refused(_at(self._place, self._refusal), reason="permission")
        with cluster_errors(self._place):
            for error in self._errors:
                raise error

    def _refused(self, message: Message) -> None:
        reason = str(message.kwargs.get("reason"))
        if _RETAINED.search(reason):
            # Of what is retained this side hears nothing then. All else goes on.
            return
        if self._refusal is None:
            self._refusal = reason
        if self._waiting is not None:
            self._waiting.cancel()

    def _failed(self, error: BaseException, message: Message, receiver: object) -> None:
        self._errors.append(error)
