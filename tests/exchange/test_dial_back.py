from typing import Any

import pytest

from berrymq_rpc.exchange.dial_back import Allowed, allowed_endpoint


@pytest.mark.parametrize(
    ("addr", "caller", "endpoint"),
    [
        ("tcp://127.0.0.1:5", "127.0.0.1", "tcp://127.0.0.1:5"),
        (("127.0.0.1", 5), "127.0.0.1", "tcp://127.0.0.1:5"),
        (["127.0.0.1", 5], "127.0.0.1", "tcp://127.0.0.1:5"),
        ("tcp://192.0.2.7:5", "192.0.2.7", "tcp://192.0.2.7:5"),
        ("tcp://192.0.2.7:5", "::ffff:192.0.2.7", "tcp://192.0.2.7:5"),
        (("::1", 5), "::1", "tcp://[::1]:5"),
        (("fe80::1", 5), "fe80::1%eth0", "tcp://[fe80::1]:5"),
        # By name, of which the address is taken.
        ("tcp://localhost:5", "127.0.0.1", "tcp://127.0.0.1:5"),
        # A peer that can only be of this host.
        ("tcp://127.0.0.1:5", "", "tcp://127.0.0.1:5"),
        ("mem://x", "", "mem://x"),
        ("ipc:///run/x", "", "ipc:///run/x"),
        ("ipc:///run/x", "127.0.0.1", "ipc:///run/x"),
    ],
)
async def test_the_caller_s_own_address(addr: Any, caller: str, endpoint: str) -> None:
    assert await allowed_endpoint(addr, caller, False) == endpoint


@pytest.mark.parametrize(
    ("addr", "caller"),
    [
        ("tcp://192.0.2.8:5", "192.0.2.7"),
        ("tcp://127.0.0.1:5", "192.0.2.7"),
        ("tcp://192.0.2.7:5", ""),
        ("tcp://192.0.2.7:5", None),
        ("tcp://192.0.2.7:5", "no address"),
        ("mem://x", "192.0.2.7"),
        ("ipc:///run/x", None),
        ("ipc:///run/x", "no address"),
        ("tcp://localhost:5", "192.0.2.7"),
        ("tcp://*:5", "192.0.2.7"),
        ("http://192.0.2.8:5", "192.0.2.7"),
        ("nats://192.0.2.7:5", "192.0.2.7"),
        ("text", "192.0.2.7"),
        ("", "192.0.2.7"),
        ("tcp://no such host:5", "192.0.2.7"),
        ("tcp://" + "x" * 100 + ":5", "192.0.2.7"),
    ],
)
@pytest.mark.parametrize("allowed", [False, {"198.51.100.1"}])
async def test_no_one_else_s(addr: Any, caller: str | None, allowed: Allowed) -> None:
    with pytest.raises(ValueError, match=r"callback_allowed|is not a host|not an endpoint"):
        await allowed_endpoint(addr, caller, allowed)


@pytest.mark.parametrize("addr", [5, ("x",), ["x", "5"], {}])
async def test_what_is_no_address(addr: Any) -> None:
    with pytest.raises(TypeError):
        await allowed_endpoint(addr, "192.0.2.7", True)


@pytest.mark.parametrize("allowed", [True, {"192.0.2.8"}, ["192.0.2.8"]])
async def test_what_the_node_allows(allowed: Allowed) -> None:
    endpoint = "tcp://192.0.2.8:5"
    assert await allowed_endpoint(endpoint, "192.0.2.7", allowed) == endpoint


async def test_all_means_all() -> None:
    assert await allowed_endpoint("mem://x", None, True) == "mem://x"
    with pytest.raises(ValueError, match="not an endpoint"):
        await allowed_endpoint("nats://x:5", None, True)
