"""Who may call which method."""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc

KEYS = rpc.KeyPair.generate()
ALICE = rpc.KeyPair.generate()
BOB = rpc.KeyPair.generate()


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.calls: list[str] = []

    @rpc.method
    def everybody(self) -> str:
        return "everybody"

    @rpc.method(allow={"alice"})
    def plain(self, *args: Any) -> str:
        self.calls.append("plain")
        return "plain"

    @rpc.method(allow=["alice", "carol"])
    async def later(self) -> str:
        self.calls.append("later")
        return "later"

    @rpc.method(allow={"alice"}, thread=True)
    def blocking(self) -> str:
        self.calls.append("blocking")
        return "blocking"

    @rpc.method(allow={"alice"})
    async def items(self) -> AsyncIterator[int]:
        self.calls.append("items")
        yield 1

    @rpc.method(allow=())
    def nobody(self) -> None:
        self.calls.append("nobody")


@pytest.fixture
def authorized(tmp_path: Path) -> Path:
    ALICE.save(tmp_path, "alice")
    BOB.save(tmp_path, "bob")
    return tmp_path


def client_of(server: rpc.Server, keys: rpc.KeyPair, **options: Any) -> Any:
    security = rpc.CurveClient(keys, server=KEYS.public)
    return rpc.open_client(connect=server.endpoints, security=security, timeout=10, **options)


def serve(handler: Any, authorized: Path, **options: Any) -> Any:
    security = rpc.CurveServer(KEYS, authorized)
    return rpc.start_server(handler, bind="tcp://127.0.0.1:*", security=security, **options)


@pytest.mark.parametrize("dialect", ["native", "aiozmq", "jsonrpc"])
async def test_users_that_may_and_may_not(authorized: Path, dialect: str) -> None:
    handler = Handler()
    async with (
        await serve(handler, authorized) as server,
        await client_of(server, ALICE, dialect=dialect) as alice,
        await client_of(server, BOB, dialect=dialect) as bob,
    ):
        assert await bob.rpc.everybody() == "everybody"
        for name in ("plain", "later", "blocking"):
            assert await alice.call(name) == name
            with pytest.raises((rpc.PermissionDeniedError, rpc.GenericError)) as denied:
                await bob.call(name)
            assert f"the user 'bob' may not call '{name}'" in str(denied.value)
            if dialect != "aiozmq":
                assert type(denied.value) is rpc.PermissionDeniedError
        for client in (alice, bob):
            with pytest.raises((rpc.PermissionDeniedError, rpc.GenericError)):
                await client.rpc.nobody()
    assert handler.calls == ["plain", "later", "blocking"]


async def test_the_error(authorized: Path) -> None:
    async with await serve(Handler(), authorized) as server, await client_of(server, BOB) as bob:
        with pytest.raises(rpc.PermissionDeniedError) as denied:
            await bob.rpc.plain()
    assert isinstance(denied.value, PermissionError)
    assert denied.value.sent is False
    assert denied.value.method == "plain"


async def test_a_stream(authorized: Path) -> None:
    async with (
        await serve(Handler(), authorized) as server,
        await client_of(server, ALICE) as alice,
        await client_of(server, BOB) as bob,
    ):
        assert [item async for item in alice.rpc.items()] == [1]
        with pytest.raises(rpc.PermissionDeniedError):
            async for _ in bob.rpc.items():
                pass


async def test_a_notification_is_counted(
    authorized: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Handler()
    async with await serve(handler, authorized) as server, await client_of(server, BOB) as bob:
        bob.notify.plain()
        assert await bob.rpc.everybody() == "everybody"
        assert server.statistics()["notifications_dropped"] == 1
    assert handler.calls == []
    assert "may not call" in caplog.text


async def test_without_keys_nobody_has_a_name() -> None:
    handler = Handler()
    async with (
        await rpc.start_server(handler, bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints, timeout=10) as client,
    ):
        assert await client.rpc.everybody() == "everybody"
        with pytest.raises(rpc.PermissionDeniedError, match="a caller without a name"):
            await client.rpc.plain()
    assert handler.calls == []


async def test_permission_comes_before_the_arguments(authorized: Path) -> None:
    async with await serve(Handler(), authorized) as server, await client_of(server, BOB) as bob:
        with pytest.raises(rpc.PermissionDeniedError):
            await bob.rpc.plain(wrong=1)
        with pytest.raises(rpc.NotFoundError):
            await bob.rpc.missing()


async def test_a_function_that_decides(authorized: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    def authorize(context: rpc.Context, name: str) -> bool:
        asked.append((context.peer.user, context.method, name))
        return name != "later"

    handler = Handler()
    async with (
        await serve(handler, authorized, authorize=authorize) as server,
        await client_of(server, ALICE) as alice,
        await client_of(server, BOB) as bob,
    ):
        assert await bob.rpc.everybody() == "everybody"
        assert await alice.rpc.plain() == "plain"
        # What `allow` refuses is not asked about.
        with pytest.raises(rpc.PermissionDeniedError):
            await bob.rpc.plain()
        with pytest.raises(rpc.PermissionDeniedError):
            await alice.rpc.later()
        await alice.describe()
    assert asked == [
        ("bob", "everybody", "everybody"),
        ("alice", "plain", "plain"),
        ("alice", "later", "later"),
        ("alice", "rpc.describe", "rpc.describe"),
    ]


async def decides_later(context: rpc.Context, name: str) -> bool:
    return True


@pytest.mark.parametrize(
    "authorize",
    [
        lambda context, name: None,
        lambda context, name: 1,
        lambda context, name: "yes",
        lambda context, name: 1 / 0,
        lambda: True,
    ],
)
async def test_whatever_is_not_true_refuses(
    authorize: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with (
        await rpc.start_server(Handler(), bind="mem://permissions", authorize=authorize),
        await rpc.open_client(connect="mem://permissions", timeout=10) as client,
    ):
        with pytest.raises(rpc.PermissionDeniedError):
            await client.rpc.everybody()


async def test_what_a_client_serves() -> None:
    handler = Handler()

    class Server(rpc.AttrHandler):
        @rpc.method
        async def ask(self) -> Any:
            return await rpc.context().peer.rpc.everybody()

    async with (
        await rpc.start_server(Server(), bind="mem://permissions"),
        await rpc.open_client(
            connect="mem://permissions",
            timeout=10,
            handler=handler,
            authorize=lambda context, name: False,
        ) as client,
    ):
        with pytest.raises(rpc.PermissionDeniedError):
            await client.rpc.ask()


@pytest.mark.parametrize("authorize", [decides_later, 5, "alice"])
async def test_what_cannot_decide(authorize: Any) -> None:
    with pytest.raises(TypeError, match="authorize must be a"):
        await rpc.start_server(Handler(), bind="mem://permissions", authorize=authorize)


@pytest.mark.parametrize("allow", ["alice", b"alice", 5, [5], {"alice": 1, 2: 3}])
def test_what_names_no_users(allow: Any) -> None:
    with pytest.raises(TypeError, match="allow is a set of users' names"):
        rpc.method(allow=allow)
