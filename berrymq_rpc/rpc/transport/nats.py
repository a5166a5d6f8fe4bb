"""The transport ``nats://host:port/service``: sessions with the servers of a service, over NATS.

Both sides dial a NATS server. One that listens answers whoever looks for its service, and there may
be several. One that connects looks for servers and opens a session with up to `max_servers` of
them; each is a peer of its port, and is lost alone.

Subjects of the service ``calc``; the last token names a session:

==================================  ========================  ==================================
subject                             who subscribes            what arrives
==================================  ========================  ==================================
``berrymq-rpc.calc.find``           each server               a client looks for servers
``berrymq-rpc.calc.up``             each client               a server has started, or leaves
``berrymq-rpc.calc.to.<id>.*``      the server of that id     all from its clients
``berrymq-rpc.calc.beat.<id>``      that server's clients     it lives
``<inbox>.*``                       the client of that inbox  all from its servers
==================================  ========================  ==================================

A message of a session names a subject for answers: where NATS says that nobody is there.
"""

import asyncio
import random
from secrets import token_hex
from time import monotonic
from typing import NamedTuple, Protocol

from ...common.backoff import Backoff
from ...errors import AuthenticationError
from ...nats.connection import Refusal, Subscription
from ...nats.headers import NO_RESPONDERS, status_of
from ...nats.options import Nats, settings_of
from .nats_port import MAX_REPLY, NatsPort, NatsSession, logger, subject_of
from .nats_records import (
    BEAT,
    BYE,
    FOUND,
    OPEN,
    WELCOME,
    Found,
    pack_found,
    pack_head,
    parse_found,
    parse_head,
    parse_reason,
    parse_token,
)
from .nats_search import Search
from .port import Port, PortHandler, PortOptions

__all__ = ["NatsDialler", "NatsListener", "dial", "listen"]

#: Sessions of a listening port; a further one is refused, and its client tries another server.
MAX_SESSIONS = 20_000

#: Seconds between two looks for servers: the first and the longest while there is none, and those
#: while there are some, but fewer than wanted.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
SETTLED_PAUSE = 10.0

#: Seconds in which a server has to answer who opens a session with it: a frozen one does not.
OPEN_TIMEOUT = 0.5

#: Seconds from the first server that answers until others are chosen from all that did.
GATHER = 0.05


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


async def dial(endpoint: str, handler: PortHandler, options: PortOptions) -> Port:
    """Look for the servers of a service, now and as long as the port is open.

    Args:
        endpoint: ``nats://host:port/service``.
        handler: is called on the running event loop.
        options: `heartbeat`, `max_frame`, `linger`, `max_servers` and `insecure` count.

    Raises:
        ModuleNotFoundError: nats-py is not installed; it comes with the extra ``nats``.
    """
    return NatsDialler(settings_of(endpoint), handler, options)


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
        if not (
            self.options.insecure
            or self.settings.address.is_loopback
            or connection.requires_authentication
        ):
            raise ValueError(
                f"{self.settings} would let anyone who reaches that NATS server call this side: it "
                "asks for no authentication. Configure users there, or pass insecure=True if the "
                "network is trusted"
            )
        await connection.flush(self.options.connect_timeout)
        if self._problem is not None:
            raise self._problem

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
        if self._accepts and 0 < len(reply) <= MAX_REPLY:
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
        if head is None or head.kind != OPEN or not 0 < len(reply) <= MAX_REPLY:
            return
        if not self._accepts or len(self.sessions) >= MAX_SESSIONS:
            reason = "is full" if self._accepts else "is closing"
            self.connection.publish(reply, pack_head(BYE) + f"the server {reason}".encode())
            return
        token = token_hex(12)
        window = self._window()
        bounce = f"{self._address}.!{token}"
        session = NatsSession(token, reply, bounce, self._new_channel(window, head.credit))
        welcome = pack_head(WELCOME, credit=window) + token.encode()
        self.connection.publish(reply, welcome, bounce)
        self._begin(session)

    def _tell_unknown(self, reply: str) -> None:
        """Tell a client that this side has ended the session that it still has."""
        if 0 < len(reply) <= MAX_REPLY:
            self.connection.publish(reply, pack_head(BYE) + b"the server knows no such session")

    def _beat(self) -> None:
        if self.sessions:
            self.connection.publish(self._beat_subject, pack_head(BEAT))


