import click
import pytest

from berrymq_rpc.cli.arguments import (
    connecting_endpoint,
    exportable_identifier,
    listening_endpoint,
    parse_arguments,
    parse_value,
    seconds,
    socket_address,
    some_seconds,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ('{"a": [1, {}]}', {"a": [1, {}]}),
        (" [1] ", [1]),
        ("words and more", "words and more"),
        ("True", "True"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("[NaN]", "[NaN]"),
        ("[1", "[1"),
        ("", ""),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_json_or_text(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_nested_too_deeply() -> None:
    with pytest.raises(click.UsageError, match="nested too deeply"):
        parse_value("[" * 200_000)


def test_names_and_positions() -> None:
    texts = ["report", "a=1", "1=2", "=", "from=x=y", "b c=3", '"a=1"', "é="]
    assert parse_arguments(texts) == (
        ["report", "1=2", "=", "b c=3", "a=1"],
        {"a": 1, "from": "x=y", "é": ""},
    )


def test_a_name_twice() -> None:
    with pytest.raises(click.UsageError, match="a= was given twice"):
        parse_arguments(["a=1", "a=2"])


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:5555", "tcp://[::1]:1", "ipc:///tmp/x"])
def test_endpoints(text: str) -> None:
    assert connecting_endpoint(text) == text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("127.0.0.1:5555", "write tcp://127.0.0.1:5555"),
        ("http://127.0.0.1:80", "is not an endpoint"),
        ("tcp://127.0.0.1", "has no port: write tcp://127.0.0.1:5555"),
        ("tcp://127.0.0.1:70000", "a port is a number from 0 to 65535"),
        ("mem://here", "within one process"),
        ("", "is not an endpoint"),
        ("tcp://127.0.0.1:*", "no port to connect to"),
        ("tcp://127.0.0.1:0", "no port to connect to"),
    ],
)
def test_not_an_endpoint(text: str, error: str) -> None:
    with pytest.raises(click.BadParameter, match=error.replace("*", r"\*")):
        connecting_endpoint(text)


def test_any_free_port() -> None:
    assert listening_endpoint("tcp://127.0.0.1:*") == "tcp://127.0.0.1:*"


def test_identifiers() -> None:
    assert exportable_identifier("job") == "job:*"
    for text, error in [("a:b:c", "is not an identifier"), ("_a:b", "is local"), ("", "is empty")]:
        with pytest.raises(click.BadParameter, match=error):
            exportable_identifier(text)


@pytest.mark.parametrize("text", ["0", "0.5", "1e3"])
def test_seconds(text: str) -> None:
    assert seconds(text) == float(text)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon", ""])
def test_not_a_number_of_seconds(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a number of seconds"):
        seconds(text)
    with pytest.raises(click.BadParameter, match="not a number of seconds above 0"):
        some_seconds(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8080", ("127.0.0.1", 8080)),
        ("8080", ("127.0.0.1", 8080)),
        ("host:0", ("host", 0)),
        ("[::1]:*", ("::1", 0)),
    ],
)
def test_socket_addresses(text: str, address: tuple[str, int]) -> None:
    assert socket_address(text) == address


@pytest.mark.parametrize("text", ["here", ":99999", "host:", ""])
def test_not_a_socket_address(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not an address: write :8080 or host:8080"):
        socket_address(text)
