"""``berrymq find``, and addresses that are found by a name."""

import json
import secrets
from typing import Any

import pytest

from tests.multicast import addresses_with_multicast


@pytest.fixture(scope="module")
def address() -> str:
    found = addresses_with_multicast()
    if not found:
        pytest.skip("this host has no network with multicast, or zeroconf is not installed")
    return found[0]


def found_as(berrymq, name: str) -> dict[str, Any]:
    """What is announced by a name, once it has been heard; pytest-timeout is the bound."""
    while True:
        result = berrymq("find", "--json", "--wait", "0.8")
        assert (result.returncode, result.stderr) == (0, "")
        for each in json.loads(result.stdout):
            if each["name"] == name:
                return each


def test_find(berrymq, start, address) -> None:
    name = f"test-{secrets.token_hex(4)}"
    options = ("--bind", f"tcp://{address}:*", "--announce", name, "--insecure", "--show")
    with start("serve", *options) as node:
        endpoint = node.line().rpartition(" ")[2]
        assert f"send mdns://{name} " in node.line()
        own = found_as(berrymq, name)
        assert (own["kind"], own["endpoints"], own["keys"]) == ("node", [endpoint], False)
        assert own["version"]
        while name not in (shown := berrymq("find", "--wait", "0.8").stdout):
            continue
        assert f"mdns://{name}  node  no keys  {own['version']}\n    {endpoint}\n" in shown
        assert berrymq("send", f"mdns://{name}", "oven:hot", "220").returncode == 0
        while "oven:hot" not in (line := node.line()):
            continue
        assert "220" in line


@pytest.mark.slow
def test_a_doctor_finds_it(berrymq, start, address) -> None:
    name = f"test-{secrets.token_hex(4)}"
    options = ("--bind", f"tcp://{address}:*", "--announce", name, "--insecure")
    with start("serve", *options) as node:
        endpoint = node.line().rpartition(" ")[2]
        found_as(berrymq, name)
        result = berrymq("doctor", f"mdns://{name}", "--timeout", "4", "--json")
        checks = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, result.stdout
    assert checks[0]["check"] == "service"
    assert checks[0]["details"] == {"kind": "node", "endpoints": [endpoint]}
    assert "latency" in [check["check"] for check in checks]


def test_a_doctor_finds_nothing(berrymq, address) -> None:
    result = berrymq("doctor", "mdns://nobody-has-it", "--timeout", "0.3")
    assert result.returncode == 1
    assert "nothing is announced as 'nobody-has-it'" in result.stdout


def test_nothing_is_found(berrymq, address) -> None:
    result = berrymq("send", "--wait", "0.2", "mdns://nobody-has-it", "a:b")
    assert (result.returncode, result.stdout) == (3, "")
    assert "announced on the local network" in result.stderr


@pytest.mark.parametrize("endpoint", ["mdns://a.b", "mdns://a:5555", "mdns://a/b", "mdns://"])
def test_what_is_no_name(berrymq, endpoint) -> None:
    result = berrymq("send", endpoint, "a:b")
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--announce", "plant"), "give --bind"),
        (("--announce", "plant", "--bind", "tcp://127.0.0.1:*"), "cannot reach"),
        (("--announce", "a b", "--bind", "tcp://0.0.0.0:*", "--insecure"), "1 to 40"),
        (("--bind", "mdns://plant"), "where clients connect"),
    ],
)
def test_what_cannot_be_announced(berrymq, options, text) -> None:
    result = berrymq("serve", *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert text in " ".join(result.stderr.split())
