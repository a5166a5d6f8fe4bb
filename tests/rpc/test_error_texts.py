"""What a user meets in the first hour: each error says what happened, to what, and what to do."""

import asyncio
import errno
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import Bus, following, rpc
from berrymq_rpc.exchange.message_codec import MessageCodec
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.zeromq import NotificationReceiverClient, RPCClient
from berrymq_rpc.rpc.transport.binding import bind_error

FORMS = "tcp://host:port, ipc://path, mem://name, nats://host:port/service"


KEYS = rpc.KeyPair.generate()


class Shop(rpc.AttrHandler):
    @rpc.method
    def order(self, what: str = "roll") -> str:
        return what

    @rpc.method(allow={"alice"})
    def close(self) -> None: ...

    @rpc.method
    def large(self) -> str:
        return "roll" * 100_000

    @rpc.method
    async def menu(self) -> AsyncIterator[str]:
        yield "roll"

    @rpc.method
    async def hangs(self) -> None:
        await asyncio.Event().wait()


# -- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1:5555", "'127.0.0.1:5555' is not an endpoint: write tcp://127.0.0.1:5555"),
        ("a:b:c", f"'a:b:c' is not an endpoint: write {FORMS}"),
        ("5555", f"'5555' is not an endpoint: write {FORMS}"),
        ("http://127.0.0.1:80", "http:// is served by a jsonrpc.bridge.Bridge"),
        ("https://127.0.0.1:80", "called by jsonrpc.http.open_http_client; here write tcp://"),
        ("wss://127.0.0.1:80", f"here write {FORMS}"),
        ("tcp://127.0.0.1", "'tcp://127.0.0.1' has no port: write tcp://127.0.0.1:5555"),
        ("tcp://[::1]", "has no port: write tcp://[::1]:5555"),
        ("tcp://127.0.0.1:", "has no port after its ':': write tcp://127.0.0.1:5555"),
        ("tcp:///", "has no host: write tcp://127.0.0.1:5555"),
        ("tcp://:5555", "has no host: write tcp://127.0.0.1:5555 for this one"),
        (
            "tcp://127.0.0.1:99999",
            "has no valid port: a port is a number from 0 to 65535, or * for a free one, not "
            "'99999'",
        ),
    ],
)
async def test_an_address_that_is_none(address: str, text: str) -> None:
    for name, opened in (
        ("bind", rpc.start_server(Shop(), bind=address)),
        ("connect", rpc.open_client(connect=address)),
    ):
        with pytest.raises(ValueError, match=f"^{name}: .*{re.escape(text)}"):
            await opened


async def test_an_address_that_is_no_text() -> None:
    with pytest.raises(TypeError, match=r"^bind: an endpoint is text such as tcp://.*, not 5555$"):
        await rpc.start_server(Shop(), bind=5555)  # type: ignore[arg-type]


async def test_an_address_of_a_server_with_any_port() -> None:
    with pytest.raises(ValueError, match="no port to connect to: write that of the server"):
        await rpc.open_client(connect="tcp://127.0.0.1:*")


async def test_no_address() -> None:
    with pytest.raises(ValueError, match=r"give connect=, where the other side listens, or bind="):
        await rpc.open_client()


async def test_an_address_in_use() -> None:
    async with await rpc.start_server(Shop(), bind="tcp://127.0.0.1:*") as server:
        (address,) = server.endpoints
        text = f"cannot listen at {address}: Address already in use (another program listens there"
        with pytest.raises(OSError, match=re.escape(text)) as raised:
            await rpc.start_server(Shop(), bind=address)
        assert raised.value.errno == errno.EADDRINUSE
    async with await rpc.start_server(Shop(), bind="mem://first-hour"):
        with pytest.raises(OSError, match=r"mem://first-hour is in use: .*Take another name"):
            await rpc.start_server(Shop(), bind="mem://first-hour")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EADDRNOTAVAIL, "this host has no such address: take 127.0.0.1"),
        (errno.ENODEV, "this host has no such address: take 127.0.0.1"),
        (errno.EACCES, "take a port from 1024 on, or another folder"),
        (errno.ENOENT, "the folder of its file does not exist: make it first"),
        (errno.ENAMETOOLONG, "the path is too long for a socket: take a shorter one"),
    ],
)
def test_an_address_that_cannot_be_bound(number: int, advice: str) -> None:
    error = bind_error("tcp://x:1", OSError(number, "a reason (addr='tcp://x:1')"))
    assert type(error) is type(OSError(number, ""))
    assert error.errno == number
    assert str(error).startswith(f"[Errno {number}] cannot listen at tcp://x:1: a reason (")
    assert advice in str(error)


def test_an_address_that_cannot_be_bound_for_another_reason() -> None:
    error = bind_error("tcp://x:1", OSError(errno.EPERM, "a reason"))
    assert str(error) == f"[Errno {errno.EPERM}] cannot listen at tcp://x:1: a reason"


async def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make it first"):
        await rpc.start_server(Shop(), bind=f"ipc://{tmp_path}/none/socket")


# -- arguments -------------------------------------------------------------------------------


