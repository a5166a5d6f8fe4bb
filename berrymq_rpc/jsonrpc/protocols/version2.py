"""JSON-RPC 2.0, to the letter."""

from typing import Any

from ..items import Item, RPCError, RPCRequest, RPCResponse
from .base import JSONRPC, shown

__all__ = ["JSONRPCv2"]

_ID_TYPES = frozenset((str, int, float, type(None)))


class JSONRPCv2(JSONRPC):
    """Version 2.0. A request without an id is a notification; one whose id is null is not."""

    @classmethod
    def payload_to_item(cls, payload: Any) -> Item:
        # The common case, in as few steps as possible; the base class takes all others.
        if type(payload) is dict and payload.get("jsonrpc") == "2.0":
            request_id = payload.get("id")
            if type(request_id) is int or type(request_id) is str:
                method = payload.get("method")
                if type(method) is str:
                    args = payload.get("params")
                    if type(args) is list or type(args) is dict:
                        return RPCRequest(method, args, request_id)
                elif "result" in payload and "error" not in payload and "method" not in payload:
                    return RPCResponse(payload["result"], request_id)
        return super().payload_to_item(payload)

    @classmethod
    def _message_id(cls, payload: Any, *, required: bool) -> Any:
        if not isinstance(payload, dict):
            raise cls.invalid_request(
                f"a request or response must be an object, not {shown(payload)}"
            )
        if "id" not in payload:
            if required:
                raise cls.invalid_request("a response must have an id")
            return None
        request_id = payload["id"]
        if type(request_id) not in _ID_TYPES:
            raise cls.invalid_request(
                f"an id must be a number, a string or null, not {shown(request_id)}"
            )
        return request_id

    @classmethod
    def _check_version(cls, payload: dict[str, Any]) -> None:
        if payload.get("jsonrpc") != "2.0":
            raise cls.invalid_request('"jsonrpc" is not "2.0"')

    @classmethod
    def _has_null_id(cls, payload: dict[str, Any]) -> bool:
        return "id" in payload

    @classmethod
    def _arguments(cls, payload: dict[str, Any]) -> list[Any] | dict[str, Any]:
        if "params" not in payload:
            return []
        args: Any = payload["params"]
        if not isinstance(args, (list, dict)):
            raise cls.args_error(f"params are an array or an object, not {shown(args)}")
        return args

    @classmethod
    def _result(cls, payload: dict[str, Any]) -> Any:
        if "result" in payload:
            if "error" in payload:
                raise cls.invalid_request("a response must have a result or an error, not both")
            return payload["result"]
        if "error" not in payload:
            raise cls.invalid_request("a response must have a result or an error")
        error = payload["error"]
        if isinstance(error, dict):
            code, message = error.get("code"), error.get("message")
            if type(code) is int and isinstance(message, str):
                return RPCError(code, message, data=error.get("data"))
        raise cls.invalid_request(f"an error must have a code and a message, not {shown(error)}")

    @classmethod
    def request_payload(cls, request: RPCRequest) -> dict[str, Any]:
        payload: dict[str, Any] = {"jsonrpc": "2.0", "method": request.method}
        args = request.args
        # Without params, a peer takes the arguments for an empty array.
        if args or isinstance(args, dict):
            payload["params"] = args
        if request.request_id is not None or request.null_id:
            payload["id"] = request.request_id
        return payload

    @classmethod
    def result_payload(cls, result: Any, request_id: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "result": result, "id": request_id}

    @classmethod
    def error_payload(cls, error: RPCError) -> dict[str, Any]:
        object_: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.data is not None:
            object_["data"] = error.data
        return {"jsonrpc": "2.0", "error": object_, "id": error.request_id}