class _Opening(NamedTuple):
    """A session that is being opened.

    Args:
        server: with which server.
        window: what the server was told that it may send.
        timer: ends the wait for an answer.
        beat: the subscription to the server's beats.
    """

    server: str
    window: int
    timer: asyncio.TimerHandle
    beat: Subscription


class NatsDialler(NatsPort):
    """A client's port."""

    def __init__(self, settings: Nats, handler: PortHandler, options: PortOptions) -> None:
        super().__init__(settings, handler, options)
        self._inbox = self.connection.inbox
        self._search = Search(options.max_servers)
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._numbers = 0
        #: The sessions that are being opened, by their token.
        self._opening: dict[str, _Opening] = {}
        self._finder: asyncio.TimerHandle | None = None
        self._chooser: asyncio.TimerHandle | None = None
        #: The subscriptions to the beats of the servers of open sessions, by the sessions' token.
        self._beats: dict[str, Subscription] = {}
        self.connection.subscribe(f"{self._inbox}.*", self._arrived)
        self._up = self.connection.subscribe(subject_of(self.service, "up"), self._announced)
        self.connection.start()

    @property
    def trouble(self) -> str | None:
        if self.sessions:
            return None
        if not self.connection.is_connected:
            return f"no NATS server answers ({self.connection.last_error}): is it running?"
        return f"NATS answers, but no server of the service {self.service!r} does: is one running?"

    # -- finding servers -------------------------------------------------------------------

    def _restored(self) -> None:
        self._backoff.reset()
        self._find()

    def _lost(self, reason: str) -> None:
        self._stop_looking()
        self._search.forget()
        super()._lost(reason)

    def _refused(self, refusal: Refusal) -> None:
        handler = self._handler
        if handler is None or refusal.subject == self._up.subject:
            # Servers that start are found without it, but later.
            logger.warning("%s: %s", self.settings, refusal.error)
            return
        for token, opening in list(self._opening.items()):
            if opening.beat.subject == refusal.subject:
                # A session without beats would be lost after a while, again and again.
                self._open_failed(token)
        handler.authentication_failed(refusal.error)

    def _find(self) -> None:
        """Ask which servers there are, and have it asked again."""
        if self._finder is not None:
            self._finder.cancel()
            self._finder = None
        if self._handler is None or not self.connection.is_connected:
            return
        wanted = self.options.max_servers - len(self.sessions) - len(self._opening)
        if wanted > 0:
            find = subject_of(self.service, "find")
            self.connection.publish(find, b"", f"{self._inbox}.f")
        pause = SETTLED_PAUSE if self.sessions else self._backoff.next()
        self._finder = self.loop.call_later(pause * random.uniform(0.5, 1.0), self._find)

    def _stop_looking(self) -> None:
        for timer in (self._finder, self._chooser):
            if timer is not None:
                timer.cancel()
        self._finder = self._chooser = None
        for opening in self._opening.values():
            opening.timer.cancel()
            self.connection.unsubscribe(opening.beat)
        self._opening.clear()

    def _announced(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """A server has started, or leaves."""
        head = parse_head(payload)
        found = None if head is None else parse_found(payload)
        if head is None or found is None:
            return
        if head.kind == BYE:
            self._search.gone(found.server)
        elif head.kind == FOUND:
            self._search.found(found)
            self._choose_soon()

    def _choose_soon(self) -> None:
        """Open a session at once if there is none, and others when more may have answered."""
        if not self.sessions and not self._opening:
            self._choose(1)
        if self._chooser is None and self._handler is not None:
            self._chooser = self.loop.call_later(GATHER, self._choose_gathered)

    def _choose_gathered(self) -> None:
        self._chooser = None
        self._choose(self.options.max_servers)

    def _choose(self, most: int) -> None:
        if self._handler is None or not self.connection.is_connected:
            return
        present = [session.server for session in self.sessions.values()]
        present += [opening.server for opening in self._opening.values()]
        for server in self._search.choose(present, monotonic())[:most]:
            self._open(server)

    def _open(self, server: str) -> None:
        self._numbers += 1
        token = str(self._numbers)
        window = self._window()
        timer = self.loop.call_later(OPEN_TIMEOUT, self._open_failed, token)
        # First: where it is not allowed, that is known before the server has answered.
        beat = self.connection.subscribe(
            subject_of(self.service, "beat", server), lambda *_: self._alive(token)
        )
        self._opening[token] = _Opening(server, window, timer, beat)
        subject = subject_of(self.service, "to", server, "open")
        self.connection.publish(subject, pack_head(OPEN, credit=window), f"{self._inbox}.{token}")

    def _open_failed(self, token: str) -> None:
        opening = self._opening.pop(token)
        opening.timer.cancel()
        self.connection.unsubscribe(opening.beat)
        self._search.failed(opening.server, monotonic())
        if self._chooser is None and self._search.choose([], monotonic()):
            self._choose(self.options.max_servers)
        if not self.sessions:
            self._find_soon()

    def _find_soon(self) -> None:
        if self._finder is not None:
            self._finder.cancel()
        pause = self._backoff.next() * random.uniform(0.5, 1.0)
        self._finder = self.loop.call_later(pause, self._find)

    # -- what arrives ----------------------------------------------------------------------

    def _arrived(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        token = subject.rpartition(".")[2]
        session = self.sessions.get(token)
        if session is not None:
            self._receive(session, payload)
        elif token == "f":
            self._found(payload, headers)
        elif token in self._opening:
            self._answered(token, reply, payload, headers)
        elif token.startswith("!"):
            session = self.sessions.get(token[1:])
            if session is not None:
                self._bounced(session, payload, headers)
        elif 0 < len(reply) <= MAX_REPLY:
            # A server that answers too late, or has a session that this side has ended.
            self.connection.publish(reply, pack_head(BYE) + b"the client knows no such session")

    def _found(self, payload: bytes, headers: bytes) -> None:
        head = parse_head(payload)
        if head is not None and head.kind == FOUND:
            found = parse_found(payload)
            if found is not None:
                self._search.found(found)
                self._choose_soon()
        elif status_of(headers) != NO_RESPONDERS:
            logger.warning("%s: a malformed answer to the search for servers", self.settings)

    def _answered(self, token: str, reply: str, payload: bytes, headers: bytes) -> None:
        """What a server says to who opens a session with it."""
        head = parse_head(payload)
        given = parse_token(payload) if head is not None and head.kind == WELCOME else None
        if head is None or given is None:
            if head is not None and head.kind == BYE:
                logger.info("%s: a server refused: %s", self.settings, parse_reason(payload))
            self._open_failed(token)
            return
        server, window, timer, beat = self._opening.pop(token)
        timer.cancel()
        self._backoff.reset()
        channel = self._new_channel(window, head.credit)
        subject = subject_of(self.service, "to", server, given)
        session = NatsSession(token, subject, f"{self._inbox}.!{token}", channel, server)
        self._search.gone(server)
        self._beats[token] = beat
        self._begin(session)

    def _alive(self, token: str) -> None:
        session = self.sessions.get(token)
        if session is not None:
            session.is_alive = True

    def _forget(self, session: NatsSession) -> None:
        super()._forget(session)
        self.connection.unsubscribe(self._beats.pop(session.token))
        if self._handler is not None and self.connection.is_connected:
            if not self.sessions:
                self._find_soon()
            else:
                self._choose_soon()

    def _beat(self) -> None:
        for session in self.sessions.values():
            server, _, token = session.subject.rpartition(".")
            payload = pack_head(BEAT) + token.encode()
            self.connection.publish(f"{server}.beat", payload, session.bounce)

    def stop_accepting(self) -> None:
        if self._handler is None:
            self._stop_looking()
