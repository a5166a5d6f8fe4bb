"""Services that are announced and found on the network of this host."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from types import MappingProxyType
from typing import Any

import pytest

from berrymq_rpc import AsyncQueue, Bus, Node, Queue, SyncNode, rpc
from berrymq_rpc.errors import AuthenticationError, ConnectionLostError
from berrymq_rpc.rpc.transport.mdns.browser import MAX_SERVICES, Browser, find
from berrymq_rpc.rpc.transport.mdns.service import TYPE, Announced, Service
from berrymq_rpc.security import CurveClient, CurveServer, KeyPair

BOUND = 20.0


class Handler(rpc.AttrHandler):
    def __init__(self, name: str) -> None:
        self.name = name

    @rpc.method
    def who(self) -> str:
        return self.name


def serve(who: str, address: str, name: str, **options: Any) -> Any:
    options = {"insecure": True, **options}
    bind = f"tcp://{address}:*"
    return rpc.start_server(Handler(who), bind=bind, announce=name, **options)


@contextlib.asynccontextmanager
async def announced_by_hand(
    address: str, label: str, ip: str, port: int, properties: dict[str, Any]
) -> AsyncIterator[None]:
    """What another program on the network says, true or not."""
    from zeroconf import ServiceInfo
    from zeroconf.asyncio import AsyncZeroconf

    zeroconf = AsyncZeroconf(interfaces=[address])
    info = ServiceInfo(
        TYPE,
        f"{label}.{TYPE}",
        port=port,
        parsed_addresses=[ip],
        properties=properties,
        server=f"{label}.local.",
    )
    said = await zeroconf.async_register_service(info, cooperating_responders=True, strict=False)
    try:
        yield
        await said
    finally:
        await zeroconf.async_close()


async def found_as(name: str) -> list[Service]:
    """What is announced by a name, once it has been heard."""
    async with asyncio.timeout(BOUND):
        while True:
            found = [service for service in await find(0.5) if service.name == name]
            if found:
                return found


async def test_a_client_that_is_there_first(address: str, name: str) -> None:
    async with await rpc.open_client(connect=f"mdns://{name.upper()}", timeout=BOUND) as client:
        call = client.rpc.who()
        async with await serve("one", address, name) as server:
            assert server.endpoints[0].startswith(f"tcp://{address}:")
            assert await call == "one"
            assert client.endpoints == (f"mdns://{name.upper()}",)


async def test_calls_are_shared_and_servers_come_and_go(
    address: str, name: str, until: Callable[..., Any]
) -> None:
    async with await rpc.open_client(connect=f"mdns://{name}", timeout=BOUND) as client:
        one = await serve("one", address, name)
        async with await serve("two", address, name):
            await until(lambda: client.statistics()["peers"] == 2)
            found = await asyncio.gather(*(client.rpc.who() for _ in range(10)))
            assert sorted(found) == ["one"] * 5 + ["two"] * 5
            one.close()
            await one.wait_closed()
            assert await client.rpc.who() == "two"
        # At another port.
        async with await serve("three", address, name):
            assert await client.rpc.who() == "three"


async def test_a_server_says_goodbye(address: str, name: str, until: Callable[..., Any]) -> None:
    browser = Browser(name, lambda: None)
    browser.start()
    async with await serve("one", address, name):
        await until(lambda: browser.services)
    # What was announced is valid for more than an hour otherwise.
    await until(lambda: not browser.services)
    browser.stop()
    await browser.wait_stopped()


async def test_max_servers(address: str, name: str, until: Callable[..., Any]) -> None:
    async with (
        await serve("one", address, name),
        await serve("two", address, name),
        await rpc.open_client(connect=f"mdns://{name}", timeout=BOUND, max_servers=1) as client,
    ):
        found = {await client.rpc.who() for _ in range(10)}
        assert len(found) == 1
        assert client.statistics()["peers"] == 1


def test_a_client_without_asyncio(name: str, address: str) -> None:
    with (
        rpc.SyncClient(connect=f"mdns://{name}", connect_timeout=0.2, timeout=5) as client,
        pytest.raises(ConnectionLostError, match=rf"announce='{name}'.*berrymq find"),
    ):
        client.rpc.who()


async def test_nothing_found(name: str, address: str) -> None:
    async with await rpc.open_client(connect=f"mdns://{name}", connect_timeout=0.2) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionLostError, match=rf"no service '{name}' is announced") as info:
            await client.rpc.who()
    assert info.value.sent is False
    assert time.monotonic() - began < 5


async def test_nodes_of_one_name_do_not_find_themselves(address: str, name: str) -> None:
    bind = f"tcp://{address}:*"
    async with (
        Node(bind, Bus(), announce=name, insecure=True) as one,
        Node(bind, Bus(), announce=name, insecure=True) as two,
    ):
        queue = AsyncQueue("oven:*", bus=two.bus)
        await one.interconnect(f"mdns://{name}")
        one.bus.twitter("oven:hot", 1)
        assert (await queue.get(timeout=BOUND)).args == (1,)


def test_nodes_without_asyncio_and_with_keys(address: str, name: str) -> None:
    plant_keys, office_keys = KeyPair.generate(), KeyPair.generate()
    plant_bus, office_bus = Bus(), Bus()
    plant = SyncNode(
        plant_bus, announce=name, security=CurveServer(plant_keys, authorized=[office_keys.public])
    )
    office = SyncNode(office_bus, security=CurveServer(office_keys, authorized=[plant_keys.public]))
    with plant, office, Queue("oven:*", bus=plant_bus) as queue:
        with pytest.raises(ValueError, match="they cannot reach"):
            plant.init_connection("tcp://127.0.0.1:*")
        plant.init_connection(f"tcp://{address}:*")
        with pytest.raises(ValueError, match=f"public key of mdns://{name} is not known"):
            office.interconnect(f"mdns://{name}")
        office.interconnect(f"mdns://{name}", server=plant_keys.public)
        office_bus.twitter("oven:hot", 1)
        assert queue.get(timeout=BOUND).args == (1,)


async def test_keys_decide_who_is_trusted(address: str, name: str) -> None:
    keys, client_keys, strange = (KeyPair.generate() for _ in range(3))
    trusted = CurveServer(keys, authorized=[client_keys.public])
    spoofed = CurveServer(strange, authorized=[client_keys.public])
    security = CurveClient(client_keys, server=keys.public)
    async with (
        await serve("spoofed", address, name, security=spoofed),
        await rpc.open_client(
            connect=f"mdns://{name}", security=security, timeout=BOUND, connect_timeout=BOUND
        ) as client,
    ):
        # Nobody else has the name.
        with pytest.raises(AuthenticationError):
            await client.rpc.who()
        async with await serve("trusted", address, name, security=trusted):
            async with asyncio.timeout(BOUND):
                while True:
                    try:
                        assert await client.rpc.who() == "trusted"
                    except AuthenticationError:
                        await asyncio.sleep(0.05)
                    else:
                        break
            assert {await client.rpc.who() for _ in range(10)} == {"trusted"}


async def test_what_others_say_is_not_believed(address: str, name: str) -> None:
    good = {"kind": "server", "keys": "0", "version": "1"}
    wrong = [
        # A loopback address, which would lead to this host's own.
        (f"{name}-{'1' * 12}", "127.0.0.1", good),
        (f"{name}-{'2' * 12}", address, {"kind": "\x1b[2J"}),
        (f"{name}-{'3' * 12}", address, {}),
        (f"{name}-nothex", address, good),
        (f"{name}-{'4' * 12}", address, good | {"version": "\x1b]0;gotcha\x07", "x": "y" * 200}),
    ]
    async with contextlib.AsyncExitStack() as stack:
        for label, ip, properties in wrong:
            await stack.enter_async_context(announced_by_hand(address, label, ip, 9, properties))
        found = await found_as(name)
    assert [service.id for service in found] == ["4" * 12]
    assert found[0].version == ""


async def test_servers_that_cannot_be_reached_are_passed_over(address: str, name: str) -> None:
    good = {"kind": "server", "keys": "0", "version": "1"}
    async with contextlib.AsyncExitStack() as stack:
        for number in range(3):
            await stack.enter_async_context(
                announced_by_hand(address, f"{name}-{number:012x}", address, 9, good)
            )
        client = await stack.enter_async_context(
            await rpc.open_client(connect=f"mdns://{name}", timeout=BOUND, connect_timeout=BOUND)
        )
        await stack.enter_async_context(await serve("one", address, name))
        assert await client.rpc.who() == "one"


@pytest.mark.slow
async def test_many_names_are_not_many_connections(
    address: str, name: str, until: Callable[..., Any]
) -> None:
    """Who makes up servers at somebody's address does not have clients knock there without end."""
    connections: list[asyncio.StreamWriter] = []
    good = {"kind": "server", "keys": "0", "version": "1"}
    victim = await asyncio.start_server(lambda _, writer: connections.append(writer), address, 0)
    port = victim.sockets[0].getsockname()[1]
    async with contextlib.AsyncExitStack() as stack:
        for number in range(6):
            label = f"{name}-{number:012x}"
            await stack.enter_async_context(announced_by_hand(address, label, address, port, good))
        async with await rpc.open_client(connect=f"mdns://{name}", connect_timeout=2.0) as client:
            with pytest.raises(ConnectionLostError, match="cannot be reached"):
                await client.rpc.who()
    assert len(connections) == 1
    for writer in connections:
        writer.close()
    victim.close()


