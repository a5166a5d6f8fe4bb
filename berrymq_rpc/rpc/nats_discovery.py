"""NATS's own discovery of services (ADR-32): what ``nats micro ls``, ``info`` and ``stats`` ask.

A server answers at ``$SRV.PING``, ``$SRV.INFO`` and ``$SRV.STATS``, at the same with its service's
name, and with its own id after that.
"""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ..nats.connection import Connection
from .service_identity import ServiceIdentity
from .transport.nats.port import is_answerable

__all__ = ["Endpoints", "NatsDiscovery"]

#: Gives the endpoints for INFO, or for STATS.
Endpoints = Callable[[], list[dict[str, Any]]]


class NatsDiscovery:
    """Answers for one server.

    Args:
        connection: the server's.
        service: its name.
        server: the server's id.
        identity: what it says of itself.
        endpoints: describes what it offers.
        endpoint_statistics: what was asked of each.
        statistics: the server's own counts, for STATS.
    """

    def __init__(
        self,
        connection: Connection,
        service: str,
        server: str,
        identity: ServiceIdentity,
        endpoints: Endpoints,
        endpoint_statistics: Endpoints,
        statistics: Callable[[], dict[str, int]],
    ) -> None:
        self._connection = connection
        self._identity = {"name": service, "id": server, "version": identity.version}
        self._description = identity.description
        self._endpoints = endpoints
        self._endpoint_statistics = endpoint_statistics
        self._statistics = statistics
        self._started = datetime.now(UTC)
        answers: Iterable[tuple[str, Callable[[], dict[str, Any]]]] = (
            ("PING", dict),
            ("INFO", self._info),
            ("STATS", self._stats),
        )
        self._subscriptions = [
            connection.subscribe(subject, partial(self._asked, verb, answer))
            for verb, answer in answers
            for subject in (
                f"$SRV.{verb}",
                f"$SRV.{verb}.{service}",
                f"$SRV.{verb}.{service}.{server}",
            )
        ]

    @property
    def subjects(self) -> list[str]:
        """What it subscribes to."""
        return [subscription.subject for subscription in self._subscriptions]

    def stop(self) -> None:
        """Answer no more: the server is closing."""
        for subscription in self._subscriptions:
            self._connection.unsubscribe(subscription)

    def _asked(
        self,
        verb: str,
        answer: Callable[[], dict[str, Any]],
        subject: str,
        reply: str,
        payload: bytes,
        headers: bytes,
    ) -> None:
        if not is_answerable(reply):
            return
        kind = f"io.nats.micro.v1.{verb.lower()}_response"
        said = {**self._identity, "metadata": {}, "type": kind, **answer()}
        text = json.dumps(said, ensure_ascii=True).encode()
        if len(text) > self._connection.max_payload:
            # A server of thousands of methods: who asks learns of it at least.
            said["endpoints"] = []
            text = json.dumps(said, ensure_ascii=True).encode()
        self._connection.publish(reply, text)

    def _info(self) -> dict[str, Any]:
        return {"description": self._description, "endpoints": self._endpoints()}

    def _stats(self) -> dict[str, Any]:
        started = self._started.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "started": started,
            "endpoints": self._endpoint_statistics(),
            "metadata": {name: str(count) for name, count in self._statistics().items()},
        }
