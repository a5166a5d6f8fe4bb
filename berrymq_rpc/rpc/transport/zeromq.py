"""The ZeroMQ transport, `tcp://` and `ipc://`.

A listening port is a ROUTER with any number of peers, a connecting one a DEALER with a single
peer: with a socket for each endpoint, a lost server fails only its own calls.

How a lost peer is noticed (libzmq 4.3.5): the socket's monitor reports DISCONNECTED about 2 ms
after a process is killed, and after the heartbeat's timeout for one that is frozen. For a
DEALER that is all. A ROUTER's monitor reports only the file number of the connection, which each
peer's first message carries as well (`zmq.SRCFD`). CONNECTED says only that the kernel accepted;
HANDSHAKE_SUCCEEDED that the peer answered.
"""

import asyncio
import contextlib
import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from itertools import count
from typing import Any

import zmq

from ...common.backoff import Backoff
from ...runtime.fork import OwnerProcess, call_in_child
from ...runtime.log import Log
from ...security import CurveServer
from .aiozmq_import import ZmqProtocol
from .binding import bind_error, is_name, uses_ipv6
from .curve import UNCLEAR, cut, find_refusal, host_of, reason_of, refused, secure
from .handshakes import Handshakes
from .monitor import (
    ACCEPTED,
    BROKEN_OFF,
    CONNECTED,
    CONNECTION_EVENTS,
    LOST,
    REFUSED,
    RETRIED,
    STOPPED,
    read_event,
)
from .port import Buffer, Credentials, Key, Port, PortHandler, PortOptions
from .zeromq_socket import KNOWN, NO_FILE, PeerTransport, Received

__all__ = ["ZeroMQPort", "dial", "listen"]

logger = Log("berrymq_rpc.rpc")

#: More than the 1,024 sockets that a context has by default: a client takes two.
MAX_SOCKETS = 65_535

#: Seconds between attempts to reach a peer that is down: the first and the longest. A restarted
#: server is found within the longer one, and a server that is down costs a few monitor events a
#: second.
RECONNECT_MIN = 0.02
RECONNECT_MAX = 0.4

#: The same where the server refuses this side: each attempt is a line in its log.
REFUSED_MIN = 0.5
REFUSED_MAX = 5.0

#: Milliseconds after which libzmq reconnects by itself: never, as `ZeroMQPort` does it. libzmq does
#: not reconnect after the peer broke ZMTP or sent a frame over MAXMSGSIZE, and would send what was
#: queued for the former connection.
NEVER = 2**31 - 1

#: Messages that ZeroMQ keeps for one peer before this process does. The bound in bytes is kept
#: on what waits here, so this must not be large: messages are up to 128 KiB and more.
SEND_MESSAGES = 16

#: Seconds between attempts to hand over what is queued while a port closes.
LINGER_PAUSE = 0.002

#: Turns of the event loop for which reading may go on before a peer's loss is reported, so that a
#: flood from others does not delay the report for long.
MAX_DRAINED = 100

#: Not an event of the monitor: a send found that the peer is gone.
_DEPARTED = -1

_monitors = count()
#: By process: the child of a fork must neither use nor terminate its parent's.
_contexts: dict[int, zmq.Context[Any]] = {}
_contexts_lock = threading.Lock()


def _shared_context() -> zmq.Context[Any]:
    """This package's context of this process, apart from the shared one of pyzmq."""
    with _contexts_lock:
        context = _contexts.get(os.getpid())
        if context is None or context.closed:
            context = _contexts[os.getpid()] = zmq.Context()
            context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        return context


#: The ports of a process of which this one is a fork.
_left: "list[ZeroMQPort]" = []


