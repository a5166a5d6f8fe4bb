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
    message = IncomingMessage(data, done=done.append, **options)
    for asked in message.calls:
        if asked.is_notification:
            continue
        assert not message.is_answered
        method = METHODS.get(asked.method)
        if method is None:
            asked.error(RPCError(-32601, "Method not found"))
        else:
            asked.result(method(*asked.args, **asked.kwargs))
    assert message.is_answered
    if message.malformed and not message.calls:
        assert done
    assert done == ([message.text()] if message.text() else [])
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
        message = IncomingMessage(data, max_depth=max_depth)
        value: Any = 1
        for _ in range(levels):
            value = [value]
        if fits:
            message.calls[0].result(value)
            decode(message.text(), max_depth=max_depth)
        else:
            with pytest.raises(ValueError, match="nested more than"):
                message.calls[0].result(value)
            assert not message.is_answered


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


def test_a_batch_is_answered_part_by_part() -> None:
    old = {"version": "1.1", "method": "sum", "params": [1, 2], "id": 1}
    assert serve(json.dumps([old])) == [{"result": 3, "error": None, "id": 1}]
    named = {"jsonrpc": "1.0", "method": "sum", "params": [1], "id": [2]}
    new = {"jsonrpc": "2.0", "method": "sum", "params": [4], "id": 3}
    note = {"method": "sum", "params": [], "id": None}
    answers = serve(json.dumps([old, named, new, note, new | {"id": None}]))
    assert answers == [
        {"result": 3, "error": None, "id": 1},
        {"result": 1, "error": None, "id": [2]},
        {"jsonrpc": "2.0", "result": 4, "id": 3},
        {"jsonrpc": "2.0", "result": 4, "id": None},
    ]
    malformed = [old | {"method": 5}, named | {"params": 5}, new | {"method": 5}, 5, [old], {}]
    answers = serve(json.dumps(malformed))
    assert [(answer["error"]["code"], answer["id"]) for answer in answers] == [
        (-32600, 1),
        (-32602, [2]),
        (-32600, 3),
        (-32600, None),
        (-32600, None),
        (-32600, None),
    ]
    assert ["jsonrpc" in answer for answer in answers] == [False, False, True, True, True, True]
    assert serve(json.dumps([old] * 3), max_batch=2)["result"] is None


def test_requests_and_responses_in_one_batch() -> None:
    request = {"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 1}
    responses = [{"jsonrpc": "2.0", "result": 5, "id": 7}, {"result": 6, "error": None, "id": 8}]
    message = IncomingMessage(json.dumps([responses[0], request, responses[1]]))
    assert [(each.result, each.request_id) for each in message.responses] == [(5, 7), (6, 8)]
    message.calls[0].result(1)
    assert json.loads(message.text()) == [{"jsonrpc": "2.0", "result": 1, "id": 1}]


@pytest.mark.parametrize(
    "version", [{"jsonrpc": "2.0"}, {"jsonrpc": "1.0"}, {}, {"version": "1.1"}]
)
@pytest.mark.parametrize("params", [{}, {"params": None}, {"params": []}])
def test_null_params_are_absent(version: dict[str, str], params: dict[str, Any]) -> None:
    request = {**version, "method": "get_data", **params, "id": 1}
    assert serve(json.dumps(request))["result"] == ["hello", 5]
    assert serve(json.dumps([request]))[0]["result"] == ["hello", 5]
    ((args, kwargs),) = [
        (call.args, call.kwargs) for call in IncomingMessage(json.dumps(request)).calls
    ]
    assert (args, kwargs) == ((), {})


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


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"jsonrpc": "2.0", "id": 7}, "a request must have a method"),
        ({"jsonrpc": "1.0", "id": 7}, "a request must have a method"),
        ({"jsonrpc": "2.0", "method": 1, "id": 7}, "a method must be a string, not 1"),
        ({"jsonrpc": "3.0", "method": "a", "id": {}}, "an id must be a number, a string or null"),
        ({"jsonrpc": "2.0", "method": "a", "params": 1, "id": 7}, "params are an array or an"),
        (5, "a request or response must be an object, not 5"),
        ([], "a batch must not be empty"),
    ],
)
@pytest.mark.parametrize("in_batch", [False, True])
def test_what_is_wrong_is_said(payload: Any, said: str, in_batch: bool) -> None:
    if in_batch and payload:
        (answer,) = serve(json.dumps([payload]))
    else:
        answer = serve(json.dumps(payload))
    assert answer["error"]["data"].startswith(said)


