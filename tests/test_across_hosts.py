"""The example across hosts, in two network namespaces instead of two hosts."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

# Addresses for documentation (RFC 5737), so that no real network is hidden in the namespaces.
SERVER, VISITOR = "192.0.2.1", "192.0.2.2"
PORT = "5555"

_numbers = itertools.count()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


def inside(namespace: str, *arguments: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, sys.executable, *arguments]


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces with a network link between them."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command `ip` of iproute2")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    # At most 15 characters, as they also name the interfaces.
    names = [f"bq{os.getpid()}-{next(_numbers)}{side}" for side in "ab"]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            one, other = names
            ip("link", "add", one, "netns", one, "type", "veth", "peer", other, "netns", other)
            for name, address in zip(names, (SERVER, VISITOR), strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", name)
                ip("-n", name, "link", "set", name, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield one, other
    finally:
        # The link goes with them; it does not matter if one was never made.
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=30)


def test_a_message_and_a_call_reach_another_host(hosts: tuple[str, str]) -> None:
    server_host, visitor_host = hosts
    program = "examples/across_hosts.py"
    with subprocess.Popen(
        inside(server_host, program, "serve", SERVER, PORT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"serving at tcp://{SERVER}:{PORT}\n"
            visitor = subprocess.run(
                inside(visitor_host, program, "visit", SERVER, PORT),
                capture_output=True,
                text=True,
                timeout=40,
                cwd=ROOT,
                env=ENVIRONMENT,
            )
            assert (visitor.stdout, visitor.stderr) == ("in stock: 5\naccepted: pears 5\n", "")
            # `ip netns exec` has become the program, which receives the signal.
            server.terminate()
            assert server.communicate(timeout=30) == ("ordered: pears 5\n", "")
            assert server.returncode == 0
        finally:
            server.kill()


def test_no_server(hosts: tuple[str, str]) -> None:
    _, visitor_host = hosts
    visitor = subprocess.run(
        inside(visitor_host, "examples/across_hosts.py", "visit", SERVER, PORT),
        capture_output=True,
        text=True,
        timeout=40,
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    assert visitor.returncode == 1
    assert visitor.stderr.startswith(f"no server answers at {SERVER}, port {PORT}: ")
    assert "Traceback" not in visitor.stderr
