"""Every place that takes an address makes the same checks, and takes IPv6."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from berrymq_rpc import Node, rpc
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.jsonrpc.http import open_http_client


class EchoServer(zeromq.RPCServer):
    def handle_echo_method(self, value: Any) -> Any:
        return value


class Echo(rpc.AttrHandler):
    @rpc.method
    def echo(self, value: Any) -> Any:
        return value


@asynccontextmanager
async def rpc_server(endpoint: str) -> AsyncIterator[str]:
    async with await rpc.start_server(Echo(), bind=endpoint) as server:
        yield server.endpoints[0]


@asynccontextmanager
async def rpc_client(endpoint: str) -> AsyncIterator[str]:
    async with await rpc.open_client(bind=endpoint):
        yield endpoint


@asynccontextmanager
async def node(endpoint: str) -> AsyncIterator[str]:
    async with Node(endpoint, handler=Echo()) as served:
        yield served.endpoints[0]


@asynccontextmanager
async def bridge(endpoint: str) -> AsyncIterator[str]:
    async with Bridge(Echo()) as served:
        yield await served.serve_zeromq(endpoint)


@asynccontextmanager
async def threaded_server(endpoint: str) -> AsyncIterator[str]:
    with EchoServer(endpoint) as server:
        yield server.endpoint


Listen = Callable[[str], AbstractAsyncContextManager[str]]

LISTENERS: list[Listen] = [rpc_server, rpc_client, node, bridge, threaded_server]
#: The servers with threads raise pyzmq's own errors.
UNUSABLE = (OSError, zmq.ZMQError)

each_listener = pytest.mark.parametrize("listen", LISTENERS)


# -- the path of ipc:// -------------------------------------------------------------------------


@each_listener
async def test_a_regular_file_is_kept(listen: Listen, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(UNUSABLE, match="is not a socket") as caught:
        async with listen(f"ipc://{path}"):
            pass
    assert str(path) in str(caught.value)
    assert path.read_text() == "data"


@each_listener
async def test_a_link_to_a_file_is_kept(listen: Listen, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("data")
    link.symlink_to(target)
    with pytest.raises(UNUSABLE, match="is not a socket"):
        async with listen(f"ipc://{link}"):
            pass
    assert link.is_symlink()
    assert target.read_text() == "data"


@each_listener
async def test_the_path_of_a_live_server_is_kept(listen: Listen, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/live"
    async with threaded_server(endpoint):
        with pytest.raises(UNUSABLE, match="in use"):
            async with listen(endpoint):
                pass
        with zeromq.RPCClient(endpoint) as client:
            assert await asyncio.to_thread(client.echo, 1) == 1


@each_listener
async def test_the_path_of_another_programs_socket_is_kept(listen: Listen, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(UNUSABLE, match="in use"):
            async with listen(f"ipc://{path}"):
                pass
        assert path.is_socket()


@each_listener
async def test_a_stale_socket_is_replaced(listen: Listen, tmp_path: Path) -> None:
    path = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    assert stat.S_ISSOCK(path.lstat().st_mode)
    async with listen(f"ipc://{path}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))


@each_listener
async def test_the_owner_alone_may_connect(listen: Listen, tmp_path: Path) -> None:
    path = tmp_path / "own"
    before = os.umask(0o022)
    try:
        async with listen(f"ipc://{path}"):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        # The mask of the process is as it was.
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


@each_listener
async def test_an_abstract_socket_has_no_owner(listen: Listen, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every user of this host may call"):
        async with listen(f"ipc://@{tmp_path}"):
            pass


async def test_a_name_without_a_path(tmp_path: Path) -> None:
    # A file of that name in the working directory has nothing to do with it.
    endpoint = f"ipc://@{tmp_path}"
    async with (
        await rpc.start_server(Echo(), bind=endpoint, insecure=True),
        await rpc.open_client(connect=endpoint, timeout=10) as client,
    ):
        assert await client.rpc.echo(1) == 1
        with pytest.raises(OSError, match="in use"):
            await rpc.start_server(Echo(), bind=endpoint, insecure=True)
        with pytest.raises(zmq.ZMQError, match="in use"):
            EchoServer(endpoint, insecure=True)


async def test_others_of_this_host_may_connect_if_the_program_wants(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    endpoint = f"ipc://{path}"
    async with await rpc.start_server(Echo(), bind=endpoint, ipc_mode=0o660):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    async with Node(endpoint, handler=Echo(), ipc_mode=0o666):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o666
    with EchoServer(endpoint, ipc_mode=0o620):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o620
    async with Bridge(Echo()) as bridge:
        await bridge.serve_zeromq(endpoint, ipc_mode=0o606)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o606
    async with Bridge(Echo()) as bridge:
        for wrong, error in ((0o1000, ValueError), (-1, ValueError), ("rw", TypeError)):
            mode: Any = wrong
            with pytest.raises(error, match="the mode of a file"):
                await rpc.start_server(Echo(), bind=endpoint, ipc_mode=mode)
            with pytest.raises(error, match="the mode of a file"):
                await bridge.serve_zeromq(endpoint, ipc_mode=mode)


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_an_address_is_free_once_its_server_with_threads_is_closed(
    scheme: str, tmp_path: Path
) -> None:
    with EchoServer(f"ipc://{tmp_path}/s" if scheme == "ipc" else "tcp://127.0.0.1:*") as first:
        endpoint = first.endpoint
    for _ in range(100):
        with EchoServer(endpoint):
            pass


# -- ports --------------------------------------------------------------------------------------


@each_listener
@pytest.mark.parametrize("port", ["65536", "65537", "-1", "+1", "1e3", "9" * 5000, "http", ""])
async def test_no_port(listen: Listen, port: str) -> None:
    with pytest.raises(ValueError, match="65535" if port else "has no port"):
        async with listen(f"tcp://127.0.0.1:{port}"):
            pass


@each_listener
@pytest.mark.parametrize("place", ["127.0.0.1:1/path", "[::1:5555", "[name]:1", "a@b:1", ":1"])
async def test_no_host(listen: Listen, place: str) -> None:
    with pytest.raises(ValueError, match="tcp://"):
        async with listen(f"tcp://{place}"):
            pass


async def test_no_port_of_a_bridge() -> None:
    async with Bridge(Echo()) as served:
        for serve in (served.serve_http, served.serve_tcp):
            for port in (65536, 65537, -1, 10**5000):
                with pytest.raises(ValueError, match="65535"):
                    await serve("127.0.0.1", port)
            for wrong in ("80", 1.5, True, None):
                with pytest.raises(TypeError, match="port"):
                    await serve("127.0.0.1", wrong)  # type: ignore[arg-type]
            for host in ("", "[127.0.0.1]", "[::1"):
                with pytest.raises(ValueError, match=r"host|IPv6"):
                    await serve(host, 0)
            with pytest.raises(TypeError, match="host"):
                await serve(None, 0)  # type: ignore[arg-type]
        assert served.urls == ()


@pytest.mark.parametrize("port", ["0", "*", "65536", "65537", "x"])
async def test_no_port_to_connect_to(port: str) -> None:
    endpoint = f"tcp://127.0.0.1:{port}"
    for client_class in (zeromq.RPCClient, zeromq.NotificationReceiverClient):
        with pytest.raises(ValueError, match="port"):
            client_class(endpoint)
    with pytest.raises(ValueError, match="port"):
        await rpc.open_client(connect=endpoint)
    with pytest.raises(ValueError, match="port"):
        await rpc.start_server(Echo(), connect=endpoint)
    with pytest.raises(ValueError, match="port"):
        await open_http_client(f"http://127.0.0.1:{port}")
    async with Node() as caller:
        for connect in (caller.interconnect, caller.connect_oneway):
            with pytest.raises(ValueError, match="port"):
                await connect(endpoint)
        with pytest.raises(ValueError, match="port"):
            await caller.connect_via_queue("a:b", endpoint)


async def test_no_port_in_threads() -> None:
    with pytest.raises(ValueError, match="port"):
        await asyncio.to_thread(rpc.SyncClient, connect="tcp://127.0.0.1:65537")


# -- IPv6 ---------------------------------------------------------------------------------------


needs_ipv6 = pytest.mark.usefixtures("ipv6")


@needs_ipv6
async def test_ipv6_of_the_rpc() -> None:
    for listen in (rpc_server, node):
        async with listen("tcp://[::1]:*") as endpoint:
            assert endpoint.startswith("tcp://[::1]:")
            async with await rpc.open_client(connect=endpoint, timeout=5) as client:
                assert await client.rpc.echo(1) == 1


@needs_ipv6
async def test_ipv6_of_nodes() -> None:
    async with (
        Node("tcp://[::1]:*") as one,
        Node() as other,
        await other.connect_via_queue("a:b", one.endpoints[0]) as connection,
    ):
        one.bus.twitter("a:b", 1)
        assert (await connection.get(timeout=5)).args == (1,)


@needs_ipv6
async def test_ipv6_of_jsonrpc_in_threads() -> None:
    for listen in (bridge, threaded_server):
        async with listen("tcp://[::1]:*") as endpoint:
            assert endpoint.startswith("tcp://[::1]:")
            client_class = zeromq.RPCNotifierClient if listen is bridge else zeromq.RPCClient
            with client_class(endpoint) as client:
                assert await asyncio.to_thread(client.echo, 1) == 1


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_ipv6_of_a_bridge(host: str) -> None:
    async with Bridge(Echo()) as served:
        url = await served.serve_http(host)
        assert url.startswith("http://[::1]:")
        async with await open_http_client(url) as client:
            assert await client.rpc.echo(1) == 1
        address = await served.serve_tcp(host)
        assert address.startswith("tcp://[::1]:")
        reader, writer = await asyncio.open_connection("::1", int(address.rpartition(":")[2]))
        writer.write(b'{"jsonrpc": "2.0", "method": "echo", "params": [2], "id": 1}\n')
        assert b'"result":2' in (await reader.readline()).replace(b" ", b"")
        writer.close()
        await writer.wait_closed()


#: Serves at an IPv6 address and calls by a name that has no other.
PROGRAM = """
import asyncio
from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc import zeromq
from tests.test_addresses import Echo, EchoServer

