from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange import ExportedFunctions
from berrymq_rpc.exchange.validation import keywords_of, positional_of


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1, 2), {"a": 3}, ((1, 2), {"a": 3})),
        ([1], {}, ((1,), {})),
        (None, None, ((), {})),
    ],
)
async def test_takes(args: Any, kwargs: Any, expected: Any) -> None:
    assert (positional_of(args), keywords_of(kwargs)) == expected
    bus = Bus()
    heard: list[Message] = []
    bus.regist_function("a:b", heard.append)
    functions = ExportedFunctions(bus)
    functions.send_message(functions.connect_oneway(), "a:b", args, kwargs)
    functions.close()
    (message,) = heard
    assert (message.args, message.kwargs) == expected


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
async def test_refuses(identifier: Any, args: Any, kwargs: Any, error: type[Exception]) -> None:
    bus = Bus()
    heard: list[Message] = []
    bus.regist_function("*@*:*", heard.append)
    functions = ExportedFunctions(bus)
    with pytest.raises(error):
        functions.send_message(functions.connect_oneway(), identifier, args, kwargs)
    functions.close()
    assert heard == []
