"""What is wrong with the options of a cluster is said with what to give instead."""

import re
from typing import Any

import pytest

from berrymq_rpc import Bus, NotFoundError, rpc
from berrymq_rpc.bus.durable import not_kept
from berrymq_rpc.identifier import Identifier


@pytest.mark.parametrize(
    ("servers", "arguments", "text"),
    [
        ((), {}, "no NATS server is given: write nats://host:4222"),
        (("nats://a", "nats+tls://b"), {}, "are all nats:// or all nats+tls://, not some of each"),
        (("nats://a/x", "nats://b/y"), {}, "not x and y: one client for each"),
        ("nats://u:p@a", {"token": "t"}, "several users or tokens: give one of them"),
        ("nats://a", {"user": "u"}, "user= needs password=, and password= needs user="),
        ("nats://a", {"token": "t", "nkey": "file"}, "exclude each other: give one of them"),
        ("tcp://a:4222", {}, "is not an address of NATS: write nats://host:4222"),
    ],
)
def test_options(servers: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        rpc.Nats(servers, **arguments)


@pytest.mark.parametrize("name", ["user", "password", "token"])
def test_what_is_no_text(name: str) -> None:
    """The value is not shown: it may be a secret."""
    with pytest.raises(TypeError, match=f"^{name}= is text that is not empty; leave it away"):
        rpc.Nats("nats://a", **{name: b"secret"})  # type: ignore[arg-type]


async def test_what_no_durable_queue_keeps() -> None:
    with pytest.raises(NotFoundError, match=r"keeps 'job:new': the bus has no cluster, which Node"):
        await Bus().publish("job:new", durable=True)
    text = str(not_kept(Identifier("job:new")))
    assert text.endswith("open one first, with Queue('job:new', durable=NAME)")
