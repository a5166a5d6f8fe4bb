"""A client that also receives notifications."""

import logging
import queue
import sys
import threading
import time
from collections import deque
from typing import Any

import zmq

from ...errors import OverloadedError, ParametersError, ProtocolError, ServiceClosedError
from ...rpc.transport.waker import Waker
from ...security import Security
from ..items import RPCError as ErrorObject
from ..items import RPCResponse
from ..message import IncomingMessage, IncomingRequest
from ..protocols.base import JSONRPC
from ..protocols.json_codec import MAX_SIZE
from .client import (
    RPCNotifierClient,
    encode_request,
    first_waits,
    milliseconds_until,
    time_is_over,
)
from .errors import exception_for
from .handlers import Handlers
from .socket_owner import CLOSE_LINGER

__all__ = ["NotificationReceiverClient"]

#: Messages that may wait for a connection.
MAX_UNSENT = 1000

#: Notifications that may wait while a handler runs.
MAX_WAITING = 100_000

#: Seconds that `stop` waits for the handler that runs.
STOP_PATIENCE = 10.0

#: Messages that are read before the thread sends what waits.
_BURST = 100


class NotificationReceiverClient(RPCNotifierClient, threading.Thread):
    """Calls a server from a DEALER socket, and handles its notifications in a thread.

    ::

        class Watcher(NotificationReceiverClient):
            def handle_event_notification(self, kind, data):
                print(kind, data)

        with Watcher("tcp://127.0.0.1:60666") as watcher:
            watcher.subscribe()
            watcher.wait_for_notifications()

    The thread runs from the start. Handlers run in it, one after another; they may call the server.
    What they raise is logged. Several threads may call at the same time. Args and errors are those
    of `RPCClient`, and a call raises `OverloadedError` when 1,000 messages wait for a connection.
    """

    #: Whether the thread is to end.
    should_stop = False

    def __init__(
        self,
        endpoint: str,
        context: zmq.Context[Any] | None = None,
        timeout: int | None = 5000,
        socket_type: int | None = None,
        logger: logging.Logger | None = None,
        *,
        max_size: int = MAX_SIZE,
        security: Security | None = None,
    ) -> None:
        threading.Thread.__init__(self, name=f"{type(self).__name__} {endpoint}", daemon=True)
        self._pending: dict[int, queue.SimpleQueue[RPCResponse | Exception]] = {}
        self._unsent: deque[tuple[int | None, bytes]] = deque()
        self._waiting: deque[IncomingRequest] = deque()
        self._handlers = Handlers(self, "handle_{}_notification")
        self._is_over = threading.Event()
        RPCNotifierClient.__init__(
            self,
            endpoint,
            context,
            timeout,
            socket_type,
            logger,
            max_size=max_size,
            security=security,
        )
        self._waker = Waker(self.socket)
        # Without the thread, calls would get no answer.
        self.start()

    def _new_socket(self) -> Any:
        socket = super()._new_socket()
        # Messages wait here for a connection, so that a call that was given up is never sent.
        socket.immediate = 1
        return socket

    # -- calls, in any thread ----------------------------------------------------------------

    def send_request(self, method: str, params: Any) -> Any:
        """Call a method and wait for its result."""
        self._owner.check()
        request_id = next(self._ids)
        text = encode_request(method, params, request_id)
        deadline = self._deadline()
        answer: queue.SimpleQueue[RPCResponse | Exception] = queue.SimpleQueue()
        self._pending[request_id] = answer
        try:
            self._enqueue(request_id, text)
            if threading.get_ident() == self.ident:
                response = self._wait_here(answer, deadline)
            else:
                response = self._wait_elsewhere(answer, method, deadline)
        except queue.Empty:
            self._check_refused(method)
            raise time_is_over(method, self.endpoint, "answered") from None
        finally:
            del self._pending[request_id]
        if isinstance(response, Exception):
            raise response
        self._was_answered = True
        if isinstance(response.result, ErrorObject):
            if response.malformed:
                raise ProtocolError(f"the answer to {method!r}: {response.result.message}")
            raise exception_for(response.result, self.error_code_exceptions)
        return response.result

    def send_notification(self, method: str, params: Any) -> None:
        """Call a method one way."""
        self._owner.check()
        text = encode_request(method, params, None)
        self._look_for_refusal(method)
        self._enqueue(None, text)

    def _enqueue(self, request_id: int | None, text: bytes) -> None:
        if sys.is_finalizing():
            raise ServiceClosedError("the client's thread has ended, as the program is at its end")
        with self._guard:
            if self._is_closed:
                raise ServiceClosedError("the client is closed: open a new one")
            if len(self._unsent) >= MAX_UNSENT:
                raise OverloadedError(
                    f"{MAX_UNSENT:,} messages wait for a connection to {self.endpoint}: is its "
                    "server running?"
                )
            self._unsent.append((request_id, text))
        self._waker.wake()

    def _wait_elsewhere(
        self,
        answer: queue.SimpleQueue[RPCResponse | Exception],
        method: str,
        deadline: float | None,
    ) -> RPCResponse | Exception:
        """Wait in another thread than the one that reads."""
        if not self._was_answered:
            for wait in first_waits(deadline):
                try:
                    return answer.get(timeout=wait)
                except queue.Empty:
                    self._check_refused(method)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return answer.get(timeout=left)

    def _wait_here(
        self, answer: queue.SimpleQueue[RPCResponse | Exception], deadline: float | None
    ) -> RPCResponse | Exception:
        """Wait in the thread that reads, for a call made by a handler."""
        while answer.empty():
            left = milliseconds_until(deadline)
            self._turn(None if left < 0 else left)
            if left == 0:
                break
        return answer.get_nowait()

    # -- the thread --------------------------------------------------------------------------

    def run(self) -> None:
        """Read what arrives until `stop` is called. The thread does this by itself."""
        try:
            while not self.should_stop:
                self._turn(None)
                while self._waiting and not self.should_stop:
                    self._run_handler(self._waiting.popleft())
            self._send_rest()
        finally:
            if self._owner.is_this:
                self._end()

    def _turn(self, timeout: int | None) -> None:
        """Send what there is to send, and read what there is, or wait for something."""
        self._send_unsent()
        if not self._waker.poll(timeout):
            return
        for _ in range(_BURST):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(b"".join(frames))

    def _send_unsent(self) -> None:
        unsent = self._unsent
        while unsent:
            request_id, text = unsent[0]
            # A call whose deadline has passed is not sent any more.
            if request_id is None or request_id in self._pending:
                try:
                    self.socket.send(text, zmq.NOBLOCK)
                except zmq.Again:
                    break
            unsent.popleft()
        self._waker.wait_for_room(bool(unsent))

    def _take(self, text: bytes) -> None:
        message = IncomingMessage(text, max_size=self.max_size)
        for response in message.responses:
            self._take_response(response)
        for request in message.calls:
            if not request.is_notification:
                request.error(JSONRPC.method_not_found("this client only takes notifications"))
            elif len(self._waiting) < MAX_WAITING:
                self._waiting.append(request)
            else:
                self._log.warning(
                    "notification %.100r dropped: %d are waiting already",
                    request.method,
                    MAX_WAITING,
                )
        if message.malformed:
            self._log.warning("%s sent a malformed message: %.200r", self.endpoint, text)
        elif message.calls and (answer := message.text()):
            self._unsent.append((None, answer))

    def _take_response(self, response: RPCResponse) -> None:
        pending = list(self._pending)
        request_id = response.request_id
        if request_id is None and len(pending) == 1:
            # The server could not read the id: it can only be that of this call.
            request_id = pending[0]
        answer = self._pending.get(request_id) if type(request_id) is int else None
        if answer is not None:
            answer.put(response)

    def _run_handler(self, request: IncomingRequest) -> None:
        try:
            self._handlers.call(request)
        except (ErrorObject, ParametersError) as error:
            self._log.warning("notification %.100r: %s", request.method, error)
        except Exception:
            if not self._owner.is_this:
                raise
            self._log.exception("the handler of %.100r failed", request.method)

    def _send_rest(self) -> None:
        deadline = time.monotonic() + CLOSE_LINGER / 1000
        self._send_unsent()
        while self._unsent and (left := milliseconds_until(deadline)):
            self._waker.poll(left)
            self._send_unsent()
        if self._unsent:
            self._log.warning(
                "%d messages were not sent: there is no connection", len(self._unsent)
            )

    # -- the end -----------------------------------------------------------------------------

    def _end(self) -> None:
        with self._guard:
            self._is_closed = True
            self.socket.close()
            self._resources.close()
            self._waker.close()
            for answer in list(self._pending.values()):
                answer.put(ServiceClosedError("the client was closed before the answer came"))
        self._is_over.set()

    def wait_for_notifications(self) -> None:
        """Wait until the client is stopped, or for Ctrl-C."""
        self._owner.check()
        try:
            self._is_over.wait()
        except KeyboardInterrupt:
            return

    def stop(self) -> None:
        """End the thread, after the handler that runs. Calls under way fail.

        It waits for the handler for 10 seconds at most. Called by a handler, it returns at once.
        """
        if not self._owner.is_this or sys.is_finalizing():
            return
        self.should_stop = True
        with self._guard:
            self._is_closed = True
        self._waker.wake()
        if threading.get_ident() != self.ident:
            self.join(STOP_PATIENCE)
            if self.is_alive():
                self._log.warning("%s: the handler that runs did not end in time", self.name)

    def close(self) -> None:
        """Do what `stop` does: the socket is closed when the thread ends."""
        self.stop()
