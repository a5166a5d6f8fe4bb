"""The examples of the JSON-RPC 2.0 specification, section 7, as pairs of what is sent and answered.

An answer of ``None`` is none. Errors' messages are not the specification's, and not compared.
"""

import json
from typing import Any

__all__ = ["EXAMPLES", "same", "subtract"]


def subtract(minuend: int, subtrahend: int) -> int:
    """The method of most examples."""
    return minuend - subtrahend


def _result(value: Any, request_id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": value, "id": request_id}


def _error(code: int, request_id: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code}, "id": request_id}


#: A server has ``subtract``, ``sum`` (any number of arguments), ``get_data`` (``["hello", 5]``),
#: ``update``, ``notify_hello`` and ``notify_sum`` (any arguments).
EXAMPLES: dict[str, tuple[str, Any]] = {
    "positional parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        _result(19, 1),
    ),
    "positional parameters, swapped": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        _result(-19, 2),
    ),
    "named parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", '
        '"params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        _result(19, 3),
    ),
    "named parameters, swapped": (
        '{"jsonrpc": "2.0", "method": "subtract", '
        '"params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        _result(19, 4),
    ),
    "a notification": ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    "a notification of what there is not": ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    "a method that there is not": (
        '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
        _error(-32601, "1"),
    ),
    "invalid JSON": (
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        _error(-32700),
    ),
    "an invalid request": (
        '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
        _error(-32600),
    ),
    "a batch of invalid JSON": (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        '{"jsonrpc": "2.0", "method"]',
        _error(-32700),
    ),
    "an empty batch": ("[]", _error(-32600)),
    "an invalid batch": ("[1]", [_error(-32600)]),
    "a larger invalid batch": ("[1,2,3]", [_error(-32600)] * 3),
    "a batch": (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
        '{"foo": "boo"},'
        '{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
        '{"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
        [
            _result(7, "1"),
            _result(19, "2"),
            _error(-32600),
            _error(-32601, "5"),
            _result(["hello", 5], "9"),
        ],
    ),
    "a batch of notifications": (
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
}


#: What the examples say of each code.
WORDS = {-32700: "Parse error", -32600: "Invalid Request", -32601: "Method not found"}


def _plain(answer: Any) -> Any:
    if isinstance(answer, list):
        # A batch is answered in any order.
        return sorted((_plain(part) for part in answer), key=json.dumps)
    if "error" in answer:
        error = answer["error"]
        assert set(answer) == {"jsonrpc", "error", "id"}
        assert error.get("message", WORDS[error["code"]]) == WORDS[error["code"]]
        return {**answer, "error": {"code": error["code"]}}
    return answer


def same(answer: Any, expected: Any) -> bool:
    """Whether an answer is the one of an example."""
    equal: bool = _plain(answer) == _plain(expected)
    return equal