async def main():
    async with await rpc.start_server(Echo(), bind="tcp://[::1]:*") as server:
        endpoint = server.endpoints[0].replace("[::1]", "only6.test")
        async with await rpc.open_client(connect=endpoint, timeout=5) as client:
            print(await client.rpc.echo("rpc"))
        # It has addresses of both kinds, and the server is at one of them.
        endpoint = server.endpoints[0].replace("[::1]", "both.test")
        async with await rpc.open_client(connect=endpoint, timeout=5) as client:
            print(await client.rpc.echo("both"))
    async with await rpc.start_server(Echo(), bind="tcp://127.0.0.1:*") as server:
        endpoint = server.endpoints[0].replace("127.0.0.1", "both.test")
        async with await rpc.open_client(connect=endpoint, timeout=5) as client:
            print(await client.rpc.echo("the other"))

asyncio.run(main())
with EchoServer("tcp://[::1]:*") as server:
    with zeromq.RPCClient(server.endpoint.replace("[::1]", "only6.test")) as client:
        print(client.echo("threads"))
"""


@needs_ipv6
def test_a_name_with_an_ipv6_address_alone(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost both.test\n::1 only6.test both.test\n")
    if subprocess.run(
        ["unshare", "-rm", "mount", "--bind", str(hosts), "/etc/hosts"],
        capture_output=True,
        timeout=30,
    ).returncode:
        pytest.skip("needs the right to replace /etc/hosts in a namespace of its own")
    script = 'mount --bind "$1" /etc/hosts && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(hosts), sys.executable, PROGRAM],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.split("\n") == ["rpc", "both", "the other", "threads", ""], done.stderr
    assert done.stderr == ""


def test_no_socket_is_bound_elsewhere() -> None:
    # `bind_socket` makes the checks that libzmq does not.
    package = Path(rpc.__file__).parents[1]
    found = {
        path.name for path in package.rglob("*.py") if "socket.bind(" in path.read_text("utf-8")
    }
    # That of zap.py is within the process, at an address that is always the same.
    assert found == {"binding.py", "zap.py"}
