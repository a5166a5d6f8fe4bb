"""A server's port at NATS: it answers whoever looks for its service."""

from secrets import token_hex
from typing import Protocol

from ....errors import AuthenticationError
from ....nats.connection import Refusal
from ....nats.options import Nats, settings_of
from ..port import Port, PortHandler, PortOptions
from .port import NatsPort, NatsSession, is_answerable, logger, subject_of
from .records import (
    BEAT,
    BYE,
    FOUND,
    FULL,
    OPEN,
    WELCOME,
    Found,
    pack_found,
    pack_head,
    parse_head,
    parse_token,
)

__all__ = ["Companion", "NatsListener", "listen"]

#: Sessions of a listening port; a further one is refused, and its client tries another server.
MAX_SESSIONS = 20_000


async def listen(endpoint: str, handler: PortHandler, options: PortOptions) -> Port:
    """Serve a service at NATS.

    Args:
        endpoint: ``nats://host:port/service``; the service ``*`` stands for a name of its own.
        handler: is called on the running event loop.
        options: `heartbeat`, `max_frame`, `linger`, `connect_timeout` and `insecure` count.

    Raises:
        AuthenticationError: the NATS server refused this side, or a subject that it needs.
        ConnectionLostError: no NATS server answered in time.
        ModuleNotFoundError: nats-py is not installed; it comes with the extra ``nats``.
        ValueError: the NATS server lets anyone in from other hosts, and `insecure` is not set.
    """
    settings = settings_of(endpoint)
    if settings.address.service == "*":
        settings = settings.for_service(f"service-{token_hex(8)}")
    port = NatsListener(settings, handler, options)
    try:
        await port.open()
    except BaseException:
        port.connection.abort()
        await port.connection.wait_closed()
        raise
    return port


class Companion(Protocol):
    """What uses the connection of a listening port as well."""

    def lost(self, reason: str) -> None:
        """The link to NATS broke."""

    def read_complete(self) -> None:
        """All that could be read was handed over."""


class NatsListener(NatsPort):
    """A server's port."""

    def __init__(self, settings: Nats, handler: PortHandler, options: PortOptions) -> None:
        super().__init__(settings, handler, options)
        self.id = f"s{token_hex(12)}"
        self._address = subject_of(self.service, "to", self.id)
        self._find = self.connection.subscribe(subject_of(self.service, "find"), self._asked)
        self._in = self.connection.subscribe(f"{self._address}.*", self._arrived)
        self._beat_subject = subject_of(self.service, "beat", self.id)
        self._accepts = True
        #: What takes the requests of plain clients at the same connection.
        self.companion: Companion | None = None
        #: What the NATS server has refused while the port opened.
        self._problem: AuthenticationError | None = None

    async def open(self) -> None:
        """Connect, and see that the subscriptions are allowed."""
        connection = self.connection
        await connection.connect(self.options.connect_timeout)
        await connection.flush(self.options.connect_timeout)
        if self._problem is not None:
            raise self._problem

    @property
    def trouble(self) -> str | None:
        if self.connection.is_connected:
            return None
        return f"no NATS server answers ({self.connection.last_error}): is it running?"

    def stop_accepting(self) -> None:
        if self._accepts:
            self._accepts = False
            self.connection.unsubscribe(self._find)
            self._announce(BYE)

    def _announce(self, kind: int) -> None:
        found = pack_found(Found(self.id, len(self.sessions)))
        subject = subject_of(self.service, "up")
        self.connection.publish(subject, pack_head(kind) + found[len(pack_head(kind)) :])

    def _restored(self) -> None:
        if self._accepts:
            self._announce(FOUND)

    def _lost(self, reason: str) -> None:
        if self.companion is not None:
            self.companion.lost(reason)
        super()._lost(reason)

    def _read_complete(self) -> None:
        super()._read_complete()
        if self.companion is not None:
            self.companion.read_complete()

    def _refused(self, refusal: Refusal) -> None:
        if refusal.subject in (self._find.subject, self._in.subject):
            # Without these nobody can call this side.
            self._problem = refusal.error
        if refusal.subject.startswith("$SRV."):
            # Whoever may not be listed may serve all the same. There are nine such subjects.
            if refusal.subject == "$SRV.PING":
                logger.info("%s: %s", self.settings, refusal.error)
            return
        logger.warning("%s: %s", self.settings, refusal.error)

    def _asked(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """A client looks for servers."""
        if not is_answerable(reply):
            self._ignore("a search for servers that cannot be answered")
        elif self._accepts:
            self.connection.publish(reply, pack_found(Found(self.id, len(self.sessions))))

    def _arrived(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        token = subject.rpartition(".")[2]
        session = self.sessions.get(token)
        if session is not None:
            self._receive(session, payload)
        elif token.startswith("!"):
            session = self.sessions.get(token[1:])
            if session is not None:
                self._bounced(session, payload, headers)
        elif token == "beat":
            session = self.sessions.get(parse_token(payload) or "")
            if session is None:
                self._tell_unknown(reply)
            else:
                session.is_alive = True
        elif token == "open":
            self._opened(reply, payload)
        else:
            self._tell_unknown(reply)

    def _opened(self, reply: str, payload: bytes) -> None:
        """A client opens a session; its answers go to `reply`."""
        head = parse_head(payload)
        if head is None or head.kind != OPEN or not is_answerable(reply):
            self._ignore("a malformed request for a session")
            return
        if not self._accepts or not self._has_room():
            reason = FULL if self._accepts else "the server is closing"
            self.connection.publish(reply, pack_head(BYE) + reason.encode())
            return
        token = token_hex(12)
        window = self._window()
        bounce = f"{self._address}.!{token}"
        session = NatsSession(token, reply, bounce, self._new_channel(window, head.credit))
        welcome = pack_head(WELCOME, credit=window) + token.encode()
        self.connection.publish(reply, welcome, bounce)
        self._begin(session)

    def _has_room(self) -> bool:
        count = len(self.sessions)
        return count < MAX_SESSIONS and self._handler is not None and self._handler.has_room(count)

    def _tell_unknown(self, reply: str) -> None:
        """Tell a client that this side has ended the session that it still has."""
        if is_answerable(reply):
            self.connection.publish(reply, pack_head(BYE) + b"the server knows no such session")

    def _beat(self) -> None:
        if self.sessions:
            self.connection.publish(self._beat_subject, pack_head(BEAT))
