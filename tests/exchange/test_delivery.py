from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange.delivery import deliver


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1, 2), {"a": 3}, ((1, 2), {"a": 3})),
        ([1], {}, ((1,), {})),
        (None, None, ((), {})),
    ],
)
def test_deliver(args: Any, kwargs: Any, expected: Any) -> None:
    bus = Bus()
    heard: list[Message] = []
    bus.regist_function("a:b", heard.append)
    deliver(bus.gateway, "a:b", args, kwargs, "there")
    (message,) = heard
    assert (message.args, message.kwargs) == expected
    assert message.origin == "there"


@pytest.mark.parametrize(
    ("identifier", "args", "kwargs", "error"),
    [
        ("a:b:c", (), {}, ValueError),
        ("_a:b", (), {}, ValueError),
        ("", (), {}, ValueError),
        (5, (), {}, TypeError),
        (None, (), {}, TypeError),
        (["a"], (), {}, TypeError),
        ("a:b", "text", {}, TypeError),
        ("a:b", {"a": 1}, {}, TypeError),
        ("a:b", 5, {}, TypeError),
        ("a:b", (), ["a"], TypeError),
        ("a:b", (), {5: 1}, TypeError),
        ("a:b", (), {b"a": 1}, TypeError),
    ],
)
def test_refuses(identifier: Any, args: Any, kwargs: Any, error: type[Exception]) -> None:
    bus = Bus()
    heard: list[Message] = []
    bus.regist_function("*@*:*", heard.append)
    with pytest.raises(error):
        deliver(bus.gateway, identifier, args, kwargs, None)
    assert heard == []
