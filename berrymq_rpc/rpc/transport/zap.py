"""ZeroMQ's authentication (ZAP, RFC 27): one thread for each context, which answers for all keys.

libzmq asks at ``inproc://zeromq.zap.01`` about each handshake of a socket that has a domain. Every
secured socket has its own domain, and ``ZAP_ENFORCE_DOMAIN``: without an answer, a
client is refused.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import zmq
from zmq.utils import z85

from ...common.backoff import Backoff
from ...runtime.log import Log
from ...security.authorization import Authorization
from .gate import Gate
from .waker import Waker

__all__ = ["ANSWER_TIME", "USER", "authenticate", "set_endpoint"]

logger = Log("berrymq_rpc.security")

ENDPOINT = "inproc://zeromq.zap.01"

#: The property of each message that carries the name of its sender's user; libzmq's own,
#: ``User-Id``, carries the key.
USER = "X-User-Name"

#: Seconds that a user's function has to answer; after that the client is refused.
ANSWER_TIME = 0.5

#: Seconds between two looks at the folders of keys.
REFRESH = 0.25

#: Seconds that the thread has to start, and to end.
PATIENCE = 5.0

#: Handshakes that wait for the answers of users' functions at one time.
MAX_WAITING = 1000

#: Bytes of a user's name, which messages carry: a key with a longer one is refused.
MAX_USER = 255

_VERSION = b"1.0"
_FRAMES = 9

_domains = count(1)


class Waiting(NamedTuple):
    """A handshake that a user's function has not answered yet."""

    gate: Gate
    key: str
    address: str
    end: float
    future: "Future[Any]"


class ZapThread:
    """Answers for all secured sockets of one context."""

    def __init__(self, context: "zmq.Context[Any]") -> None:
        self._context = context
        self._gates: dict[bytes, Gate] = {}
        self._lock = threading.Lock()
        self._is_ready = threading.Event()
        self._problem: BaseException | None = None
        self._waker: Waker | None = None
        self._thread: threading.Thread | None = None
        #: Whether it has seen that there is no socket left to answer for.
        self._is_ending = False
        #: By the frames that an answer begins with.
        self._waiting: dict[tuple[bytes, ...], Waiting] = {}

    def add(self, gate: Gate) -> bytes:
        """Answer for another socket. Returns its domain.

        Raises:
            OSError: another handler of ZAP is at work in this context, or it does not start.
        """
        domain = b"berrymq_rpc.%d" % next(_domains)
        with self._lock:
            self._gates[domain] = gate
            if self._thread is None or self._is_ending or not self._thread.is_alive():
                self._start()
        return domain

    def remove(self, domain: bytes) -> None:
        """Do not answer for a socket any more. The thread ends with the last one."""
        with self._lock:
            gate = self._gates.pop(domain, None)
            if not self._gates and self._waker is not None:
                self._waker.wake()
        if gate is not None:
            gate.close()

    def set_endpoint(self, domain: bytes, endpoint: str) -> None:
        """Name a socket by another address in the log."""
        with self._lock:
            gate = self._gates.get(domain)
        if gate is not None:
            gate.endpoint = endpoint

    def _start(self) -> None:
        if self._thread is not None:
            # It gives back the address first, which the next one needs.
            self._thread.join(PATIENCE)
        self._is_ending = False
        self._problem = None
        self._is_ready.clear()
        self._thread = threading.Thread(target=self._run, name="berrymq_rpc zap", daemon=True)
        self._thread.start()
        started = self._is_ready.wait(PATIENCE)
        problem: BaseException | None = self._problem
        if not started or problem is not None:
            self._gates.clear()
            raise OSError(
                "keys cannot be checked in this zmq.Context: "
                f"{problem or 'the thread does not start'}; does another authenticator run in it? "
                "Give a context of its own"
            )

    # -- on the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = Backoff(0.01, 1.0)
        while True:
            try:
                with contextlib.closing(self._context.socket(zmq.ROUTER)) as socket:
                    socket.linger = 0
                    socket.bind(ENDPOINT)
                    try:
                        self._serve(socket)
                    finally:
                        # Closing gives back the address only later, by a thread of libzmq.
                        socket.unbind(ENDPOINT)
                    return
            except Exception as error:
                if not self._is_ready.is_set():
                    self._problem = error
                    self._is_ready.set()
                    return
                if self._context.closed:
                    return
                # All are refused until it is back.
                logger.exception("checking keys failed: it starts again")
                threading.Event().wait(backoff.next())

    def _serve(self, socket: Any) -> None:
        """Answer until there is no socket left to answer for."""
        waker = self._waker = Waker(socket)
        self._is_ready.set()
        refreshed = monotonic()
        try:
            while True:
                with self._lock:
                    if not self._gates:
                        # Under the lock: who adds one after this starts another thread.
                        self._is_ending = True
                        return
                    gates = list(self._gates.values())
                if waker.poll(int(self._pause() * 1000)):
                    self._read(socket)
                self._answer_waiting(socket)
                now = monotonic()
                if now - refreshed >= REFRESH:
                    refreshed = now
                    for authorization in {gate.authorization for gate in gates}:
                        authorization.refresh()
        finally:
            self._waker = None
            waker.close()

    def _pause(self) -> float:
        now = monotonic()
        ends = [waiting.end - now for waiting in self._waiting.values()]
        return max(0.0, min(REFRESH, *ends)) if ends else REFRESH

    def _read(self, socket: Any) -> None:
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._ask(socket, frames)

    def _ask(self, socket: Any, frames: list[bytes]) -> None:
        if len(frames) != _FRAMES or frames[2] != _VERSION:
            return
        sender, empty, version, request_id, domain, address, _, mechanism, secret = frames
        head = (sender, empty, version, request_id)
        gate = self._gates.get(domain)
        if gate is None or mechanism != b"CURVE" or len(secret) != 32:
            _reply(socket, head, b"400", b"No access")
            return
        key = z85.encode(secret).decode("ascii")
        where = address.decode("ascii", "replace")
        if len(self._waiting) >= MAX_WAITING:
            _refuse(socket, head, gate, key, where, f"{MAX_WAITING} wait for an answer already")
            return
        future = gate.ask(key)
        waiting = Waiting(gate, key, where, monotonic() + ANSWER_TIME, future)
        if future.done():
            _decide(socket, head, waiting)
        else:
            self._waiting[head] = waiting
            future.add_done_callback(self._wake)

    def _wake(self, _: "Future[Any]") -> None:
        waker = self._waker
        if waker is not None:
            waker.wake()

    def _answer_waiting(self, socket: Any) -> None:
        now = monotonic()
        for head, waiting in list(self._waiting.items()):
            if waiting.future.done() or now >= waiting.end:
                del self._waiting[head]
                _decide(socket, head, waiting)


