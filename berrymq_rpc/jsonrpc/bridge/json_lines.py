"""The TCP listener: each line is one JSON text, in both directions.

What begins like a request of HTTP is not read any further: a page in a browser may send such to
any port, with lines of its choice below.
"""

import asyncio
import logging
import re
import ssl as ssl_module
from functools import partial

from .listener import EOF_GRACE, Listener, stream_peer, write_all
from .outbox import Outbox
from .peer import Desk, Peer

__all__ = ["JSONLinesListener"]

logger = logging.getLogger("berrymq_rpc.jsonrpc.bridge")

_HTTP = re.compile(rb"[A-Z]{3,20} \S+ HTTP/")


class JSONLinesListener(Listener):
    """Serves peers that speak lines. Made by `open`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int, ssl: ssl_module.SSLContext | None) -> None:
        """Begin to listen.

        Raises:
            OSError: the address cannot be bound.
        """
        self._server = await asyncio.start_server(
            self._accepted, host, port, ssl=ssl, limit=self._desk.max_size + 1
        )
        bound = self._server.sockets[0].getsockname()
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.url = f"{'tls' if ssl else 'tcp'}://{name}:{bound[1]}"

    async def close(self, grace: float) -> None:
        if self._server is not None:
            self._server.close()
        for reader in self._readers:
            reader.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=max(grace, EOF_GRACE))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._desk.is_full():
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outbox = Outbox()
        address = writer.get_extra_info("peername")
        peer = stream_peer(self._desk, address[0] if address else None, outbox)
        writing = asyncio.ensure_future(write_all(outbox, partial(_write, writer)))
        reading = asyncio.ensure_future(self._read(reader, peer, outbox))
        self._readers.add(reading)
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                await self._finish(peer, outbox, writing)
        finally:
            self._readers.discard(reading)
            peer.lost("the connection was closed")
            outbox.drop()
            writer.transport.abort()
            for task in (reading, writing):
                task.cancel()
            await asyncio.wait((reading, writing))
            for task in (reading, writing):
                if not task.cancelled() and (error := task.exception()) is not None:
                    logger.debug("a peer at %s: %r", self.url, error)

    async def _finish(self, peer: Peer, outbox: Outbox, writing: "asyncio.Future[None]") -> None:
        """The peer says nothing more: answer what it has said."""
        loop = asyncio.get_running_loop()
        end = loop.time() + EOF_GRACE
        while peer.in_progress and loop.time() < end:
            await asyncio.sleep(0.01)
        peer.lost("the connection was closed")
        outbox.close()
        await asyncio.wait((writing,))

    async def _read(self, reader: asyncio.StreamReader, peer: Peer, outbox: Outbox) -> None:
        is_first = True
        while True:
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                line = end.partial
                if line.strip() and not (is_first and _HTTP.match(line)):
                    peer.receive(line, outbox.put)
                return
            except asyncio.LimitOverrunError:
                # Where the next text begins cannot be known without reading all of this one.
                peer.receive(b" " * (self._desk.max_size + 1), outbox.put)
                return
            if is_first and _HTTP.match(line):
                self._desk.malformed.add()
                return
            is_first = False
            if not line.isspace():
                peer.receive(line, outbox.put)
                await outbox.room()


async def _write(writer: asyncio.StreamWriter, text: bytes) -> None:
    # What the JSON writers make has no line breaks; a batch's separators neither.
    writer.write(text + b"\n")
    await writer.drain()
