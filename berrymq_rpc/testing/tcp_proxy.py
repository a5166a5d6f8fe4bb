"""A network between two peers, that fails when a test says so: a TCP proxy."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeAlias

__all__ = ["Direction", "TcpProxy", "opened"]

#: To the server, and to the client.
Direction: TypeAlias = Literal["up", "down"]

#: Makes others of the bytes that pass.
Filter: TypeAlias = Callable[[bytes], bytes]

#: Bytes that are read at a time.
CHUNK = 64 << 10


class TcpProxy:
    """Carries bytes both ways between a port of its own and a server.

    Attributes:
        endpoint: where clients connect.
        silent: the directions, of ``"up"`` (to the server) and ``"down"``, in which bytes vanish
            without a word. New connections are taken and lead nowhere, as the kernel of a frozen
            peer takes them.
        delay: seconds that everything takes on its way. The order is kept when it is set to less.
        damage: makes others of the bytes that pass, if it is set.
        filters: makes such a function for each direction of a new connection, if it is set.
        connections: how many there are.
        refused: how many were closed at once.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.endpoint = ""
        self.silent: set[str] = set()
        self.delay = 0.0
        self.damage: Filter | None = None
        self.filters: Callable[[Direction], Filter] | None = None
        #: Bytes up after which the connections are closed, in the middle of whatever it is.
        self.close_after: int | None = None
        self.connections = 0
        self.refuses = False
        self.refused = 0
        #: The ends of the connections, each with the direction in which it writes.
        self._writers: dict[asyncio.StreamWriter, Direction] = {}
        #: Those that were half-closed: what is sent to them is lost.
        self._half_closed: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._restored = asyncio.Event()
        #: Set while bytes are carried: not between `pause` and `resume`.
        self._carries = asyncio.Event()
        self._carries.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen at a free port of this host."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"tcp://127.0.0.1:{self.port}"

    async def aclose(self) -> None:
        """Close all connections, and listen no more."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def pause(self) -> None:
        """Read nothing, as a frozen peer: what is sent waits with the kernel until `resume`."""
        self._carries.clear()

    def resume(self) -> None:
        """End what `pause` began."""
        self._carries.set()

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

    def half_close(self, direction: Direction) -> None:
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

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        under_way: deque[asyncio.TimerHandle] = deque()
        due = 0.0
        filtered = None if self.filters is None else self.filters(direction)
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._carries.wait()
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
                if filtered is not None:
                    data = filtered(data)
                if self.delay or due > loop.time():
                    due = max(due, loop.time() + self.delay)
                    while under_way and under_way[0].when() <= loop.time():
                        under_way.popleft()
                    under_way.append(loop.call_at(due, self._arrive, writer, data))
                else:
                    writer.write(data)
                    await writer.drain()
            if due > loop.time() and not writer.transport.is_closing():
                # The end is on its way for as long as what was sent before it.
                await asyncio.sleep(due - loop.time())
        if direction in self.silent:
            # That the connection ended is not told either.
            await self._restored.wait()
        for handle in under_way:
            handle.cancel()
        writer.transport.abort()

    def _arrive(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.transport.is_closing() and writer not in self._half_closed:
            writer.write(data)


@contextlib.asynccontextmanager
async def opened(endpoint: str) -> AsyncIterator[TcpProxy]:
    """A proxy before a server at `endpoint`, such as ``tcp://127.0.0.1:5555``."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    proxy = TcpProxy(host, int(port))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.aclose()
