"""JSON-RPC 1.0, to the letter: arguments by position, no batches, an id of any kind."""

from typing import Any, ClassVar

from ..items import RPCError, RPCRequest
from .base import JSONRPC, shown

__all__ = ["JSONRPCv1", "best_effort_error"]


def best_effort_error(error: Any) -> RPCError:
    """Interpret an error of version 1.0, which only says that it is an object."""
    code = JSONRPC.ERROR_CODE_UNAVAILABLE
    message = "the peer sent an error without a message"
    data = None
    if isinstance(error, str):
        message = error
    elif type(error) is int:
        code = error
    elif isinstance(error, dict):
        if isinstance(error.get("message"), str):
            message = error["message"]
        if type(error.get("code")) is int:
            code = error["code"]
        data = error.get("data")
    return RPCError(code, message, data=data)


class JSONRPCv1(JSONRPC):
    """Version 1.0. A request whose id is null is a notification; one without any is malformed."""

    allow_batches: ClassVar[bool] = False

    @classmethod
    def _message_id(cls, payload: dict[str, Any], *, required: bool) -> Any:
        if "id" not in payload:
            raise cls.invalid_request("a message of version 1.0 must have an id")
        return payload["id"]

    @classmethod
    def _arguments(cls, payload: dict[str, Any]) -> list[Any]:
        args = payload.get("params")
        if not isinstance(args, list):
            raise cls.args_error(f"params are an array, not {shown(args)}")
        return args

    @classmethod
    def _result(cls, payload: dict[str, Any]) -> Any:
        if "result" not in payload or "error" not in payload:
            raise cls.invalid_request("a response of version 1.0 must have a result and an error")
        result, error = payload["result"], payload["error"]
        if error is None:
            return result
        if result is not None:
            raise cls.invalid_request("a response's result or error must be null")
        return best_effort_error(error)

    @classmethod
    def request_payload(cls, request: RPCRequest) -> dict[str, Any]:
        if isinstance(request.args, dict):
            raise TypeError("JSON-RPC 1.0 has no named arguments")
        return {"method": request.method, "params": request.args, "id": request.request_id}

    @classmethod
    def result_payload(cls, result: Any, request_id: Any) -> dict[str, Any]:
        return {"result": result, "error": None, "id": request_id}

    @classmethod
    def error_payload(cls, error: RPCError) -> dict[str, Any]:
        object_: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.data is not None:
            object_["data"] = error.data
        return {"result": None, "error": object_, "id": error.request_id}
