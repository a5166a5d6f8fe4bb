"""One connection to a NATS server, or to one of a cluster, that comes back by itself.

* A message goes to its subscription's callback in the read, so that the order across subscriptions
  holds and no queue drops anything.
* What is published in one turn of the event loop is written at once, unless it is much. Nothing is
  kept while there is no link: `Connection.publish` says so, and whoever publishes decides what to
  do.
* When a link breaks, another is made after 50 ms to 2 s, and so on until `Connection.close`, at all
  servers that were given or that the cluster has named.
* What the server refuses is an `AuthenticationError` that names the subject.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from ..common.backoff import Backoff
from ..errors import AuthenticationError, ConnectionLostError, NotFoundError, TooLargeError
from ..runtime.log import Log
from .address import Server
from .headers import NO_RESPONDERS, status_of
from .link import (
    LINK_TIMEOUT,
    MAX_TEXT,
    MIN_PAYLOAD,
    ExposedError,
    Link,
    LinkOptions,
    Refusal,
    UnsafeError,
    check_signing,
    error_of,
    refusal_of,
    speaks_no_tls,
    text_of,
)
from .options import Nats

__all__ = ["Callback", "Connection", "Refusal", "Reply", "Subscription"]

logger = Log("berrymq_rpc.nats")

#: Called with a message's subject, reply subject, payload and headers; the last two bytes, and
#: empty where there are none, as is the reply subject. It must not raise.
Callback: TypeAlias = Callable[[str, str, bytes, bytes], None]

#: Seconds between attempts to make a link: the first and the longest pause, and the one after the
#: server has refused this side.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
REFUSED_PAUSE = 10.0

#: Seconds in which what is pending is sent when a connection closes.
LINGER = 1.0

#: Seconds in which a server whose TLS begins later must say who it is, the first time.
FIRST_PATIENCE = 1.0

#: Bytes of a message that a server takes unless it is set otherwise.
USUAL_PAYLOAD = 1 << 20

#: Bytes of a payload that is copied to be written with what is before and after it.
JOINED = 4096

#: Bytes that are written before the end of a turn of the event loop, so that the server works on
#: them meanwhile.
EARLY = 16 << 10

#: Servers that a cluster may name.
MAX_DISCOVERED = 100


class Reply(NamedTuple):
    """The answer to `Connection.request`."""

    payload: bytes
    headers: bytes


class Subscription:
    """What `Connection.subscribe` returns, for `Connection.unsubscribe`.

    Attributes:
        subject: of the messages; it may have wildcards.
        queue: the name of the group that shares the messages; empty for none.
    """

    __slots__ = ("callback", "number", "queue", "subject")

    def __init__(self, number: int, subject: str, queue: str, callback: Callback) -> None:
        self.number = number
        self.subject = subject
        self.queue = queue
        self.callback = callback

    @property
    def command(self) -> bytes:
        """What subscribes at the server."""
        queue = f"{self.queue} " if self.queue else ""
        return f"SUB {self.subject} {queue}{self.number}\r\n".encode("utf-8", "surrogateescape")


class Connection:
    """A connection to NATS that comes back by itself. It belongs to the running event loop.

    Args:
        settings: where, and as whom.
        name: what NATS shows for it.
        heartbeat: seconds; a server that does not answer for so long is lost.
        echo: whether what is published here reaches the subscriptions of this connection.
        insecure: a password or token may be sent beyond this host without TLS, and a server beyond
            it may let anyone in.
        serves: whether others may call this side or send it messages. Without `insecure`, a server
            beyond this host that lets anyone in is refused then.
        restored: called when there is a link, the first included: the subscriptions are in place.
        leaving: called before a link is left because its server is about to stop, with the reason;
            what is published in it still goes. `lost` is called afterwards.
        lost: called when the link broke, with the reason. What was published just before may be
            lost.
        refused: called for what the server does not allow.
        read_complete: called when all that could be read for now was handed to the callbacks.

    None of the functions may raise.

    Raises:
        ModuleNotFoundError: nkeys is not installed, which signs with an nkey or credentials.
    """

    def __init__(
        self,
        settings: Nats,
        *,
        name: str = "berrymq_rpc",
        heartbeat: float = 2.0,
        echo: bool = True,
        insecure: bool = False,
        serves: bool = True,
        restored: Callable[[], None] | None = None,
        leaving: Callable[[str], None] | None = None,
        lost: Callable[[str], None] | None = None,
        refused: Callable[[Refusal], None] | None = None,
        read_complete: Callable[[], None] | None = None,
    ) -> None:
        check_signing(settings)
        self.settings = settings
        self._link_options = LinkOptions(settings, name, heartbeat, echo, insecure, serves)
        self.loop = asyncio.get_running_loop()
        #: The inbox of this connection: nobody else knows it.
        self.inbox = f"{settings.inbox_prefix}.{token_hex(12)}"
        #: What the server said last about itself.
        self.server_info: dict[str, Any] = {}
        #: Bytes that a message and its headers may have together.
        self.max_payload = USUAL_PAYLOAD
        #: How often a link was made.
        self.links = 0
        #: How many callbacks raised.
        self.callback_errors = 0
        self._restored = restored
        self._leaving = leaving
        self._lost = lost
        self._refused = refused
        self._read_complete = read_complete
        self._link: Link | None = None
        self._subscriptions: dict[int, Subscription] = {}
        self._numbers = 0
        self._pending: list[bytes | bytearray | memoryview] = []
        self._pending_bytes = 0
        self._flush_scheduled = False
        #: By the last token of their reply subject.
        self._requests: dict[str, tuple[str, asyncio.Future[Reply]]] = {}
        self._request_numbers = 0
        self._answers: Subscription | None = None
        self._discovered: list[Server] = []
        #: Seconds in which a server with TLS must say who it is; 0 for one that begins with TLS.
        self._patience: dict[Server, float] = {}
        #: Servers that want a certificate of this side, and closed the last connection with it.
        self._closed: set[Server] = set()
        self._broken = asyncio.Event()
        self._linked = asyncio.Event()
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._cleanups: set[asyncio.Task[None]] = set()
        self._is_closed = False

    # -- the link --------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether there is a link at this moment, as far as this side knows."""
        return self._link is not None

    @property
    def last_error(self) -> str:
        """Why there was no link the last time that one was wanted."""
        return text_of(self._error)

    @property
    def server(self) -> str:
        """The address of the server that there is or was a link to; else all that were given."""
        link = self._link
        return str(link.server) if link is not None else str(self.settings)

    def start(self) -> None:
        """Begin to connect, without waiting for it; `restored` is called then."""
        if self._task is None and not self._is_closed:
            self._task = self.loop.create_task(self._run(), name="nats connection")

    async def connect(self, timeout: float) -> None:
        """Connect, and wait for it. When cancelled, it is not connected, and must be closed.

        Args:
            timeout: seconds.

        Raises:
            AuthenticationError: the server refused this side, or this side the server.
            ConnectionLostError: no server answered in time.
            ValueError: the server lets anyone in, and that is not allowed; see `insecure`.
        """
        self.start()
        try:
            async with asyncio.timeout(timeout):
                # A link may be lost again before this side has looked.
                while self._link is None and not isinstance(self._error, AuthenticationError):
                    await self._linked.wait()
        except TimeoutError:
            raise ConnectionLostError(
                f"no NATS server answered at {self.settings} within {timeout:g} s "
                f"({text_of(self._error)}): is it running?"
            ) from None
        if self._link is None:
            assert isinstance(self._error, AuthenticationError)
            if isinstance(self._error, ExposedError):
                raise ValueError(str(self._error)) from None
            raise self._error

    async def close(self, timeout: float = LINGER) -> None:
        """Send what is pending, then close; what `request` waits for fails.

        When cancelled, it is closed all the same, and what was pending may be lost.

        Args:
            timeout: seconds for what is pending.
        """
        if self._is_closed:
            return
        try:
            if self._link is not None:
                await self.flush(timeout)
        finally:
            self.abort()
            await self._cleaned_up()

    def abort(self) -> None:
        """Close at once: what is pending is lost. `wait_closed` waits until the rest is over."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        self._end_link("the connection was closed")

    async def wait_closed(self) -> None:
        """Wait until the tasks of a connection that was closed have ended."""
        await self._cleaned_up()

    async def _cleaned_up(self) -> None:
        # It may give up a link in its last step.
        if self._task is not None:
            await asyncio.wait({self._task})
        if self._cleanups:
            await asyncio.wait(set(self._cleanups))

    async def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not self._is_closed:
            was_refused = False
            for server in self._servers():
                began = monotonic()
                try:
                    link = await self._make_link(server)
                except AuthenticationError as error:
                    if isinstance(error, UnsafeError) and server in self._discovered:
                        # A cluster names the addresses of its network, also of a server that was
                        # given by one of this host's own.
                        self._connect_failed(ConnectionLostError(str(error)))
                        continue
                    was_refused = True
                    self._connect_failed(error)
                    if self._refused is not None:
                        self._refused(Refusal(error, "connect", ""))
                    else:
                        logger.warning("%s: %s", server, error)
                except (OSError, ConnectionLostError) as error:
                    self._connect_failed(error)
                else:
                    if self._task is not None and self._task.cancelling():
                        # Cancelled in the moment in which it was open: `asyncio.wait_for` of
                        # Python 3.11, which nats-py uses, forgets that.
                        self._give_up(link)
                        return
                    self._broken.clear()
                    self._begin_link(link)
                    await self._broken.wait()
                    began = monotonic() if link.lived < LONGEST_PAUSE else 0.0
                    break
            pause = REFUSED_PAUSE if was_refused else backoff.next(monotonic() - began)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def _servers(self) -> Iterable[Server]:
        given = list(self.settings.address.servers)
        random.shuffle(given)
        return dict.fromkeys([*given, *self._discovered])

    def _connect_failed(self, error: BaseException) -> None:
        self._error = error
        logger.debug("%s: %s", self.settings, error)
        if isinstance(error, AuthenticationError):
            self._linked.set()
        else:
            self._linked.clear()

    async def _make_link(self, server: Server) -> "Link":
        if not self.settings.address.tls:
            return await self._try_link(server, False, LINK_TIMEOUT)
        # With TLS most servers say plainly who they are before it begins; one that is set to
        # "TLS first" says nothing.
        patience = self._patience.get(server, FIRST_PATIENCE)
        if patience:
            try:
                return await self._try_link(server, False, patience)
            except TimeoutError:
                # Longer the next time, in case it is only far away.
                self._patience[server] = min(2 * patience, LINK_TIMEOUT)
        else:
            # Unless it works again, the server may have been given another setting.
            del self._patience[server]
        try:
            link = await self._try_link(server, True, LINK_TIMEOUT)
        except AuthenticationError as error:
            if speaks_no_tls(error.__cause__):
                raise ConnectionLostError(f"the NATS server at {server} answers late") from error
            raise
        self._patience[server] = 0.0
        return link

    async def _try_link(self, server: Server, tls_first: bool, timeout: float) -> Link:
        """Connect once; `timeout` seconds for each step.

        Raises:
            TimeoutError: a step took longer.
            AuthenticationError, ConnectionLostError, OSError: it failed otherwise.
        """
        link = Link(self, server, self._link_options)
        try:
            async with asyncio.timeout(LINK_TIMEOUT):
                await link.open(tls_first=tls_first, timeout=timeout)
        except TimeoutError:
            self._give_up(link)
            raise TimeoutError(f"the NATS server at {server} does not answer") from None
        except Exception as error:
            self._give_up(link)
            raise self._why_not(link, error) from error
        except BaseException:
            self._give_up(link)
            raise
        if _max_payload(link.info) < MIN_PAYLOAD:
            self._give_up(link)
            raise ConnectionLostError(
                f"the NATS server at {server} takes messages of up to {_max_payload(link.info):,} "
                f"bytes alone, and {MIN_PAYLOAD:,} are needed: raise its max_payload"
            )
        return link

    def _why_not(self, link: Link, error: Exception) -> BaseException:
        """What a link that could not be made is told as."""
        found = error_of(error, link.server)
        if isinstance(found, AuthenticationError) or not link.has_shown_certificate:
            self._closed.discard(link.server)
            return found
        if link.server in self._closed:
            return AuthenticationError(
                f"the NATS server at {link.server} wants a certificate of this side, and closes "
                f"the connection: {text_of(error)}",
                reason="certificate",
            )
        # It may be about to stop; that it does so twice in a row is no chance.
        self._closed.add(link.server)
        return found

    def _begin_link(self, link: "Link") -> None:
        self._error = None
        self._closed.discard(link.server)
        self._link = link
        self.links += 1
        self._learn(link.info)
        self._pending.clear()
        self._pending_bytes = 0
        if self._subscriptions:
            link.write([s.command for s in self._subscriptions.values()])
        self._linked.set()
        logger.info("connected to NATS at %s", link.server)
        if self._restored is not None:
            self._restored()

    def _end_link(self, reason: str) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        self._pending.clear()
        self._pending_bytes = 0
        self._linked.clear()
        self._give_up(link)
        for _, answer in self._requests.values():
            if not answer.done():
                answer.set_exception(
                    ConnectionLostError(f"the connection to NATS was lost: {reason}")
                )
        self._broken.set()
        if not self._is_closed:
            logger.warning("the connection to NATS at %s was lost: %s", link.server, reason)
            if self._lost is not None:
                self._lost(reason)

    def _give_up(self, link: "Link") -> None:
        link.abort()
        task = self.loop.create_task(link.clean_up(), name="nats clean-up")
        self._cleanups.add(task)
        task.add_done_callback(self._cleanups.discard)

    def _learn(self, info: dict[str, Any]) -> None:
        """Take what a server says about itself and its cluster."""
        self.server_info = info
        self.max_payload = _max_payload(info)
        found = []
        urls = info.get("connect_urls")
        for url in urls[:MAX_DISCOVERED] if isinstance(urls, list) else ():
            try:
                found.append(Server.parse(url))
            except (TypeError, ValueError, AttributeError):
                logger.warning("NATS named a server that has no address: %.99r", url)
        if found:
            given = self.settings.address.servers
            self._discovered = [server for server in found if server not in given]

    # -- what a link reports ---------------------------------------------------------------

    def link_broken(self, link: "Link", reason: str) -> None:
        """The link is lost."""
        if link is self._link:
            self._end_link(reason)

    def link_refused(self, link: "Link", text: str) -> None:
        """The server does not allow something, or closes the connection for a reason."""
        refusal = refusal_of(text, self.server)
        if refusal is None:
            self.link_broken(link, f"NATS says {text[:MAX_TEXT]!r}")
            return
        if refusal.operation == "connect":
            self._error = refusal.error
        for key, (subject, answer) in list(self._requests.items()):
            if subject == refusal.subject or refusal.subject == f"{self.inbox}.r.*":
                del self._requests[key]
                if not answer.done():
                    answer.set_exception(refusal.error)
        if self._refused is not None:
            self._refused(refusal)
        else:
            logger.warning("%s", refusal.error)
        if refusal.operation == "connect":
            self.link_broken(link, str(refusal.error))

    def link_informed(self, link: "Link", info: dict[str, Any]) -> None:
        """The server says anew what it and its cluster are."""
        if link is not self._link:
            return
        if _max_payload(info) < MIN_PAYLOAD:
            self._end_link("the server takes small messages alone from now on (max_payload)")
            return
        self._learn(info)
        others = [s for s in self._servers() if s != link.server]
        if info.get("ldm") and others:
            reason = "the server is about to stop"
            if self._leaving is not None:
                self._leaving(reason)
                self._write()
            self._end_link(reason)

    def received(
        self, number: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes
    ) -> None:
        """A message of a subscription."""
        subscription = self._subscriptions.get(number)
        if subscription is None:
            return
        try:
            subscription.callback(
                subject.decode("utf-8", "surrogateescape"),
                reply.decode("utf-8", "surrogateescape") if reply else "",
                payload,
                headers,
            )
        except Exception:
            # What leaves here ends the read of nats-py, and nobody hears of it.
            self.callback_errors += 1
            logger.exception("the receiver of %s raised", subscription.subject)

    def parsed(self) -> None:
        """All that was read is handed over."""
        if self._read_complete is not None:
            self._read_complete()
        if self._pending:
            self._write()

    # -- sending -----------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent to the server."""
        link = self._link
        return self._pending_bytes + (0 if link is None else link.buffered)

    def publish(
        self,
        subject: str,
        payload: bytes | bytearray | memoryview,
        reply: str = "",
        headers: bytes = b"",
    ) -> bool:
        """Publish a message; it is written at the end of this turn of the event loop at the latest.

        Args:
            subject: without wildcards, spaces and line ends.
            payload: must not be changed any more.
            reply: the subject for answers. With it, the server answers 503 if nobody subscribes.
            headers: as `pack_headers` makes them.

        Returns:
            Whether there is a link. If not, nothing is sent.

        Raises:
            TooLargeError: payload and headers are larger than the server takes.
        """
        size = len(payload)
        if self._link is None:
            return False
        if size + len(headers) > self.max_payload:
            raise self._too_large(size + len(headers))
        head = _head_of(subject, size, reply, headers)
        if size <= JOINED:
            self._pending.append(b"".join((head, payload, b"\r\n")))
        else:
            self._pending += (head, payload, b"\r\n")
        self._pending_bytes += size + len(head)
        if self._pending_bytes >= EARLY:
            self._write()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush)
        return True

    def publish_parts(
        self,
        subject: str,
        parts: Sequence[bytes | bytearray | memoryview],
        size: int,
        reply: str = "",
        headers: bytes = b"",
    ) -> bool:
        """Publish a message whose payload is in parts; otherwise as `publish`.

        Args:
            size: bytes of all parts.
        """
        if self._link is None:
            return False
        if size + len(headers) > self.max_payload:
            raise self._too_large(size + len(headers))
        head = _head_of(subject, size, reply, headers)
        self._pending += (head, *parts, b"\r\n")
        self._pending_bytes += size + len(head)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush)
        return True

    def _too_large(self, size: int) -> TooLargeError:
        return TooLargeError(
            f"a message of {size:,} bytes is over the {self.max_payload:,} that the NATS server "
            "takes (max_payload)"
        )

    def subscribe(self, subject: str, callback: Callback, queue: str = "") -> Subscription:
        """Have messages handed to a callback, in the order in which they arrive.

        The subscription holds over links. One that the server does not allow is told to `refused`.

        Args:
            subject: with ``*`` for any token and ``>`` for all that follow.
            callback: called in the read.
            queue: the name of a group; each message goes to one of it.

        Raises:
            ValueError: subject or queue have a space or a line end.
        """
        for text in (subject, queue):
            if text.split() not in ([text], []):
                raise ValueError(f"{text[:MAX_TEXT]!r} is no subject or queue of NATS")
        self._numbers += 1
        subscription = Subscription(self._numbers, subject, queue, callback)
        self._subscriptions[subscription.number] = subscription
        self._send(subscription.command)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription: its callback is not called any more."""
        if self._subscriptions.pop(subscription.number, None) is not None:
            self._send(b"UNSUB %d\r\n" % subscription.number)

    async def drain_subscription(self, subscription: Subscription, timeout: float) -> None:
        """End a subscription, whose callback is called with what is on its way.

        When cancelled, it is ended all the same.

        Args:
            timeout: seconds for what is on its way.
        """
        if subscription.number not in self._subscriptions:
            return
        self._send(b"UNSUB %d\r\n" % subscription.number)
        try:
            await self.flush(timeout)
        finally:
            self._subscriptions.pop(subscription.number, None)

    async def request(
        self, subject: str, payload: bytes, *, timeout: float, headers: bytes = b""
    ) -> Reply:
        """Publish a message and wait for the first answer. Cancelling it forgets the answer.

        Args:
            timeout: seconds.

        Raises:
            AuthenticationError: this side may not publish there, or read answers.
            ConnectionLostError: there is no link, or it broke meanwhile.
            NotFoundError: nobody subscribes to the subject.
            TimeoutError: no answer came in time.
            TooLargeError: as `publish`.
        """
        if self._link is None:
            raise ConnectionLostError(f"there is no connection to NATS at {self.settings}")
        if self._answers is None:
            self._answers = self.subscribe(f"{self.inbox}.r.*", self._answered)
        self._request_numbers += 1
        key = str(self._request_numbers)
        answer: asyncio.Future[Reply] = self.loop.create_future()
        self._requests[key] = subject, answer
        try:
            self.publish(subject, payload, f"{self.inbox}.r.{key}", headers)
            async with asyncio.timeout(timeout):
                found = await answer
        finally:
            self._requests.pop(key, None)
        if status_of(found.headers) == NO_RESPONDERS and not found.payload:
            raise NotFoundError(f"nobody subscribes to {subject!r} at NATS")
        return found

    def _answered(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        _, answer = self._requests.pop(subject.rpartition(".")[2], (None, None))
        if answer is not None and not answer.done():
            answer.set_result(Reply(payload, headers))

    async def flush(self, timeout: float) -> bool:
        """Wait until the server has taken all that was published before. Cancelling it is harmless.

        Args:
            timeout: seconds.

        Returns:
            Whether it has; not if there is no link, or it broke, or time was up.
        """
        link = self._link
        if link is None:
            return False
        if self._pending:
            self._write()
        pong = await link.ping()
        # Never cancelled: nats-py sets its result.
        await asyncio.wait({pong}, timeout=timeout)
        return pong.done() and pong.result() is True and link is self._link

    def _send(self, command: bytes) -> None:
        if self._link is None:
            return
        self._pending.append(command)
        self._pending_bytes += len(command)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._pending:
            self._write()

    def _write(self) -> None:
        pending, self._pending = self._pending, []
        self._pending_bytes = 0
        if self._link is not None:
            self._link.write(pending)


def _max_payload(info: dict[str, Any]) -> int:
    """The bytes of a message that a server takes, or what is usual if it does not say."""
    found = info.get("max_payload")
    return found if isinstance(found, int) and found > 0 else USUAL_PAYLOAD


def _head_of(subject: str, size: int, reply: str, headers: bytes) -> bytes:
    """What comes before a payload."""
    to = f"{subject} {reply}" if reply else subject
    if not headers:
        return f"PUB {to} {size}\r\n".encode("utf-8", "surrogateescape")
    command = f"HPUB {to} {len(headers)} {len(headers) + size}\r\n"
    return command.encode("utf-8", "surrogateescape") + headers
