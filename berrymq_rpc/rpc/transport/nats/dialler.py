"""A client's port at NATS: it looks for the servers of a service."""

import asyncio
import random
from time import monotonic
from typing import NamedTuple

from ....common.backoff import Backoff
from ....nats.connection import Refusal, Subscription
from ....nats.headers import NO_RESPONDERS, status_of
from ....nats.options import Nats, settings_of
from ..port import Port, PortHandler, PortOptions
from .port import MAX_REPLY, NatsPort, NatsSession, logger, subject_of
from .records import (
    BEAT,
    BYE,
    FOUND,
    FULL,
    OPEN,
    WELCOME,
    pack_head,
    parse_found,
    parse_head,
    parse_reason,
    parse_token,
)
from .search import Search

__all__ = ["NatsDialler", "dial"]

#: Seconds between two looks for servers: the first and the longest while there is none, and those
#: while there are some, but fewer than wanted.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
SETTLED_PAUSE = 10.0

#: Seconds in which a server has to answer who opens a session with it: a frozen one does not.
OPEN_TIMEOUT = 0.5

#: Seconds from the first server that answers until others are chosen from all that did.
GATHER = 0.05


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
        #: How the subjects begin that servers of the service have.
        self._servers = subject_of(self.service, "to", "")
        self._search = Search(options.max_servers)
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._numbers = 0
        #: The sessions that are being opened, by their token.
        self._opening: dict[str, _Opening] = {}
        #: Whether a server was full since there was a session, or a search that found none.
        self._met_full = False
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
        self._none_full()
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
        if head is None or found is None or head.kind not in (FOUND, BYE):
            self._ignore("a malformed announcement of a server")
        elif head.kind == BYE:
            self._search.gone(found.server)
        else:
            for session in list(self.sessions.values()):
                if session.server == found.server:
                    # It has another link to NATS than when the session began, and forgot it.
                    self._end(session, "the server has lost its connection to NATS meanwhile")
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
        self._tell_full()

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
            self._tell_full()

    def _tell_full(self) -> None:
        """Have the calls that wait fail, if no server is left to ask, and some are full."""
        if (
            self._met_full
            and self._handler is not None
            and not (self.sessions or self._opening or self._chooser)
            and not self._search.choose([], monotonic())
        ):
            self._handler.servers_full(f"all servers of the service {self.service!r} are full")

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
        elif reply.startswith(self._servers) and len(reply) <= MAX_REPLY:
            # A server that answers too late, or has a session that this side has ended.
            self.connection.publish(reply, pack_head(BYE) + b"the client knows no such session")

    def _found(self, payload: bytes, headers: bytes) -> None:
        head = parse_head(payload)
        found = parse_found(payload) if head is not None and head.kind == FOUND else None
        if found is not None:
            self._search.found(found)
            self._choose_soon()
        elif payload or status_of(headers) != NO_RESPONDERS:
            self._ignore("a malformed answer to the search for servers")
        else:
            self._none_full()

    def _none_full(self) -> None:
        if self._met_full:
            self._met_full = False
            if self._handler is not None:
                self._handler.servers_full(None)

    def _answered(self, token: str, reply: str, payload: bytes, headers: bytes) -> None:
        """What a server says to who opens a session with it."""
        head = parse_head(payload)
        given = parse_token(payload) if head is not None and head.kind == WELCOME else None
        if head is None or given is None:
            if head is not None and head.kind == BYE:
                reason = parse_reason(payload)
                logger.info("%s: a server refused: %s", self.settings, reason)
                self._met_full = self._met_full or reason == FULL
            self._open_failed(token)
            return
        server, window, timer, beat = self._opening.pop(token)
        timer.cancel()
        self._backoff.reset()
        self._none_full()
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
