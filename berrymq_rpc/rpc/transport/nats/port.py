"""What the two kinds of ports over NATS share: sessions, beats, and how they close."""

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import Sequence
from time import monotonic

from ....errors import TooLargeError
from ....nats.connection import Connection, Refusal
from ....nats.headers import NO_RESPONDERS, status_of
from ....nats.options import Nats
from ....runtime.log import Log
from ..port import Buffer, Key, Port, PortHandler, PortOptions
from .channel import Channel, ChannelError
from .records import ACK, BYE, DATA, PART, Head, pack_head, parse_head, parse_reason

__all__ = ["NatsPort", "NatsSession", "is_answerable", "subject_of"]

logger = Log("berrymq_rpc.rpc.nats")

#: Bytes that all peers together may have under way to a port, and one of them at least and at most.
#: NATS cuts off a connection that is 64 MiB behind.
ALL_WINDOWS = 32 << 20
MIN_WINDOW = 64 << 10
MAX_WINDOW = 4 << 20

#: Bytes that the NATS server has not read yet, over which large messages wait in their session:
#: there they count as what their peer does not read.
MAX_UNSENT = 8 << 20

#: Seconds until it is looked at whether it has read them.
UNSENT_PAUSE = 0.005

#: Heartbeats of silence after which a peer is lost.
SILENCE = 1.5

#: Seconds between two looks at whether what is queued was sent, as a port closes.
LINGER_PAUSE = 0.005

#: How the subjects of sessions begin.
ROOT = "berrymq-rpc"

#: Characters of a subject for answers that is used. NATS disconnects who sends a line of more than
#: 4,096 bytes, and two such subjects stand in one.
MAX_REPLY = 512


def is_answerable(reply: str) -> bool:
    """Whether a request may be answered at this subject: no inbox is among those below.

    Whoever asks for an answer at a subject of NATS itself or of sessions wants something said there
    that it may not say itself, as at ``$JS.API.STREAM.DELETE`` or ``berrymq-rpc.calc.up``.
    """
    return 0 < len(reply) <= MAX_REPLY and not reply.startswith(("$", f"{ROOT}."))


def subject_of(service: str, *tokens: str) -> str:
    """A subject of a service."""
    return ".".join((ROOT, service, *tokens))


class NatsSession:
    """A session with one peer. It is its own key.

    Args:
        token: the last token of the subject that the peer sends to.
        subject: where this side sends to.
        bounce: where NATS says that nobody is there.
    """

    __slots__ = ("bounce", "channel", "counted", "heard", "is_alive", "server", "subject", "token")

    def __init__(
        self, token: str, subject: str, bounce: str, channel: Channel, server: str = ""
    ) -> None:
        self.token = token
        self.subject = subject
        self.bounce = bounce
        self.channel = channel
        #: The id of the server, where a client has the session.
        self.server = server
        #: When the peer was last heard, and whether it was since the last beat.
        self.heard = monotonic()
        self.is_alive = False
        #: Bytes of its queued messages that the port has counted.
        self.counted = 0


