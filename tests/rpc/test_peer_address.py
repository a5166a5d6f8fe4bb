"""Where a peer is: `Peer.address`, by which a node knows whom it may call back."""

from pathlib import Path

import pytest

from berrymq_rpc import rpc


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.peers: list[rpc.Peer] = []

    @rpc.method
    def address(self) -> str | None:
        peer = rpc.context().peer
        self.peers.append(peer)
        return peer.address


@pytest.mark.parametrize(
    ("bind", "address"),
    [("tcp://127.0.0.1:*", "127.0.0.1"), ("tcp://[::1]:*", "::1"), ("mem://*", ""), ("ipc", "")],
)
async def test_of_a_caller(bind: str, address: str, tmp_path: Path) -> None:
    if bind == "ipc":
        bind = f"ipc://{tmp_path}/socket"
    handler = Handler()
    try:
        server = await rpc.start_server(handler, bind=bind)
    except OSError:
        pytest.skip("no such address here")
    async with server:
        async with await rpc.open_client(connect=server.endpoints[0], timeout=5) as client:
            assert await client.rpc.address() == address
            assert client.peer is not None
            # By the other side of the connection: what it connected to is known there anyway.
            assert client.peer.address in (None, "")
        assert client.peer is None
    assert handler.peers[0].address in (None, "")


async def test_a_client_without_a_connection_has_no_peer() -> None:
    async with await rpc.open_client(connect="mem://nobody-serves-this", timeout=5) as client:
        assert client.peer is None


async def test_what_a_peer_is_sent_stays_with_its_connection() -> None:
    async with await rpc.start_server(Handler(), bind="mem://*") as server:
        client = await rpc.open_client(connect=server.endpoints[0], timeout=5)
        await client.rpc.address()
        peer = client.peer
        assert peer is not None
        assert await peer.call("address") == ""
        client.close()
        await client.wait_closed()
        with pytest.raises(rpc.ServiceClosedError):
            peer.notify.address()