def test_responses_are_not_answered() -> None:
    for payload, malformed in (
        ({"jsonrpc": "2.0", "result": 1, "id": 7}, False),
        ({"jsonrpc": "2.0", "error": {"code": 1, "message": "no"}, "id": 7}, False),
        ({"jsonrpc": "2.0", "error": {"code": 1, "message": "no"}, "result": None, "id": 7}, False),
        ({"result": 1, "error": None, "id": 7}, False),
        ({"jsonrpc": "2.0", "result": 1, "error": 1, "id": 7}, True),
        ({"jsonrpc": "2.0", "error": None, "id": 7}, True),
    ):
        message = IncomingMessage(json.dumps(payload).encode())
        (response,) = message.responses
        assert (response.request_id, response.malformed) == (7, malformed)
        assert message.malformed == malformed
        assert message.is_answered
        assert message.text() == b""
    message = IncomingMessage(
        b'[{"jsonrpc":"2.0","result":1,"id":1},{"jsonrpc":"2.0","result":2,"id":2}]'
    )
    assert [response.result for response in message.responses] == [1, 2]
    assert message.text() == b""


def test_bounds() -> None:
    call = {"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 1}
    assert len(serve(json.dumps([call] * 3), max_batch=3)) == 3
    assert serve(json.dumps([call] * 4), max_batch=3)["error"]["code"] == -32600
    assert serve(json.dumps(call), max_depth=1)["error"]["code"] == -32700
    assert serve(json.dumps(call), max_size=20)["error"]["code"] == -32700


def test_a_result_that_is_too_large() -> None:
    call = {"jsonrpc": "2.0", "method": "a", "id": 1}
    message = IncomingMessage(json.dumps(call).encode(), max_size=1000)
    with pytest.raises(TooLargeError):
        message.calls[0].result("x" * 1000)
    message.calls[0].error(RPCError(-32000, "x" * 1000))
    answer = json.loads(message.text())
    assert (answer["error"]["code"], answer["id"]) == (-32603, 1)
    assert len(message.text()) < 200


def test_all_answers_of_a_batch_are_bounded_together() -> None:
    calls = [{"jsonrpc": "2.0", "method": "a", "id": number} for number in range(100)]
    message = IncomingMessage(json.dumps(calls).encode(), max_size=100_000)
    refused = 0
    for call in message.calls:
        try:
            call.result("x" * 10_000)
        except TooLargeError as error:
            refused += 1
            call.error(RPCError(-32000, str(error)))
    assert refused > 90
    assert len(message.text()) <= 100_000
    assert [part["id"] for part in json.loads(message.text())] == list(range(100))


@pytest.mark.parametrize("value", [object(), "\ud800", 1j])
def test_a_result_that_cannot_be_written(value: Any) -> None:
    call = asked({"jsonrpc": "2.0", "method": "a", "id": 1})
    with pytest.raises((TypeError, ValueError)):
        call.result(value)
    assert not call.message.is_answered
    call.error(RPCError(-32000, "no", data={"type": "x"}))
    assert json.loads(call.message.text()) == {
        "jsonrpc": "2.0",
        "error": {"code": -32603, "message": "Internal error", "data": {"type": "x"}},
        "id": 1,
    }
    call = asked({"jsonrpc": "2.0", "method": "a", "id": 1})
    call.error(RPCError(-32000, "no", data=value))
    # What cannot be written of the error itself is left out.
    assert json.loads(call.message.text())["error"]["code"] == -32603


@given(st.binary() | st.text())
def test_anything_is_answered_or_needs_no_answer(data: Any) -> None:
    serve(data)


def test_an_error_that_is_too_large() -> None:
    call = {"jsonrpc": "2.0", "method": "a", "id": 1}
    message = IncomingMessage(json.dumps(call).encode(), max_size=1000)
    message.calls[0].error(RPCError(7, "no", data="x" * 1000))
    answer = json.loads(message.text())
    assert (answer["error"]["code"], answer["id"]) == (7, 1)
    assert answer["error"]["message"] == "the error is larger than a text may be"
