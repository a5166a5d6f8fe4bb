"""Any text becomes one token of a subject, and comes back equal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.nats.subject import (
    ANY,
    MAX_NAME,
    MAX_TOKEN,
    checked_name,
    checked_prefix,
    escape,
    is_hashed,
    unescape,
)

TOKEN = re.compile(r"[A-Za-z0-9_%~-]+")

#: All characters, lone surrogates too.
TEXT = st.text(st.characters(exclude_categories=()), min_size=1, max_size=80)


@given(TEXT)
def test_there_and_back(part: str) -> None:
    token = escape(part)
    assert TOKEN.fullmatch(token)
    assert len(token) <= MAX_TOKEN
    if not is_hashed(token):
        assert unescape(token) == part


@given(TEXT, TEXT)
def test_different_texts_have_different_tokens(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(st.text(max_size=20))
def test_what_is_no_token_is_refused(text: str) -> None:
    try:
        part = unescape(text)
    except ValueError:
        return
    assert escape(part) == text


def test_tokens() -> None:
    assert escape("log-1_A") == "log-1_A"
    assert escape("a.b c") == "a%2Eb%20c"
    assert escape("*") == ANY
    assert escape("é") == "%C3%A9"
    long = "%" * 67
    assert is_hashed(escape(long))
    assert escape(long) != escape("%" * 68)
    assert not is_hashed(escape("x" * MAX_TOKEN))


def test_nothing_is_no_token() -> None:
    with pytest.raises(ValueError, match="empty"):
        escape("")


@pytest.mark.parametrize("token", ["", "a.b", "%2a", "%41", "%", "%2", "%FF", "%~0", "a\n"])
def test_no_tokens(token: str) -> None:
    with pytest.raises(ValueError, match="no escaped token"):
        unescape(token)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "é", "x" * (MAX_NAME + 1), "a\n"])
def test_no_names(name: str) -> None:
    with pytest.raises(ValueError, match="the name of a service"):
        checked_name(name, "a service")


def test_names() -> None:
    assert checked_name("x" * MAX_NAME, "a service") == "x" * MAX_NAME
    with pytest.raises(TypeError, match="text"):
        checked_name(b"calc", "a service")


@pytest.mark.parametrize("prefix", ["", ".", "a.", ".a", "a..b", "a.*", "a b", "x" * 201, "a\n"])
def test_no_prefixes(prefix: str) -> None:
    with pytest.raises(ValueError, match="inbox_prefix"):
        checked_prefix(prefix)


def test_prefixes() -> None:
    assert checked_prefix("_INBOX.alice") == "_INBOX.alice"
    with pytest.raises(TypeError, match="inbox_prefix"):
        checked_prefix(None)
