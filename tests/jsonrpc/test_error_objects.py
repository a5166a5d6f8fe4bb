"""Exceptions as error objects, and back."""

import json
from typing import Any

import pytest

from berrymq_rpc import errors
from berrymq_rpc.jsonrpc import JSONRPCv2, RPCError
from berrymq_rpc.jsonrpc.error_objects import standard, to_error, to_exception
from berrymq_rpc.jsonrpc.protocols.json_codec import decode
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.exception_codec import Failure, describe

CODEC = Codec()


class OwnError(Exception):
    pass


def sent(error: BaseException, **options: Any) -> dict[str, Any]:
    """The error object that a peer sees."""
    told = to_error(describe(error, CODEC, **options))
    told.request_id = 7
    answer = json.loads(JSONRPCv2.error_message(told))
    assert answer["id"] == 7
    found: dict[str, Any] = answer["error"]
    return found


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.NotFoundError("no"), -32601, "Method not found"),
        (errors.ParametersError("no"), -32602, "Invalid params"),
    ],
)
def test_standard_codes(error: Exception, code: int, words: str) -> None:
    assert sent(error) == {"code": code, "message": words, "data": "no"}
    for back in (
        to_exception(RPCError(code, "no")),
        to_exception(RPCError(code, words, data="no")),
        to_exception(RPCError(code, "no", data={"other": 1})),
    ):
        assert type(back) is type(error)
        assert back.args == ("no",)
    assert standard(RPCError(code, words)).data is None
    assert standard(RPCError(code, "no", 7, [1])).data == [1]
    assert standard(RPCError(-32000, "no")).message == "no"
    assert sent(type(error)(5))["message"]


def test_an_exception() -> None:
    assert sent(ValueError("no", 1)) == {
        "code": -32000,
        "message": "ValueError('no', 1)",
        "data": {"type": "builtins.ValueError", "args": ["no", 1], "repr": "ValueError('no', 1)"},
    }


def test_traceback_when_asked() -> None:
    with pytest.raises(ValueError, match="no") as caught:
        raise ValueError("no")
    assert "test_traceback" in sent(caught.value, traceback=True)["data"]["traceback"]
    assert "traceback" not in sent(caught.value)["data"]


@pytest.mark.parametrize("data", [None, {"a": [1]}])
def test_an_error_of_ones_own_code(data: Any) -> None:
    error = RPCError(42, "no", data=data)
    expected = {"code": 42, "message": "no"} | ({} if data is None else {"data": data})
    assert sent(error) == expected
    assert to_exception(error) is error


def test_arguments_that_json_lacks() -> None:
    data = sent(OwnError({1, 2}, 1j, b"\xff", "\ud800"))["data"]
    assert data["args"][0] == [1, 2]
    assert data["args"][1] == "1j"
    assert data["args"][2] == "/w=="
    assert "ud800" in data["args"][3]


@pytest.mark.parametrize("levels", [90, 95, 96, 99, 100])
def test_deep_arguments_are_readable_or_text(levels: int) -> None:
    argument: Any = 1
    for _ in range(levels):
        argument = [argument]
    told = to_error(describe(ValueError(argument), CODEC))
    text = JSONRPCv2.batch_message_from_parts([JSONRPCv2.error_message(told)])
    (answer,) = decode(text)
    (found,) = answer["error"]["data"]["args"]
    assert found == argument if levels <= 95 else isinstance(found, str)


def test_a_long_message_is_cut() -> None:
    error = sent(ValueError("x" * 10_000))
    assert len(error["message"]) <= 500
    assert error["data"]["args"] == ["x" * 10_000]


def round_trip(error: BaseException, **options: Any) -> Exception:
    told = sent(error)
    return to_exception(RPCError(told["code"], told["message"], 7, told.get("data")), **options)


@pytest.mark.parametrize(
    "error",
    [ValueError("no", 1), KeyError("a"), FileNotFoundError(2, "no", "name"), ZeroDivisionError()],
)
def test_builtin_exceptions_come_back(error: Exception) -> None:
    back = round_trip(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)


def test_closing_is_known() -> None:
    assert type(round_trip(errors.ServiceClosedError("closing"))) is errors.ServiceClosedError
    assert type(round_trip(errors.OverloadedError("full"))) is errors.OverloadedError


def test_an_exception_of_ones_own() -> None:
    error = OwnError("no")
    back = round_trip(error)
    assert type(back) is errors.GenericError
    assert back.exc_type.endswith("OwnError")
    table = {back.exc_type: OwnError}
    assert type(round_trip(error, error_table=table)) is OwnError


def test_an_exception_that_another_server_raised_is_passed_on_as_it_was() -> None:
    # A bridge before a server that has a class of its own: the peer sees that class.
    error = OwnError("no", 1)
    first = sent(error)
    passed_on = sent(round_trip(error))
    assert passed_on == first
    assert passed_on["data"]["type"].endswith("OwnError")
    assert passed_on["data"]["args"] == ["no", 1]
    # One that only looks like it is described as any other.
    assert sent(errors.GenericError("a.B", [1], "B(1)"))["data"]["type"].endswith("GenericError")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        RPCError(-32000, "no"),
        RPCError(-32000, "no", data="text"),
        RPCError(-32000, "no", data={"type": 1}),
        RPCError(-32700, "no"),
        RPCError(5, "no", data={"type": "builtins.ValueError"}),
    ],
)
def test_other_errors_are_raised_as_they_are(error: RPCError) -> None:
    assert to_exception(error) is error


@pytest.mark.parametrize("args", [None, "text", {"a": 1}])
@pytest.mark.parametrize("text", [None, 5, "text"])
def test_malformed_data(args: Any, text: Any) -> None:
    data = {"type": "builtins.ValueError", "args": args, "repr": text, "traceback": args}
    back = to_exception(RPCError(-32000, "no", data=data))
    assert type(back) is ValueError
    assert back.args == ()


def test_a_failure_of_a_peer_of_another_dialect() -> None:
    assert to_error(Failure("jsonrpc.RPCError", ("x",), "text")).code == -32000
    assert to_error(Failure("berrymq_rpc.jsonrpc.items.RPCError", ("x",), "text")).code == -32000


def test_permission_denied() -> None:
    error = RPCError(-32001, "Permission denied", data="alice may not")
    back = to_exception(error)
    assert type(back) is errors.PermissionDeniedError
    assert back.args == ("alice may not",)
