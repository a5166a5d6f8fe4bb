"""The protocol classes: messages to items and back."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from berrymq_rpc.jsonrpc import (
    JSONRPC,
    JSONRPCAutoDetect,
    JSONRPCLoose,
    JSONRPCv1,
    JSONRPCv2,
    RPCBatch,
    RPCError,
    RPCRequest,
    RPCResponse,
)

try:
    from aiorpcx import jsonrpc as aiorpcx
except ImportError:
    aiorpcx = None

V1, V2, LOOSE, AUTO = JSONRPCv1, JSONRPCv2, JSONRPCLoose, JSONRPCAutoDetect
ALL = [V1, V2, LOOSE, AUTO]

Protocol = type[JSONRPC]


def message(**payload: Any) -> bytes:
    return json.dumps(payload).encode()


def request(protocol: Protocol, data: bytes) -> RPCRequest:
    item = protocol.message_to_item(data)
    assert type(item) is RPCRequest
    return item


def refused(protocol: Protocol, data: bytes) -> RPCError:
    """The error in an malformed request, which has the request's id."""
    item = request(protocol, data)
    assert isinstance(item.method, RPCError)
    assert item.malformed
    assert item.args == []
    assert item.method.request_id == item.request_id
    return item.method


def response(protocol: Protocol, data: bytes) -> RPCResponse:
    item = protocol.message_to_item(data)
    assert type(item) is RPCResponse
    return item


def told(error: object) -> tuple[int, Any]:
    assert isinstance(error, RPCError)
    return error.code, error.request_id


# -- constants and makers of errors ----------------------------------------------------------


@pytest.mark.parametrize("protocol", [JSONRPC, *ALL])
def test_constants(protocol: Protocol) -> None:
    assert protocol.PARSE_ERROR == -32700
    assert protocol.INVALID_REQUEST == -32600
    assert protocol.METHOD_NOT_FOUND == -32601
    assert protocol.INVALID_ARGS == -32602
    assert protocol.INTERNAL_ERROR == -32603
    assert protocol.ERROR_CODE_UNAVAILABLE == -100
    assert protocol.allow_batches is (protocol is not V1)


@pytest.mark.parametrize("protocol", [JSONRPC, *ALL])
def test_makers(protocol: Protocol) -> None:
    error = protocol.internal_error(7)
    assert told(error) == (-32603, 7)
    assert error.message == "internal error processing request"
    for make, code in (
        (protocol.args_error, -32602),
        (protocol.invalid_request, -32600),
        (protocol.method_not_found, -32601),
    ):
        error = make("words")
        assert (told(error), error.message) == ((code, None), "words")
    assert told(protocol.invalid_request("words", 7)) == (-32600, 7)


def test_there_are_no_instances() -> None:
    with pytest.raises(TypeError):
        JSONRPC()  # type: ignore[abstract]


# -- requests --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ALL)
def test_request(protocol: Protocol) -> None:
    data = message(jsonrpc="2.0", method="add", params=[1, 2], id=7)
    item = request(protocol, data)
    assert (item.method, item.args, item.request_id) == ("add", [1, 2], 7)


@pytest.mark.parametrize("protocol", [V2, LOOSE, AUTO])
@pytest.mark.parametrize("request_id", [0, -1, 1.5, "", "x", 1 << 70])
def test_ids(protocol: Protocol, request_id: Any) -> None:
    item = request(protocol, message(jsonrpc="2.0", method="add", id=request_id))
    assert (item.method, item.request_id) == ("add", request_id)
    assert not item.is_notification()


@pytest.mark.parametrize("protocol", [V2, LOOSE, AUTO])
@pytest.mark.parametrize("request_id", [True, [1], {"a": 1}])
def test_other_ids_are_refused(protocol: Protocol, request_id: Any) -> None:
    data = message(jsonrpc="2.0", method="add", id=request_id)
    assert told(refused(protocol, data)) == (-32600, None)


@pytest.mark.parametrize("request_id", [0, True, [1], {"a": 1}, "x"])
def test_any_id_in_version_1(request_id: Any) -> None:
    assert request(V1, message(method="add", params=[], id=request_id)).request_id == request_id