class ZeroMQPort(Port, ZmqProtocol):
    """One ROUTER or DEALER socket."""

    def __init__(
        self, handler: PortHandler, zmq_socket: "zmq.Socket[bytes]", options: PortOptions
    ) -> None:
        self._handler = handler
        self._linger = options.linger
        self._security = options.security
        self._socket = zmq_socket
        self._routed = zmq_socket.get(zmq.SocketOption.TYPE) == zmq.SocketType.ROUTER
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._closing = False
        self._endpoints: tuple[str, ...] = ()
        #: Keys of the peers, each with the file number of its connection.
        self._peers: dict[Key, int] = {}
        #: Keys by file number, oldest first: a number may be used again before the loss of its
        #: former connection was read.
        self._by_file: dict[int, list[Key]] = {}
        #: A bound DEALER may have several connections; all count as one peer.
        self._connections = 0
        #: The endpoint of a connecting port, and the timer that reconnects.
        self._dialled: str | None = None
        #: Whether it is dialled at an IPv6 address; a name may have addresses of both kinds.
        self._is_name = False
        self._by_ipv6 = False
        self._tried_both = False
        self._dialling: asyncio.TimerHandle | None = None
        self._backoff = Backoff(RECONNECT_MIN, RECONNECT_MAX)
        self._refused_backoff = Backoff(REFUSED_MIN, REFUSED_MAX)
        #: Whether the server has said why it closes the handshake.
        self._was_refused = False
        #: Finds out why the server closed the handshake.
        self._finding: asyncio.Task[None] | None = None
        #: Whether the last handshake was closed in a way that a broken network may close it too.
        self._is_suspected = False
        #: When it began, and the seconds after which either side gives it up.
        self._dialled_at = 0.0
        self._handshake_time = int(zmq_socket.get(zmq.HANDSHAKE_IVL)) / 1000
        #: Takes the socket's keys out of what keeps them, once it is closed.
        #: Releases what the open socket uses; closed after it.
        self._resources = contextlib.ExitStack()
        #: Who the peers have proved to be, where that is asked for.
        self._credentials: dict[Key, Credentials] = {}
        #: The same of a DEALER's connections, by their file numbers.
        self._senders: dict[int, Credentials] = {}
        #: Reports who is refused before its key is looked at.
        self._handshakes: Handshakes | None = None
        if self._routed and isinstance(self._security, CurveServer):
            self._handshakes = Handshakes("")
        self._guard: asyncio.TimerHandle | None = None
        #: Each connection of a DEALER is a new peer to the handler.
        self._dealer_key: Key = None
        self._monitor: Any = zmq_socket.get_monitor_socket(
            CONNECTION_EVENTS
            | STOPPED
            | (0 if self._handshakes is None else ACCEPTED | BROKEN_OFF),
            # pyzmq's own choice has the socket's file number, which may be used again while the
            # monitor of the former one still ends.
            f"inproc://berrymq_rpc.monitor.{next(_monitors)}",
        )
        self._monitor_file = int(self._monitor.get(zmq.SocketOption.FD))
        self._loop.add_reader(self._monitor_file, self._read_monitor)
        #: Events of the monitor, and peers that sends found gone, in order.
        self._events: deque[tuple[int, Any]] = deque()
        #: Whether `_handle_events` goes on in the next turn of the event loop.
        self._events_planned = False
        #: How many peers of a file number a send found gone: the monitor's event, which has only
        #: the number, is not about a later peer.
        self._found_gone = Counter[int]()
        #: Turns that the next event has waited for messages that came before it.
        self._drained = 0
        self._transport = PeerTransport(
            self._loop,
            zmq_socket,
            self,
            known=self._peers,
            departed=self._departed,
            is_secured=isinstance(self._security, CurveServer),
            ipc_mode=options.ipc_mode,
        )

        self._owner = OwnerProcess("port")
        call_in_child(self._leave)

    def _leave(self) -> None:
        # Kept, as pyzmq warns of sockets that are collected and not closed.
        _left.append(self)
        self._closing = True
        if self._dialling is not None:
            self._dialling.cancel()
        self._transport.leave()

    # -- aiozmq's protocol ----------------------------------------------------------------

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._closing:
            # The socket failed; the event loop's exception handler has been called.
            keys = [*self._peers, self._dealer_key]
            self.close()
            for key in keys:
                if key is not None:
                    self._handler.peer_lost(key, f"the socket failed: {exc}")

    def msg_received(self, messages: deque[Received]) -> None:
        if self._closing:
            messages.clear()
            return
        handler = self._handler
        while messages:
            key, frames, file = messages.popleft()
            if not self._routed:
                if file != KNOWN and not self._admits(key, file):
                    continue
                # The first message may be read before the event of the connection.
                self._ensure_dealer_key()
                handler.message_received(self._dealer_key, frames)
            elif file == NO_FILE:
                handler.message_refused(key, "a peer of a version of ZeroMQ before 3.3")
            else:
                if file != KNOWN and key not in self._peers and not self._arrived(key, file):
                    continue
                handler.message_received(key, frames)
        handler.read_complete()

    # -- events of the monitor --------------------------------------------------------------

    def _collect_events(self) -> None:
        """Read the monitor until it is empty: its file shows only the first event."""
        while self._owner.is_this and not self._monitor.closed:
            try:
                event = read_event(self._monitor)
            except zmq.ZMQError:
                return
            if self._handshakes is not None and not self._closing:
                self._handshakes.see(*event)
                if event[0] in (ACCEPTED, BROKEN_OFF):
                    continue
            self._events.append(event)

    def _read_monitor(self) -> None:
        self._collect_events()
        if not self._events_planned:
            self._handle_events()

    def _handle_events(self) -> None:
        self._events_planned = False
        while self._events:
            event, value = self._events[0]
            if event in (LOST, _DEPARTED) and self._is_reading():
                # Read first what the peer sent before it left.
                self._plan_events()
                return
            self._drained = 0
            self._events.popleft()
            if event == STOPPED:
                self._on_monitor_stopped()
            elif self._closing:
                continue
            elif event == CONNECTED:
                self._backoff.reset()
                self._tried_both = False
                self._refused_backoff.reset()
                self._is_suspected = False
                self._on_connected()
            elif event == _DEPARTED:
                if value in self._peers:
                    self._found_gone[self._peers[value]] += 1
                    self._lose(value)
            else:
                if event == LOST:
                    if not (self._routed or self._connections or self._was_refused):
                        # The server closed the handshake: libzmq knows no reason.
                        self._find_refusal()
                    self._on_disconnected(value)
                elif event == REFUSED:
                    self._was_refused = True
                    self._on_refused(reason_of(value))
                self._plan_dial(has_failed=event == RETRIED)

    def _plan_events(self) -> None:
        if not self._events_planned:
            self._events_planned = True
            self._loop.call_soon(self._handle_events)

    def _is_reading(self) -> bool:
        if self._closing or self._drained >= MAX_DRAINED:
            return False
        self._drained += 1
        return self._transport.look()

    def _plan_dial(self, has_failed: bool) -> None:
        """Reconnect after a pause, which grows while no server is listening.

        Args:
            has_failed: no connection was made, so a name is tried by its other kind of address
                first, without a pause.
        """
        if self._dialled is None or self._dialling is not None or self._closing:
            return
        pause = 0.0
        if has_failed and self._is_name:
            self._by_ipv6 = not self._by_ipv6
            self._tried_both = not self._tried_both
        if not (has_failed and self._is_name and self._tried_both):
            pause = self._backoff.next()
        self._dialling = self._loop.call_later(pause, self._dial)

    def _dial(self) -> None:
        self._dialling = None
        self._was_refused = False
        assert self._dialled is not None
        # Without it, the second connect of a DEALER to an endpoint is ignored, and what was
        # queued for the former connection would go to the next.
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disconnect(self._dialled)
        self._socket.set(zmq.IPV6, int(self._by_ipv6))
        self._senders.clear()
        self._dialled_at = self._loop.time()
        self._socket.connect(self._dialled)

    # -- a server that refuses this side ------------------------------------------------------

    def _find_refusal(self) -> None:
        if self._loop.time() - self._dialled_at > 0.9 * self._handshake_time:
            # Nobody closed it: its time was over.
            return
        if self._dialled is not None and self._finding is None and not self._closing:
            self._finding = self._loop.create_task(self._ask(self._dialled))

    async def _ask(self, endpoint: str) -> None:
        reason = await find_refusal(endpoint, self._security)
        self._finding = None
        if reason == UNCLEAR and not self._is_suspected:
            self._is_suspected = True
            return
        if reason is not None and not self._closing and self._dealer_key is None:
            self._on_refused(reason)

    def _on_refused(self, reason: str) -> None:
        if self._dialled is None:
            return
        if self._dialling is not None:
            self._dialling.cancel()
        self._dialling = self._loop.call_later(self._refused_backoff.next(), self._dial)
        self._handler.authentication_failed(refused(self._security, reason))

    # -- peers --------------------------------------------------------------------------------

    def _on_connected(self) -> None:
        if self._routed:
            return
        self._connections += 1
        self._ensure_dealer_key()

    def _ensure_dealer_key(self) -> None:
        if self._dealer_key is None:
            self._dealer_key = object()
            self._handler.peer_connected(self._dealer_key)

    def _on_disconnected(self, file: int) -> None:
        if self._routed:
            if self._found_gone[file]:
                self._found_gone[file] -= 1
            elif file in self._by_file:
                self._lose(self._by_file[file][0])
            return
        self._connections = max(0, self._connections - 1)
        self._senders.pop(file, None)
        if self._connections:
            # Another one was cut, and with it the peer that all are.
            self._ensure_dealer_key()
        else:
            self._lose_dealer()

    def _lose_dealer(self, *, at_once: bool = False) -> None:
        if self._dealer_key is not None:
            key, self._dealer_key = self._dealer_key, None
            self._transport.forget(b"")
            self._handler.peer_lost(key, "the connection was lost", at_once=at_once)

    def _arrived(self, key: bytes, file: int) -> bool:
        """A peer's first message was read. Returns whether the peer may stay."""
        credentials = self._transport.take_credentials(key)
        if credentials is not None:
            if self._is_removed(credentials):
                cut(file)
                return False
            self._credentials[key] = credentials
        if file not in self._by_file:
            # Connections that never sent anything may have had the same file number: the events of
            # their end, older than this peer's first message, are not about this peer.
            self._collect_events()
            lost = (LOST, file)
            self._events = deque(event for event in self._events if event != lost)
            del self._found_gone[file]
        self._peers[key] = file
        self._by_file.setdefault(file, []).append(key)
        self._handler.peer_connected(key)
        return True

    def _admits(self, sender: Credentials | None, file: int) -> bool:
        """Whether a DEALER that asks for keys takes a message."""
        if sender is None or self._is_removed(sender):
            self._cut_if_open(file)
            return False
        self._senders[file] = sender
        return True

    def _cut_if_open(self, file: int) -> None:
        """End a connection, unless it has ended and another may have its number by now."""
        self._collect_events()
        if (LOST, file) not in self._events:
            cut(file)

    def _is_removed(self, credentials: Credentials) -> bool:
        assert isinstance(self._security, CurveServer)
        return self._security.authorization.is_removed(*credentials)

    def _key_removed(self, public: str) -> None:
        """Cut the connections of a key that is not authorized any more. Any thread may call it."""
        with contextlib.suppress(RuntimeError):
            # The event loop may have ended.
            self._loop.call_soon_threadsafe(self._cut_key, public)

    def _cut_key(self, public: str) -> None:
        for key, credentials in list(self._credentials.items()):
            if credentials.key == public:
                cut(self._peers[key])
                if self._forget(key):
                    self._handler.peer_lost(key, "the connection was lost", at_once=True)
        for file, sender in list(self._senders.items()):
            if sender.key == public:
                del self._senders[file]
                self._cut_if_open(file)
                self._lose_dealer(at_once=True)

    def _departed(self, key: bytes) -> None:
        if self._routed:
            self._events.append((_DEPARTED, key))
            self._plan_events()

    def _lose(self, key: Key) -> None:
        if self._forget(key):
            self._handler.peer_lost(key, "the connection was lost")

    def _forget(self, key: Key) -> bool:
        file = self._peers.pop(key, None)
        self._credentials.pop(key, None)
        if file is None:
            return False
        keys = self._by_file[file]
        keys.remove(key)
        if not keys:
            del self._by_file[file]
        self._transport.forget(key)  # type: ignore[arg-type]
        self._transport.requesters.discard(key)
        return True

    # -- the port -------------------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self._endpoints

    @property
    def notices_loss(self) -> bool:
        return True

    def send(self, key: Key, frames: Sequence[Buffer]) -> bool:
        if self._closing:
            return False
        for frame in frames:
            if type(frame) is not bytes:
                # It may wait in a queue, and the caller may change it meanwhile.
                frames = [bytes(frame) for frame in frames]
                break
        if self._routed:
            if key not in self._peers:
                return False
            self._transport.write((key, *frames))
        else:
            if key is not self._dealer_key:
                return False
            self._transport.write((b"", *frames))
        return True

    def queued_bytes(self, key: Key) -> int:
        return self._transport.queued_bytes(key if self._routed else b"")  # type: ignore[arg-type]

    def all_queued_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def address(self, key: Key) -> str | None:
        file = self._peers.get(key)
        if file is None:
            return None
        host = host_of(file)
        # The connection may have ended, and another may have its number by now: the monitor reports
        # that first.
        self._collect_events()
        if (LOST, file) in self._events:
            return None
        return host

    def credentials(self, key: Key) -> Credentials | None:
        if self._routed:
            return self._credentials.get(key)
        senders = set(self._senders.values()) if key is self._dealer_key else ()
        # Where there are several, each of its messages may be of any of them.
        return next(iter(senders)) if len(senders) == 1 else None

    def can_be_pushed(self, key: Key) -> bool:
        return key not in self._transport.requesters

    def disconnect(self, key: Key) -> None:
        if self._routed:
            file = self._peers.get(key)
            if file is not None:
                self._forget(key)
                self._cut_if_open(file)
        elif key is self._dealer_key:
            self._dealer_key = None
            self._transport.forget(b"")

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._dialling is not None:
            self._dialling.cancel()
        if self._finding is not None:
            self._finding.cancel()
        self._finish(self._loop.time() + self._linger)

    def _finish(self, end: float) -> None:
        """Close the socket once the peers have taken what is queued, or at `end`."""
        self._transport.retry()
        left = self._transport.queued_messages
        if left and self._loop.time() < end:
            self._loop.call_later(LINGER_PAUSE, self._finish, end)
            return
        if left:
            logger.warning("closing: %d messages dropped, as their peers did not read them", left)
        self._transport.close()
        self._resources.close()
        self._guard = self._loop.call_later(self._linger + 1.0, self._give_up)

    def _give_up(self) -> None:
        if not self._closed.done():
            logger.error("libzmq did not close %s in time", ", ".join(self._endpoints))
            self._closed.set_result(None)

    def _on_monitor_stopped(self) -> None:
        """Close the monitor after its last event: the socket is closed, and its address free.

        The monitor must not be closed earlier: libzmq's thread would wait forever to report to it.
        """
        if self._guard is not None:
            self._guard.cancel()
        if not self._monitor.closed:
            self._loop.remove_reader(self._monitor_file)
            self._monitor.close(0)
        if not self._closed.done():
            self._closed.set_result(None)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    async def open(self, *, bind: str | None, connect: str | None) -> None:
        """Bind or connect; called once."""
        self._secure(bind or connect or "")
        if bind is not None:
            self._endpoints = (await self._transport.bind(bind),)
            if self._handshakes is not None:
                self._handshakes.endpoint = self._endpoints[0]
        elif connect is not None:
            self._dialled = connect
            self._is_name = is_name(connect)
            self._by_ipv6 = uses_ipv6(connect)
            self._socket.set(zmq.IPV6, int(self._by_ipv6))
            self._dialled_at = self._loop.time()
            self._endpoints = (await self._transport.connect(connect),)
        self._read_monitor()

    def _secure(self, endpoint: str) -> None:
        security = self._security
        release = secure(self._socket, security, loop=self._loop, endpoint=endpoint)
        if release is not None:
            self._resources.callback(release)
        if isinstance(security, CurveServer):
            self._resources.callback(security.authorization.add_listener(self._key_removed))