class NatsPort(Port):
    """A port over a connection to NATS of its own."""

    def __init__(self, settings: Nats, handler: PortHandler, options: PortOptions) -> None:
        self.settings = settings
        self.service = settings.address.service or ""
        self.options = options
        self.sessions: dict[str, NatsSession] = {}
        self.connection = Connection(
            settings,
            name=f"berrymq_rpc {self.service}",
            heartbeat=options.heartbeat,
            insecure=options.insecure,
            serves=options.serves,
            restored=self._restored,
            leaving=self._leaving,
            lost=self._lost,
            refused=self._refused,
            read_complete=self._read_complete,
        )
        self.loop = self.connection.loop
        self._handler: PortHandler | None = handler
        self._received = False
        #: Bytes of the queued messages of all sessions.
        self._queued = 0
        #: Sessions with messages that wait for the NATS server to read.
        self._held: dict[NatsSession, None] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._next_tick = 0.0
        self._ticks = 0
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._closer: asyncio.Task[None] | None = None

    # -- what the RPC asks -----------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (str(self.settings),)

    @property
    def notices_loss(self) -> bool:
        return True

    def send(self, key: Key, frames: Sequence[Buffer]) -> bool:
        if not self._has(key):
            return False
        assert isinstance(key, NatsSession)
        try:
            pieces = key.channel.send(frames)
        except ChannelError as error:
            self._lose_later(key, str(error))
            return True
        if pieces is not None:
            self._publish(key, pieces)
        else:
            self._release(key)
        return True

    def queued_bytes(self, key: Key) -> int:
        return key.channel.queued_bytes if self._has(key) else 0  # type: ignore[attr-defined]

    def all_queued_bytes(self) -> int:
        return self._queued + self.connection.queued_bytes

    def address(self, key: Key) -> str | None:
        return None

    def disconnect(self, key: Key) -> None:
        if self._has(key):
            assert isinstance(key, NatsSession)
            self._drop(key, "it ended the session")

    def close(self) -> None:
        if self._closer is not None:
            return
        self._handler = None
        self.stop_accepting()
        self._closer = self.loop.create_task(self._close(), name="nats port close")

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    def _has(self, key: Key) -> bool:
        return (
            isinstance(key, NatsSession)
            and self._handler is not None
            and self.sessions.get(key.token) is key
        )

    # -- sessions --------------------------------------------------------------------------

    def _window(self) -> int:
        return min(max(ALL_WINDOWS // max(len(self.sessions), 1), MIN_WINDOW), MAX_WINDOW)

    def _new_channel(self, window: int, credit: int) -> Channel:
        return Channel(
            window=window,
            credit=credit,
            max_payload=self.connection.max_payload,
            max_frame=self.options.max_frame,
        )

    def _begin(self, session: NatsSession) -> None:
        self.sessions[session.token] = session
        if self._ticker is None:
            self._schedule_tick(monotonic())
        if self._handler is not None:
            self._handler.peer_connected(session)

    def _receive(self, session: NatsSession, payload: bytes) -> None:
        """Read what came for a session."""
        session.is_alive = True
        head = parse_head(payload)
        if head is None:
            self._reject(session, "the peer speaks another version of the protocol")
        elif head.kind in (DATA, PART, ACK):
            self._receive_data(session, head, payload)
        elif head.kind == BYE:
            self._end(session, parse_reason(payload))

    def _receive_data(self, session: NatsSession, head: Head, payload: bytes) -> None:
        channel = session.channel
        try:
            frames = channel.receive(head, payload)
        except ChannelError as error:
            self._reject(session, str(error))
            return
        if channel.has_queued:
            self._release(session)
        if frames is not None and self._handler is not None:
            self._received = True
            self._handler.message_received(session, frames)
        ack = channel.ack()
        if ack is not None:
            self._publish(session, [ack])

    def _bounced(self, session: NatsSession, payload: bytes, headers: bytes) -> None:
        """NATS says that nobody is there, or the peer that it knows no such session."""
        if status_of(headers) == NO_RESPONDERS and not payload:
            self._end(session, "the peer is gone: NATS has nobody at its address")
        else:
            head = parse_head(payload)
            if head is not None and head.kind == BYE:
                self._end(session, parse_reason(payload))

    def _release(self, session: NatsSession) -> None:
        """Send of what is queued as much as the peer allows, and the NATS server reads."""
        if self.connection.queued_bytes <= MAX_UNSENT:
            for pieces in session.channel.release():
                self._publish(session, pieces)
                if self.connection.queued_bytes > MAX_UNSENT:
                    break
        channel = session.channel
        if self.sessions.get(session.token) is session:
            self._queued += channel.queued_bytes - session.counted
            session.counted = channel.queued_bytes
            if channel.has_queued and self.connection.queued_bytes > MAX_UNSENT:
                if not self._held:
                    self.loop.call_later(UNSENT_PAUSE, self._release_held)
                self._held[session] = None

    def _release_held(self) -> None:
        held, self._held = self._held, {}
        for session in held:
            if self.sessions.get(session.token) is session:
                self._release(session)

    def _publish(self, session: NatsSession, pieces: Sequence[Buffer]) -> None:
        try:
            self.connection.publish_parts(
                session.subject, pieces, sum(map(len, pieces)), session.bounce
            )
        except TooLargeError as error:
            # The server has told meanwhile that it takes less than when the session began.
            self._lose_later(session, str(error))

    def _ignore(self, reason: str) -> None:
        """Count and log a message that is ignored."""
        if self._handler is not None:
            self._handler.message_refused(None, reason)

    def _reject(self, session: NatsSession, reason: str) -> None:
        """End a session in which something is missing, or cannot be read."""
        logger.warning("%s: a session was ended: %s", self.settings, reason)
        self._lose(session, reason)

    def _lose(self, session: NatsSession, reason: str) -> None:
        """End a session for a reason that the peer is told."""
        self._drop(session, reason)
        self._report_loss(session, reason)

    def _end(self, session: NatsSession, reason: str) -> None:
        """End a session whose peer has left."""
        if self.sessions.get(session.token) is session:
            self._forget(session)
            self._report_loss(session, reason)

    def _lose_later(self, session: NatsSession, reason: str) -> None:
        """End a session, but tell the handler when it has returned."""
        if self.sessions.get(session.token) is session:
            self._drop(session, reason)
            self.loop.call_soon(self._report_loss, session, reason)

    def _drop(self, session: NatsSession, reason: str) -> None:
        if self.sessions.get(session.token) is session:
            self._forget(session)
            # Without a subject for answers: nobody wants to know that it is gone.
            self.connection.publish(session.subject, pack_head(BYE) + reason.encode())

    def _report_loss(self, session: NatsSession, reason: str) -> None:
        if self._handler is not None:
            self._handler.peer_lost(session, reason)

    def _forget(self, session: NatsSession) -> None:
        """Take a session out of the tables."""
        del self.sessions[session.token]
        self._queued -= session.counted
        self._held.pop(session, None)

    # -- beats -----------------------------------------------------------------------------

    def _schedule_tick(self, now: float) -> None:
        self._next_tick = now + self.options.heartbeat / 4
        self._ticker = self.loop.call_later(self.options.heartbeat / 4, self._tick)

    def _tick(self) -> None:
        now = monotonic()
        # While this side's event loop was blocked, it did not read what the peers sent.
        delay = max(now - self._next_tick, 0.0)
        silence = SILENCE * self.options.heartbeat
        self._ticks += 1
        window = self._window()
        for session in list(self.sessions.values()):
            session.heard = now if session.is_alive else min(session.heard + delay, now)
            session.is_alive = False
            session.channel.window = window
            if now - session.heard > silence:
                self._lose(session, f"the peer has been silent for {now - session.heard:.1f} s")
            elif self._ticks % 2:
                mark = session.channel.mark()
                if mark is not None:
                    self._publish(session, [mark])
        self._beat()
        if self.sessions:
            self._schedule_tick(now)
        else:
            self._ticker = None

    @abstractmethod
    def _beat(self) -> None:
        """Tell the peers that this side lives."""

    # -- what the connection reports -------------------------------------------------------

    @abstractmethod
    def _restored(self) -> None:
        """There is a link."""

    @abstractmethod
    def _refused(self, refusal: Refusal) -> None:
        """The server does not allow something."""

    def _leaving(self, reason: str) -> None:
        """The link ends soon: the peers need not find out by themselves."""
        for session in list(self.sessions.values()):
            self._lose(session, f"the connection to NATS ends: {reason}")
        self._read_complete()

    def _lost(self, reason: str) -> None:
        """The link broke: what was under way may be lost, so all sessions are."""
        for session in list(self.sessions.values()):
            self._end(session, f"the connection to NATS was lost: {reason}")
        self._read_complete()

    def _read_complete(self) -> None:
        if self._received:
            self._received = False
            if self._handler is not None:
                self._handler.read_complete()

    # -- the end ---------------------------------------------------------------------------

    async def _close(self) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.options.linger):
                    while any(s.channel.has_queued for s in self.sessions.values()):
                        await asyncio.sleep(LINGER_PAUSE)
            unsent = sum(s.channel.queued_bytes for s in self.sessions.values())
            if unsent:
                logger.warning(
                    "%d bytes for peers that do not read were dropped as the port closed", unsent
                )
            for session in list(self.sessions.values()):
                self._drop(session, "it closed the connection")
        finally:
            if self._ticker is not None:
                self._ticker.cancel()
            self.sessions.clear()
            try:
                await self.connection.close(self.options.linger)
            finally:
                if not self._closed.done():
                    self._closed.set_result(None)
