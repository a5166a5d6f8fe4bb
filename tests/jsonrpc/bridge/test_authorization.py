"""Hostile texts and headers where a token is wanted: none gets in, and none breaks anything."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc import rpc
from berrymq_rpc.jsonrpc.bridge.authorization import authorize
from berrymq_rpc.jsonrpc.bridge.http_access import Access, Refusal
from berrymq_rpc.jsonrpc.bridge.tokens import Tokens
from berrymq_rpc.rpc.dispatcher import Dispatcher
from berrymq_rpc.rpc.method_table import collect_methods
from berrymq_rpc.rpc.options import Options
from berrymq_rpc.rpc.wire.codec import Codec

TOKEN = "open sesame"
TOKENS = Tokens({TOKEN: "alice"})

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("authorize"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["jsonrpc", "method", "params", "id", "token", "x"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def dispatcher() -> Iterator[Dispatcher]:
    made = Dispatcher(collect_methods(rpc.AttrHandler()), Options(), Codec())
    yield made
    made.close()


@given(st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_text_before_the_token(dispatcher: Dispatcher, text: bytes) -> None:
    answer, user = authorize(text, TOKENS, dispatcher)
    assert user is False
    parts = json.loads(answer)
    for part in parts if isinstance(parts, list) else [parts]:
        assert part["error"]["code"] in (-32700, -32600, -32602, -32001)


@given(VALUES)
def test_any_id_with_the_token(dispatcher: Dispatcher, id_: Any) -> None:
    asked = {"jsonrpc": "2.0", "method": "authorize", "params": [TOKEN], "id": id_}
    answer, user = authorize(json.dumps(asked).encode(), TOKENS, dispatcher)
    if user == "alice":
        assert json.loads(answer)["result"] is True
    else:
        assert user is False
        assert json.loads(answer)["error"]["code"] in (-32700, -32600)


@given(
    st.dictionaries(
        st.sampled_from(["Authorization", "Sec-WebSocket-Protocol"]),
        st.text(max_size=100)
        | st.binary(max_size=60).map(lambda data: "Basic " + base64.b64encode(data).decode())
        | st.text(max_size=60).map("Bearer {}".format)
        | st.text(max_size=60).map("jsonrpc, bearer.{}".format),
    )
)
def test_any_headers(headers: dict[str, str]) -> None:
    access = Access("127.0.0.1", tokens=TOKENS)
    assert isinstance(access.user(headers), Refusal)
