"""The files in docs/howto/cluster start real NATS servers, whose users may do what they must."""

import asyncio
import configparser
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import AsyncQueue, Bus, Message, Node, rpc
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "docs" / "howto" / "cluster"
SECURITY = (ROOT / "docs" / "howto" / "security.rst").read_text(encoding="utf-8")
PATIENCE = 20.0

#: Seconds for three elections, one after another: of a leader of the cluster, of the stream and of
#: the queue. Each takes 4 to 9 s.
ELECTIONS = 40.0

StartNats = Callable[..., NatsServer]
Until = Callable[..., Any]

USERS = ("calc", "caller", "plant")


def text_of(name: str) -> str:
    text = (FILES / name).read_text(encoding="utf-8")
    return text.replace('include "users.conf"', (FILES / "users.conf").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what /etc/nats has in the files."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("etc")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-addext", "extendedKeyUsage=serverAuth,clientAuth",
         "-keyout", folder / "server-key.pem", "-out", folder / "server.pem"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    shutil.copy(folder / "server.pem", folder / "ca.pem")
    return folder


@pytest.fixture
def start(
    start_nats: StartNats, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], NatsServer]:
    """Start a server by its file, with the paths of this test and a free port."""
    for user in USERS:
        monkeypatch.setenv(f"{user.upper()}_PASSWORD", f"word-of-{user}")

    def started(text: str, name: str) -> NatsServer:
        monkeypatch.setenv("NATS_NAME", name)
        text = text.replace("/etc/nats", str(certificates))
        return start_nats(text.replace("/var/lib/nats", str(tmp_path / name)))

    return started


def place(
    user: str, server: NatsServer, certificates: Path, service: str | None = None
) -> rpc.Nats:
    return rpc.Nats(
        f"nats+tls://127.0.0.1:{server.port}",
        service,
        user=user,
        password=f"word-of-{user}",
        tls=ssl.create_default_context(cafile=str(certificates / "ca.pem")),
        inbox_prefix=f"_INBOX.{user}",
    )


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b


