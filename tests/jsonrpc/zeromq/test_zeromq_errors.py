"""The errors of calls, by code."""

import copy
import pickle
from typing import Any

import pytest

from berrymq_rpc import jsonrpc
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.jsonrpc.zeromq.errors import class_for_code, exception_for


class TooManyCups(zeromq.ApplicationError):
    error_code = 418


class Unregistered(Exception):
    pass


@pytest.mark.parametrize("place", ["nats://alice:secret@127.0.0.1/calc", "nats+tls://secret@host"])
@pytest.mark.parametrize("make", [zeromq.RPCClient, zeromq.RPCNotifierClient, zeromq.RPCServer])
def test_nats_is_not_zeromq(make: Any, place: str) -> None:
    with pytest.raises(ValueError, match=r"rpc\.open_client") as raised:
        make(place)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (-32700, zeromq.ParseError),
        (-32600, zeromq.InvalidRequest),
        (-32601, zeromq.MethodNotFound),
        (-32602, zeromq.InvalidParams),
        (-32603, zeromq.InternalError),
        (-32000, zeromq.ServerError),
        (-32099, zeromq.ServerError),
        (-32100, zeromq.ApplicationError),
        (-31999, zeromq.ApplicationError),
        (1, zeromq.ApplicationError),
        (0, zeromq.ApplicationError),
        (418, TooManyCups),
        ("1", zeromq.ApplicationError),
        (None, zeromq.ApplicationError),
    ],
)
def test_classes(code: Any, cls: type[zeromq.RPCError]) -> None:
    assert class_for_code(code) is cls
    error = exception_for(jsonrpc.RPCError(code, "no", data=[1]))
    assert type(error) is cls
    assert isinstance(error, zeromq.RPCError)
    assert isinstance(error, jsonrpc.RPCError)
    assert error.error_code == error.code == code
    assert (error.error_msg, error.error_data) == ("no", [1])
    assert str(error) == f"Error {code}: no\nError data: [1]"


def test_classes_of_ones_own_come_first() -> None:
    table: dict[int, Any] = {1: Unregistered, -32601: zeromq.ServerError}
    assert class_for_code(1, table) is Unregistered
    assert exception_for(jsonrpc.RPCError(1, "no"), table).args == ("no", None)
    assert type(exception_for(jsonrpc.RPCError(-32601, "no"), table)) is zeromq.ServerError


def test_made_by_a_handler() -> None:
    error = zeromq.InvalidParams()
    assert (error.code, error.message, error.data) == (-32602, "Invalid Params", None)
    assert str(error) == "Error -32602: Invalid Params"
    assert repr(zeromq.InvalidParams("no", 1)) == "InvalidParams('no', 1)"
    assert zeromq.ServerError("no").code == -32000
    for other in (copy.copy(error), pickle.loads(pickle.dumps(TooManyCups("no", 1)))):
        assert isinstance(other, zeromq.RPCError)
        assert other.code in (-32602, 418)


def test_the_first_class_of_a_code_stays() -> None:
    class Another(zeromq.RPCError):
        error_code = 418

    assert class_for_code(418) is TooManyCups
    assert Another("no").code == 418
