"""Headers of NATS messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.nats.headers import NO_RESPONDERS, pack_headers, parse_headers, status_of


@given(
    st.dictionaries(
        st.from_regex(r"[a-z-]{1,10}", fullmatch=True),
        st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20),
    )
)
def test_there_and_back(values: dict[str, str]) -> None:
    packed = pack_headers(values)
    assert packed.startswith(b"NATS/1.0\r\n")
    assert packed.endswith(b"\r\n\r\n" if values else b"\r\n")
    assert parse_headers(packed) == {name: value.strip(" ") for name, value in values.items()}
    assert status_of(packed) == 0


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\u2028", "\x85", "\x0b"])
def test_a_value_is_no_second_header(end: str) -> None:
    packed = pack_headers({"one": f"x{end}Two: y{end}{end}z"})
    assert parse_headers(packed).keys() == {"one"}
    assert packed.count(b"\r\n") == 3
    assert packed.count(b"\n") == 3


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"NATS/1.0 503\r\n\r\n", NO_RESPONDERS),
        (b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n", 100),
        (b"NATS/1.0\r\nStatus: 503\r\n\r\n", 0),
        (b"NATS/1.0 \r\n\r\n", 0),
        (b"NATS/1.0 x\r\n\r\n", 0),
        (b"NATS/1.0 99999999999\r\n\r\n", 0),
        (b"NATS/1.0 \xb2\r\n\r\n", 0),
        (b"", 0),
        (b"503", 0),
    ],
)
def test_status(headers: bytes, status: int) -> None:
    assert status_of(headers) == status


@given(st.binary(max_size=60))
def test_any_bytes(headers: bytes) -> None:
    assert 0 <= status_of(headers) <= 999
    assert all(isinstance(value, str) for value in parse_headers(headers).values())
