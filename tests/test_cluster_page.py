"""``docs/howto/cluster.rst``: its programs run, and its numbers are those of the code."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from berrymq_rpc import Node
from berrymq_rpc.bus.queues import ACK_WAIT, TRIES
from berrymq_rpc.exchange import send_buffer
from berrymq_rpc.nats.options import Durable
from berrymq_rpc.testing.nats_server import NatsServer

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "howto" / "cluster.rst").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("number", "shown"), [(0, "heard oven:log 180"), (1, "working on 1")])
def test_the_programs_run(nats_server: NatsServer, number: int, shown: str) -> None:
    assert len(BLOCKS) == 2
    program = "\n".join(line[3:] for line in BLOCKS[number].splitlines())
    assert "nats://127.0.0.1:4222" in program
    program = program.replace("nats://127.0.0.1:4222", nats_server.url)
    command = [sys.executable, "-W", "error", "-c", program.replace("plant", f"page-{number}")]
    done = subprocess.run(command, check=True, timeout=30, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == [shown]


def test_numbers_and_options() -> None:
    assert send_buffer.MAX_MESSAGES == 100_000
    assert send_buffer.MAX_BYTES == 64 << 20
    assert "100,000 messages or 64 MB" in TEXT
    assert (ACK_WAIT, TRIES) == (30.0, 5)
    assert "seconds (30)" in TEXT
    assert "deliveries (5)" in TEXT
    assert Durable().max_bytes == 1 << 30
    assert "``max_bytes`` (1 GiB)" in TEXT
    for option in ("cluster", "namespace", "durable", "line_size", "line_bytes"):
        assert option in inspect.signature(Node).parameters
        assert option in TEXT


def test_its_claims_are_held() -> None:
    (block,) = re.findall(r"^\.\. held by: ((?:.*\n)+)", TEXT, re.MULTILINE)
    for path, test in re.findall(r"(tests/[\w/]+\.py)::(\w+)", block):
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8")
