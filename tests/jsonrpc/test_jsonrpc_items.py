"""What a message says, as objects."""

import copy
import pickle
from typing import Any

import pytest

from berrymq_rpc import errors
from berrymq_rpc.jsonrpc import RPCBatch, RPCError, RPCRequest, RPCResponse


def test_request() -> None:
    request = RPCRequest("add", [1, 2], 7)
    assert (request.method, request.args, request.request_id) == ("add", [1, 2], 7)
    assert not request.is_notification()
    assert not request.malformed
    assert repr(request) == "RPCRequest('add', [1, 2], 7)"


@pytest.mark.parametrize("args", [[1], (1,), {"a": 1}])
def test_arguments(args: Any) -> None:
    assert RPCRequest("add", args, 7).args == args


def test_no_arguments_are_an_empty_list() -> None:
    assert RPCRequest("add", None, 7).args == []


@pytest.mark.parametrize("args", ["text", 1, {1}, iter(())])
def test_other_arguments_are_refused(args: Any) -> None:
    with pytest.raises(ValueError, match="a list or a dict"):
        RPCRequest("add", args, 7)


def test_notification() -> None:
    assert RPCRequest("add", [], None).is_notification()
    with_null = RPCRequest("add", [], None, null_id=True)
    assert not with_null.is_notification()
    assert repr(with_null) == "RPCRequest('add', [], None, null_id=True)"


@pytest.mark.parametrize("request_id", [None, 3])
def test_malformed_request(request_id: Any) -> None:
    error = RPCError(-32600, "no request")
    request = RPCRequest(error, None, request_id)
    assert request.malformed
    assert not request.is_notification()
    assert error.request_id == request_id


def test_response() -> None:
    response = RPCResponse([1], "x")
    assert (response.result, response.request_id, response.malformed) == ([1], "x", False)
    assert repr(response) == "RPCResponse([1], 'x')"


def test_error_response() -> None:
    error = RPCError(1, "no")
    RPCResponse(error, "x")
    assert error.request_id == "x"


def test_error() -> None:
    error = RPCError(-32000, "no", 7, {"a": 1})
    assert isinstance(error, errors.Error)
    assert (error.code, error.message, error.request_id, error.data) == (-32000, "no", 7, {"a": 1})
    assert str(error) == "no (-32000)"
    assert repr(error) == "RPCError(-32000, 'no', 7, data={'a': 1})"
    assert repr(RPCError(1, "no")) == "RPCError(1, 'no')"


@pytest.mark.parametrize("error", [RPCError(1, "no"), RPCError(1, "no", None, {"a": [1]})])
def test_error_can_be_copied(error: RPCError) -> None:
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error)), type(error)(*error.args)):
        assert (other.code, other.message, other.data) == (1, "no", error.data)


def test_request_batch() -> None:
    items = [
        RPCRequest("a", [], 1),
        RPCRequest("b", [], None),
        RPCRequest(RPCError(1, "no"), [], None),
        RPCRequest("c", [], "x"),
    ]
    batch = RPCBatch(items)
    assert list(batch) == batch.items == items
    assert len(batch) == 4
    assert batch.is_request_batch()
    assert list(batch.requests()) == [items[0], items[2], items[3]]
    assert batch.request_ids() == frozenset({1, "x"})
    assert repr(RPCBatch(items[:1])) == "RPCBatch([RPCRequest('a', [], 1)])"


def test_response_batch() -> None:
    items = [RPCResponse(1, 1), RPCResponse(RPCError(1, "no"), None)]
    batch = RPCBatch(items)
    assert not batch.is_request_batch()
    assert list(batch.requests()) == items[:1]
    assert batch.request_ids() == frozenset({1})


@pytest.mark.parametrize("items", [[], [RPCRequest("a", [], 1), RPCResponse(1, 1)], [1]])
def test_other_batches_are_refused(items: Any) -> None:
    with pytest.raises(ValueError, match="a batch must"):
        RPCBatch(items)
