"""Keys on servers and clients: who gets in, and what those are told who do not."""

import asyncio
import gc
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zmq

from berrymq_rpc import rpc
from berrymq_rpc.rpc.transport import zap

KEYS = rpc.KeyPair.generate()
ALICE = rpc.KeyPair.generate()
MALLORY = rpc.KeyPair.generate()
ANY_PORT = "tcp://127.0.0.1:*"


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.calls = 0
        self.ended = asyncio.Event()

    @rpc.method
    def who(self) -> tuple[str | None, str | None]:
        self.calls += 1
        peer = rpc.context().peer
        return peer.key, peer.user

    @rpc.method
    async def wait(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            self.ended.set()


def client_of(keys: rpc.KeyPair | None = ALICE, server: str = KEYS.public) -> rpc.CurveClient:
    return rpc.CurveClient(keys, server=server)


async def serve(stack: AsyncExitStack, authorized: Any, **options: Any) -> rpc.Server:
    security = rpc.CurveServer(KEYS, authorized)
    options = {"bind": ANY_PORT, "security": security, **options}
    return await stack.enter_async_context(await rpc.start_server(Handler(), **options))


async def call(connect: Any, security: rpc.CurveClient | None, **options: Any) -> Any:
    async with await rpc.open_client(
        connect=connect, security=security, timeout=10, **options
    ) as client:
        return await client.rpc.who()


async def refusal(connect: Any, security: rpc.CurveClient | None, **options: Any) -> str | None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(rpc.AuthenticationError) as refused:
        await call(connect, security, **options)
    assert refused.value.sent is False
    assert refused.value.method == "who"
    assert refused.value.endpoint == ", ".join(connect)
    # Within a second, and what a busy machine may take longer.
    assert loop.time() - began < 2
    return refused.value.reason


async def no_thread_of(*names: str) -> None:
    async with asyncio.timeout(10):
        while any(name in t.name for t in threading.enumerate() for name in names):
            await asyncio.sleep(0.01)


# -- who gets in -------------------------------------------------------------------------------


async def test_a_key_and_its_user(tmp_path: Path) -> None:
    ALICE.save(tmp_path, "alice")
    async with AsyncExitStack() as stack:
        server = await serve(stack, tmp_path)
        assert await call(server.endpoints, client_of()) == (ALICE.public, "alice")


async def test_a_set_of_keys_has_no_users() -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public})
        assert await call(server.endpoints, client_of()) == (ALICE.public, None)
        assert await refusal(server.endpoints, client_of(MALLORY)) == "key"


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function(is_async: bool) -> None:
    asked: list[str] = []
    loop_thread = threading.get_ident()

    def decide(key: str) -> str | bool:
        asked.append(key)
        return "alicë" if key == ALICE.public else False

    async def decide_later(key: str) -> str | bool:
        await asyncio.sleep(0)
        assert threading.get_ident() == loop_thread
        return decide(key)

    async with AsyncExitStack() as stack:
        server = await serve(stack, decide_later if is_async else decide)
        assert await call(server.endpoints, client_of()) == (ALICE.public, "alicë")
        assert await refusal(server.endpoints, client_of(MALLORY)) == "key"
    assert set(asked) == {ALICE.public, MALLORY.public}


async def test_everybody_by_keys_made_for_once() -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, lambda key: True)
        key, user = await call(server.endpoints, client_of(None))
        assert key != ALICE.public
        assert user is None


async def test_a_server_that_connects_to_a_client_that_is_bound() -> None:
    # The roles follow the value, not who binds.
    async with await rpc.open_client(bind=ANY_PORT, security=client_of(), timeout=10) as client:
        options = {"bind": None, "connect": client.endpoints}
        async with AsyncExitStack() as stack:
            await serve(stack, {ALICE.public}, **options)
            assert await client.rpc.who() == (ALICE.public, None)


