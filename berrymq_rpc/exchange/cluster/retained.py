"""What is retained in a cluster: a bucket has it for nodes that come later.

Who has retained a message on its bus stores it in the bucket, besides sending it to those who
follow; who begins to follow reads what the bucket has. Of each identifier the message with the
greater stamp is the newer one everywhere: what comes in both ways is taken once, and an older value
never replaces a newer one, on a bus or in the bucket.

Without JetStream the messages that are sent still arrive, and who comes later hears the next ones.
"""

import asyncio
import time
from collections import OrderedDict, deque
from typing import Protocol, TypeAlias

from ...bus import Message
from ...bus.retained_store import NEVER, Forgotten, Kept, Stamp
from ...bus.retention import is_acceptable
from ...common.log_limiter import LogLimiter
from ...errors import (
    AuthenticationError,
    ConnectionLostError,
    Error,
    NotFoundError,
    ProtocolError,
)
from ...identifier import Identifier
from ...nats.connection import Connection
from ...nats.jetstream import JetStream, covers, union
from ...nats.options import Durable
from ...runtime.log import Log
from ..mesh import Mesh
from ..retained_batch import Entry
from ..subject import retained_notice, retained_pattern, retained_subjects, subject_of
from .bucket import RetainedBucket, Stored

__all__ = ["ClusterRetained"]

logger = Log("berrymq_rpc.exchange")
audit = Log("berrymq_rpc.security")

#: Identifiers whose changes wait to be stored. Over it, those that wait longest are dropped.
MAX_WAITING = 20_000

#: Identifiers of which it is remembered what the bucket has.
MAX_KNOWN = 20_000

#: Messages that are stored at a time.
WINDOW = 50

#: Patterns that are read at a time.
PATTERNS = 100

#: Bytes of the identifiers in one notice.
MAX_NOTICE = 256 << 10

#: Attempts to store a message while others store the same.
ATTEMPTS = 10

#: Seconds in which what was sent is stored, as a rule: otherwise those who follow are told. After
#: so many more they read again, as they may have missed what was sent, and read before it was
#: stored.
IN_TIME = 1.0
SECOND_LOOK = 2.0

#: Seconds until it is tried again what has failed.
PAUSE = 1.0

#: Seconds until it is looked for JetStream again where there was none.
RECHECK = 10.0

#: Seconds that the server has to confirm subscriptions.
CONFIRM_TIMEOUT = 5.0

#: What is known of an identifier of which the bucket has nothing: no number, and no stamp.
NOTHING = (0, NEVER)

#: Its kind, and the identifier as text.
_Key: TypeAlias = tuple[type, str]


class Followed(Protocol):
    """What a node of a cluster subscribes to."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The subjects of the messages."""