def test_arguments() -> None:
    for protocol in (V2, LOOSE, AUTO):
        assert request(protocol, message(jsonrpc="2.0", method="a", id=1)).args == []
        named = request(protocol, message(jsonrpc="2.0", method="a", id=1, params={"x": 1}))
        assert named.args == {"x": 1}
        for params in (None, "text", 1, True):
            data = message(jsonrpc="2.0", method="a", id=1, params=params)
            assert told(refused(protocol, data)) == (-32602, 1)
    assert request(V1, message(method="a", id=1, params=[1])).args == [1]
    assert told(refused(V1, message(method="a", id=1))) == (-32602, 1)
    assert told(refused(V1, message(method="a", id=1, params={}))) == (-32602, 1)


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("method", [1, None, ["a"], {"a": 1}, True])
def test_a_method_that_is_no_text(protocol: Protocol, method: Any) -> None:
    data = message(jsonrpc="2.0", method=method, params=[], id=7)
    assert told(refused(protocol, data)) == (-32601, 7)


def test_version() -> None:
    for version in ("1.0", "2", 2.0, 2, None, [2], "3.0"):
        data = message(jsonrpc=version, method="a", params=[], id=7)
        assert told(refused(V2, data)) == (-32600, 7)
        assert request(LOOSE, data).method == "a"
    assert told(refused(V2, message(method="a", params=[], id=7))) == (-32600, 7)
    assert request(LOOSE, message(method="a", params=[], id=7)).method == "a"
    assert told(refused(V1, message(method="a", params=[]))) == (-32600, None)


def test_notifications() -> None:
    without = message(jsonrpc="2.0", method="a", params=[])
    with_null = message(jsonrpc="2.0", method="a", params=[], id=None)
    unversioned = message(method="a", params=[], id=None)
    for protocol in (V2, LOOSE, AUTO):
        assert request(protocol, without).is_notification()
        item = request(protocol, with_null)
        assert item.request_id is None
        assert not item.is_notification()
    for protocol in (V1, LOOSE, AUTO):
        assert request(protocol, unversioned).is_notification()
    assert told(refused(V1, without)) == (-32600, None)


# -- responses -------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [None, 0, [1], {"a": 1}, "text"])
def test_results(result: Any) -> None:
    for protocol in (V2, LOOSE, AUTO):
        item = response(protocol, message(jsonrpc="2.0", result=result, id=7))
        assert (item.result, item.request_id, item.malformed) == (result, 7, False)
    for protocol in (V1, LOOSE, AUTO):
        item = response(protocol, message(result=result, error=None, id=7))
        assert (item.result, item.request_id, item.malformed) == (result, 7, False)


def test_errors() -> None:
    error = {"code": 5, "message": "no", "data": [1]}
    for protocol, payload in (
        (V2, {"jsonrpc": "2.0", "error": error, "id": 7}),
        (LOOSE, {"jsonrpc": "2.0", "error": error, "id": 7}),
        (LOOSE, {"jsonrpc": "2.0", "result": None, "error": error, "id": 7}),
        (AUTO, {"jsonrpc": "2.0", "error": error, "id": 7}),
        (V1, {"result": None, "error": error, "id": 7}),
        (LOOSE, {"result": None, "error": error, "id": 7}),
        (AUTO, {"result": None, "error": error, "id": 7}),
    ):
        item = response(protocol, message(**payload))
        assert told(item.result) == (5, 7)
        assert (item.result.message, item.result.data) == ("no", [1])
        assert not item.malformed


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("words", -100, "words"),
        (5, 5, "the peer sent an error without a message"),
        ({"code": 5}, 5, "the peer sent an error without a message"),
        ({"message": "words"}, -100, "words"),
        ({"code": "5", "message": 6}, -100, "the peer sent an error without a message"),
        ({}, -100, "the peer sent an error without a message"),
        (["?"], -100, "the peer sent an error without a message"),
        (True, -100, "the peer sent an error without a message"),
    ],
)
def test_errors_of_version_1(error: Any, code: int, words: str) -> None:
    for protocol in (V1, LOOSE, AUTO):
        item = response(protocol, message(result=None, error=error, id=7))
        assert told(item.result) == (code, 7)
        assert item.result.message == words
        assert not item.malformed