async def test_a_client_that_is_bound_and_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        await rpc.open_client(bind=ANY_PORT, security=client_of(MALLORY)) as client,
        AsyncExitStack() as stack,
    ):
        options = {"bind": None, "connect": client.endpoints}
        await serve(stack, {ALICE.public}, **options)
        async with asyncio.timeout(10):
            while not (texts := [r.message for r in caplog.records if r.name == "berrymq_rpc.rpc"]):
                await asyncio.sleep(0.01)
        # It is the server's log: this side has refused, and nobody has refused this side.
        assert "the client that listens there is refused: its key is not authorized" in texts[0]


async def test_a_client_for_threads() -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public})

        def run() -> Any:
            options: dict[str, Any] = {"connect": server.endpoints, "timeout": 10}
            with rpc.SyncClient(security=client_of(), **options) as client:
                answer = client.rpc.who()
            with (
                rpc.SyncClient(security=client_of(MALLORY), **options) as client,
                pytest.raises(rpc.AuthenticationError, match="has not authorized"),
            ):
                client.rpc.who()
            return answer

        assert await asyncio.to_thread(run) == (ALICE.public, None)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs sockets of this host")
async def test_within_a_host(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public}, bind=f"ipc://{tmp_path}/socket")
        assert await call(server.endpoints, client_of()) == (ALICE.public, None)
        assert await refusal(server.endpoints, client_of(MALLORY)) == "key"
        assert await refusal(server.endpoints, None) == "keys wanted"


async def test_a_new_key_of_the_server_beside_the_old_one() -> None:
    new = rpc.KeyPair.generate()
    security = rpc.CurveServer([KEYS, new], {ALICE.public})
    async with await rpc.start_server(
        Handler(), bind=[ANY_PORT, ANY_PORT], security=security
    ) as server:
        old_endpoint, new_endpoint = server.endpoints
        assert await call([old_endpoint], client_of()) == (ALICE.public, None)
        assert await call([new_endpoint], client_of(server=new.public)) == (ALICE.public, None)
        assert await refusal([new_endpoint], client_of()) == "handshake"


# -- the other dialects --------------------------------------------------------------------------


async def test_a_plain_aiozmq_client(plain_aiozmq: ModuleType) -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public})
        client = await plain_aiozmq.connect_rpc(timeout=10)
        try:
            raw = client.transport.getsockopt  # its socket has the methods of zmq's
            assert raw is not None
            client.transport.setsockopt(zmq.CURVE_SERVERKEY, KEYS.public.encode())
            client.transport.setsockopt(zmq.CURVE_PUBLICKEY, ALICE.public.encode())
            client.transport.setsockopt(zmq.CURVE_SECRETKEY, ALICE.secret.encode())
            await client.transport.connect(server.endpoints[0])
            assert await client.call.who() == (ALICE.public, None)
        finally:
            client.close()
            await client.wait_closed()


@pytest.mark.parametrize("dialect", ["aiozmq", "jsonrpc"])
async def test_our_client_in_another_dialect(dialect: str) -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public})
        key, user = await call(server.endpoints, client_of(), dialect=dialect)
        assert (key, user) == (ALICE.public, None)
        assert await refusal(server.endpoints, client_of(MALLORY), dialect=dialect) == "key"


# -- raw peers -----------------------------------------------------------------------------------


class RawPeers:
    """DEALERs of plain pyzmq that send whatever the server might take."""

    def __init__(self) -> None:
        self.context = zmq.Context()

    def __enter__(self) -> "RawPeers":
        return self

    def __exit__(self, *exc: object) -> None:
        self.context.destroy(0)

    async def is_answered(
        self, endpoint: str, keys: rpc.KeyPair | None, server: str | None = KEYS.public
    ) -> bool:
        """Whether a JSON-RPC request of such a peer gets an answer."""
        return await asyncio.to_thread(self._ask, endpoint, keys, server, 10_000)

    async def is_refused(
        self, endpoint: str, keys: rpc.KeyPair | None, server: str | None = KEYS.public
    ) -> bool:
        """Whether it gets none, within a time in which others do."""
        return not await asyncio.to_thread(self._ask, endpoint, keys, server, 700)

    def _ask(
        self, endpoint: str, keys: rpc.KeyPair | None, server: str | None, patience: int
    ) -> bool:
        with self.context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            if keys is not None:
                dealer.curve_serverkey = (server or "").encode()
                dealer.curve_publickey = keys.public.encode()
                dealer.curve_secretkey = keys.secret.encode()
            dealer.connect(endpoint)
            try:
                dealer.send(b'{"jsonrpc":"2.0","method":"who","id":1}', zmq.NOBLOCK)
            except zmq.Again:
                # The server has refused it so soon that there is nothing to send it by.
                return False
            if not dealer.poll(patience):
                return False
            answer = dealer.recv_multipart(zmq.NOBLOCK)
            assert b"result" in answer[-1]
            return True


