from typing import Any

import pytest

from berrymq_rpc.endpoint import bind_endpoints, endpoint_of


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
        ("mem://name", "mem://name"),
        ("ipc:///run/99999999", "ipc:///run/99999999"),
        (("127.0.0.1", 5555), "tcp://127.0.0.1:5555"),
        (("example.org", 1), "tcp://example.org:1"),
        ("localhost:5555", "tcp://localhost:5555"),
        ("127.0.0.1:*", "tcp://127.0.0.1:*"),
        ("[::1]:5555", "tcp://[::1]:5555"),
        # Neither has a host and a port: rpc says what it wants.
        ("localhost", "localhost"),
        (":5555", ":5555"),
        ("localhost:http", "localhost:http"),
        (("::1", 5555), "tcp://[::1]:5555"),
        ("tcp://[::1]:5555", "tcp://[::1]:5555"),
    ],
)
def test_endpoint(address: Any, endpoint: str) -> None:
    assert endpoint_of(address) == endpoint


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (5555, TypeError),
        (None, TypeError),
        (("127.0.0.1", "5555"), TypeError),
        (("127.0.0.1", True), TypeError),
        (["127.0.0.1", 5555], TypeError),
        (("127.0.0.1", 65_536), ValueError),
        (("127.0.0.1", -1), ValueError),
        ("tcp://127.0.0.1:65536", ValueError),
        ("127.0.0.1:65536", ValueError),
        ("tcp://127.0.0.1:" + "9" * 10_000, ValueError),
    ],
)
def test_no_address(address: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        endpoint_of(address)


@pytest.mark.parametrize(
    ("binding", "endpoints"),
    [
        ("tcp://127.0.0.1:*", ("tcp://127.0.0.1:*",)),
        ("tcp://127.0.0.1:0", ("tcp://127.0.0.1:*",)),
        ("tcp://127.0.0.1:10", ("tcp://127.0.0.1:10",)),
        ("localhost:0", ("tcp://localhost:*",)),
        ("mem://name:0", ("mem://name:0",)),
        (("127.0.0.1", 0), ("tcp://127.0.0.1:*",)),
        (("tcp://127.0.0.1:1", "mem://x"), ("tcp://127.0.0.1:1", "mem://x")),
        ([("127.0.0.1", 0), "mem://x"], ("tcp://127.0.0.1:*", "mem://x")),
        ([], ()),
    ],
)
def test_bind(binding: Any, endpoints: tuple[str, ...]) -> None:
    assert bind_endpoints(binding) == endpoints


@pytest.mark.parametrize("binding", [5555, ["mem://x", 5]])
def test_no_binding(binding: Any) -> None:
    with pytest.raises(TypeError):
        bind_endpoints(binding)