@pytest.mark.parametrize(
    ("protocol", "payload", "request_id"),
    [
        (V1, {"result": 1, "error": 1, "id": 7}, 7),
        (V1, {"result": 1, "id": 7}, 7),
        (V1, {"error": 1, "id": 7}, 7),
        (V1, {"result": 1, "error": None}, None),
        (V1, {}, None),
        (V2, {"jsonrpc": "2.0", "result": 1, "error": None, "id": 7}, 7),
        (V2, {"jsonrpc": "2.0", "id": 7}, 7),
        (V2, {"jsonrpc": "2.0", "result": 1}, None),
        (V2, {"jsonrpc": "2.0", "result": 1, "id": [7]}, None),
        (V2, {"jsonrpc": "2.0", "error": 1, "id": 7}, 7),
        (V2, {"jsonrpc": "2.0", "error": {"code": "1", "message": "no"}, "id": 7}, 7),
        (V2, {"jsonrpc": "2.0", "error": {"code": 1.0, "message": "no"}, "id": 7}, 7),
        (V2, {"jsonrpc": "2.0", "error": {"code": 1}, "id": 7}, 7),
        (V2, {"result": 1, "id": 7}, 7),
        (V2, {"foo": "boo"}, None),
        (LOOSE, {"result": 1, "error": 1, "id": 7}, 7),
        (LOOSE, {"error": None, "id": 7}, 7),
        (LOOSE, {"result": 1}, None),
        (AUTO, {"jsonrpc": "1.0", "result": 1, "id": 7}, 7),
    ],
)
def test_malformed_responses(protocol: Protocol, payload: Any, request_id: Any) -> None:
    item = response(protocol, message(**payload))
    assert item.malformed
    assert item.request_id == request_id
    assert told(item.result) == (-32600, request_id)


# -- messages that are neither ---------------------------------------------------------------


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"NaN", b'"\\ud800"', b"[" * 10**6])
def test_parse_errors(protocol: Protocol, data: bytes) -> None:
    assert told(refused(protocol, data)) == (-32700, None)
    assert AUTO.detect_protocol(data) is LOOSE


@pytest.mark.parametrize("protocol", ALL)
def test_bounds(protocol: Protocol) -> None:
    class Small(protocol):  # type: ignore[misc, valid-type]
        max_size = 100
        max_depth = 3

    assert told(refused(Small, b" " * 101)) == (-32700, None)
    deep = b'{"jsonrpc":"2.0","method":"a","params":[[%s]],"id":1}'
    assert request(Small, deep % b"1").args == [[1]]
    assert told(refused(Small, deep % b"[1]")) == (-32700, None)
    assert request(protocol, deep % b"[1]").args == [[[1]]]


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("data", [b"1", b"null", b'"text"', b"true", b"1.5"])
def test_no_objects(protocol: Protocol, data: bytes) -> None:
    assert told(refused(protocol, data)) == (-32600, None)


# -- batches ---------------------------------------------------------------------------------


def batch(protocol: Protocol, *payloads: Any) -> RPCBatch:
    item = protocol.message_to_item(json.dumps(payloads).encode())
    assert type(item) is RPCBatch
    return item


CALL = {"jsonrpc": "2.0", "method": "a", "params": [1], "id": 1}
NOTE = {"jsonrpc": "2.0", "method": "a"}
ANSWER = {"jsonrpc": "2.0", "result": 1, "id": 1}


@pytest.mark.parametrize("protocol", [V2, LOOSE, AUTO])
def test_batches(protocol: Protocol) -> None:
    item = batch(protocol, CALL, NOTE, 1, {"foo": "boo"})
    assert item.is_request_batch()
    good, note, number, other = item
    assert (good.method, note.is_notification()) == ("a", True)
    assert told(number.method) == told(other.method) == (-32600, None)
    assert [told(part.method) for part in batch(protocol, 1, 2)] == [(-32600, None)] * 2
    mixed = batch(protocol, CALL, ANSWER)
    assert told(mixed.items[1].method) == (-32600, 1)

    item = batch(protocol, ANSWER, {"jsonrpc": "2.0", "id": 2}, 5)
    assert not item.is_request_batch()
    assert [part.malformed for part in item] == [False, True, True]
    assert told(refused(protocol, b"[]")) == (-32600, None)


def test_no_batches_in_version_1() -> None:
    assert told(refused(V1, json.dumps([CALL]).encode())) == (-32600, None)
    assert told(refused(V1, b"[]")) == (-32600, None)
    with pytest.raises(RuntimeError, match="no batches"):
        V1.batch_message(RPCBatch([RPCRequest("a", [], 1)]))