async def test_raw_peers() -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public})
        (endpoint,) = server.endpoints
        with RawPeers() as peers:
            assert await peers.is_answered(endpoint, ALICE)
            assert await peers.is_refused(endpoint, None)
            assert await peers.is_refused(endpoint, MALLORY)
            assert await peers.is_refused(endpoint, ALICE, MALLORY.public)
        assert server.statistics()["calls"] == 1


async def test_several_servers_with_keys_of_their_own() -> None:
    other = rpc.KeyPair.generate()
    async with AsyncExitStack() as stack:
        first = await serve(stack, {ALICE.public})
        second = await serve(stack, (), security=rpc.CurveServer(other, {MALLORY.public}))
        plain = await stack.enter_async_context(await rpc.start_server(Handler(), bind=ANY_PORT))
        with RawPeers() as peers:
            assert await peers.is_answered(first.endpoints[0], ALICE)
            assert await peers.is_refused(first.endpoints[0], MALLORY)
            assert await peers.is_answered(second.endpoints[0], MALLORY, other.public)
            assert await peers.is_refused(second.endpoints[0], ALICE, other.public)
            assert await peers.is_answered(plain.endpoints[0], None)
        # The first one closes: the second one still asks.
        first.close()
        await first.wait_closed()
        with RawPeers() as peers:
            assert await peers.is_answered(second.endpoints[0], MALLORY, other.public)
            assert await peers.is_refused(second.endpoints[0], ALICE, other.public)


# -- it fails closed -----------------------------------------------------------------------------


async def test_without_a_zap_handler_all_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[Callable[[], None]] = []
    original = zap.authenticate

    async with AsyncExitStack() as stack:

        def authenticate(*args: Any, **options: Any) -> Any:
            domain, remove = original(*args, **options)
            removed.append(remove)
            return domain, remove

        monkeypatch.setattr("berrymq_rpc.rpc.transport.curve.authenticate", authenticate)
        server = await serve(stack, lambda key: True)
        assert await call(server.endpoints, client_of()) == (ALICE.public, None)
        (remove,) = removed
        # As if the thread had ended: nothing answers libzmq.
        remove()
        with RawPeers() as peers:
            assert await peers.is_refused(server.endpoints[0], ALICE)
            assert await peers.is_refused(server.endpoints[0], None)


async def test_a_folder_that_is_gone_or_cannot_be_read(tmp_path: Path) -> None:
    folder, away = tmp_path / "clients", tmp_path / "away"
    ALICE.save(folder, "alice")
    async with AsyncExitStack() as stack:
        (endpoint,) = (await serve(stack, folder)).endpoints
        with RawPeers() as peers:
            assert await peers.is_answered(endpoint, ALICE)
            folder.rename(away)
            assert await peers.is_refused(endpoint, ALICE)
            # Root reads every folder, but not what is none.
            folder.write_text("not a folder")
            assert await peers.is_refused(endpoint, ALICE)
            folder.unlink()
            away.rename(folder)
            assert await peers.is_answered(endpoint, ALICE)


async def test_a_domain_that_matches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = zap.authenticate

    def authenticate(*args: Any, **options: Any) -> Any:
        _, remove = original(*args, **options)
        return b"unknown", remove

    monkeypatch.setattr("berrymq_rpc.rpc.transport.curve.authenticate", authenticate)
    async with AsyncExitStack() as stack:
        server = await serve(stack, lambda key: True)
        assert await refusal(server.endpoints, client_of()) == "key"