async def test_what_is_known_is_bounded(address: str, name: str) -> None:
    class Info:
        port = 5555
        properties = MappingProxyType({b"kind": b"server"})

        @staticmethod
        def parsed_scoped_addresses() -> list[str]:
            return ["192.0.2.1"]

    changes = 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    browser = Browser(name, changed)
    for number in range(MAX_SERVICES + 50):
        browser.keep(f"{name}-{number:012x}.{TYPE}", Info)
    assert len(browser.services) == MAX_SERVICES
    assert changes == MAX_SERVICES + 50


async def test_nothing_secret_is_said(address: str, name: str) -> None:
    keys = KeyPair.generate()
    async with await serve(
        "one", address, name, security=CurveServer(keys, authorized=[keys.public])
    ):
        (service,) = await found_as(name)
    assert service.has_keys
    assert service.kind == "server"
    assert service.endpoints[0].startswith(f"tcp://{address}:")
    assert keys.public not in repr(service)


@pytest.mark.parametrize(
    ("bind", "announce", "text"),
    [
        ("tcp://127.0.0.1:*", "calc", "they cannot reach"),
        ("tcp://localhost:*", "calc", "they cannot reach"),
        ("tcp://[::1]:*", "calc", "they cannot reach"),
        ("mem://x", "calc", "tcp://"),
        ("tcp://0.0.0.0:*", "", "1 to 40"),
        ("tcp://0.0.0.0:*", "a b", "1 to 40"),
        ("tcp://0.0.0.0:*", "a" * 41, "1 to 40"),
        ("tcp://0.0.0.0:*", "caf\xe9", "1 to 40"),
    ],
)
async def test_what_cannot_be_announced(bind: str, announce: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        await rpc.start_server(Handler("x"), bind=bind, announce=announce, insecure=True)
    with pytest.raises(ValueError, match=text):
        Node(bind, Bus(), announce=announce, insecure=True)


async def test_an_announcement_is_a_name() -> None:
    with pytest.raises(TypeError, match="announce is a name"):
        await rpc.start_server(Handler("x"), bind="tcp://0.0.0.0:*", announce=3, insecure=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="announce='calc'"):
        await rpc.start_server(Handler("x"), bind="mdns://calc", insecure=True)
    assert Announced("calc").kind == "server"


async def test_without_zeroconf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zeroconf", None)
    with pytest.raises(ModuleNotFoundError, match=r"need zeroconf.*\[discovery\]"):
        await rpc.open_client(connect="mdns://calc")
    with pytest.raises(ModuleNotFoundError, match=r"need zeroconf.*\[discovery\]"):
        Node("tcp://0.0.0.0:*", Bus(), announce="calc", insecure=True)
