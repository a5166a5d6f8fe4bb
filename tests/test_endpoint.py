from typing import Any

import pytest

from berrymq_rpc.endpoint import Endpoint, bind_endpoints, endpoint_of, split_user


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


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("tcp://127.0.0.1:5", Endpoint("tcp", "127.0.0.1", 5)),
        ("tcp://*:*", Endpoint("tcp", "*", None)),
        ("tcp://eth0:5", Endpoint("tcp", "eth0", 5)),
        ("tcp://[::1]:5", Endpoint("tcp", "::1", 5)),
        ("tcp://[fe80::1%eth0]:5", Endpoint("tcp", "fe80::1%eth0", 5)),
        ("mem://a@b", Endpoint("mem", "", None, "a@b")),
        ("ipc:///run/a b", Endpoint("ipc", "", None, "/run/a b")),
        ("http://one.host:8080/JSON?a=b@c", Endpoint("http", "one.host", 8080, "/JSON?a=b@c")),
        ("http://one.host", Endpoint("http", "one.host", 80)),
        ("https://one.host/x", Endpoint("https", "one.host", 443, "/x")),
        ("http://[::1]", Endpoint("http", "::1", 80)),
        ("http://[::1]/x", Endpoint("http", "::1", 80, "/x")),
    ],
)
def test_parse(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "tcp://one.host",
        "http://user:password@one.host:80",
        "http://user@one.host",
        "http://one.host:80@another.host",
        "tcp://user@one.host:5",
        "http://one.host\\@another.host:80",
        "http://one.host#another.host:80",
        "http://one.host?x",
        "http://one host:80",
        "http://one.host:80/a b",
        "http://one.host:80/\r\n",
        "http://one.host\x00:80",
        "http://[one.host]:80",
        "http://[127.0.0.1]:80",
        "http://[::1:80",
        "http://::1]:80",
        "http://one.host:80:80",
        "http://:80",
        "http:///x",
        "http://one.host:",
        "http://one.host:65536",
    ],
)
def test_what_cannot_be_parsed(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|not an endpoint|no address") as info:
        Endpoint.parse(text)
    assert "password" not in str(info.value)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://one.host:80/a@b", ("", "http://one.host:80/a@b")),
        ("http://user:pass@one.host/a", ("user:pass", "http://one.host/a")),
        ("http://a@b@one.host", ("a@b", "http://one.host")),
    ],
)
def test_user_part(url: str, parts: tuple[str, str]) -> None:
    assert split_user(url) == parts
