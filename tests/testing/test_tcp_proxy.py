"""The proxy between a client and a server: what it does to the bytes that pass."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from berrymq_rpc.testing.tcp_proxy import Direction, TcpProxy, opened

#: Seconds in which what has to happen happens.
PATIENCE = 10.0


class Pair:
    """A client's connection, the server's end of it, and the proxy between them."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.arrived: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self) -> None:
        self.arrived = asyncio.get_running_loop().create_future()
        there = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self.reader, self.writer = there

    async def server(self) -> asyncio.StreamReader:
        async with asyncio.timeout(PATIENCE):
            return (await asyncio.shield(self.arrived))[0]

    async def read(self, size: int) -> bytes:
        reader = await self.server()
        async with asyncio.timeout(PATIENCE):
            return await reader.readexactly(size)


Made = Callable[[], AbstractAsyncContextManager[Pair]]


@pytest.fixture
def pair() -> Made:
    @asynccontextmanager
    async def made() -> AsyncIterator[Pair]:
        pairs: list[Pair] = []
        writers: list[asyncio.StreamWriter] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            pairs[0].arrived.set_result((reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with opened(f"tcp://127.0.0.1:{port}") as proxy:
            pairs.append(Pair(proxy))
            await pairs[0].connect()
            yield pairs[0]
            pairs[0].writer.transport.abort()
        for writer in writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()

    return made


async def test_the_order_is_kept_when_the_delay_is_set_to_less(pair: Made) -> None:
    async with pair() as made:
        made.writer.write(b"0")
        assert await made.read(1) == b"0"
        loop = asyncio.get_running_loop()
        began = loop.time()
        made.proxy.delay = 0.05
        made.writer.write(b"1")
        # Read by the proxy, and under way.
        while not loop.time() - began > 0.02:
            await asyncio.sleep(0.005)
        made.proxy.delay = 0.0
        made.writer.write(b"2")
        assert await made.read(2) == b"12"
        assert loop.time() - began >= 0.05


async def test_what_was_sent_before_the_end_arrives(pair: Made) -> None:
    async with pair() as made:
        made.writer.write(b"0")
        assert await made.read(1) == b"0"
        made.proxy.delay = 0.05
        made.writer.write(b"last")
        made.writer.write_eof()
        assert await made.read(4) == b"last"


async def test_pause(pair: Made) -> None:
    async with pair() as made:
        made.writer.write(b"0")
        assert await made.read(1) == b"0"
        made.proxy.pause()
        made.writer.write(b"1")
        reading = asyncio.ensure_future(made.read(1))
        await asyncio.wait([reading], timeout=0.05)
        assert not reading.done()
        made.proxy.resume()
        assert await reading == b"1"


async def test_refuse(pair: Made) -> None:
    async with pair() as made:
        reader = await made.server()
        made.proxy.refuse()
        async with asyncio.timeout(PATIENCE):
            # Reset: an end without one is as good.
            (result,) = await asyncio.gather(reader.read(), return_exceptions=True)
        assert result == b"" or isinstance(result, ConnectionError)
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", made.proxy.port)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(late_reader.read(), return_exceptions=True)
        late_writer.transport.abort()
        assert made.proxy.refused == 1


async def test_filters_are_of_a_connection_and_a_direction(pair: Made) -> None:
    made_for: list[Direction] = []

    async with pair() as made:
        await made.server()

        def new_filter(direction: Direction) -> Callable[[bytes], bytes]:
            made_for.append(direction)
            return bytes.upper

        made.proxy.filters = new_filter
        made.writer.transport.abort()
        await made.connect()
        made.writer.write(b"abc")
        assert await made.read(3) == b"ABC"
        assert made_for == ["up", "down"]
