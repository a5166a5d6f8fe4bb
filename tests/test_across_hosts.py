"""The example across hosts, in two network namespaces instead of two hosts.

Between them is a link with delay and loss: `tc netem` where the kernel has it, and otherwise the
program `lossy_link.py`.
"""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from berrymq_rpc import rpc

from .line_reader import END, LineReader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

# Addresses for documentation (RFC 5737), so that no real network is hidden in the namespaces.
PLANT, OFFICE = "192.0.2.1", "192.0.2.2"
ENDPOINT, OWN = f"tcp://{PLANT}:5555", f"tcp://{OFFICE}:5556"

#: Seconds that a packet takes one way, and the part of packets that are lost.
DELAY, LOSS = 0.02, 0.02

PATIENCE = 40.0

_numbers = itertools.count()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


def inside(namespace: str, *arguments: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, sys.executable, *arguments]


class Hosts:
    """Two namespaces, and the link between them."""

    def __init__(self, plant: str, office: str, tell: Callable[[str], None]) -> None:
        self.plant = plant
        self.office = office
        #: ``tell("cut")`` loses every packet from now on, ``tell("mend")`` carries them again.
        self.tell = tell


def netem(namespace: str, verb: str, *arguments: str) -> None:
    command = ["ip", "netns", "exec", namespace, "tc", "qdisc", verb, "dev", namespace, "root"]
    subprocess.run(
        [*command, "netem", *arguments], check=True, capture_output=True, text=True, timeout=30
    )


def link_by_netem(one: str, other: str) -> Callable[[str], None] | None:
    """A pair of interfaces with `tc netem`, or ``None`` where the kernel has none."""
    usual = ("delay", f"{DELAY * 1000:g}ms", "loss", f"{LOSS:.0%}")
    ip("link", "add", one, "netns", one, "type", "veth", "peer", other, "netns", other)
    try:
        for name in (one, other):
            netem(name, "add", *usual)
    except (OSError, subprocess.CalledProcessError):
        ip("-n", one, "link", "delete", one)
        return None

    def tell(line: str) -> None:
        for name in (one, other):
            netem(name, "change", *(("loss", "100%") if line == "cut" else usual))

    return tell


