"""Keys on the ZeroMQ listener of a bridge."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge import Bridge

KEYS = rpc.KeyPair.generate()
ALICE = rpc.KeyPair.generate()
BOB = rpc.KeyPair.generate()


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    @rpc.method
    def who(self) -> list[str | None]:
        peer = rpc.context().peer
        return [peer.key, peer.user]

    @rpc.method(allow={"alice"})
    def open_valve(self) -> str:
        return "open"

    @rpc.method
    async def wait(self) -> None:
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.set()


@asynccontextmanager
async def client_of(
    url: str, keys: rpc.KeyPair | None, server: rpc.KeyPair = KEYS, **options: Any
) -> AsyncIterator[Any]:
    security = None if keys is None else rpc.CurveClient(keys, server=server.public)
    url = url.replace("0.0.0.0", "127.0.0.1")
    async with await rpc.open_client(
        connect=url, dialect="jsonrpc", security=security, timeout=10, **options
    ) as client:
        yield client


@pytest.fixture
def authorized(tmp_path: Path) -> Path:
    ALICE.save(tmp_path, "alice")
    BOB.save(tmp_path, "bob")
    return tmp_path


async def test_users_and_what_they_may_call(authorized: Path) -> None:
    security = rpc.CurveServer(KEYS, authorized)
    async with Bridge(Handler(), security=security) as bridge:
        # Other hosts may reach it without `insecure=True`: who has no key is refused.
        url = await bridge.serve_zeromq("tcp://0.0.0.0:*")
        async with client_of(url, ALICE) as alice, client_of(url, BOB) as bob:
            assert await alice.rpc.who() == [ALICE.public, "alice"]
            assert await bob.rpc.who() == [BOB.public, "bob"]
            assert await alice.rpc.open_valve() == "open"
            with pytest.raises(rpc.PermissionDeniedError, match="'bob' may not call"):
                await bob.rpc.open_valve()
        reasons = ((None, "keys wanted"), (rpc.KeyPair.generate(), "key"))
        for keys, reason in reasons:
            async with client_of(url, keys) as client:
                with pytest.raises(rpc.AuthenticationError) as refused:
                    await client.rpc.who()
                assert refused.value.reason == reason


async def test_a_removed_key_is_cut(authorized: Path) -> None:
    handler = Handler()
    security = rpc.CurveServer(KEYS, authorized)
    async with Bridge(handler, security=security) as bridge:
        url = await bridge.serve_zeromq("tcp://127.0.0.1:*")
        async with client_of(url, ALICE) as alice, client_of(url, BOB) as bob:
            waiting = asyncio.ensure_future(alice.rpc.wait())
            await asyncio.wait_for(handler.started.wait(), 10)
            assert await bob.rpc.who() == [BOB.public, "bob"]
            (authorized / "alice.key").unlink()
            await asyncio.wait_for(handler.ended.wait(), 10)
            with pytest.raises(rpc.ConnectionLostError):
                await asyncio.wait_for(waiting, 10)
            with pytest.raises(rpc.AuthenticationError):
                await alice.rpc.who()
            assert await bob.rpc.who() == [BOB.public, "bob"]
            security.revoke(BOB.public)
            with pytest.raises(rpc.ConnectionLostError):
                await bob.rpc.who()


async def test_a_listener_for_each_of_several_keys(authorized: Path) -> None:
    new = rpc.KeyPair.generate()
    security = rpc.CurveServer([KEYS, new], authorized)
    async with Bridge(Handler(), security=security) as bridge:
        with pytest.raises(OSError, match=r".") as taken:
            await bridge.serve_zeromq("ipc:///missing/folder/socket")
        assert taken.value is not None
        # A listener that could not be opened has taken no key.
        first = await bridge.serve_zeromq("tcp://127.0.0.1:*")
        second = await bridge.serve_zeromq("tcp://127.0.0.1:*")
        for url, server in ((first, KEYS), (second, new)):
            async with client_of(url, ALICE, server) as client:
                assert await client.rpc.who() == [ALICE.public, "alice"]
        with pytest.raises(ValueError, match="each of the 2 keys has its listener already"):
            await bridge.serve_zeromq("tcp://127.0.0.1:*")


async def test_keys_are_for_other_processes(authorized: Path) -> None:
    async with Bridge(Handler(), security=rpc.CurveServer(KEYS, authorized)) as bridge:
        with pytest.raises(ValueError, match="mem:// is within this one"):
            await bridge.serve_zeromq("mem://bridge")


async def test_keys_protect_no_other_listener(authorized: Path) -> None:
    """HTTP and TCP have no keys, so they need what they need without them."""
    async with Bridge(Handler(), security=rpc.CurveServer(KEYS, authorized)) as bridge:
        for serve in (bridge.serve_http, bridge.serve_tcp):
            with pytest.raises(ValueError, match="there is no authentication"):
                await serve("0.0.0.0", 0)