class ClusterRetained:
    """Stores what a bus retains and reads what it follows. A `RetentionListener` of the bus.

    Args:
        connection: to NATS.
        js: JetStream.
        namespace: of the cluster.
        mesh: of the node.
        settings: how the bucket is kept; ``None`` for the defaults.
        place: the address of NATS, for logs.

    Attributes:
        refused: how many messages could not be stored.
        withheld: how many were not, as other nodes may not get them.
    """

    def __init__(
        self,
        connection: Connection,
        js: JetStream,
        namespace: str,
        mesh: Mesh,
        settings: Durable | None,
        place: str,
    ) -> None:
        self.refused = 0
        self.withheld = 0
        self._connection = connection
        self._loop = connection.loop
        self._namespace = namespace
        self._mesh = mesh
        self._gateway = mesh.gateway
        self._place = place
        self._sending = mesh.policy.sending(None)
        self._receiving = mesh.policy.receiving(None)
        self._bucket = RetainedBucket(
            js, connection, namespace, settings, mesh.router.codec, mesh.name
        )
        #: Changes of the bus that were not looked at yet. Appending takes no lock.
        self._noted: deque[Kept | Forgotten] = deque()
        self._will_look = False
        self._waiting: OrderedDict[_Key, Kept | Forgotten] = OrderedDict()
        #: The stamps of what the cluster has, and of each identifier the number of what is in the
        #: bucket, as far as is known, and its stamp.
        self._known: OrderedDict[_Key, Stamp] = OrderedDict()
        self._stored: OrderedDict[str, tuple[int, Stamp]] = OrderedDict()
        #: Patterns of what is followed and was not read yet.
        self._unread: set[str] = set()
        self._followed: Followed | None = None
        #: The stamp with which a message of each identifier was sent to those who follow, and when.
        self._sent: OrderedDict[str, tuple[Stamp, float]] = OrderedDict()
        #: Patterns that are to be read a second time, and what does that.
        self._again: set[str] = set()
        self._second_look: asyncio.TimerHandle | None = None
        #: Identifiers of which the bucket has what was not sent.
        self._news: list[str] = []
        self._has_read_forgotten = False
        #: Whether to look whether it is still the same bucket.
        self._must_check = False
        #: Whether NATS has refused to let this node read, since there is this link.
        self._may_not_read = False
        #: When the bucket was made that was seen last.
        self._created: str | None = None
        self._is_declared = False
        #: Why there is no bucket, until there is another link.
        self._absence: Exception | None = None
        self._has_warned = False
        #: Looks again whether there is JetStream.
        self._recheck: asyncio.TimerHandle | None = None
        self._failures = LogLimiter()
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._is_closed = False

    # -- life ----------------------------------------------------------------------------------

    def start(self, followed: Followed) -> None:
        """Begin to store what is retained, and to hear what is new and what is forgotten.

        Args:
            followed: what this node subscribes to.
        """
        self._followed = followed
        subscribe, namespace = self._connection.subscribe, self._namespace
        subscribe(retained_subjects(namespace, "forgotten"), self._receive_forgotten)
        subscribe(retained_notice(namespace), self._receive_notice)
        self._gateway.add_retention_listener(self)
        self._mesh.wills.on_delivered = self._will_delivered
        self._note_all()
        self._look()

    def close(self) -> None:
        """Store and read nothing any more."""
        self._is_closed = True
        self._gateway.remove_retention_listener(self)
        for timer in (self._recheck, self._second_look):
            if timer is not None:
                timer.cancel()
        for task in (self._writer, self._reader):
            if task is not None:
                task.cancel()

    def forget(self) -> None:
        """Do nothing any more, in the child of a fork: another thread may have held locks."""
        self._is_closed = True
        self._noted.clear()

    async def wait_closed(self) -> None:
        """Wait until what it still did has ended."""
        tasks = [task for task in (self._writer, self._reader) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def drain(self, timeout: float | None) -> bool:
        """Wait until the bucket has what was retained so far.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            Whether it has, or there is none; not if the time is over.
        """
        self._look()
        if self._writer is not None:
            await asyncio.wait((self._writer,), timeout=timeout)
        return not self._waiting

    def restored(self) -> None:
        """Read anew what is followed, as there was no link, or no bucket, for some time."""
        if self._recheck is not None:
            self._recheck.cancel()
            self._recheck = None
        self._absence = None
        self._is_declared = False
        self._has_read_forgotten = False
        if self._followed is not None:
            self._unread.update(self._followed.patterns)
        self._may_not_read = False
        # What is known to be stored is not stored again, unless this shows that it is gone.
        self._must_check = True
        self._note_all()
        self._read()
        self._write()

    @property
    def waiting(self) -> int:
        """How many messages wait to be stored."""
        return len(self._waiting)

    # -- what the bus has retained -----------------------------------------------------------

    def note(self, change: Kept | Forgotten) -> None:
        """Take a change of the bus, as a `RetentionListener`."""
        if self._is_closed:
            return
        self._noted.append(change)
        if self._will_look:
            return
        self._will_look = True
        try:
            self._loop.call_soon_threadsafe(self._look)
        except RuntimeError:
            # The loop was closed, and the node was not.
            self._is_closed = True
            self._noted.clear()

    def forward_noted(self, message: Message | None = None) -> None:
        """Do nothing: the event loop was woken."""

    def mark(self, text: str, stamp: Stamp) -> None:
        """Note that the cluster has a message: it comes from there.

        Args:
            text: its identifier.
        """
        self._mark((Kept, text), stamp)

    def sent(self, text: str, stamp: Stamp) -> None:
        """Note that a message is sent to those who follow.

        Args:
            text: its identifier.
        """
        self._sent[text] = stamp, self._loop.time()
        self._sent.move_to_end(text)
        if len(self._sent) > MAX_KNOWN:
            self._sent.popitem(last=False)

    def _will_delivered(self, text: str) -> None:
        """Those who follow have the will of a lost node, whenever each bus has retained it."""
        kept = self._gateway.retained_as(text)
        if kept is not None:
            self.sent(text, kept.stamp)

    def _mark(self, key: _Key, stamp: Stamp) -> None:
        if stamp > self._known.get(key, NEVER):
            self._known[key] = stamp
            self._known.move_to_end(key)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)

    def _note_all(self) -> None:
        for forgotten in self._gateway.forgotten():
            self.note(forgotten)
        for kept in self._gateway.retained():
            if not kept.identifier.is_local:
                self.note(kept)

    def _look(self) -> None:
        """Look at what was noted, and leave out what comes from the cluster."""
        self._will_look = False
        while self._noted:
            change = self._noted.popleft()
            identifier, key = change.identifier, (type(change), str(change.identifier))
            if change.stamp <= self._known.get(key, NEVER):
                continue
            if self._receiving is not None and not self._receiving.covers(identifier):
                self.withheld += 1
                continue
            if self._absence is not None:
                self._warn(self._absence)
                continue
            self._waiting.pop(key, None)
            self._waiting[key] = change
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popitem(last=False)
                self._refuse("too many messages wait to be stored")
        self._write()

    def _write(self) -> None:
        if self._waiting and self._writer is None and not self._is_closed:
            self._writer = self._loop.create_task(self._store(), name=f"{self!r}: store")

    async def _store(self) -> None:
        """Store what waits, in the order of the changes."""
        try:
            while self._waiting:
                try:
                    await self._store_some()
                except (NotFoundError, AuthenticationError) as error:
                    self._set_absent(error)
                    self._warn(error)
                    self._waiting.clear()
                except ConnectionLostError as error:
                    logger.debug("%r: %s", self, error)
                    await asyncio.sleep(PAUSE)
                except Error as error:
                    # There is no room for the stream, as a rule.
                    self._refuse(str(error))
                    self._waiting.clear()
        finally:
            self._writer = None

    async def _store_some(self) -> None:
        if not self._is_declared:
            self._note_created(await self._bucket.declare())
            self._is_declared = True
        key, change = next(iter(self._waiting.items()))
        if isinstance(change, Forgotten):
            try:
                await self._bucket.forget(change)
                self._mark(key, change.stamp)
            except AuthenticationError as error:
                self._refuse(f"{key[1]} is not forgotten: {error}")
            self._done(key, change)
            return
        batch: list[tuple[_Key, Kept]] = []
        for key, change in self._waiting.items():
            if isinstance(change, Forgotten) or len(batch) >= WINDOW:
                break
            batch.append((key, change))
        results = await asyncio.gather(
            *(self._put(key, kept) for key, kept in batch), return_exceptions=True
        )
        self._tell_news()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _tell_news(self) -> None:
        """Have those who follow read what was stored and not sent: it came here late."""
        news, self._news = self._news, []
        if news:
            # No identifier has a line end.
            payload = "\n".join(news).encode()
            self._connection.publish(retained_notice(self._namespace), payload)

    def _receive_notice(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Read what is followed of what is new in the bucket."""
        if self._followed is None or len(payload) > MAX_NOTICE:
            return
        patterns = self._followed.patterns
        for text in payload.decode("utf-8", "replace").split("\n"):
            try:
                wanted = subject_of(self._namespace, Identifier(text).require_exportable())
            except ValueError as error:
                self._mesh.router.count_malformed(error)
                return
            if any(each.endswith(">") or covers(each, wanted) for each in patterns):
                self.wanted(wanted)

    def _done(self, key: _Key, change: Kept | Forgotten) -> None:
        """Let a change wait no more, unless it is a newer one."""
        if self._waiting.get(key) is change:
            del self._waiting[key]

    async def _put(self, key: _Key, kept: Kept) -> None:
        """Store a message, unless the bucket has a newer one."""
        text = key[1]
        try:
            payload = self._bucket.pack(kept)
            for _ in range(ATTEMPTS):
                expected, stamp = self._stored.get(text, NOTHING)
                if stamp >= kept.stamp:
                    break
                sequence = await self._bucket.put(kept, payload, expected)
                if sequence is not None:
                    self._note_stored(text, sequence, kept.stamp)
                    sent, when = self._sent.get(text, (NEVER, 0.0))
                    if sent != kept.stamp or self._loop.time() - when > IN_TIME:
                        self._news.append(text)
                    break
                stored = await self._bucket.get(kept.identifier)
                if stored is None:
                    self._note_stored(text, *NOTHING)
                    continue
                self._note_stored(text, stored.sequence, stored.stamp)
                self._take(stored)
            else:
                self._refuse("others store it all the time")
            self._mark(key, kept.stamp)
        except AuthenticationError as error:
            # Others may be allowed.
            self._refuse(f"{text}: {error}")
        except (ConnectionLostError, NotFoundError):
            raise
        except (Error, TypeError, ValueError) as error:
            # Its sender was told when it was sent, if it cannot be packed.
            self._refuse(f"{text}: {error}")
        self._done(key, kept)

    def _note_stored(self, text: str, sequence: int, stamp: Stamp) -> None:
        self._stored[text] = sequence, stamp
        self._stored.move_to_end(text)
        if len(self._stored) > MAX_KNOWN:
            self._stored.popitem(last=False)

    def _note_created(self, created: str | None) -> None:
        """If it is another bucket than before, what this node has retained goes there."""
        if created == self._created:
            return
        former, self._created = self._created, created
        if former is not None:
            self._stored.clear()
            self._known.clear()
            self._note_all()
            self._look()

    def _refuse(self, problem: str) -> None:
        self.refused += 1
        if self._failures.admit(time.monotonic()):
            logger.warning("%r: a message is not retained for others: %.300s", self, problem)

    def _set_absent(self, error: Exception) -> None:
        """There is no JetStream, which may be there later, or this node may not use it."""
        self._absence = error
        if isinstance(error, AuthenticationError):
            return
        if self._recheck is None and not self._is_closed:
            self._recheck = self._loop.call_later(RECHECK, self.restored)

    def _warn(self, error: Exception) -> None:
        """Say once why nothing is retained for nodes that come later."""
        if self._has_warned:
            return
        self._has_warned = True
        why = str(error)
        if isinstance(error, NotFoundError):
            why = f"JetStream is not enabled at {self._place}: start nats-server with -js"
        logger.warning(
            "retained messages go to the nodes that are in the cluster now, and nobody keeps them "
            "for those that come later: %.300s",
            why,
        )

    # -- what the bucket has ---------------------------------------------------------------------

    def wanted(self, pattern: str) -> None:
        """Read what the bucket has of what is followed from now on.

        Args:
            pattern: of the subjects of the messages.
        """
        if self._may_not_read:
            return
        self._unread.add(pattern)
        if self._reader is None and not self._is_closed:
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        if (self._unread or self._must_check) and self._reader is None and not self._is_closed:
            self._reader = self._loop.create_task(self._fetch(), name=f"{self!r}: read")

    async def _fetch(self) -> None:
        """Read what was not read yet."""
        try:
            while self._unread or self._must_check:
                patterns, self._unread = self._unread, set()
                try:
                    await self._fetch_some(patterns)
                    self._plan_second_look(patterns)
                except AuthenticationError as error:
                    self._may_not_read, self._must_check = True, False
                    self._unread.clear()
                    logger.debug("%r: nothing is read: %s", self, error)
                except NotFoundError as error:
                    self._must_check = False
                    self._set_absent(error)
                    logger.debug("%r: nothing is read: %s", self, error)
                except ConnectionLostError as error:
                    logger.debug("%r: %s", self, error)
                    self._unread |= patterns
                    await asyncio.sleep(PAUSE)
                except Error as error:
                    self._must_check = False
                    logger.debug("%r: nothing is read: %s", self, error)
        finally:
            self._reader = None

    def _plan_second_look(self, patterns: set[str]) -> None:
        """Have patterns read once more, later."""
        first = patterns - self._again
        self._again -= patterns
        if not first or self._is_closed:
            return
        self._again |= first
        if self._second_look is None:
            self._second_look = self._loop.call_later(SECOND_LOOK, self._look_again)

    def _look_again(self) -> None:
        self._second_look = None
        self._unread |= self._again
        self._read()

    async def _fetch_some(self, patterns: set[str]) -> None:
        # What is sent from here on comes to this node: what the bucket gets later is not missed.
        if not await self._connection.flush(CONFIRM_TIMEOUT):
            raise ConnectionLostError(f"there is no connection to NATS at {self._place}")
        created = await self._bucket.created()
        self._note_created(created)
        self._must_check = False
        if created is None or not patterns:
            return
        if not self._has_read_forgotten:
            forgotten = retained_subjects(self._namespace, "forgotten")
            await self._bucket.fetch([forgotten], self._read_forgotten)
            self._has_read_forgotten = True
        wanted = sorted(map(retained_pattern, patterns))
        whole = [pattern for pattern in wanted if pattern.endswith(">")]
        if whole:
            wanted = whole[:1]
        for start in range(0, len(wanted), PATTERNS):
            # Those of one consumer must not overlap. The time for that grows with their square.
            some = union(wanted[start : start + PATTERNS])
            await self._bucket.fetch(some, self._read_message)

    def _read_message(self, subject: str, payload: bytes, headers: bytes, sequence: int) -> None:
        try:
            stored = self._bucket.parse(subject, payload, headers, sequence)
        except ProtocolError as error:
            self._mesh.router.count_malformed(error)
            return
        self._note_stored(str(stored.identifier), sequence, stored.stamp)
        self._take(stored)

    def _take(self, stored: Stored) -> None:
        """Take a message of the bucket."""
        identifier, args, kwargs, origin, stamp, _ = stored
        if self._sending is not None and not self._sending.covers(identifier):
            self._mesh.denied += 1
            return
        if not is_acceptable(stamp, time.time()):
            problem = ProtocolError(f"{identifier} is malformed, or its sender's clock is ahead")
            self._mesh.router.count_malformed(problem)
            return
        self.mark(str(identifier), stamp)
        entry = Entry(identifier, args, kwargs, origin, stamp)
        if self._gateway.take_retained(*entry, is_late=True) and self._mesh.links:
            self._mesh.retained.offer([entry])
            self._mesh.wake()

    def _receive_forgotten(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """Take what another node forgets now."""
        self._read_forgotten(subject, payload, headers, 0)

    def _read_forgotten(self, subject: str, payload: bytes, headers: bytes, sequence: int) -> None:
        try:
            forgotten = self._bucket.parse_forgotten(subject, payload, headers)
        except ProtocolError as error:
            self._mesh.router.count_malformed(error)
            return
        identifier, stamp = forgotten
        if self._sending is not None and not self._sending.covers(identifier):
            self._mesh.denied += 1
            return
        if not is_acceptable(stamp, time.time()):
            self._mesh.router.count_malformed(ProtocolError("the clock of a sender is ahead"))
            return
        self._mark((Forgotten, str(identifier)), stamp)
        self._gateway.forget(identifier, stamp)
        if sequence:
            return
        for kept in self._gateway.retained(identifier):
            # It is newer, and may be gone from the bucket all the same.
            if kept.message.origin is None:
                text = str(kept.identifier)
                self._known.pop((Kept, text), None)
                self._stored.pop(text, None)
                self.note(kept)

    def __repr__(self) -> str:
        return f"<ClusterRetained of {self._namespace}>"