async def test_wrong_arguments() -> None:
    for options, text in (
        ({"dialect": "json"}, "a dialect is one of 'native', 'aiozmq', 'jsonrpc', not 'json'"),
        ({"loop": asyncio.new_event_loop()}, "loop must be None or the running loop: leave it"),
        (
            {"connect": "mem://x", "security": rpc.CurveServer(KEYS, authorized=[])},
            "mem:// is within this one, so leave it away there",
        ),
        ({"security": "key"}, r"security must be None, rpc.CurveServer(...), rpc.CurveClient"),
    ):
        with pytest.raises((TypeError, ValueError), match=re.escape(text)):
            await rpc.open_client(**{"connect": "tcp://127.0.0.1:1", **options})  # type: ignore[arg-type]
        if "loop" in options:
            options["loop"].close()  # type: ignore[attr-defined]


def test_keys_that_are_missing(tmp_path: Path) -> None:
    keys = rpc.KeyPair.generate()
    with pytest.raises(FileNotFoundError, match="no such file of keys: make one with") as raised:
        rpc.CurveServer(tmp_path / "server.key_secret", authorized=[])
    assert raised.value.filename == str(tmp_path / "server.key_secret")
    with pytest.raises(FileNotFoundError, match="no such file, and no public key") as raised:
        rpc.CurveClient(keys, server="abc")
    assert raised.value.filename == "abc"


async def test_no_dialects() -> None:
    with pytest.raises(ValueError, match=r"a dialect is one of 'native', .*, not none"):
        await rpc.start_server(Shop(), bind="mem://first-hour", dialects=())


# -- calls -----------------------------------------------------------------------------------


@asynccontextmanager
async def pair() -> AsyncIterator[rpc.Client]:
    handler = {"shop": Shop()}
    limits = rpc.Limits(max_message=100_000, max_frame=100_000, max_in_flight=1, max_waiting=1)
    async with (
        await rpc.start_server(handler, bind="mem://first-hour", limits=limits),
        await rpc.open_client(connect="mem://first-hour", timeout=10) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("oder", "no method 'oder'; is it marked with @rpc.method?"),
        ("shop.oder", "no method 'shop.oder'; is it 'shop.order'?"),
        ("order", "no method 'order'; is it 'shop.order'?"),
        ("shop", "no method 'shop': it is a namespace, with methods such as 'shop.close'"),
    ],
)
async def test_no_such_method(method: str, text: str) -> None:
    async with pair() as client:
        with pytest.raises(rpc.NotFoundError, match=f"^{re.escape(text)}$"):
            await client.call(method)


async def test_a_method_of_the_client_itself() -> None:
    async with pair() as client:
        text = "'Client' object has no attribute 'order': methods of the server are called by "
        unchecked: Any = client
        with pytest.raises(AttributeError, match=f"^{text}client\\.rpc\\.order\\(\\.\\.\\.\\)$"):
            unchecked.order("roll")
        assert not hasattr(client, "_order")
    with rpc.SyncClient(connect="mem://nobody") as sync:
        unchecked = sync
        text = r"^'SyncClient' .*client\.rpc\.order\(\.\.\.\)$"
        with pytest.raises(AttributeError, match=text):
            unchecked.order("roll")


async def test_a_method_that_is_not_called() -> None:
    async with pair() as client:
        text = r"'shop\.order' is not called: write await \.\.\.shop\.order\(\)"
        unchecked: Any = client.rpc.shop.order
        with pytest.raises(TypeError, match=text):
            await unchecked


async def test_not_allowed() -> None:
    async with pair() as client:
        text = "a caller without a name may not call 'shop.close': connect as a user whom"
        with pytest.raises(rpc.PermissionDeniedError, match=text):
            await client.rpc.shop.close()


async def test_a_user_who_is_not_allowed() -> None:
    keys, own = rpc.KeyPair.generate(), rpc.KeyPair.generate()
    async with (
        await rpc.start_server(
            Shop(),
            bind="tcp://127.0.0.1:*",
            security=rpc.CurveServer(keys, authorized=lambda key: "bob"),
        ) as server,
        await rpc.open_client(
            connect=server.endpoints, timeout=10, security=rpc.CurveClient(own, server=keys.public)
        ) as client,
    ):
        text = "the user 'bob' may not call 'close': allow= of the method, or authorize= of the"
        with pytest.raises(rpc.PermissionDeniedError, match=text):
            await client.rpc.close()


async def test_too_large() -> None:
    async with pair() as client:
        todo = "send it in parts, as a stream or as bytes, or raise that in limits= of both sides"
        size = r"has 4\d\d,\d\d\d bytes, more than max_message=100,000"
        assert await client.rpc.shop.order() == "roll"
        with pytest.raises(rpc.TooLargeError, match=f"^the call of 'shop.order' {size}: {todo}$"):
            await client.rpc.shop.order("roll" * 100_000)
        with pytest.raises(
            rpc.TooLargeError, match=f"^the notification 'shop.order' {size}: {todo}$"
        ):
            client.notify.shop.order("roll" * 100_000)
        with pytest.raises(rpc.TooLargeError, match=f"^the result {size}: {todo}$"):
            await client.rpc.shop.large()
        text = "^the call of 'shop.order' has 200,000 bytes in one value, more than max_frame=10"
        with pytest.raises(rpc.TooLargeError, match=text):
            await client.rpc.shop.order(bytes(200_000))