async def test_a_zap_thread_that_crashes_starts_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = zap.ZapThread._ask
    crashes = 1

    def crash(self: Any, *args: Any) -> None:
        nonlocal crashes
        if crashes:
            crashes -= 1
            raise RuntimeError("crashed")
        original(self, *args)

    monkeypatch.setattr(zap.ZapThread, "_ask", crash)
    # libzmq waits for the answer that it has asked for, up to a second here.
    limits = rpc.Limits(heartbeat=0.5)
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public}, limits=limits)
        with RawPeers() as peers:
            assert await peers.is_refused(server.endpoints[0], MALLORY)
        async with asyncio.timeout(20):
            while True:
                try:
                    answer = await call(server.endpoints, client_of(), limits=limits)
                    assert answer == (ALICE.public, None)
                    break
                except rpc.AuthenticationError:
                    await asyncio.sleep(0.02)
    assert crashes == 0
    assert "checking keys failed: it starts again" in caplog.text


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_raises_refuses_that_client_alone(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def decide(key: str) -> bool:
        if key == MALLORY.public:
            raise ZeroDivisionError("a fault in the function")
        return True

    async def decide_later(key: str) -> bool:
        return decide(key)

    async with AsyncExitStack() as stack:
        server = await serve(stack, decide_later if is_async else decide)
        assert await refusal(server.endpoints, client_of(MALLORY)) == "handshake"
        assert await call(server.endpoints, client_of()) == (ALICE.public, None)
    assert "a fault in the function" in caplog.text


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_does_not_answer(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    going_on = threading.Event()

    def hang(key: str) -> bool:
        going_on.wait(30)
        return True

    async def hang_async(key: str) -> bool:
        await asyncio.sleep(30)
        return True

    async with AsyncExitStack() as stack:
        other = await serve(stack, {ALICE.public})
        server = await serve(stack, hang_async if is_async else hang)
        assert await refusal(server.endpoints, client_of(MALLORY)) == "handshake"
        # Others are not held up.
        assert await call(other.endpoints, client_of()) == (ALICE.public, None)
        going_on.set()
    assert "no answer within 0.5 s" in caplog.text


@pytest.mark.parametrize("answer", [None, 0, 1, "", b"alice", [], object()])
async def test_an_answer_that_is_neither_true_nor_a_name_refuses(answer: Any) -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, lambda key: answer)
        assert await refusal(server.endpoints, client_of()) == "key"


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "名前", "a b"])
async def test_names_that_arrive_whole(name: str) -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, lambda key: name)
        assert await call(server.endpoints, client_of()) == (ALICE.public, name)


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "alice\0", "\0", "caf\udce9", "\ud800"])
async def test_names_that_would_not_arrive_whole(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        other = await serve(stack, {ALICE.public})
        server = await serve(stack, lambda key: name if key == MALLORY.public else True)
        assert await refusal(server.endpoints, client_of(MALLORY)) == "handshake"
        # Others are not held up.
        assert await call(server.endpoints, client_of()) == (ALICE.public, None)
        assert await call(other.endpoints, client_of()) == (ALICE.public, None)
    assert "cannot be a user's name" in caplog.text
    assert "starts again" not in caplog.text


async def test_another_authenticator_in_the_context_is_seen() -> None:
    with zmq.Context() as context:
        taken = context.socket(zmq.REP)
        taken.bind("inproc://zeromq.zap.01")
        authorization = rpc.CurveServer(KEYS, ()).authorization
        with pytest.raises(OSError, match="does another authenticator run in it"):
            zap.authenticate(context, authorization, loop=None, endpoint="x")
        # Once it has ended, keys can be checked.
        taken.unbind("inproc://zeromq.zap.01")
        taken.close(0)
        _, remove = zap.authenticate(context, authorization, loop=None, endpoint="x")
        remove()
        await no_thread_of("zap")


def test_the_address_of_a_thread_that_ends_is_free() -> None:
    authorization = rpc.CurveServer(KEYS, ()).authorization
    with zmq.Context() as context:
        for _ in range(300):
            before = set(threading.enumerate())
            _, remove = zap.authenticate(context, authorization, loop=None, endpoint="x")
            (thread,) = set(threading.enumerate()) - before
            remove()
            thread.join(10)
            assert not thread.is_alive()


# -- what a refused client is told ---------------------------------------------------------------


async def test_reasons() -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public})
        plain = await stack.enter_async_context(await rpc.start_server(Handler(), bind=ANY_PORT))
        assert await refusal(server.endpoints, client_of(MALLORY)) == "key"
        assert await refusal(server.endpoints, None) == "keys wanted"
        assert await refusal(plain.endpoints, client_of()) == "no keys"
        assert await refusal(server.endpoints, client_of(server=MALLORY.public)) == "handshake"