# -- which protocol --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "protocol"),
    [
        ({"jsonrpc": "2.0"}, V2),
        ({"jsonrpc": "2.0", "result": 1, "error": None, "id": 1}, V2),
        ({"jsonrpc": "1.0", "method": "a", "params": [], "id": 1}, V1),
        ({"result": 1, "error": None, "id": 1}, V1),
        ({"result": 1, "id": 1}, LOOSE),
        ({"error": 1, "id": 1}, LOOSE),
        ({"method": "a", "params": [], "id": 1}, LOOSE),
        ({"jsonrpc": "3.0"}, LOOSE),
        ({"jsonrpc": 2.0, "result": 1, "error": None}, V1),
        ({}, LOOSE),
        (1, LOOSE),
        ([], LOOSE),
        ([1, {}], LOOSE),
        ([CALL, {}], V2),
        ([{"jsonrpc": "1.0"}, {}], V1),
        ([{"jsonrpc": "1.0"}, CALL], V2),
        ([[CALL]], LOOSE),
    ],
)
def test_detect(payload: Any, protocol: Protocol) -> None:
    assert AUTO.detect_protocol(json.dumps(payload).encode()) is protocol


# -- messages --------------------------------------------------------------------------------


def test_request_messages() -> None:
    for protocol in (V2, LOOSE, AUTO):
        for item, expected in (
            (RPCRequest("a", [1], 7), {"jsonrpc": "2.0", "method": "a", "params": [1], "id": 7}),
            (RPCRequest("a", (1,), 7), {"jsonrpc": "2.0", "method": "a", "params": [1], "id": 7}),
            (RPCRequest("a", [], 7), {"jsonrpc": "2.0", "method": "a", "id": 7}),
            (RPCRequest("a", {}, 7), {"jsonrpc": "2.0", "method": "a", "params": {}, "id": 7}),
            (RPCRequest("a", [1], None), {"jsonrpc": "2.0", "method": "a", "params": [1]}),
            (
                RPCRequest("a", [], None, null_id=True),
                {"jsonrpc": "2.0", "method": "a", "id": None},
            ),
        ):
            assert json.loads(protocol.request_message(item)) == expected
    expected = {"method": "a", "params": [1], "id": None}
    assert json.loads(V1.request_message(RPCRequest("a", [1], None))) == expected
    with pytest.raises(TypeError, match="named"):
        V1.request_message(RPCRequest("a", {"x": 1}, 1))


def test_response_messages() -> None:
    result, failure = RPCResponse([1], 7), RPCResponse(RPCError(5, "no", data={"a": 1}), 7)
    error = {"code": 5, "message": "no", "data": {"a": 1}}
    for protocol in (V2, LOOSE, AUTO):
        assert json.loads(protocol.response_message(result)) == {
            "jsonrpc": "2.0",
            "result": [1],
            "id": 7,
        }
        expected = {"jsonrpc": "2.0", "error": error, "id": 7}
        assert json.loads(protocol.response_message(failure)) == expected
        assert json.loads(protocol.error_message(failure.result)) == expected
    assert json.loads(V1.response_message(result)) == {"result": [1], "error": None, "id": 7}
    expected = {"result": None, "error": error, "id": 7}
    assert json.loads(V1.response_message(failure)) == expected
    assert json.loads(V1.error_message(RPCError(5, "no"))) == {
        "result": None,
        "error": {"code": 5, "message": "no"},
        "id": None,
    }


@pytest.mark.parametrize("protocol", [V2, LOOSE, AUTO])
def test_batch_messages(protocol: Protocol) -> None:
    requests = RPCBatch([RPCRequest("a", [1], 1), RPCRequest("a", [], None)])
    assert json.loads(protocol.batch_message(requests)) == [CALL, NOTE]
    responses = RPCBatch([RPCResponse(1, 1), RPCResponse(RPCError(5, "no"), 2)])
    assert [part["id"] for part in json.loads(protocol.batch_message(responses))] == [1, 2]


@pytest.mark.parametrize("protocol", ALL)
def test_batch_message_from_parts(protocol: Protocol) -> None:
    assert protocol.batch_message_from_parts([b"1"]) == b"[1]"
    assert protocol.batch_message_from_parts(iter([b"1", b"{}"])) == b"[1, {}]"
    with pytest.raises(ValueError, match="must not be empty"):
        protocol.batch_message_from_parts([])


@pytest.mark.parametrize("protocol", ALL)
def test_what_cannot_be_encoded(protocol: Protocol) -> None:
    for payload, request_id in (
        ({"id": 7, "result": object()}, 7),
        ({"id": 7, "result": "\ud800"}, 7),
        ({"id": object(), "result": 1}, None),
        ({"result": 1j}, None),
        (object(), None),
        ([object()], None),
    ):
        item = response(protocol, protocol.encode_payload(payload))
        assert told(item.result) == (-32603, request_id)
        assert not item.malformed
    assert protocol.encode_payload({"a": 1}) == b'{"a":1}'
    assert response(protocol, protocol.response_message(RPCResponse(object(), 7))).request_id == 7


