"""What a server is to plain NATS clients: they find it, and may call its methods by requests."""

from collections.abc import Callable
from typing import Any

from ..jsonrpc.micro import MicroDialect
from ..nats.subject import escape
from .describe import describe
from .method import Kind, Method
from .method_table import HandlerTable
from .nats_discovery import NatsDiscovery
from .options import Options
from .service_identity import ServiceIdentity
from .transport.nats.listener import NatsListener
from .transport.nats.micro import QUEUE_GROUP, NatsMicroPort
from .transport.port import Port, PortHandler
from .wire.codec import Codec

__all__ = ["NatsService"]

#: How subjects begin that carry messages or sessions, or what NATS itself sends, such as answers in
#: ``_INBOX``: no requests are taken there.
_RESERVED = ("berrymq", "_")

#: Characters of a docstring in the description of an endpoint.
_MAX_DOC = 500


class NatsService:
    """A server of a service, for clients that know nothing of this package.

    Args:
        port: where it listens.
        table: its methods.
        options: those of the server. Without the dialect ``"jsonrpc"`` it takes no requests.
        statistics: its counts.

    Attributes:
        dialect: that of requests; ``None`` if it takes none.
    """

    def __init__(
        self,
        port: Port,
        table: HandlerTable,
        options: Options,
        statistics: Callable[[], dict[str, int]],
    ) -> None:
        assert isinstance(port, NatsListener)
        self._listener = port
        self._table = table
        self.dialect: MicroDialect | None = None
        #: What INFO says of the methods, once somebody has asked.
        self._described: list[dict[str, Any]] | None = None
        inboxes = port.settings.inbox_prefix.partition(".")[0]
        is_reserved = port.service.startswith(_RESERVED) or port.service == inboxes
        if "jsonrpc" in options.dialects and not is_reserved:
            codec = Codec(
                options.translation_table,
                use_list=options.use_list,
                max_depth=options.limits.max_depth,
                untranslated=options.untranslated,
            )
            self.dialect = MicroDialect(
                codec,
                self._check,
                lambda: port.connection.max_payload,
                (method.name for method in table),
            )
        self._discovery = NatsDiscovery(
            port.connection,
            port.service,
            port.id,
            ServiceIdentity.of(table.handler),
            self._endpoints,
            self._endpoint_statistics,
            statistics,
        )

    def open_port(self, handler: PortHandler) -> Port:
        """Begin to take requests."""
        return NatsMicroPort(self._listener, handler)

    async def ready(self, timeout: float) -> None:
        """Wait until NATS has all subscriptions, or there is no link any more.

        Cancelling it is harmless.

        Args:
            timeout: seconds.
        """
        await self._listener.connection.flush(timeout)

    def stop(self) -> None:
        """Be listed no more: the server is closing."""
        self._discovery.stop()

    def _check(self, name: str) -> None:
        """See that a method can be called by a request.

        Raises:
            NotImplementedError: it takes a session.
        """
        method = self._table.methods.get(name)
        if method is not None and (method.kind is Kind.STREAM or self._table.waits(method)):
            what = "is a stream" if method.kind is Kind.STREAM else "waits for something"
            raise NotImplementedError(f"{name!r} {what}: call it by rpc.open_client")

    def _endpoints(self) -> list[dict[str, Any]]:
        if self.dialect is None:
            return []
        if self._described is None:
            self._described = self._describe()
        return self._described

    def _describe(self) -> list[dict[str, Any]]:
        described = {each["name"]: each for each in describe(self._table)["methods"]}
        return [
            {
                **self._endpoint(method),
                "metadata": {
                    "signature": described[method.name]["signature"],
                    "doc": described[method.name]["doc"][:_MAX_DOC],
                    "kind": described[method.name]["kind"],
                },
            }
            for method in self._table
            if method.name in described
        ]

    def _endpoint_statistics(self) -> list[dict[str, Any]]:
        if self.dialect is None:
            return []
        found = []
        for method in self._table:
            counts = self.dialect.counts[method.name]
            nanoseconds = int(counts.seconds * 1e9)
            found.append(
                {
                    **self._endpoint(method),
                    "num_requests": counts.requests,
                    "num_errors": counts.errors,
                    "last_error": counts.last_error,
                    "processing_time": nanoseconds,
                    "average_processing_time": nanoseconds // max(counts.requests, 1),
                    # Without it, nats-py cannot read the rest.
                    "data": {},
                }
            )
        return found

    def _endpoint(self, method: Method) -> dict[str, Any]:
        tokens = [escape(part) for part in method.name.split(".") if part]
        return {
            "name": "-".join(tokens).replace("%", "_").replace("~", "_"),
            "subject": ".".join([self._listener.service, *tokens]),
            "queue_group": QUEUE_GROUP,
        }
