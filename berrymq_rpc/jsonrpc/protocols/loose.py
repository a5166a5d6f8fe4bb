"""JSON-RPC in practice: either version, or a mixture of the two."""

from typing import Any

from .version1 import best_effort_error
from .version2 import JSONRPCv2

__all__ = ["JSONRPCLoose"]


class JSONRPCLoose(JSONRPCv2):
    """Accepts both versions and mixtures of the two, and sends version 2.0.

    A null id is that of a request if the message names version 2.0; otherwise it is the sign of a
    notification, as in version 1.0.
    """

    @classmethod
    def _check_version(cls, payload: dict[str, Any]) -> None:
        """Accept any version."""

    @classmethod
    def _has_null_id(cls, payload: dict[str, Any]) -> bool:
        return "id" in payload and payload.get("jsonrpc") == "2.0"

    @classmethod
    def _result(cls, payload: dict[str, Any]) -> Any:
        result, error = payload.get("result"), payload.get("error")
        if error is not None:
            if result is not None:
                raise cls.invalid_request("a response's result or error must be null")
            return best_effort_error(error)
        if "result" not in payload:
            raise cls.invalid_request("a response must have a result or an error")
        return result