async def test_each_refusal_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def lines() -> list[str]:
        return [r.message for r in caplog.records if r.name == "berrymq_rpc.security"]

    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public})
        assert await call(server.endpoints, client_of()) == (ALICE.public, None)
        assert lines() == []
        for security, text in (
            (client_of(MALLORY), f"key {MALLORY.public} from 127.0.0.1 refused at "),
            (None, "it has no key, expects another server's, or broke off its handshake"),
            (client_of(server=MALLORY.public), "it has no key, expects another server's, or"),
        ):
            caplog.clear()
            await refusal(server.endpoints, security)
            async with asyncio.timeout(10):
                while not lines():
                    await asyncio.sleep(0.01)
            assert text in lines()[0]
            assert server.endpoints[0] in lines()[0]


async def test_a_server_that_is_down_is_no_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(rpc.ConnectionLostError, match="no connection") as lost:
        await call([f"tcp://127.0.0.1:{port}"], client_of(), connect_timeout=0.3)
    assert type(lost.value) is rpc.ConnectionLostError


async def test_the_retry_of_a_refused_client_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with AsyncExitStack() as stack:
        server = await serve(stack, {ALICE.public})
        async with await rpc.open_client(
            connect=server.endpoints, security=client_of(MALLORY)
        ) as client:
            for _ in range(200):
                with pytest.raises(rpc.AuthenticationError):
                    await client.rpc.who()
    assert f"refused at {server.endpoints[0]}: not authorized" in caplog.text
    assert caplog.text.count("not authorized") <= 3


async def test_calls_that_wait_are_told(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, tmp_path)
        async with await rpc.open_client(connect=server.endpoints, security=client_of()) as client:
            results = await asyncio.gather(
                *(client.rpc.who() for _ in range(100)), return_exceptions=True
            )
            assert {type(result) for result in results} == {rpc.AuthenticationError}
            ALICE.save(tmp_path, "alice")
            # The same client works once its key is authorized.
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert await client.rpc.who() == (ALICE.public, "alice")
                        break
                    except rpc.AuthenticationError:
                        await asyncio.sleep(0.02)


async def test_one_server_of_two_that_refuses() -> None:
    other = rpc.KeyPair.generate()
    async with AsyncExitStack() as stack:
        refusing = await serve(stack, {MALLORY.public})
        server = await serve(stack, {ALICE.public})
        assert other != KEYS
        endpoints = [*refusing.endpoints, *server.endpoints]
        for _ in range(5):
            assert await call(endpoints, client_of()) == (ALICE.public, None)


# -- a key that is removed -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["file", "revoke"])
async def test_a_removed_key_is_cut(tmp_path: Path, way: str) -> None:
    ALICE.save(tmp_path, "alice")
    MALLORY.save(tmp_path, "bob")
    handler = Handler()
    security = rpc.CurveServer(KEYS, tmp_path)
    async with (
        await rpc.start_server(handler, bind=ANY_PORT, security=security) as server,
        await rpc.open_client(connect=server.endpoints, security=client_of()) as alice,
        await rpc.open_client(connect=server.endpoints, security=client_of(MALLORY)) as bob,
    ):
        assert await bob.rpc.who() == (MALLORY.public, "bob")
        waiting = asyncio.ensure_future(alice.rpc.wait())
        assert await alice.rpc.who() == (ALICE.public, "alice")
        if way == "file":
            os.remove(tmp_path / "alice.key")
        else:
            server.revoke(ALICE.public)
        async with asyncio.timeout(5):
            await handler.ended.wait()
        with pytest.raises(rpc.ConnectionLostError):
            await waiting
        with pytest.raises(rpc.AuthenticationError, match="has not authorized"):
            await alice.rpc.who()
        assert await bob.rpc.who() == (MALLORY.public, "bob")