async def test_one(
    start: Callable[[str, str], NatsServer], certificates: Path, until: Until
) -> None:
    server = start(text_of("one.conf"), "nats-1")
    at = {user: place(user, server, certificates, "calc") for user in USERS}
    async with (
        await rpc.start_server(Handler(), bind=at["calc"]),
        await rpc.open_client(connect=at["caller"], timeout=PATIENCE) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
    bus, other = Bus(), Bus()
    refused: list[Message] = []
    heard: list[Message] = []
    other.regist_function("oven:*", heard.append)
    for each in (bus, other):
        each.regist_function("connection:refused", refused.append)
    node = place("plant", server, certificates)
    async with (
        Node(bus=bus, cluster=node, namespace="plant") as first,
        Node(bus=other, cluster=node, namespace="plant") as second,
    ):
        assert await second.drain(PATIENCE)
        bus.twitter("oven:hot", 180)
        await until(lambda: heard)
        queue = AsyncQueue("job:*", durable="workers", tries=1, bus=other)
        await queue.ready()
        letters = AsyncQueue("dead:workers", durable="letters", bus=bus)
        await letters.ready()
        await bus.publish("job:new", 1, durable=True)
        await (await queue.get(timeout=PATIENCE)).nak()
        await bus.publish("job:new", 2, durable=True)
        async with queue.get(timeout=PATIENCE) as message:
            assert message.args == (2,)
        async with letters.get(timeout=PATIENCE) as letter:
            assert letter.dead["queue"] == "workers"
        assert await first.replay_dead("workers") == 1
        async with queue.get(timeout=PATIENCE) as message:
            assert message.args == (1,)
        await first.publish_later(0.01, "job:new", 3)
        async with queue.get(timeout=PATIENCE) as message:
            assert message.args == (3,)
        assert {each.name for each in await second.durable_queues()} == {"workers", "letters"}
        assert await queue.delete()
    assert refused == []
    # Not in the clear, and nobody else.
    for wrong in (
        rpc.Nats(server.url, user="plant", password="word-of-plant"),
        rpc.Nats(f"nats+tls://127.0.0.1:{server.port}", tls=node.tls),
    ):
        with pytest.raises(rpc.AuthenticationError):
            await Node(bus=Bus(), cluster=wrong, namespace="plant").start()


async def test_accounts(
    start: Callable[[str, str], NatsServer],
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
) -> None:
    """The same names in two accounts are apart."""
    tenants = ("north", "south")
    for tenant in tenants:
        monkeypatch.setenv(f"{tenant.upper()}_PASSWORD", f"word-of-{tenant}")
    text = (FILES / "one.conf").read_text(encoding="utf-8")
    accounts = (FILES / "accounts.conf").read_text(encoding="utf-8")
    server = start(text.replace('include "users.conf"', accounts), "nats-1")
    heard: dict[str, list[str]] = {tenant: [] for tenant in tenants}
    buses = {tenant: Bus() for tenant in tenants}
    senders = {tenant: Bus() for tenant in tenants}
    async with AsyncExitStack() as stack:
        for tenant in tenants:
            at = place(tenant, server, certificates)
            buses[tenant].regist_function(
                "oven:*", lambda message, tenant=tenant: heard[tenant].append(message.args[0])
            )
            for bus in (buses[tenant], senders[tenant]):
                node = Node(bus=bus, cluster=at, namespace="plant")
                await stack.enter_async_context(node)
                assert await node.drain(PATIENCE)
        queues = {
            tenant: AsyncQueue("job:*", durable="workers", bus=buses[tenant]) for tenant in tenants
        }
        for queue in queues.values():
            await queue.ready()
        for tenant in tenants:
            senders[tenant].twitter("oven:hot", tenant)
            await senders[tenant].publish("job:new", tenant, durable=True)
        await until(lambda: all(heard.values()))
        for tenant, queue in queues.items():
            async with queue.get(timeout=PATIENCE) as message:
                assert message.args == (tenant,)
                assert await message.ack(confirm=True)
            assert await queue.size() == 0
        assert heard == {tenant: [tenant] for tenant in tenants}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_three(
    start: Callable[[str, str], NatsServer], certificates: Path, until: Until
) -> None:
    names = ("nats-1", "nats-2", "nats-3")
    text = text_of("three.conf")
    ports = dict(zip(names, free_ports(3), strict=True))
    for name, port in ports.items():
        text = text.replace(f"nats://{name}:6222", f"nats://127.0.0.1:{port}")
    servers = [
        start(text.replace("port: 6222", f'listen: "127.0.0.1:{ports[name]}"'), name)
        for name in names
    ]
    buses = [Bus() for _ in names]
    heard: list[list[int]] = [[] for _ in names]
    async with AsyncExitStack() as stack:
        nodes = []
        for bus, server, list_ in zip(buses, servers, heard, strict=True):
            bus.regist_function("oven:*", lambda message, to=list_: to.append(message.args[0]))
            node = Node(
                bus=bus,
                cluster=place("plant", server, certificates),
                namespace="plant",
                durable=rpc.Durable(replicas=3),
            )
            nodes.append(await stack.enter_async_context(node))
        # The servers learn from each other who wants what.
        async with asyncio.timeout(PATIENCE):
            while not all(heard):
                buses[0].twitter("oven:hot", 1)
                await asyncio.sleep(0.01)
        queue = AsyncQueue("job:*", durable="workers", bus=buses[2])
        # The servers elect a leader first.
        await queue.ready()
        for number in range(20):
            await buses[0].publish("job:new", number, durable=True)
        servers[0].kill()
        async with asyncio.timeout(ELECTIONS):
            for number in range(20, 40):
                await buses[1].publish("job:new", number, durable=True)
        taken = []
        async with asyncio.timeout(PATIENCE):
            while len(taken) < 40:
                async with queue.get() as message:
                    taken.append(message.args[0])
        assert sorted(set(taken)) == list(range(40))


def test_users_have_what_the_page_says() -> None:
    """Each subject is on the page on security, and none of the page is missing."""
    text = (FILES / "users.conf").read_text(encoding="utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    has = {subject for subject in re.findall(r'"([^"]+)"', text) if "_INBOX" not in subject}
    tables = SECURITY.partition("list-table:: Permissions at NATS")[2].partition("What a refused")[
        0
    ]
    says = set(re.findall(r"     - ``([^`]+)``$", tables, re.M))
    assert has == {subject for subject in says if "_INBOX" not in subject}


def test_the_service() -> None:
    """It runs a file of the page, with all that this reads, and may write where it stores."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(FILES / "nats.service")
    service = parser["Service"]
    (file,) = re.findall(r"-c /etc/nats/(\S+)$", service["ExecStart"])
    text = text_of(file)
    assert f'store_dir: "/var/lib/{service["StateDirectory"]}"' in text
    comment = (FILES / "nats.service").read_text(encoding="utf-8").partition("\n")[0]
    assert service["EnvironmentFile"] in comment
    variables = set(re.findall(r": \$(\w+)", text))
    assert variables == {"NATS_NAME", *(f"{user.upper()}_PASSWORD" for user in USERS)}
