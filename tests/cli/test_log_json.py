"""`--log-json`: one JSON object a line on standard error, and nothing else there."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import zmq

from berrymq_rpc.cli.log_json import FIELDS, LOGGER, MAX_TRACEBACK, record_text

from .conftest import ROOT, SECONDS, SILENT, Running, Start, endpoint_of


def a_record(*, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(
        "berrymq_rpc.bus", logging.ERROR, __file__, 7, "it is %s", ("hot",), exc_info
    )
    vars(record).update(extra)
    return record


def as_object(record: logging.LogRecord) -> dict[str, Any]:
    text = record_text(record)
    assert "\n" not in text
    assert text.isascii()
    found: dict[str, Any] = json.loads(text)
    return found


def test_fields() -> None:
    try:
        raise ValueError("äpfel\nund")
    except ValueError as error:
        record = a_record(error=error, kind="it is %s", left_out=3)
    entry = as_object(record)
    assert list(entry) == list(FIELDS)
    assert entry["message"] == "it is hot"
    assert (entry["kind"], entry["left_out"], entry["level"]) == ("it is %s", 3, "error")
    assert datetime.fromisoformat(entry["time"]).utcoffset() is not None
    assert abs(datetime.fromisoformat(entry["time"]).timestamp() - record.created) < 0.002
    assert entry["exception"].startswith("Traceback (most recent call last):\n")
    assert entry["exception"].endswith("ValueError: äpfel\nund")


def test_fields_that_say_nothing_are_left_out() -> None:
    entry = as_object(a_record(left_out=0))
    assert set(FIELDS) - set(entry) == {"left_out", "exception"}


def test_fields_of_others() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    assert as_object(a_record(oven={1}, odd=Odd()))["oven"] == "{1}"
    assert as_object(a_record(odd=Odd()))["odd"] == "<Odd>"


def test_a_long_traceback_keeps_its_end() -> None:
    entry = as_object(a_record(error=ValueError("x" * 2 * MAX_TRACEBACK + "end")))
    assert len(entry["exception"]) == MAX_TRACEBACK + 3
    assert entry["exception"].endswith("end")


def test_a_node(start: Start) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--log-json") as node:
        context = zmq.Context()
        try:
            socket = context.socket(zmq.DEALER)
            socket.connect(endpoint_of(node))
            socket.send(b"\xc1bq\x09 of another version")
            entry = json.loads(node.note())
        finally:
            context.destroy(linger=0)
    assert entry["logger"] == "berrymq_rpc.rpc"
    assert entry["kind"] == "malformed message from peer %s (%d so far): %.200s"
    assert entry["module"] == "dispatcher"


@pytest.mark.parametrize("place", [0, 1, 3])
def test_why_a_command_fails(
    berrymq: Callable[..., subprocess.CompletedProcess[str]], place: int
) -> None:
    arguments = ["send", "--wait", "0.1", SILENT, "a:b"]
    arguments.insert(place, "--log-json")
    result = berrymq(*arguments)
    assert result.returncode == 3
    (entry,) = map(json.loads, result.stderr.splitlines())
    assert (entry["level"], entry["logger"]) == ("error", LOGGER)
    assert SILENT in entry["message"]


def test_notes_of_a_command(start: Start, node: Running) -> None:
    endpoint: str = node.endpoint  # type: ignore[attr-defined]
    with start("tail", "--log-json", endpoint, "a:*") as tail:
        entry = json.loads(tail.note())
        assert (entry["level"], entry["logger"]) == ("info", LOGGER)
        assert entry["message"] == f"following a:* at {endpoint}"


def test_all_that_a_process_says() -> None:
    """Other libraries' logs, warnings, and the exception that ends it, which is a fault."""
    program = """
import logging, sys, warnings
from berrymq_rpc.cli.log_json import RecordHandler
from berrymq_rpc.cli.output import Output
RecordHandler(Output(sys.stderr).text).install()
logging.getLogger("asyncio").warning("slow\\nloop")
warnings.warn("old")
1 / 0
"""
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=ROOT,
    )
    slow, old, failed = map(json.loads, result.stderr.splitlines())
    assert (slow["logger"], slow["message"]) == ("asyncio", "slow\nloop")
    assert old["logger"] == "py.warnings"
    assert (failed["level"], failed["logger"]) == ("critical", LOGGER)
    assert failed["exception"].endswith("ZeroDivisionError: division by zero")
