"""Addresses of NATS, and the settings that stand for them."""

import ssl
from datetime import timedelta
from typing import Any

import pytest

from berrymq_rpc.nats.address import NatsAddress, Server
from berrymq_rpc.nats.options import Durable, Nats, is_nats, nats_of


@pytest.mark.parametrize(
    ("text", "servers", "service", "shown"),
    [
        ("nats://host", [("host", 4222)], None, "nats://host:4222"),
        ("nats://host:1/calc", [("host", 1)], "calc", "nats://host:1/calc"),
        ("nats+tls://a,b:7", [("a", 4222), ("b", 7)], None, "nats+tls://a:4222,b:7"),
        ("nats://[::1],[::2]:5/s", [("::1", 4222), ("::2", 5)], "s", "nats://[::1]:4222,[::2]:5/s"),
        ("nats://u:p@a,b/s", [("a", 4222), ("b", 4222)], "s", "nats://a:4222,b:4222/s"),
        ("nats://token@a", [("a", 4222)], None, "nats://a:4222"),
    ],
)
def test_addresses(
    text: str, servers: list[tuple[str, int]], service: str | None, shown: str
) -> None:
    address = NatsAddress.parse(text)
    assert address.servers == tuple(Server(host, port) for host, port in servers)
    assert address.service == service
    assert str(address) == shown
    assert NatsAddress.parse(shown).servers == address.servers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nats",
        "nats:/host",
        "tcp://host:1",
        "nats://",
        "nats:///calc",
        "nats://host/",
        "nats://host/a.b",
        "nats://host/a/b",
        "nats://host:0",
        "nats://host:*",
        "nats://host:65536",
        "nats://host,",
        "nats://,host",
        "nats://host:x",
        "nats://ho st",
        "nats://@host",
        "nats://:secret@host",
        "nats://host\r\n",
        "nats://::1",
        "nats://host?x",
        "nats://a:p@host,b:q@host2",
    ],
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"address of NATS|a service"):
        NatsAddress.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "nats://user:secret@ho st",
        "nats://secret@host:x",
        "nats://secret@host/",
        "nats://user:sec/ret@host",
        "tcp://user:secret@host:1",
        "nats://a,user:secret@b:x",
        "nats://user:p@ss/secret@host/calc",
        "nats://user:p@secret@host/calc",
        "nats://tok/secret@host/calc",
        "nats://user:p@sec/ret/host",
        "nats//user:secret@host",
        "nats:/user:secret@host/calc",
    ],
)
def test_no_error_shows_a_secret(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - no text of theirs may match
        Nats(text)
    assert "secret" not in str(caught.value)
    assert "sec/ret" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        Nats("nats://alice:secret@host/calc"),
        Nats("nats://secret@host"),
        Nats("nats://host", user="alice", password="secret"),
        Nats("nats://host", token="secret"),
        Nats(["nats://alice:secret@host", "nats://alice:secret@host2"]),
        Nats(["nats://alice:secret@host", "nats://host2"], user="alice", password="secret"),
    ],
)
def test_settings_show_no_secret(settings: Nats) -> None:
    assert settings.has_secret
    assert settings.password == "secret" or settings.token == "secret"
    assert "secret" not in f"{settings} {settings!r} {settings.address!r} {settings.servers}"


@pytest.mark.parametrize("servers", [7, None, b"nats://secret@host", ["nats://host", 7]])
def test_servers_that_are_no_text(servers: Any) -> None:
    with pytest.raises(TypeError, match="address of NATS is text") as raised:
        Nats(servers)
    assert "secret" not in str(raised.value)


def test_settings() -> None:
    settings = Nats(["nats://a,b", "nats://b,c:7"], "calc", user="u", password="p")
    assert [str(server) for server in settings.address.servers] == ["a:4222", "b:4222", "c:7"]
    assert settings.address.service == "calc"
    assert str(settings) == "nats://a:4222,b:4222,c:7/calc"
    other = settings.for_service("other")
    assert str(other) == "nats://a:4222,b:4222,c:7/other"
    assert (other.user, other.password) == ("u", "p")
    assert Nats("nats://a%40b:p%2Fq@host").password == "p/q"
    assert nats_of("nats://a/calc") == Nats("nats://a", "calc")
    assert nats_of(settings) is settings
    assert Nats("nats://a", tls=ssl.create_default_context()).address.tls
    assert not Nats("nats://127.0.0.1", nkey="file").has_secret
    assert [is_nats(x) for x in (settings, "nats://x", "nats+tls://", "tcp://x:1", 5)] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"servers": []}, ValueError),
        ({"servers": 5}, TypeError),
        ({"servers": "host"}, ValueError),
        ({"servers": ["nats://a", "nats+tls://b"]}, ValueError),
        ({"servers": ["nats://a/one", "nats://b/other"]}, ValueError),
        ({"servers": "nats://a/one", "service": "other"}, ValueError),
        ({"service": "a.b"}, ValueError),
        ({"user": "alice"}, ValueError),
        ({"password": "secret"}, ValueError),
        ({"user": "alice", "password": b"secret"}, TypeError),
        ({"token": ""}, TypeError),
        ({"token": "t", "user": "a", "password": "p"}, ValueError),
        ({"servers": ["nats://a:p@one", "nats://b:p@two"]}, ValueError),
        ({"servers": "nats://a:p@one", "user": "b", "password": "p"}, ValueError),
        ({"servers": "nats://token@one", "user": "b", "password": "p"}, ValueError),
        ({"token": "t", "nkey": "file"}, ValueError),
        ({"nkey": 5}, TypeError),
        ({"nkey": "file", "credentials": "file"}, ValueError),
        ({"tls": True}, TypeError),
        ({"inbox_prefix": "a.*"}, ValueError),
    ],
)
def test_no_settings(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Nats(**{"servers": "nats://host", **arguments})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"keep": 5}, TypeError),
        ({"keep": timedelta(0)}, ValueError),
        ({"replicas": 2}, ValueError),
        ({"replicas": True}, ValueError),
        ({"max_bytes": 0}, ValueError),
        ({"max_bytes": 1.5}, TypeError),
    ],
)
def test_no_durable(arguments: dict[str, Any], error: type[Exception]) -> None:
    assert Durable(timedelta(days=7), replicas=3).max_bytes == 1 << 30
    with pytest.raises(error):
        Durable(**arguments)
