"""The examples of the JSON-RPC 2.0 specification, section 7, over every listener."""

import json
from typing import Any

import pytest

from berrymq_rpc.jsonrpc.bridge import Bridge

RESULTS = [
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', 19, 1),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', -19, 2),
    (
        '{"jsonrpc": "2.0", "method": "subtract",'
        ' "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        19,
        3,
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract",'
        ' "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        19,
        4,
    ),
]

NOTIFICATIONS = [
    '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}',
    '{"jsonrpc": "2.0", "method": "foobar"}',
    # The one batch that is not answered.
    '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
    ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
]

ERRORS = [
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', -32601, "1"),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', -32700, None),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', -32600, None),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        ' {"jsonrpc": "2.0", "method"]',
        -32700,
        None,
    ),
    ("[]", -32600, None),
]

BATCH = """[
    {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
    {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
    {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
    {"foo": "boo"},
    {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
    {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
]"""


def error(answer: dict[str, Any]) -> tuple[int, Any]:
    """An error object's code and its id, once it is seen to be one."""
    assert answer.keys() == {"jsonrpc", "error", "id"}
    assert answer["jsonrpc"] == "2.0"
    assert answer["error"].keys() <= {"code", "message", "data"}
    assert isinstance(answer["error"]["message"], str)
    return answer["error"]["code"], answer["id"]


async def test_results(handler: Any, line_to: Any, listener: str) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        for text, result, request_id in RESULTS:
            answer = await line.ask(text.encode())
            assert answer == {"jsonrpc": "2.0", "result": result, "id": request_id}


async def test_notifications(handler: Any, line_to: Any, listener: str) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        for text in NOTIFICATIONS:
            await line.told(text.encode())
        assert handler.told == [(1, 2, 3, 4, 5), 7, 7]


async def test_errors(handler: Any, line_to: Any, listener: str) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        for text, code, request_id in ERRORS:
            assert error(await line.ask(text.encode())) == (code, request_id)


@pytest.mark.parametrize(("text", "count"), [("[1]", 1), ("[1,2,3]", 3)])
async def test_batches_of_what_is_no_request(
    handler: Any, line_to: Any, listener: str, text: str, count: int
) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        assert list(map(error, await line.ask(text.encode()))) == [(-32600, None)] * count


async def test_a_batch(handler: Any, line_to: Any, listener: str) -> None:
    async with Bridge(handler) as bridge, line_to(bridge, listener) as line:
        answers = await line.ask(BATCH.encode())
        by_id = {json.dumps(answer["id"]): answer for answer in answers}
        assert len(answers) == len(by_id) == 5
        assert by_id['"1"'] == {"jsonrpc": "2.0", "result": 7, "id": "1"}
        assert by_id['"2"'] == {"jsonrpc": "2.0", "result": 19, "id": "2"}
        assert by_id['"9"'] == {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
        assert error(by_id["null"]) == (-32600, None)
        assert error(by_id['"5"']) == (-32601, "5")
        assert handler.told == [7]