async def test_a_key_that_is_another_users_now(tmp_path: Path) -> None:
    ALICE.save(tmp_path, "alice")
    handler = Handler()
    security = rpc.CurveServer(KEYS, tmp_path)
    async with (
        await rpc.start_server(handler, bind=ANY_PORT, security=security) as server,
        await rpc.open_client(connect=server.endpoints, security=client_of(), timeout=10) as alice,
    ):
        waiting = asyncio.ensure_future(alice.rpc.wait())
        assert await alice.rpc.who() == (ALICE.public, "alice")
        os.rename(tmp_path / "alice.key", tmp_path / "guest.key")
        async with asyncio.timeout(5):
            await handler.ended.wait()
        with pytest.raises(rpc.ConnectionLostError):
            await waiting
        assert await alice.rpc.who() == (ALICE.public, "guest")


@pytest.mark.parametrize("dialect", ["native", "aiozmq", "jsonrpc"])
async def test_a_removed_key_is_cut_by_a_server_that_connects(tmp_path: Path, dialect: str) -> None:
    ALICE.save(tmp_path, "alice")
    handler = Handler()
    security = rpc.CurveServer(KEYS, tmp_path)
    async with (
        await rpc.open_client(
            bind=ANY_PORT, security=client_of(), dialect=dialect, connect_timeout=0.5
        ) as client,
        await rpc.start_server(handler, connect=client.endpoints, security=security),
    ):
        waiting = asyncio.ensure_future(client.rpc.wait())
        assert tuple(await client.rpc.who()) == (ALICE.public, "alice")
        (tmp_path / "alice.key").unlink()
        async with asyncio.timeout(5):
            await handler.ended.wait()
        with pytest.raises(rpc.ConnectionLostError):
            await waiting
        with pytest.raises(rpc.ConnectionLostError):
            await client.rpc.who()
        assert handler.calls == 1
        # It is let in again by its key, as before.
        ALICE.save(tmp_path / "again", "alice")
        os.replace(tmp_path / "again" / "alice.key", tmp_path / "alice.key")
        async with asyncio.timeout(20):
            while handler.calls == 1:
                with suppress(rpc.ConnectionLostError):
                    await client.rpc.who()


async def test_a_client_that_is_bound_and_removes_a_server(tmp_path: Path) -> None:
    # One socket for all servers: those of the other key work on.
    ALICE.save(tmp_path, "alice")
    MALLORY.save(tmp_path, "bob")
    security = rpc.CurveServer(KEYS, tmp_path)
    first, second = Handler(), Handler()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            await rpc.open_client(bind=ANY_PORT, security=security, dialect="aiozmq", timeout=10)
        )
        for handler, keys in ((first, ALICE), (second, MALLORY)):
            options = {"connect": client.endpoints, "security": client_of(keys)}
            await stack.enter_async_context(await rpc.start_server(handler, **options))
        async with asyncio.timeout(20):
            while not (first.calls and second.calls):
                await client.rpc.who()
        security.revoke(ALICE.public)
        calls = first.calls
        async with asyncio.timeout(20):
            while second.calls < 10:
                with suppress(rpc.ConnectionLostError):
                    await client.rpc.who()
        assert first.calls - calls <= 1


async def test_revoke_needs_keys() -> None:
    async with await rpc.start_server(Handler(), bind=ANY_PORT) as server:
        with pytest.raises(ValueError, match="asks for no keys"):
            server.revoke(ALICE.public)


# -- nothing is left behind ----------------------------------------------------------------------


async def test_the_thread_ends_with_the_last_server() -> None:
    async with AsyncExitStack() as stack:
        server = await serve(stack, lambda key: True)
        assert await call(server.endpoints, client_of()) == (ALICE.public, None)
    gc.collect()
    await no_thread_of("zap", "authorization")


async def test_servers_that_come_and_go() -> None:
    # Each time the thread ends, and another one takes its address.
    for _ in range(30):
        async with AsyncExitStack() as stack:
            server = await serve(stack, {ALICE.public})
            assert await call(server.endpoints, client_of()) == (ALICE.public, None)
