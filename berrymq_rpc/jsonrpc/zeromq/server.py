"""Servers: a thread with a socket, and methods whose names begin with ``handle_``."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import zmq

from ...endpoint import check_exposure, endpoint_of
from ...errors import ParametersError, ServiceClosedError
from ...rpc.transport.binding import bind_socket
from ...rpc.transport.curve import credentials_of, cut
from ...rpc.transport.port import IPC_MODE, Credentials
from ...rpc.transport.waker import Waker
from ...rpc.validation import checked_mode
from ...security import CurveServer, Security
from ..items import RPCError
from ..message import IncomingMessage, IncomingRequest
from ..protocols.base import JSONRPC
from ..protocols.json_codec import MAX_SIZE
from ..protocols.version2 import JSONRPCv2
from .handlers import Handlers, error_of
from .router_queues import RouterQueues
from .socket_owner import SocketOwner

__all__ = ["NotificationOnlyPullServer", "RPCNotificationServer", "RPCServer"]

#: Seconds that `close` waits for the handler that runs.
CLOSE_PATIENCE = 10.0

#: Seconds between two looks at `should_stop`, which may be set without `stop`.
_LOOK = 1.0

#: Milliseconds that libzmq has to end listening.
_FREE = 1000

#: Milliseconds between two attempts to send to a peer that does not read.
_RETRY = 10


class RPCServer(SocketOwner, threading.Thread):
    """Answers requests at a REP socket.

    ::

        class EchoServer(RPCServer):
            def handle_echo_method(self, text):
                return text

        EchoServer("tcp://127.0.0.1:57570").run()

    A request for ``echo`` calls ``handle_echo_method``; in the name, capitals count as small
    letters and ``-`` as ``_``. What a handler returns is the result, what it raises an error: an
    `RPCError` the error that it says, any other exception a `ServerError`. Handlers run one after
    another, each in a copy of the context (`contextvars`) in which the server was made. `run`
    serves in this thread, `start` and ``with server:`` in a new one.

    The program goes on until the server is stopped, and then for 10 seconds at most if a handler
    does not end.

    Args:
        endpoint: where to listen; with port ``*``, `endpoint` has the free port that was taken.
        context: of ZeroMQ; the default is the process's.
        timeout: milliseconds between two checks of `should_stop`; `stop` does not wait for them.
        socket_type: of ZeroMQ; the default is the class's.
        logger: the default is ``berrymq_rpc.jsonrpc.zeromq``.
        insecure: allow an address beyond loopback: anyone who reaches it may call.
        ipc_mode: the mode of the file that ``ipc://`` makes: by default its owner alone may
            connect.
        max_size: bytes of a request, and of an answer.
        security: who may connect, and how this side proves who it is; ``None`` for neither.

    Raises:
        TypeError, ValueError: it is not an address; or it is beyond loopback, and `insecure` is not
            set.
        zmq.ZMQError: the address cannot be used: it is in use, or the path of ``ipc://`` is not
            that of a socket.
    """

    default_socket_type: int = zmq.REP
    _kind = "server"
    #: Whether it answers requests.
    allow_methods = True
    #: Whether it takes notifications.
    allow_notifications = False
    #: Whether `run` is to return.
    should_stop = False

    def __init__(
        self,
        endpoint: str,
        context: zmq.Context[Any] | None = None,
        timeout: int | None = 1000,
        socket_type: int | None = None,
        logger: logging.Logger | None = None,
        *,
        insecure: bool = False,
        ipc_mode: int = IPC_MODE,
        max_size: int = MAX_SIZE,
        security: Security | None = None,
    ) -> None:
        threading.Thread.__init__(self, name=f"{type(self).__name__} {endpoint}")
        endpoint = endpoint_of(endpoint)
        # A client without a key is refused.
        check_exposure(endpoint, insecure or security is not None)
        SocketOwner.__init__(
            self, endpoint, socket_type, timeout, context, logger, max_size, security
        )
        self._ipc_mode = checked_mode(ipc_mode)
        self._methods = Handlers(self, "handle_{}_method")
        self._notifications = Handlers(self, "handle_{}_notification", "handle_{}_method")
        self._queues: RouterQueues | None = None
        self._keeper: threading.Thread | None = None
        #: Held while the thread is started or the sockets are closed.
        self._life = threading.Lock()
        self._serving_thread: int | None = None
        self._is_over = threading.Event()
        self._interrupt: KeyboardInterrupt | None = None
        self.socket = self._new_socket()
        try:
            if self.socket_type == zmq.ROUTER:
                self._queues = RouterQueues(self.socket, self._log)
            self.endpoint = bind_socket(self.socket, self.endpoint, self._ipc_mode)
        except BaseException:
            self.socket.close(0)
            self._resources.close()
            raise
        self._waker = Waker(self.socket)

    @property
    def messages_dropped(self) -> int:
        """Messages dropped because their peers did not read or were gone."""
        return 0 if self._queues is None else self._queues.dropped

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve in a new thread, unless one serves already.

        Raises:
            RuntimeError: it was stopped.
            Error: this is the child of a fork, and the server its parent's.
        """
        self._owner.check()
        if sys.is_finalizing():
            raise ServiceClosedError("no server can be started now: the program is at its end")
        with self._life:
            if self._is_over.is_set() or self.should_stop:
                raise RuntimeError(
                    "a server that was stopped cannot be started again: make a new one"
                )
            if self.is_alive():
                return
            if not self.daemon:
                # A handler that never ends must not hold the program once the server is stopped.
                self.daemon = True
                self._keeper = threading.Thread(target=self._keep, name=f"{self.name} keeper")
                self._keeper.start()
            super().start()

    def _keep(self) -> None:
        """Let the program go on while the server runs, and while the last handler may end."""
        while not (self.should_stop or self._is_over.wait(_LOOK)):
            continue
        self._is_over.wait(CLOSE_PATIENCE)

    def run(self) -> None:
        """Serve until `stop` is called from another thread, then close the socket.

        If another thread serves already, wait until that ends.
        """
        self._owner.check()
        with self._life:
            is_first = self._serving_thread is None and not self._is_over.is_set()
            if is_first:
                self._serving_thread = threading.get_ident()
        if not is_first:
            self._is_over.wait()
            return
        self._log.info("serving on %s", self.endpoint)
        try:
            while not self.should_stop and self._owner.is_this:
                self._turn()
        finally:
            if self._owner.is_this:
                self._end()

    def stop(self) -> None:
        """Have `run` return after the handler that runs. Returns at once."""
        if not self._owner.is_this:
            return
        self.should_stop = True
        self._waker.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended.

        Args:
            timeout: seconds at most.
        """
        if self.ident is None or not self._owner.is_this or sys.is_finalizing():
            return
        super().join(timeout)
        if self._keeper is not None and not self.is_alive():
            self._keeper.join(timeout)

    def close(self) -> None:
        """Stop, wait for the handler that runs, and close the socket.

        It waits for 10 seconds at most; the thread closes the socket as soon as it can. Called by a
        handler, it returns at once. For another bound, call `stop` and `join`.
        """
        if not self._owner.is_this or sys.is_finalizing():
            return
        self.stop()
        with self._life:
            is_running = self._serving_thread is not None or self.is_alive()
        if not is_running:
            self._end()
        elif threading.get_ident() != self._serving_thread:
            deadline = time.monotonic() + CLOSE_PATIENCE
            if not self._is_over.wait(CLOSE_PATIENCE):
                self._log.warning("%s: the handler that runs did not end in time", self.name)
            self.join(max(0.0, deadline - time.monotonic()))

    def _end(self) -> None:
        with self._life:
            if not self._is_over.is_set():
                self.should_stop = True
                self._stop_listening()
                self.socket.close()
                self._resources.close()
                self._waker.close()
                self._is_over.set()

    def _stop_listening(self) -> None:
        """Have the address free: after `close` alone, libzmq listens on for a moment."""
        monitor = self.socket.get_monitor_socket(zmq.Event.CLOSED)
        try:
            with contextlib.suppress(zmq.ZMQError):
                self.socket.unbind(self.endpoint)
                monitor.poll(_FREE)
        finally:
            self.socket.disable_monitor()
            monitor.close(0)

    def __enter__(self) -> "RPCServer":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- serving -----------------------------------------------------------------------------

    def _turn(self) -> None:
        """Serve one message, or wait for something."""
        timeout = self.timeout
        if self._queues:
            self._queues.retry()
            timeout = _RETRY
        # One poll for each message: it is faster than a receive that raises.
        if not self._waker.poll(timeout):
            return
        try:
            frames = self._receive()
        except zmq.Again:
            return
        route, payload = self._split(frames)
        answer = self._answer(route, payload)
        if self._owner.is_this:
            self._send(route, answer)
        if self._interrupt is not None:
            raise self._interrupt

    def _receive(self) -> list[bytes]:
        """Read a message. Raises `zmq.Again` if there is none to serve."""
        if not isinstance(self.security, CurveServer):
            frames: list[bytes] = self.socket.recv_multipart(zmq.NOBLOCK)
            return frames
        received = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        self._check_key(received[-1])
        return [frame.bytes for frame in received]

    def _check_key(self, frame: Any) -> None:
        """Cut the connection of a message, and raise `zmq.Again`, if its key was removed."""
        if self.security is None or not self._is_removed(credentials_of(frame)):
            return
        cut(frame.get(zmq.SRCFD))
        if self.socket_type == zmq.REP:
            # It has to send something after each message.
            self.socket.send(b"", zmq.NOBLOCK)
        raise zmq.Again

    def _is_removed(self, credentials: Credentials | None) -> bool:
        security = self.security
        return isinstance(security, CurveServer) and (
            credentials is None or security.authorization.is_removed(*credentials)
        )

    def _split(self, frames: list[bytes]) -> tuple[list[bytes], bytes]:
        """Split a message into the frames before the text, and the text."""
        if self.socket_type != zmq.ROUTER:
            return [], b"".join(frames)
        # REQ sockets, and proxies in between, put an empty frame before the text.
        end = frames.index(b"", 1) + 1 if b"" in frames[1:-1] else 1
        return frames[:end], b"".join(frames[end:])

    def _answer(self, route: Sequence[bytes], payload: bytes) -> bytes:
        message = IncomingMessage(payload, max_size=self.max_size)
        for request in message.calls:
            if request.is_notification:
                self._run_notification(request)
            else:
                self._run_request(request)
        text = message.text()
        if not text and self.socket_type == zmq.REP and not self.allow_notifications:
            # A REP socket has to send something: an error says more than an empty text.
            protocol = message.calls[0].protocol if message.calls else JSONRPCv2
            return protocol.error_message(
                JSONRPC.invalid_request("this server takes no notifications")
            )
        return text

    def _run_request(self, request: IncomingRequest) -> None:
        try:
            if not self.allow_methods:
                raise JSONRPC.invalid_request("this server only takes notifications")
            request.result(self._methods.call(request))
        except BaseException as error:
            self._leave_child(error)
            request.error(error_of(error))
            self._failed(request, error)

    def _run_notification(self, request: IncomingRequest) -> None:
        if not self.allow_notifications:
            self._log.warning("notification %.100r dropped: this server takes none", request.method)
            return
        try:
            self._notifications.call(request)
        except (RPCError, ParametersError) as error:
            self._log.warning("notification %.100r: %s", request.method, error)
        except BaseException as error:
            self._leave_child(error)
            self._failed(request, error)

    def _leave_child(self, error: BaseException) -> None:
        """Raise what a handler has raised in the child of a fork: it ends the child."""
        if not self._owner.is_this:
            raise error

    def _failed(self, request: IncomingRequest, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            # The caller is answered first.
            self._interrupt = error
        elif not isinstance(error, RPCError | ParametersError):
            self._log.error("the handler of %.100r failed", request.method, exc_info=error)

    def _send(self, route: list[bytes], text: bytes) -> None:
        if self._queues is not None:
            if text:
                self._queues.send([*route, text])
        elif self.socket_type == zmq.REP:
            self.socket.send(text)
        elif text:
            self._log.warning("answer dropped: this socket cannot send: %.200r", text)


class RPCNotificationServer(RPCServer):
    """Answers requests and takes notifications, at a ROUTER socket.

    A notification of ``event`` calls ``handle_event_notification``, or else
    ``handle_event_method``. It is never answered; what its handler raises is logged.
    """

    default_socket_type: int = zmq.ROUTER
    allow_notifications = True


class NotificationOnlyPullServer(RPCNotificationServer):
    """Only takes notifications, at a PULL socket."""

    default_socket_type: int = zmq.PULL
    allow_methods = False