async def test_too_many() -> None:
    async with pair() as client:
        running = client.rpc.shop.hangs()
        text = "max_in_flight=1 is reached: so many calls of all peers are running. Try again"
        with pytest.raises(rpc.OverloadedError, match=text):
            await client.rpc.shop.hangs()
        running.cancel()
        first = client.rpc.shop.menu()
        text = "max_waiting=1 is reached: so many streams and waiting calls of this peer are open"
        with pytest.raises(rpc.OverloadedError, match=text):
            async for _ in client.rpc.shop.menu():
                pass
        await first.aclose()


async def test_closed() -> None:
    closed = await rpc.open_client(connect="mem://nobody")
    closed.close()
    with pytest.raises(rpc.ServiceClosedError, match="the client is closed: open a new one"):
        await closed.rpc.order()
    client = rpc.SyncClient(connect="mem://nobody")
    client.close()
    with pytest.raises(rpc.ServiceClosedError, match="the client is closed: open a new one"):
        client.rpc.order()


async def test_a_sync_client_in_the_loop_of_its_server() -> None:
    async with await rpc.start_server(Shop(), bind="mem://first-hour"):
        client = rpc.SyncClient(connect="mem://first-hour", timeout=0.05)
        with pytest.raises(rpc.RPCTimeoutError) as raised:
            client.rpc.hangs()
        assert "This call held the event loop of its thread" in "".join(raised.value.__notes__)
        with pytest.raises(rpc.RPCTimeoutError) as raised:
            await asyncio.to_thread(client.rpc.hangs)
        assert not hasattr(raised.value, "__notes__")
        await asyncio.to_thread(client.close)


@pytest.mark.parametrize("make", [RPCClient, NotificationReceiverClient])
def test_a_client_of_json_rpc_that_is_closed(make: type[RPCClient]) -> None:
    client = make("tcp://127.0.0.1:1")
    client.close()
    with pytest.raises(rpc.ServiceClosedError, match="the client is closed: open a new one"):
        client.send_request("order", ())


async def test_an_answer_in_json_that_is_too_large() -> None:
    class Large(rpc.AttrHandler):
        @rpc.method
        def large(self) -> str:
            return "roll" * (1 << 20)

    async with (
        await rpc.start_server(Large(), bind="tcp://127.0.0.1:*") as server,
        await rpc.open_client(connect=server.endpoints, timeout=10, dialect="jsonrpc") as client,
    ):
        with pytest.raises(rpc.TooLargeError, match="return less, or in several calls"):
            await client.rpc.large()


async def test_a_listener_at_a_port_in_use() -> None:
    async with Bridge(Shop()) as bridge:
        url = await bridge.serve_tcp("127.0.0.1", 0)
        port = int(url.rpartition(":")[2])
        text = rf"cannot listen at 127\.0\.0\.1 port {port}: .*take another address"
        with pytest.raises(OSError, match=text):
            await bridge.serve_tcp("127.0.0.1", port)


# -- the bus ---------------------------------------------------------------------------------


def test_an_identifier_that_is_none() -> None:
    bus: Any = Bus()
    text = "^an identifier is text such as 'name:action', not "
    with pytest.raises(TypeError, match=f"{text}function: it is given before the function$"):
        bus.regist_function(lambda message: None, "shop:order")
    with pytest.raises(TypeError, match=f"{text}int$"):
        bus.twitter(5)
    # The decorator without its parentheses.
    unchecked: Any = following
    with pytest.raises(TypeError, match=f"{text}function: it is given before"):

        @unchecked
        def receive(message: object) -> None: ...


def test_an_identifier_that_is_an_address() -> None:
    text = "is not an identifier: .*It is an address: that is another argument$"
    with pytest.raises(ValueError, match=text):
        Bus().twitter("tcp://127.0.0.1:5555")


def test_a_message_that_cannot_be_sent() -> None:
    codec = MessageCodec(rpc.Limits(max_message=100_000))
    for item, text in (
        (("shop:order", (1, Shop())), r"^args of the message 'shop:order': args\[1\]: "),
        (
            ("shop:order", (), {"a": Shop()}),
            r"^kwargs of the message 'shop:order': kwargs\['a'\]: ",
        ),
    ):
        with pytest.raises(TypeError, match=text + f"{__name__}.Shop cannot be packed: give"):
            codec.pack(item)
        with pytest.raises(TypeError, match=text + f"{__name__}.Shop cannot be packed: give"):
            codec.pack_large(item)
    text = "^the message 'shop:order' has 4.* bytes, more than max_message=100,000: send it"
    with pytest.raises(rpc.TooLargeError, match=text):
        codec.pack_one(("shop:order", ("roll" * 100_000,)))


def test_a_multiplicity_that_is_none() -> None:
    bus: Any = Bus()
    with pytest.raises(TypeError, match="multiplicity must be a number of threads, not '5'"):
        bus.set_multiplicity("5")
