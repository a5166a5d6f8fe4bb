"""A network between two peers, that fails when a test says so: a TCP proxy."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

CHUNK = 64 << 10


class Link:
    """Carries bytes both ways between a port of its own and a server.

    Attributes:
        endpoint: where clients connect.
        silent: the directions, of ``"up"`` (to the server) and ``"down"``, in which bytes vanish
            without a word. New connections are taken and lead nowhere, as the kernel of a frozen
            peer takes them.
        delay: seconds that everything takes on its way.
        connections: how many there are.
        refused: how many were closed at once.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.endpoint = ""
        self.silent: set[str] = set()
        self.delay = 0.0
        #: Makes others of the bytes that pass, if it is set.
        self.damage: Callable[[bytes], bytes] | None = None
        #: Bytes up after which the connections are closed, in the middle of whatever it is.
        self.close_after: int | None = None
        self.connections = 0
        self.refuses = False
        self.refused = 0
        #: The ends of the connections, each with the direction in which it writes.
        self._writers: dict[asyncio.StreamWriter, str] = {}
        #: Those that were half-closed: what is sent to them is lost.
        self._half_closed: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._restored = asyncio.Event()

    def cut(self) -> None:
        """Lose every byte from now on, in both directions, without notice."""
        self.silent = {"up", "down"}
        self._restored.clear()

    def restore(self) -> None:
        """Carry what is sent from now on. Connections that lost bytes meanwhile are closed."""
        if self.silent:
            self.close()
        self.silent = set()
        self._restored.set()
        self.refuses = False

    def close(self) -> None:
        """Close all connections, as a router does that forgets them."""
        for writer in self._writers:
            writer.transport.abort()

    def half_close(self, direction: str) -> None:
        """End one direction of each connection: its reader reads an end, and may still write."""
        for writer, its_direction in self._writers.items():
            if its_direction == direction and not writer.transport.is_closing():
                self._half_closed.add(writer)
                with contextlib.suppress(OSError):
                    writer.write_eof()

    def refuse(self) -> None:
        """Close all connections, and new ones as soon as they are made."""
        self.refuses = True
        self.close()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.refuses:
                self.refused += 1
                writer.transport.abort()
                return
            try:
                there = await asyncio.open_connection(*self._to)
            except OSError:
                writer.transport.abort()
                return
            self._writers |= {there[1]: "up", writer: "down"}
            self.connections += 1
            try:
                await asyncio.gather(
                    self._carry("up", reader, there[1]), self._carry("down", there[0], writer)
                )
            finally:
                self.connections -= 1
                for end in (writer, there[1]):
                    del self._writers[end]
                    self._half_closed.discard(end)
                    end.transport.abort()
        except asyncio.CancelledError:
            return
        finally:
            self._tasks.discard(task)

    async def _carry(
        self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        under_way: deque[asyncio.TimerHandle] = deque()
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if direction in self.silent or writer in self._half_closed:
                    continue
                if direction == "up" and self.close_after is not None:
                    data, self.close_after = data[: self.close_after], self.close_after - len(data)
                    if self.close_after <= 0:
                        self.close_after = None
                        writer.write(data)
                        self.close()
                        return
                if self.damage is not None:
                    data = self.damage(data)
                if self.delay:
                    under_way.append(loop.call_later(self.delay, self._arrive, writer, data))
                else:
                    writer.write(data)
                    await writer.drain()
        if direction in self.silent:
            # That the connection ended is not told either.
            await self._restored.wait()
        for handle in under_way:
            handle.cancel()
        writer.transport.abort()

    def _arrive(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.transport.is_closing() and writer not in self._half_closed:
            writer.write(data)

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def opened(endpoint: str) -> AsyncIterator[Link]:
    """A link to a server at `endpoint`, such as ``tcp://127.0.0.1:5555``."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    line = Link(host, int(port))
    server = await asyncio.start_server(line.accept, "127.0.0.1", 0)
    line.endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
        await line.end()
        await server.wait_closed()
