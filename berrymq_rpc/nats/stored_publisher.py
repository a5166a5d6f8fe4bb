"""Publishes messages for streams, each until JetStream says that it has it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ..errors import (
    ConnectionLostError,
    Error,
    NotFoundError,
    ProtocolError,
    RPCTimeoutError,
    ServiceClosedError,
    TooLargeError,
)
from .connection import Connection
from .headers import NO_RESPONDERS, pack_header, pack_headers, status_of
from .jetstream import is_usual_ack, parse_ack

__all__ = ["TIMEOUT", "OnStored", "StoredPublisher"]

#: Called once, with ``None`` when the message is stored, or with the reason why it is not known to
#: be.
OnStored: TypeAlias = Callable[[Exception | None], object]

#: Seconds after which a message without an answer is published again. With the same id, so that
#: the stream has it once.
RETRY = 5.0

#: Seconds between looks at what has no answer.
CHECK = 0.25

#: Seconds for which JetStream may be absent: a server that was just started reads its streams, and
#: a stream of several servers whose leader was killed has none for 4 to 9 s, until they elect one.
ABSENCE = 20.0

#: Seconds that a message has until its sender gets an error.
TIMEOUT = 60.0


class _Pending:
    __slots__ = ("absent_since", "began", "headers", "on_stored", "payload", "sent", "subject")

    def __init__(
        self, subject: str, payload: bytes, headers: bytes, on_stored: OnStored, now: float
    ) -> None:
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.on_stored = on_stored
        self.began = now
        #: When it was published last; 0 if it is to be published again at once.
        self.sent = now
        self.absent_since: float | None = None


class StoredPublisher:
    """Publishes with an id and a reply subject, and again until there is an answer.

    Args:
        connection: to NATS.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = connection.loop
        self._subject = f"{connection.inbox}.s"
        self._pending: dict[str, _Pending] = {}
        self._numbers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._answers = connection.subscribe(f"{self._subject}.*", self._answered)

    def __len__(self) -> int:
        return len(self._pending)

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        on_stored: OnStored,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Publish a message until it is stored.

        Args:
            message_id: by which JetStream recognizes a duplicate for some minutes.
            on_stored: see `OnStored`; it must not raise.
            headers: further ones.

        Returns:
            What `publish_again` knows it by.
        """
        self._numbers += 1
        key = str(self._numbers)
        if headers:
            packed = pack_headers({"Nats-Msg-Id": message_id, **headers})
        else:
            packed = pack_header("Nats-Msg-Id", message_id)
        pending = _Pending(subject, payload, packed, on_stored, self._loop.time())
        self._pending[key] = pending
        self._send(key, pending)
        if self._timer is None:
            self._plan()
        return key

    def publish_again(self, key: str | None = None) -> None:
        """Publish a message once more, or all, if there is no answer yet.

        For a connection that was restored.
        """
        for each in [key] if key is not None else list(self._pending):
            pending = self._pending.get(each)
            if pending is not None:
                pending.sent = self._loop.time()
                self._send(each, pending)

    def close(self) -> None:
        """Give up: what has no answer fails."""
        if self._timer is not None:
            self._timer.cancel()
        for key in list(self._pending):
            self._end(key, ServiceClosedError("the node was closed before JetStream had answered"))

    def _send(self, key: str, pending: _Pending) -> None:
        try:
            self._connection.publish(
                pending.subject, pending.payload, f"{self._subject}.{key}", pending.headers
            )
        except TooLargeError as error:
            self._end(key, error)

    def _answered(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        key = subject.rpartition(".")[2]
        if is_usual_ack(payload):
            self._end(key, None)
            return
        pending = self._pending.get(key)
        if pending is None:
            return
        if status_of(headers) == NO_RESPONDERS and not payload:
            now = self._loop.time()
            if pending.absent_since is None:
                pending.absent_since = now
            if now - pending.absent_since > ABSENCE:
                self._end(
                    key,
                    NotFoundError(f"no stream of JetStream has the subject {pending.subject!r}"),
                )
            else:
                pending.sent = 0.0
            return
        try:
            parse_ack(payload)
        except ProtocolError:
            # A follower has answered, which it should not: JetStream's word is still to come.
            return
        except ConnectionLostError:
            # There is no leader now, or one has it in hand that was sent before.
            pending.sent = 0.0
        except Error as error:
            self._end(key, error)
        else:
            self._end(key, None)

    def _end(self, key: str, error: Exception | None) -> None:
        pending = self._pending.pop(key, None)
        if pending is not None:
            pending.on_stored(error)

    def _plan(self) -> None:
        self._timer = self._loop.call_later(CHECK, self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        for key, pending in list(self._pending.items()):
            if now - pending.began > TIMEOUT:
                self._end(
                    key,
                    RPCTimeoutError(
                        f"JetStream has not answered within {TIMEOUT:g} s: the message may be "
                        "stored or not"
                    ),
                )
            elif now - pending.sent > RETRY:
                pending.sent = now
                self._send(key, pending)
        if self._pending:
            self._plan()
