"""What is announced, read from values as a network gives them."""

import ipaddress
from typing import Any

import pytest

from berrymq_rpc.rpc.transport.mdns.interfaces import (
    OwnAddress,
    covered_by,
    multicast_on,
    nearest_first,
)
from berrymq_rpc.rpc.transport.mdns.service import (
    MAX_ADDRESSES,
    TYPE,
    Announced,
    instance_of,
    service_of,
)

NAME = f"calc-0123456789ab.{TYPE}"
SAID: dict[bytes, bytes | None] = {b"kind": b"server", b"keys": b"1", b"version": b"0.1.0"}


def test_a_service() -> None:
    service = service_of(NAME, 5555, ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"], SAID)
    assert service is not None
    assert (service.name, service.id, service.kind) == ("calc", "0123456789ab", "server")
    assert service.has_keys
    assert service.version == "0.1.0"
    assert service.endpoints == (
        "tcp://192.0.2.1:5555",
        "tcp://[2001:db8::1]:5555",
        "tcp://[fe80::1%eth0]:5555",
    )


def test_names_of_dns_have_no_case() -> None:
    assert instance_of(f"My-Calc_2-0123456789AB.{TYPE.upper()}") == ("my-calc_2", "0123456789ab")


@pytest.mark.parametrize(
    "name",
    [
        "",
        TYPE,
        f"calc.{TYPE}",
        f"calc-0123.{TYPE}",
        f"-0123456789ab.{TYPE}",
        f"{'a' * 41}-0123456789ab.{TYPE}",
        f"a b-0123456789ab.{TYPE}",
        f"a.b-0123456789ab.{TYPE}",
        f"\x1b[31m-0123456789ab.{TYPE}",
        f"a\n-0123456789ab.{TYPE}",
        f"caf\xe9-0123456789ab.{TYPE}",
        f"../x-0123456789ab.{TYPE}",
        "calc-0123456789ab._http._tcp.local.",
        f"calc-0123456789ab.{TYPE}\n",
    ],
)
def test_what_is_no_name(name: str) -> None:
    assert instance_of(name) is None
    assert service_of(name, 5555, ["192.0.2.1"], SAID) is None


@pytest.mark.parametrize(
    ("port", "addresses", "properties"),
    [
        (None, ["192.0.2.1"], SAID),
        (0, ["192.0.2.1"], SAID),
        (65536, ["192.0.2.1"], SAID),
        (5555, [], SAID),
        # What listens at loopback trusts that the network cannot reach it.
        (5555, ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.251"], SAID),
        (5555, ["host.example", "192.0.2.1;tcp://x", "[::1", "\x00"], SAID),
        (5555, ["192.0.2.1"], {}),
        (5555, ["192.0.2.1"], {b"kind": None}),
        (5555, ["192.0.2.1"], {b"kind": b"\xff" * 255}),
        (5555, ["192.0.2.1"], {b"kind": b"printer"}),
    ],
)
def test_what_is_no_service(port: Any, addresses: list[str], properties: Any) -> None:
    assert service_of(NAME, port, addresses, properties) is None


def test_what_is_left_of_hostile_values() -> None:
    many = [f"192.0.2.{number}" for number in range(250)]
    service = service_of(NAME, 1, many, SAID | {b"version": b"\x1b]0;x\x07", b"keys": b"yes"})
    assert service is not None
    assert len(service.endpoints) == MAX_ADDRESSES
    assert (service.version, service.has_keys) == ("", False)


def test_ids_differ() -> None:
    assert Announced("calc").id != Announced("calc").id


def own(text: str, adapter: int = 1) -> OwnAddress:
    return OwnAddress(ipaddress.ip_interface(text), adapter)


OWN = [own("192.0.2.5/24"), own("198.51.100.5/24", 2), own("2001:db8::5/64"), own("fe80::5/64")]


@pytest.mark.parametrize(
    ("endpoint", "covered"),
    [
        ("tcp://0.0.0.0:1", ["192.0.2.5", "198.51.100.5"]),
        ("tcp://[::]:1", ["192.0.2.5", "198.51.100.5", "2001:db8::5"]),
        ("tcp://198.51.100.5:1", ["198.51.100.5"]),
        ("tcp://[2001:db8::5]:1", ["2001:db8::5"]),
        ("tcp://127.0.0.1:1", []),
        ("tcp://[::1]:1", []),
        # It was lost meanwhile.
        ("tcp://203.0.113.1:1", []),
    ],
)
def test_what_a_bound_address_covers(endpoint: str, covered: list[str]) -> None:
    assert [address.text for address in covered_by(endpoint, OWN)] == covered


def test_an_address_of_one_link_where_there_is_no_other() -> None:
    assert covered_by("tcp://[::]:1", OWN[3:]) == OWN[3:]


def test_multicast_once_for_each_network() -> None:
    assert multicast_on(OWN) == ["192.0.2.5", "198.51.100.5", 1]


def test_the_own_networks_come_first() -> None:
    far, near, nearer6 = "tcp://203.0.113.1:1", "tcp://198.51.100.7:1", "tcp://[2001:db8::7]:1"
    assert nearest_first([far, near, nearer6], OWN) == [near, nearer6, far]
