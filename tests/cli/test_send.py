import pytest

from .conftest import SILENT


def test_send(node, berrymq) -> None:
    sent = berrymq(
        "send", node.endpoint, "job:done", "report", "3", "-5", '{"ok": [true, null]}', "who=me",
        "seconds=1.5", "--wait", "4", "--", "--odd", "1=2",
    )  # fmt: skip
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, "", "")
    assert node.line()[10:] == (
        "job:done  'report'  3  -5  {'ok': (True, None)}  '--odd'  '1=2'  who='me'  seconds=1.5"
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "Missing argument 'ENDPOINT'"),
        ([SILENT], "Missing argument 'IDENTIFIER'"),
        (["127.0.0.1:1", "a:b"], "'127.0.0.1:1' is not an endpoint: write tcp://127.0.0.1:1"),
        ([SILENT, "a:b:c"], "Invalid value for 'IDENTIFIER': 'a:b:c' is not an identifier"),
        ([SILENT, "_a:b"], "'_a:b' is local"),
        ([SILENT, "a:b", "--wiat=3"], "No such option: --wiat. Put -- before"),
        ([SILENT, "a:b", "x=1", "x=2"], "x= was given twice"),
        (["--wait", "soon", SILENT, "a:b"], "'soon' is not a number of seconds"),
    ],
)  # fmt: skip
def test_usage(berrymq, arguments, error) -> None:
    result = berrymq("send", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert error in result.stderr
    assert "Traceback" not in result.stderr


def test_no_server(berrymq) -> None:
    result = berrymq("send", "--wait", "0.2", SILENT, "a:b")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == (
        f"Error: no peer answers at {SILENT}: no server is listening on port 1 of 127.0.0.1. "
        f"Is the node running? Start one there with: berrymq serve --bind {SILENT}\n"
        f"Find out more with: berrymq doctor {SILENT}\n"
    )


def test_a_server_without_a_node(berrymq, server) -> None:
    result = berrymq("send", server, "a:b")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: the server at {server} is not a node")


def test_what_cannot_travel(berrymq, node) -> None:
    result = berrymq("send", node.endpoint, "a:b", "[" * 500 + "]" * 500)
    assert (result.returncode, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
