import asyncio
from pathlib import Path

from berrymq_rpc.cli import diagnosis as module
from berrymq_rpc.cli.diagnosis import diagnosis


async def said_of_server(said: bytes, scheme: str = "tcp", path: str = "") -> str:
    """What is said of a server that says this to whoever connects."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        writer.close()

    if scheme == "ipc":
        server = await asyncio.start_unix_server(serve, path)
        endpoint = f"ipc://{path}"
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        return await diagnosis(endpoint)


async def test_nothing_listens(tmp_path: Path) -> None:
    said = await diagnosis("tcp://127.0.0.1:1")
    assert said.startswith("nothing listens at port 1 of 127.0.0.1.")
    assert said.endswith("berrymq serve --bind tcp://127.0.0.1:1")


async def test_a_path(tmp_path: Path) -> None:
    path = tmp_path / "node"
    assert (await diagnosis(f"ipc://{path}")).startswith(f"there is no socket {path}.")
    assert "ZeroMQ" in await said_of_server(b"\xff", "ipc", str(path))
    path.touch()
    assert "nothing listens at socket" in await diagnosis(f"ipc://{path}")
    assert "nothing listens at socket @" in await diagnosis(f"ipc://@{path}")


async def test_what_listens(monkeypatch) -> None:
    assert "speaks ZeroMQ listens there" in await said_of_server(b"\xff\0\0")
    assert "does not speak ZeroMQ" in await said_of_server(b"SSH-2.0")
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    assert "says nothing" in await said_of_server(b"")


async def test_addresses_that_lead_nowhere(monkeypatch) -> None:
    assert "no host of that name" in await diagnosis("tcp://no.such.host.invalid:5555")
    assert "is the address right" in await diagnosis("tcp://127.0.0.1;127.0.0.1:x")

    async def never(*arguments: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(asyncio, "open_connection", never)
    assert "no answer at all from port 5555 of host" in await diagnosis("tcp://host:5555")
