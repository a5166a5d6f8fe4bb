"""One text of a peer's, and the text that answers it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specification import EXAMPLES, same

from berrymq_rpc.errors import TooLargeError
from berrymq_rpc.jsonrpc import RPCError
from berrymq_rpc.jsonrpc.message import IncomingMessage, IncomingRequest
from berrymq_rpc.jsonrpc.protocols.json_codec import decode

METHODS = {
    "subtract": lambda minuend, subtrahend: minuend - subtrahend,
    "sum": lambda *args: sum(args),
    "get_data": lambda: ["hello", 5],
    "update": lambda *args: None,
    "notify_hello": lambda *args: None,
    "notify_sum": lambda *args: None,
}


def serve(data: Any, **options: Any) -> Any:
    """What a server answers, or ``None``."""
    done: list[bytes] = []
    inquiry = IncomingMessage(data, done=done.append, **options)
    for asked in inquiry.calls:
        if asked.is_notification:
            continue
        assert not inquiry.is_answered
        method = METHODS.get(asked.method)
        if method is None:
            asked.error(RPCError(-32601, "Method not found"))
        else:
            asked.result(method(*asked.args, **asked.kwargs))
    assert inquiry.is_answered
    if inquiry.malformed and not inquiry.calls:
        assert done
    assert done == ([inquiry.text()] if inquiry.text() else [])
    return json.loads(done[0]) if done else None


@pytest.mark.parametrize(("sent", "expected"), EXAMPLES.values(), ids=EXAMPLES)
def test_examples_of_the_specification(sent: str, expected: Any) -> None:
    answer = serve(sent.encode())
    assert (answer is None) if expected is None else same(answer, expected)


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("max_depth", [10, 100, 300])
def test_answers_are_no_deeper_than_requests(max_depth: int, is_batch: bool) -> None:
    request = {"jsonrpc": "2.0", "method": "get", "id": 1}
    data = json.dumps([request] if is_batch else request)
    for levels, fits in ((max_depth - 1 - is_batch, True), (max_depth - is_batch, False)):
        inquiry = IncomingMessage(data, max_depth=max_depth)
        value: Any = 1
        for _ in range(levels):
            value = [value]
        if fits:
            inquiry.calls[0].result(value)
            decode(inquiry.text(), max_depth=max_depth)
        else:
            with pytest.raises(ValueError, match="nested more than"):
                inquiry.calls[0].result(value)
            assert not inquiry.is_answered


def asked(data: Any) -> IncomingRequest:
    (call,) = IncomingMessage(json.dumps(data).encode()).calls
    return call


def test_asked() -> None:
    call = asked({"jsonrpc": "2.0", "method": "ns.a", "params": [1, [2]], "id": "x"})
    assert (call.method, call.args, call.kwargs) == ("ns.a", (1, [2]), {})
    assert (call.request_id, call.is_notification) == ("x", False)
    call = asked({"jsonrpc": "2.0", "method": "a", "params": {"b": 1}})
    assert (call.args, call.kwargs, call.is_notification) == ((), {"b": 1}, True)


@pytest.mark.parametrize("versioned", [False, True])
def test_version_1_is_answered_as_version_1(versioned: bool) -> None:
    version = {"jsonrpc": "1.0"} if versioned else {}
    payload = {**version, "method": "sum", "params": [1, 2], "id": 1}
    assert serve(json.dumps(payload)) == {"result": 3, "error": None, "id": 1}
    payload["method"] = "other"
    answer = serve(json.dumps(payload))
    assert answer["result"] is None
    assert (answer["error"]["code"], answer["id"]) == (-32601, 1)
    payload["id"] = None
    assert serve(json.dumps(payload)) is None


def test_an_unversioned_request_may_name_its_arguments() -> None:
    payload = {"method": "subtract", "params": {"minuend": 3, "subtrahend": 1}, "id": [1]}
    # Without a version, ids are those of version 2.0.
    assert serve(json.dumps(payload))["error"]["code"] == -32600
    assert serve(json.dumps({**payload, "id": 1})) == {"result": 2, "error": None, "id": 1}


def test_an_id_of_null_is_answered_in_version_2() -> None:
    payload = {"jsonrpc": "2.0", "method": "sum", "params": [1, 2], "id": None}
    assert serve(json.dumps(payload)) == {"jsonrpc": "2.0", "result": 3, "id": None}


@pytest.mark.parametrize(
    ("payload", "code", "request_id"),
    [
        ({"jsonrpc": "2.0", "method": 1, "id": 7}, -32600, 7),
        ({"jsonrpc": "2.0", "method": "a", "params": 1, "id": 7}, -32602, 7),
        ({"jsonrpc": "2.0", "method": "a", "id": [7]}, -32600, None),
        ({"foo": "boo"}, -32600, None),
        ({"foo": "boo", "id": 7}, -32600, 7),
        (5, -32600, None),
    ],
)
def test_malformed(payload: Any, code: int, request_id: Any) -> None:
    answer = serve(json.dumps(payload).encode())
    assert (answer["error"]["code"], answer["id"]) == (code, request_id)


def test_responses_are_not_answered() -> None:
    for payload, malformed in (
        ({"jsonrpc": "2.0", "result": 1, "id": 7}, False),
        ({"jsonrpc": "2.0", "error": {"code": 1, "message": "no"}, "id": 7}, False),
        ({"jsonrpc": "2.0", "error": {"code": 1, "message": "no"}, "result": None, "id": 7}, False),
        ({"result": 1, "error": None, "id": 7}, False),
        ({"jsonrpc": "2.0", "result": 1, "error": 1, "id": 7}, True),
        ({"jsonrpc": "2.0", "error": None, "id": 7}, True),
    ):
        inquiry = IncomingMessage(json.dumps(payload).encode())
        (response,) = inquiry.responses
        assert (response.request_id, response.malformed) == (7, malformed)
        assert inquiry.malformed == malformed
        assert inquiry.is_answered
        assert inquiry.text() == b""
    inquiry = IncomingMessage(
        b'[{"jsonrpc":"2.0","result":1,"id":1},{"jsonrpc":"2.0","result":2,"id":2}]'
    )
    assert [response.result for response in inquiry.responses] == [1, 2]
    assert inquiry.text() == b""


def test_bounds() -> None:
    call = {"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 1}
    assert len(serve(json.dumps([call] * 3), max_batch=3)) == 3
    assert serve(json.dumps([call] * 4), max_batch=3)["error"]["code"] == -32600
    assert serve(json.dumps(call), max_depth=1)["error"]["code"] == -32700
    assert serve(json.dumps(call), max_size=20)["error"]["code"] == -32700


def test_a_result_that_is_too_large() -> None:
    call = {"jsonrpc": "2.0", "method": "a", "id": 1}
    inquiry = IncomingMessage(json.dumps(call).encode(), max_size=1000)
    with pytest.raises(TooLargeError):
        inquiry.calls[0].result("x" * 1000)
    inquiry.calls[0].error(RPCError(-32000, "x" * 1000))
    answer = json.loads(inquiry.text())
    assert (answer["error"]["code"], answer["id"]) == (-32000, 1)
    assert len(inquiry.text()) < 200


def test_all_answers_of_a_batch_are_bounded_together() -> None:
    calls = [{"jsonrpc": "2.0", "method": "a", "id": number} for number in range(100)]
    inquiry = IncomingMessage(json.dumps(calls).encode(), max_size=100_000)
    refused = 0
    for call in inquiry.calls:
        try:
            call.result("x" * 10_000)
        except TooLargeError as error:
            refused += 1
            call.error(RPCError(-32000, str(error)))
    assert refused > 90
    assert len(inquiry.text()) <= 100_000
    assert [part["id"] for part in json.loads(inquiry.text())] == list(range(100))


@pytest.mark.parametrize("value", [object(), "\ud800", 1j])
def test_a_result_that_cannot_be_written(value: Any) -> None:
    call = asked({"jsonrpc": "2.0", "method": "a", "id": 1})
    with pytest.raises((TypeError, ValueError)):
        call.result(value)
    assert not call.inquiry.is_answered
    call.error(RPCError(-32000, "no", data=value))
    # What cannot be written of the error itself is left out.
    assert json.loads(call.inquiry.text())["error"]["code"] == -32603


@given(st.binary() | st.text())
def test_anything_is_answered_or_needs_no_answer(data: Any) -> None:
    serve(data)