def _decide(socket: Any, head: Sequence[bytes], waiting: Waiting) -> None:
    gate, key, where, _, future = waiting
    if future.cancel():
        _refuse(socket, head, gate, key, where, f"no answer within {ANSWER_TIME} s")
        return
    error = future.exception()
    if error is not None:
        _refuse(socket, head, gate, key, where, f"authorized={gate.authorization!r} failed", error)
        return
    answer = future.result()
    if answer is True or (isinstance(answer, str) and answer):
        user = b"" if answer is True else _name_of(answer)
        if user is None:
            # Part of it could be the name of another user.
            _refuse(socket, head, gate, key, where, f"{str(answer)[:60]!r} cannot be a user's name")
            return
        logger.debug("key %s from %s accepted at %s", key, where, gate.endpoint)
        _reply(socket, head, b"200", b"OK", key.encode("ascii"), user)
        return
    logger.warning("key %s from %s refused at %s: not authorized", key, where, gate.endpoint)
    _reply(socket, head, b"400", b"No access")


def _name_of(user: str) -> bytes | None:
    """A user's name as messages carry it, or ``None`` where they cannot carry it whole."""
    try:
        name = user.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return name if len(name) <= MAX_USER and b"\0" not in name else None


def _refuse(
    socket: Any,
    head: Sequence[bytes],
    gate: Gate,
    key: str,
    where: str,
    reason: str,
    error: BaseException | None = None,
) -> None:
    """Refuse a key that nothing is known of, as it cannot be checked."""
    logger.error(
        "key %s from %s refused at %s: %s", key, where, gate.endpoint, reason, exc_info=error
    )
    _reply(socket, head, b"500", b"Not available")


def _reply(
    socket: Any,
    head: Sequence[bytes],
    status: bytes,
    text: bytes,
    key: bytes = b"",
    user: bytes = b"",
) -> None:
    properties = b""
    if user:
        name = USER.encode("ascii")
        properties = bytes((len(name),)) + name + len(user).to_bytes(4, "big") + user
    # What cannot be sent is a handshake that its client has given up.
    with contextlib.suppress(zmq.ZMQError):
        socket.send_multipart((*head, status, text, key, properties), zmq.NOBLOCK)


_threads: WeakKeyDictionary[Any, ZapThread] = WeakKeyDictionary()
_threads_lock = threading.Lock()


def authenticate(
    context: "zmq.Context[Any]",
    authorization: Authorization,
    *,
    loop: asyncio.AbstractEventLoop | None,
    endpoint: str,
) -> tuple[bytes, Callable[[], None]]:
    """Answer for a socket that is about to be opened.

    Args:
        context: the socket's.
        authorization: who may come in.
        loop: where async functions run.
        endpoint: the socket's address, for the log.

    Returns:
        The domain to set on the socket, and a function to call once it is closed.

    Raises:
        OSError: another handler of ZAP is at work in this context.
    """
    with _threads_lock:
        thread = _threads.get(context)
        if thread is None:
            thread = _threads[context] = ZapThread(context)
    domain = thread.add(Gate(authorization, loop, endpoint, MAX_WAITING))
    return domain, lambda: thread.remove(domain)


def set_endpoint(zmq_socket: Any, endpoint: str) -> None:
    """Name a socket by its real address in the log, which is known once it is bound."""
    with _threads_lock:
        thread = _threads.get(zmq_socket.context)
    if thread is not None:
        thread.set_endpoint(zmq_socket.get(zmq.ZAP_DOMAIN), endpoint)