def link_by_program(stack: ExitStack, one: str, other: str) -> Callable[[str], None]:
    program = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "tests/lossy_link.py", one, other, str(DELAY), str(LOSS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    )
    # Its end is read from the pipe, which is closed before it is waited for.
    stack.callback(program.kill)
    assert program.stdin is not None
    assert program.stdout is not None
    if program.stdout.readline() != "ready\n":
        pytest.skip("no TUN interfaces can be made here")
    for name in (one, other):
        ip("link", "set", name, "netns", name)
    stdin, stdout = program.stdin, program.stdout

    def tell(line: str) -> None:
        stdin.write(f"{line}\n")
        stdin.flush()
        assert stdout.readline() == f"{line}\n"

    return tell


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("needs the command `ip` of iproute2")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    # At most 15 characters, as they also name the interfaces.
    names = [f"bq{os.getpid()}-{next(_numbers)}{side}" for side in "ab"]
    with ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(
                    subprocess.run, ["ip", "netns", "delete", name], capture_output=True, timeout=30
                )
            tell = link_by_netem(*names) or link_by_program(stack, *names)
            for name, address in zip(names, (PLANT, OFFICE), strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", name)
                ip("-n", name, "link", "set", name, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield Hosts(*names, tell)


class Keys:
    """The folders of the two hosts, as the steps of docs/howto/deploy.rst make them."""

    def __init__(self, folder: Path) -> None:
        self.plant, self.office = folder / "plant", folder / "office"
        self.authorized = self.plant / "authorized"
        for name, place in (("plant", self.plant), ("office", self.office)):
            self.run("keygen", name, "--folder", str(place))
        self.run("authorize", str(self.authorized), str(self.office / "office.key"))

    @staticmethod
    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "berrymq_rpc", *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=30, env=ENVIRONMENT)

    def of_plant(self) -> list[str]:
        return [ENDPOINT, str(self.authorized), str(self.plant / "plant.key_secret")]

    def of_office(self, keys: str = "office") -> list[str]:
        secret = self.office / f"{keys}.key_secret"
        return [ENDPOINT, str(self.plant / "plant.key"), str(secret)]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


class Program:
    """An example that runs; its lines are read as they come."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        self._reader = LineReader(self.process.stdout, PATIENCE)
        self.line = self._reader.line

    def until(self, wanted: str) -> list[str]:
        """The lines up to one."""
        found = []
        while not found or found[-1] != wanted:
            found.append(self.line())
            assert found[-1] != END, (found, self.errors())
        return found

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> tuple[int, str]:
        """Ask it to end; its status and what it wrote to stderr."""
        # `ip netns exec` has become the program, which receives the signal.
        self.process.terminate()
        return self.process.wait(PATIENCE), self.errors()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def running(namespace: str, *arguments: str) -> Iterator[Program]:
    program = Program(inside(namespace, *arguments))
    try:
        yield program
    finally:
        program.close()


def run(namespace: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        inside(namespace, *arguments),
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
        env=ENVIRONMENT,
    )


FOLDER = "examples/across_hosts"


def test_calls_streams_messages_and_jobs(hosts: Hosts, keys: Keys) -> None:
    with running(hosts.plant, f"{FOLDER}/plant.py", *keys.of_plant()) as plant:
        assert plant.line() == f"the plant is at {ENDPOINT}"
        visitor = run(hosts.office, f"{FOLDER}/office.py", "visit", *keys.of_office(), OWN)
        assert (visitor.stderr, visitor.stdout.splitlines()) == (
            "",
            [
                "heated to 220.0",
                "readings: [220.0, 221.0, 222.0, 223.0, 224.0]",
                "accepted: rolls 30",
                "baked: 0",
                "baked: 1",
                "baked: 2",
            ],
        )
        assert plant.line() == "ordered: rolls 30"
        # It may say that a message was dropped: the office had it, but closed the connection before
        # its acknowledgement came.
        assert plant.end()[0] == 0


def heat(hosts: Hosts, keys: Keys, degrees: list[int]) -> None:
    """Have the plant send messages, called from its own host, which no cut reaches."""
    for number in degrees:
        done = run(
            hosts.plant,
            "-m",
            "berrymq_rpc",
            *("call", ENDPOINT, "heat", str(number), "--timeout", "20"),
            *("--key", str(keys.office / "office.key_secret")),
            *("--server-key", str(keys.plant / "plant.key")),
        )
        assert (done.returncode, done.stdout.strip()) == (0, f"{number}"), done.stderr


def test_a_cut_link_loses_nothing(hosts: Hosts, keys: Keys) -> None:
    with (
        running(hosts.plant, f"{FOLDER}/plant.py", *keys.of_plant()) as plant,
        running(hosts.office, f"{FOLDER}/office.py", "watch", *keys.of_office()) as office,
    ):
        plant.line()
        assert office.line() == "watching"
        heat(hosts, keys, [1])
        assert office.line() == "set to 1"
        hosts.tell("cut")
        heat(hosts, keys, [2, 3])
        # Noticed without anything being sent.
        assert office.line() == "network lost"
        hosts.tell("mend")
        heat(hosts, keys, [4])
        lines = office.until("set to 4")
        # Each of them, once and in order.
        assert [line for line in lines if line.startswith("set to")] == [
            "set to 2",
            "set to 3",
            "set to 4",
        ]
        assert "network restored" in lines or office.line() == "network restored"
        assert office.end()[0] == 0
        assert plant.end()[0] == 0


def test_who_is_refused_is_told(hosts: Hosts, keys: Keys) -> None:
    keys.run("keygen", "stranger", "--folder", str(keys.office))
    with running(hosts.plant, f"{FOLDER}/plant.py", *keys.of_plant()) as plant:
        plant.line()
        visit = (f"{FOLDER}/office.py", "visit", *keys.of_office("stranger"), OWN)
        refused = run(hosts.office, *visit)
        assert refused.returncode == 1
        assert "has not authorized this client's key" in refused.stderr
        assert "Traceback" not in refused.stderr
        # Without keys: the same port, and the command's own status for it.
        plain = run(hosts.office, "-m", "berrymq_rpc", "call", ENDPOINT, "temperature")
        assert plain.returncode == 5
        # A user may call what is not for others alone.
        keys.run("authorize", str(keys.authorized), str(keys.office / "stranger.key"))
        as_stranger = (
            *("--key", str(keys.office / "stranger.key_secret")),
            *("--server-key", str(keys.plant / "plant.key")),
        )
        call = ("-m", "berrymq_rpc", "call", ENDPOINT)
        assert run(hosts.office, *call, "temperature", *as_stranger).stdout.strip() == "200.0"
        assert run(hosts.office, *call, "heat", "1", *as_stranger).returncode == 5
        keys.run("revoke", str(keys.authorized), "stranger")
        assert run(hosts.office, *call, "temperature", *as_stranger).returncode == 5


def test_a_key_that_is_given_by_the_environment(hosts: Hosts, keys: Keys) -> None:
    """As in a container, where there is no file."""
    pair = rpc.KeyPair.load(keys.plant / "plant.key_secret")
    arguments = keys.of_plant()[:2]
    command = inside(hosts.plant, f"{FOLDER}/plant.py", *arguments)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT | {"PLANT_KEY": pair.secret},
    ) as plant:
        try:
            assert plant.stdout is not None
            assert plant.stdout.readline() == f"the plant is at {ENDPOINT}\n"
            found = run(
                hosts.office,
                *("-m", "berrymq_rpc", "call", ENDPOINT, "temperature"),
                *("--key", str(keys.office / "office.key_secret"), "--server-key", pair.public),
            )
            assert (found.returncode, found.stdout) == (0, "200.0\n"), found.stderr
        finally:
            plant.kill()


def test_no_plant(hosts: Hosts, keys: Keys) -> None:
    visitor = run(hosts.office, f"{FOLDER}/office.py", "visit", *keys.of_office(), OWN)
    assert visitor.returncode == 1
    assert visitor.stderr.startswith("the plant cannot be reached: ")
    assert "Traceback" not in visitor.stderr


def test_the_firewall_of_the_page(hosts: Hosts, keys: Keys) -> None:
    """docs/howto/deploy/plant.nft lets the office through, and no other host."""
    if shutil.which("nft") is None:
        pytest.skip("needs the command `nft` of nftables")
    rules = str(ROOT / "docs" / "howto" / "deploy" / "plant.nft")
    done = subprocess.run(
        ["ip", "netns", "exec", hosts.plant, "nft", "-f", rules],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    other = "192.0.2.3"
    ip("-n", hosts.office, "address", "add", f"{other}/24", "dev", hosts.office)
    connect = (
        "import socket, sys; host, _, port = sys.argv[2].removeprefix('tcp://').partition(':');"
        "socket.create_connection((host, int(port)), 3, (sys.argv[1], 0)).close()"
    )
    with running(hosts.plant, f"{FOLDER}/plant.py", *keys.of_plant()) as plant:
        plant.line()
        assert run(hosts.office, "-c", connect, OFFICE, ENDPOINT).returncode == 0
        stopped = run(hosts.office, "-c", connect, other, ENDPOINT)
        assert "TimeoutError: timed out" in stopped.stderr
        # From its own host, as the tests above call it.
        heat(hosts, keys, [1])
