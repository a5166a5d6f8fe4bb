"""The TCP listener: each line is one JSON text, in both directions.

A connection that begins with an HTTP request is closed: a page in a browser may send one to any
port, with lines of its choice in the body. Where a token is wanted, the first line has to show it.
"""

import asyncio
import contextlib
import re
import ssl as ssl_module
from collections.abc import Callable
from typing import Any

from ...errors import OverloadedError
from ...runtime.log import Log
from ..error_objects import to_error
from ..protocols.version2 import JSONRPCv2
from .acceptor import REFUSAL_TIMEOUT, Acceptor
from .authorization import authorize
from .listener import EOF_GRACE, Listener, ListenerPort, StreamPeer, certified_user, url_of
from .places import Place
from .runtime import BridgeRuntime
from .tokens import Tokens

__all__ = ["JSONLinesListener"]

logger = Log("berrymq_rpc.jsonrpc.bridge")
audit = Log("berrymq_rpc.security")

#: Seconds that a peer has to show its token.
AUTHORIZE_TIMEOUT = 10.0

#: Bytes that a peer may still send while it reads why it is refused.
MAX_UNREAD = 1 << 20

_HTTP = re.compile(rb"[A-Z]{3,20} \S+ HTTP/")


class _Protocol(asyncio.StreamReaderProtocol):
    """One connection, whose bytes are counted until they are read."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        accepted: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None],
        place: Place,
    ) -> None:
        super().__init__(reader, accepted)
        self._place = place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Those of uvloop are no `asyncio.Transport`.
        writable: Any = transport
        self._place.evict = writable.abort
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._place.release()

    def data_received(self, data: bytes) -> None:
        self._place.received(len(data))
        super().data_received(data)


class JSONLinesListener(Listener):
    """Serves peers that send lines of JSON. Made by `open`.

    Args:
        tokens: one of them a peer has to show, if there are any.
    """

    def __init__(self, runtime: BridgeRuntime, tokens: Tokens) -> None:
        super().__init__(runtime.port_options)
        self._runtime = runtime
        self._tokens = tokens
        self._port = ListenerPort()
        self._connections = runtime.attach(self._port)
        self._acceptor: Acceptor | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers: set[asyncio.Task[Any]] = set()

    async def open(self, host: str, port: int, ssl: ssl_module.SSLContext | None) -> None:
        """Begin to listen.

        Raises:
            OSError: the address cannot be bound.
        """
        runtime = self._runtime
        self._acceptor = Acceptor(
            runtime.places,
            runtime.handshakes,
            self._new_protocol,
            on_refused=runtime.connection_refused,
            refusal=self._refusal,
            ssl=ssl,
        )
        address = await self._acceptor.open(host, port)
        self.url = url_of("tls" if ssl else "tcp", address)
        self._port.url = self.url

    async def close(self, grace: float) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
        for reader in self._readers:
            reader.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=max(grace, EOF_GRACE))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _new_protocol(self, place: Place) -> _Protocol:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer, place))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        reader = asyncio.StreamReader(limit=self.options.max_frame + 1)
        return _Protocol(reader, accepted, place)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: Place
    ) -> None:
        address = writer.get_extra_info("peername")
        where = address[0] if address else None
        user = certified_user(writer.transport)
        if self._tokens:
            authorizing = asyncio.ensure_future(self._authorize(reader, writer, place, where))
            self._readers.add(authorizing)
            try:
                await asyncio.wait((authorizing,))
            finally:
                self._readers.discard(authorizing)
                authorizing.cancel()
            found = False if authorizing.cancelled() else authorizing.result()
            if found is False:
                writer.transport.abort()
                return
            if isinstance(found, str):
                user = found
        peer = StreamPeer(where, "tcp", place, user)

        async def write(text: bytes) -> None:
            # Neither JSON texts nor the separators of a batch contain line breaks.
            writer.write(text + b"\n")
            await writer.drain()

        self._connections.peer_connected(peer)
        writing = asyncio.ensure_future(peer.write_all(write))
        reading = asyncio.ensure_future(self._read(reader, peer, place))
        self._readers.add(reading)
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            # A connection that was reset brings no answer to anyone.
            if not writing.done() and (reading.cancelled() or reading.exception() is None):
                # The peer sends nothing more: answer what it has sent.
                connection = self._connections.connections[peer]
                if reading.cancelled():
                    await self._runtime.answered((connection,), EOF_GRACE)
                else:
                    await self._runtime.finish(connection, EOF_GRACE)
                self._connections.peer_lost(peer, "the connection was closed")
                peer.queue.close()
                await asyncio.wait((writing,))
        finally:
            self._readers.discard(reading)
            self._connections.peer_lost(peer, "the connection was closed")
            peer.queue.drop()
            writer.transport.abort()
            for task in (reading, writing):
                task.cancel()
            await asyncio.wait((reading, writing))
            for task in (reading, writing):
                if not task.cancelled() and (error := task.exception()) is not None:
                    logger.debug("a peer at %s: %r", self.url, error)

    async def _authorize(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        place: Place,
        where: str | None,
    ) -> str | bool:
        """Whether a peer's first text has a valid token, or the name of its user."""
        try:
            async with asyncio.timeout(AUTHORIZE_TIMEOUT):
                while (line := await reader.readuntil(b"\n")).isspace():
                    place.taken(len(line))
                place.taken(len(line))
                if _HTTP.match(line):
                    self._connections.message_refused(where, "an HTTP request")
                    return False
                answer, user = authorize(line, self._tokens, self._runtime.dispatcher)
                if answer:
                    writer.write(answer + b"\n")
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            answer, user = b"", False
        if user is False:
            self._runtime.tokens_refused += 1
            audit.warning("a peer at %s refused at %s: no valid token", where, self.url)
            if answer:
                await self._wait_read(reader, writer)
        return user

    async def _wait_read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wait until a peer that is refused has read why, and closes the connection."""
        unread = 0
        with contextlib.suppress(TimeoutError, OSError):
            if writer.can_write_eof():
                writer.write_eof()
            async with asyncio.timeout(REFUSAL_TIMEOUT):
                # What is unread when a socket is closed makes the peer drop what it has got.
                while unread < MAX_UNREAD and (rest := await reader.read(1 << 16)):
                    unread += len(rest)

    async def _read(self, reader: asyncio.StreamReader, peer: StreamPeer, place: Place) -> None:
        is_first = True
        while True:
            try:
                line = await reader.readuntil(b"\n")
                place.busy()
                place.taken(len(line))
            except asyncio.IncompleteReadError as end:
                line = end.partial
                if line.strip() and not (is_first and _HTTP.match(line)):
                    peer.hand_over(self._connections, line)
                return
            except asyncio.LimitOverrunError:
                # The next text cannot be found without reading all of this one.
                peer.hand_over(self._connections, b" " * (self._runtime.max_size + 1))
                return
            if is_first and _HTTP.match(line):
                self._connections.message_refused(peer, "an HTTP request")
                return
            is_first = False
            if line.isspace():
                await peer.give_way()
            else:
                await peer.receive(self._connections, line)

    def _refusal(self, reason: str) -> bytes:
        """The line for a peer that is refused."""
        failure = self._runtime.dispatcher.describe(OverloadedError(reason))
        return JSONRPCv2.error_message(to_error(failure)) + b"\n"
