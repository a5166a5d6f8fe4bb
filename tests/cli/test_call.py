import json
import signal
import sys

import pytest

from .conftest import SILENT, started


def test_results(berrymq, server) -> None:
    result = berrymq("call", server, "divide", "1", "b=4")
    assert (result.returncode, result.stdout, result.stderr) == (0, "0.25\n", "")
    result = berrymq("call", server, "echo", "é", "-1", "a=b", "--timeout", "9", "--", "--x")
    assert result.stdout == '[["é", -1, "--x"], {"a": "b"}]\n'


def test_values_that_json_lacks(berrymq, server) -> None:
    result = berrymq("call", server, "values.odd")
    assert json.loads(result.stdout) == {
        "bytes": "AP8=",
        "datetime": "2026-01-31T12:00:00+00:00",
        "timedelta": 90.0,
        "decimal": "1.50",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "complex": "(1+2j)",
        "nan": "NaN",
        "set": [1, 2, 3],
        "tuple": [1, None, True],
        "1": "one",
        "controls": "\x1b[2J\u202e\x9b",
    }
    assert "\x1b" not in result.stdout


def test_an_output_in_ascii(berrymq, server) -> None:
    result = berrymq("call", server, "echo", "é", PYTHONIOENCODING="ascii")
    assert result.stdout == '[["\\u00e9"], {}]\n'


def test_streams(berrymq, start, server) -> None:
    result = berrymq("call", server, "countdown", "3")
    assert (result.returncode, result.stdout, result.stderr) == (0, "3\n2\n1\n", "")
    result = berrymq("call", server, "nothing")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    result = berrymq("call", server, "breaks")
    assert (result.returncode, result.stdout) == (1, "1\n")
    assert result.stderr == "Error: breaks raised LookupError: no more\n"
    with start("call", server, "countdown", "2", "pause=60") as running:
        # Before the stream has ended.
        assert running.line() == "2"
        assert running.end(signal.SIGINT) == -signal.SIGINT


def test_errors(berrymq, server) -> None:
    for arguments, error in [
        (["divide", "1", "0"], "Error: divide raised ZeroDivisionError: division by zero\n"),
        (["fail", '"\\u001b[2J"'], "Error: fail raised __main__.OwnError: OwnError('\\x1b[2J')\n"),
        (["pipe"], "Error: pipe raised BrokenPipeError: [Errno 32] a pipe of the server's\n"),
        (
            ["divid"],
            "Error: no method 'divid'; is it 'divide'? List its methods with: berrymq "
            f"methods {server}\n",
        ),
    ]:
        result = berrymq("call", server, *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", error)
    result = berrymq("call", server, "divide")
    assert result.returncode == 1
    assert "missing 1 required argument: 'a'" in result.stderr


def test_timeouts(berrymq, server) -> None:
    for arguments in (["sleep", "60"], ["countdown", "2", "60"]):
        result = berrymq("call", "--timeout", "0.3", server, *arguments)
        assert result.returncode == 4
        assert "0.3 s" in result.stderr
        assert result.stderr.endswith(". The method may have begun.\n")
    result = berrymq("call", "--timeout", "0.1", SILENT, "divide")
    assert result.returncode == 4
    assert result.stderr.endswith(": 'divide' was not sent. The method has not begun.\n")


def test_a_server_that_dies(berrymq, server) -> None:
    result = berrymq("call", server, "die")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith(f"Error: {server}: the connection was lost: 'die' was sent")
    assert result.stderr.endswith(". The method may have begun.\n")


def test_no_server(berrymq) -> None:
    result = berrymq("call", "--wait", "0.2", SILENT, "divide")
    assert (result.returncode, result.stdout) == (3, "")
    assert "no server is listening on port 1 of 127.0.0.1" in result.stderr


def test_interrupted(start, server) -> None:
    with start("call", server, "countdown", "2", "60") as running:
        running.line()
        assert running.end(signal.SIGINT) == -signal.SIGINT
        assert running.rest("stderr") == [""]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--timeout", "0", SILENT, "a"], "--timeout must be above 0 seconds"),
        (["--timeout", "-1", SILENT, "a"], "'-1' is not a number of seconds"),
        (["--dialect", "french", SILENT, "a"], "'french' is not one of 'native', 'aiozmq'"),
        ([SILENT], "Missing argument 'METHOD'"),
    ],
)
def test_usage(berrymq, arguments, error) -> None:
    result = berrymq("call", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert error in result.stderr


AIOZMQ_SERVER = """
import asyncio
from berrymq_rpc.rpc.transport import aiozmq_import
from aiozmq import rpc

class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b

async def main():
    server = await rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*")
    print(*server.transport.bindings(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_plain_aiozmq_server(berrymq) -> None:
    command = [sys.executable, "-W", "ignore", "-c", AIOZMQ_SERVER]
    with started(command) as server:
        result = berrymq("call", "--dialect", "aiozmq", server.line(), "add", "1", "2")
    assert (result.returncode, result.stdout) == (0, "3\n"), result.stderr


def test_arguments_that_cannot_be_sent(berrymq) -> None:
    result = berrymq("call", "--dialect", "aiozmq", SILENT, "add", "36893488147419103232")
    assert (result.returncode, result.stdout) == (2, "")
    assert "the arguments cannot be sent: args[0]: " in result.stderr
