"""Services that hosts find on the network between them: network namespaces instead of hosts."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .line_reader import LineReader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
PATIENCE = 40.0

_numbers = itertools.count()

SERVER = """
import asyncio, sys
from berrymq_rpc import rpc

class Handler(rpc.AttrHandler):
    @rpc.method
    def who(self):
        return sys.argv[1]

async def main():
    async with await rpc.start_server(
        Handler(), bind=sys.argv[2], announce="calc", insecure=True
    ) as server:
        print(server.endpoints[0], flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""

#: Calls once for each line that it reads, and prints the result.
CLIENT = """
import asyncio, sys
from berrymq_rpc import rpc

async def main():
    limits = rpc.Limits(heartbeat=0.5)
    async with await rpc.open_client(
        connect="mdns://calc", timeout=30, connect_timeout=float(sys.argv[1]), limits=limits
    ) as client:
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            try:
                print(await client.rpc.who(), flush=True)
            except rpc.Error as error:
                print(type(error).__name__, flush=True)

asyncio.run(main())
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


class Program:
    """A program in a namespace, which reads and writes lines."""

    def __init__(self, namespace: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        self._reader = LineReader(self.process.stdout, PATIENCE)
        self.line = self._reader.line

    def ask(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def end(self) -> None:
        """As if its user closed its input: it says goodbye."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(self.process)
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
            self._reader.join()


class Hosts:
    """Namespaces in which programs run, until the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        # At most 15 characters, as they also name interfaces.
        self._mark = f"bd{os.getpid()}-{next(_numbers)}"
        self._links = itertools.count()

    def new(self, letter: str) -> str:
        name = f"{self._mark}{letter}"
        ip("netns", "add", name)
        self._stack.callback(
            subprocess.run, ["ip", "netns", "delete", name], capture_output=True, timeout=30
        )
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def join(self, one: str, address: str, other: str, other_address: str) -> tuple[str, str]:
        """Put a cable between two hosts; the names of their interfaces."""
        number = next(self._links)
        names = (f"x{number}", f"y{number}")
        ip("link", "add", names[0], "netns", one, "type", "veth", "peer", names[1], "netns", other)
        for host, name, text in ((one, names[0], address), (other, names[1], other_address)):
            # Without a check whether the address of IPv6 is free, which takes two seconds.
            options = ("nodad",) if ":" in text else ()
            ip("-n", host, "address", "add", text, "dev", name, *options)
            ip("-n", host, "link", "set", name, "up")
        return names

    def start(self, host: str, *arguments: str) -> Program:
        program = Program(host, *arguments)
        self._stack.callback(program.kill)
        return program

    def serve(self, host: str, name: str, bind: str = "tcp://0.0.0.0:*") -> Program:
        server = self.start(host, "-c", SERVER, name, bind)
        assert server.line().startswith("tcp://")
        return server

    def client(self, host: str, connect_timeout: float = 30) -> Program:
        client = self.start(host, "-c", CLIENT, str(connect_timeout))
        assert client.line() == "ready"
        return client


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    pytest.importorskip("zeroconf", reason="discovery needs zeroconf")
    if shutil.which("ip") is None:
        pytest.skip("needs the command `ip` of iproute2")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    with ExitStack() as stack:
        made = Hosts(stack)
        try:
            made.join(made.new("p"), "192.0.2.101/24", made.new("q"), "192.0.2.102/24")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield made


@pytest.fixture
def two(hosts: Hosts) -> tuple[str, str, str]:
    """Two hosts, and the name of the first one's interface."""
    plant, office = hosts.new("a"), hosts.new("b")
    name, _ = hosts.join(plant, "192.0.2.1/24", office, "192.0.2.2/24")
    return plant, office, name


def test_two_hosts_find_each_other(hosts: Hosts, two: tuple[str, str, str]) -> None:
    plant, office, _ = two
    client = hosts.client(office)
    server = hosts.serve(plant, "first")
    assert client.ask() == "first"
    # It says goodbye, and another one comes at another port.
    server.end()
    hosts.serve(plant, "second")
    assert client.ask() == "second"
    found = hosts.start(office, "-m", "berrymq_rpc", "find", "--json", "--wait", "1.5")
    assert '"name": "calc"' in (line := found.line())
    assert "tcp://192.0.2.1:" in line


def test_one_vanishes_without_goodbye(hosts: Hosts, two: tuple[str, str, str]) -> None:
    plant, office, _ = two
    first = hosts.serve(plant, "first")
    client = hosts.client(office)
    assert client.ask() == "first"
    first.kill()
    # What the network says of the first is still known.
    hosts.serve(plant, "second")
    assert [client.ask() for _ in range(5)] == ["second"] * 5
    # As does one that has heard nothing of the two so far.
    assert hosts.client(office).ask() == "second"


def test_a_cable_that_is_pulled(hosts: Hosts, two: tuple[str, str, str]) -> None:
    plant, office, name = two
    hosts.serve(plant, "first")
    client = hosts.client(office, 1.0)
    # The network's first moments.
    while (answer := client.ask()) == "ConnectionLostError":
        continue
    assert answer == "first"
    ip("-n", plant, "link", "set", name, "down")
    assert client.ask() == "ConnectionLostError"
    ip("-n", plant, "link", "set", name, "up")
    while (answer := client.ask()) == "ConnectionLostError":
        continue
    assert answer == "first"


def test_a_host_gets_another_address(hosts: Hosts, two: tuple[str, str, str]) -> None:
    plant, office, name = two
    hosts.serve(plant, "first")
    client = hosts.client(office)
    assert client.ask() == "first"
    ip("-n", plant, "address", "del", "192.0.2.1/24", "dev", name)
    ip("-n", plant, "address", "add", "192.0.2.7/24", "dev", name)
    # The call that finds out may fail: its connection was to the former address.
    while (answer := client.ask()) == "ConnectionLostError":
        continue
    assert answer == "first"


def test_only_where_the_server_is_bound(hosts: Hosts, two: tuple[str, str, str]) -> None:
    plant, office, _ = two
    lab = hosts.new("c")
    hosts.join(plant, "198.51.100.1/24", lab, "198.51.100.2/24")
    hosts.serve(plant, "first", "tcp://192.0.2.1:*")
    assert hosts.client(office).ask() == "first"
    assert hosts.client(lab, 3).ask() == "ConnectionLostError"


def test_a_host_of_two_networks_is_reached_in_the_own_one(
    hosts: Hosts, two: tuple[str, str, str]
) -> None:
    plant, office, _ = two
    lab = hosts.new("c")
    hosts.join(plant, "198.51.100.1/24", lab, "198.51.100.2/24")
    hosts.serve(plant, "first")
    assert hosts.client(lab).ask() == "first"
    assert hosts.client(office).ask() == "first"


@pytest.mark.parametrize("bind", ["tcp://[::]:*", "tcp://[2001:db8::1]:*"])
def test_ipv6(hosts: Hosts, bind: str) -> None:
    plant, office = hosts.new("a"), hosts.new("b")
    hosts.join(plant, "2001:db8::1/64", office, "2001:db8::2/64")
    hosts.serve(plant, "first", bind)
    assert hosts.client(office).ask() == "first"


def test_a_network_that_comes_later(hosts: Hosts) -> None:
    plant, office = hosts.new("a"), hosts.new("b")
    hosts.serve(plant, "first")
    client = hosts.client(office)
    hosts.join(plant, "192.0.2.1/24", office, "192.0.2.2/24")
    assert client.ask() == "first"