def _new_socket(kind: int, options: PortOptions) -> "zmq.Socket[bytes]":
    made: zmq.Socket[bytes] = _shared_context().socket(kind)
    # The options are 32-bit numbers of milliseconds.
    heartbeat = min(options.heartbeat * 1000, NEVER // 2)
    settings = {
        zmq.LINGER: int(options.linger * 1000),
        # Half of the time is for the ping to be sent, half for its answer: noticed within
        # twice the heartbeat with room to spare (500 and 1,500 ms: 2 s).
        zmq.HEARTBEAT_IVL: max(1, int(heartbeat / 4)),
        zmq.HEARTBEAT_TIMEOUT: max(2, int(heartbeat * 3 / 4)),
        zmq.HANDSHAKE_IVL: max(1000, int(2 * heartbeat)),
        zmq.CONNECT_TIMEOUT: max(1000, int(2 * heartbeat)),
        zmq.RECONNECT_IVL: NEVER,
        zmq.MAXMSGSIZE: options.max_frame,
        zmq.SNDHWM: SEND_MESSAGES,
        # No bound: libzmq 4.3.5 with heartbeats aborts the process ("!_io_error",
        # "_input_stopped") when a peer leaves while a bound keeps it from being read, and reports a
        # healthy one as lost.
        zmq.RCVHWM: 0,
    }
    for option, value in settings.items():
        made.set(option, value)
    if kind == zmq.ROUTER:
        # A send to a peer that is gone or full fails, and is not silently dropped.
        made.set(zmq.ROUTER_MANDATORY, 1)
    # ZMQ_IMMEDIATE stays off for a DEALER: with it, libzmq 4.3.5 drops what has arrived and is
    # not read when a connection ends, and aborts the process (fq.cpp, "!_more") where a message
    # of several frames was half read. Nothing is sent before HANDSHAKE_SUCCEEDED instead.
    return made


async def _open(
    kind: int, handler: PortHandler, options: PortOptions, *, bind: str | None, connect: str | None
) -> Port:
    port = ZeroMQPort(handler, _new_socket(kind, options), options)
    try:
        await port.open(bind=bind, connect=connect)
    except BaseException:
        port.close()
        # Its monitor ends a moment later.
        await port.wait_closed()
        raise
    return port


async def listen(endpoint: str, handler: PortHandler, options: PortOptions) -> Port:
    """Bind a socket to `endpoint`, such as ``tcp://127.0.0.1:*`` or ``ipc:///run/x``.

    Raises:
        OSError: the endpoint is in use or invalid.
    """
    try:
        kind = zmq.DEALER if options.single else zmq.ROUTER
        return await _open(kind, handler, options, bind=endpoint, connect=None)
    except OSError as error:
        raise bind_error(endpoint, error) from error


async def dial(endpoint: str, handler: PortHandler, options: PortOptions) -> Port:
    """Connect a socket to `endpoint`, now or as soon as a server listens there.

    Raises:
        OSError: the endpoint is invalid.
    """
    try:
        return await _open(zmq.DEALER, handler, options, bind=None, connect=endpoint)
    except OSError as error:
        raise OSError(error.errno, f"cannot connect to {endpoint}: {error.strerror}") from error