# -- anything at all -------------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("2.0")
    | st.just("1.0") | st.just(1 << 5000)
)  # fmt: skip
KEYS = st.sampled_from(["jsonrpc", "method", "params", "id", "result", "error", "code", "message"])
PAYLOADS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner, max_size=6)
    ),
    max_leaves=12,
)

#: More often well-formed than not.
ALMOST = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2.0, None]),
        "method": st.text(max_size=3) | st.none() | st.integers(),
        "params": st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(), SCALARS) | SCALARS,
        "id": SCALARS,
        "result": SCALARS,
        "error": SCALARS
        | st.fixed_dictionaries(
            {}, optional={"code": SCALARS, "message": SCALARS, "data": SCALARS}
        ),
    },
)


def check_item(protocol: Protocol, data: Any) -> None:
    item = protocol.message_to_item(data)
    for part in item if isinstance(item, RPCBatch) else [item]:
        if isinstance(part, RPCRequest):
            assert isinstance(part.method, RPCError) or type(part.method) is str
            assert isinstance(part.args, list | dict)
        else:
            assert isinstance(part, RPCResponse)
            assert not part.malformed or isinstance(part.result, RPCError)
        # Whatever arrived can be answered.
        json.loads(protocol.response_message(RPCResponse(1, part.request_id)))
    assert AUTO.detect_protocol(data) in (V1, V2, LOOSE)


@given(st.sampled_from(ALL), st.binary() | st.text() | st.none() | st.integers())
@example(V2, b"[" * 10**6)
@example(V2, b"9" * 10**6)
@example(V2, b'{"id":1e999}')
@example(V2, b'{"id":"\\ud800","method":"a"}')
def test_no_input_raises(protocol: Protocol, data: Any) -> None:
    check_item(protocol, data)


@given(st.sampled_from(ALL), PAYLOADS | ALMOST | st.lists(ALMOST))
def test_no_json_raises(protocol: Protocol, payload: Any) -> None:
    try:
        data = json.dumps(payload).encode()
    except ValueError:
        # More digits than Python writes; a peer may.
        data = b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b"}"
    check_item(protocol, data)


@given(
    st.sampled_from(["a", "ns.method", ""]),
    st.lists(st.integers()) | st.dictionaries(st.text(st.characters(codec="utf-8")), st.booleans()),
    st.integers() | st.text(st.characters(codec="utf-8")) | st.none(),
)
def test_round_trip(method: str, args: Any, request_id: Any) -> None:
    for protocol in (V2, LOOSE, AUTO):
        item = request(protocol, protocol.request_message(RPCRequest(method, args, request_id)))
        assert (item.method, item.args, item.request_id) == (method, args, request_id)
        assert item.is_notification() is (request_id is None)
        answer = response(protocol, protocol.response_message(RPCResponse(args, request_id)))
        assert (answer.result, answer.request_id) == (args, request_id)


# -- beside aiorpcX --------------------------------------------------------------------------


@pytest.mark.skipif(aiorpcx is None, reason="aiorpcX is not installed")
@given(PAYLOADS | ALMOST)
def test_as_aiorpcx_reads_it(payload: Any) -> None:
    """Where it finds a message well-formed, so do these classes, and say the same of it."""
    for ours, name in ((V1, "JSONRPCv1"), (V2, "JSONRPCv2"), (LOOSE, "JSONRPCLoose")):
        try:
            data = json.dumps(payload).encode()
            theirs, request_id = getattr(aiorpcx, name).message_to_item(data)
        except (aiorpcx.ProtocolError, ValueError):
            continue
        item = ours.message_to_item(data)
        if isinstance(theirs, list) or isinstance(request_id, bool | float):
            # It reads the parts of a batch one by one later; takes true for a number.
            continue
        if getattr(item, "malformed", False):
            # What it takes and JSON has not: NaN, numbers beyond a float, half surrogates.
            assert told(getattr(item, "method", None))[0] == -32700
        elif isinstance(theirs, aiorpcx.Response):
            assert isinstance(item, RPCResponse)
            if isinstance(theirs.result, aiorpcx.RPCError):
                if not isinstance(theirs.result.code, bool):
                    assert item.result.code == theirs.result.code
            else:
                assert item.result == theirs.result
        else:
            assert isinstance(item, RPCRequest)
            assert (item.method, item.args, item.request_id) == (
                theirs.method,
                theirs.args,
                request_id,
            )
