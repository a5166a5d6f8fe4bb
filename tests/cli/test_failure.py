import asyncio
from pathlib import Path

from berrymq_rpc.cli import failure
from berrymq_rpc.cli.failure import diagnose


async def diagnosis_of_server(first_bytes: bytes, scheme: str = "tcp", path: str = "") -> str:
    """Diagnose a server that sends these bytes to every client."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first_bytes)
        await reader.read()
        writer.close()

    if scheme == "ipc":
        server = await asyncio.start_unix_server(serve, path)
        endpoint = f"ipc://{path}"
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        return await diagnose(endpoint)


async def test_no_server() -> None:
    text = await diagnose("tcp://127.0.0.1:1")
    assert text.startswith("no server is listening on port 1 of 127.0.0.1.")
    assert text.endswith("berrymq serve --bind tcp://127.0.0.1:1")


async def test_a_path(tmp_path: Path) -> None:
    path = tmp_path / "node"
    assert (await diagnose(f"ipc://{path}")).startswith(f"socket {path} does not exist.")
    assert "ZeroMQ" in await diagnosis_of_server(b"\xff", "ipc", str(path))
    path.touch()
    assert "no server is listening on socket" in await diagnose(f"ipc://{path}")
    assert "no server is listening on socket @" in await diagnose(f"ipc://@{path}")


async def test_other_servers(monkeypatch) -> None:
    assert "a ZeroMQ socket is listening there" in await diagnosis_of_server(b"\xff\0\0")
    assert "does not use ZeroMQ" in await diagnosis_of_server(b"SSH-2.0")
    monkeypatch.setattr(failure, "PATIENCE", 0.5)
    assert "sends nothing" in await diagnosis_of_server(b"")


async def test_unreachable_addresses(monkeypatch) -> None:
    assert "the host 'no.such.host.invalid' is unknown" in await diagnose(
        "tcp://no.such.host.invalid:5555"
    )
    assert "is the address right" in await diagnose(f"tcp://{'a' * 70}.org:5555")

    async def never(*arguments: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(failure, "PATIENCE", 0.1)
    monkeypatch.setattr(asyncio, "open_connection", never)
    assert "port 5555 of host does not respond" in await diagnose("tcp://host:5555")
