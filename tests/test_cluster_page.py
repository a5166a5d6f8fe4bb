"""``docs/howto/cluster.rst``: its programs run, and its numbers are those of the code."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from berrymq_rpc import Node, rpc
from berrymq_rpc.bus.queues import ACK_WAIT, TRIES
from berrymq_rpc.exchange import send_buffer
from berrymq_rpc.nats.options import Durable
from berrymq_rpc.testing.nats_server import NatsServer

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "howto" / "cluster.rst").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", TEXT, re.MULTILINE)


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "heard oven:log 180"), (1, "1 + 2 = 3"), (2, "working on 1")]
)
def test_the_programs_run(nats_server: NatsServer, number: int, shown: str) -> None:
    # The last one runs alone, by test_pages.py.
    assert len(BLOCKS) == 4
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


#: Names of tests in a comment beneath what they hold.
HELD_BY = re.compile(r"\.\. held by: (tests/[\w/.]+::\w+(?:,\s+tests/[\w/.]+::\w+)*)")


def test_its_claims_are_held() -> None:
    blocks = HELD_BY.findall(TEXT)
    assert len(blocks) > 30
    for block in blocks:
        for name in re.split(r",\s+", block):
            path, _, test = name.partition("::")
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^ *(?:async )?def {test}\(", text, re.MULTILINE), name


def test_each_row_of_a_table_and_each_promise_is_held() -> None:
    rows = re.findall(r"^   \* -.*\n(?:     .*\n|\n(?=      ))*", TEXT, re.MULTILINE)
    heads = [row for row in rows if not HELD_BY.search(row)]
    # Those that name the columns.
    assert [head.split("\n")[0].strip() for head in heads] == ["* -", "* - to"]
    assert len(rows) > 15
    for title in ("What is promised", "Durable queues"):
        (section,) = re.findall(rf"^{title}\n-+\n(.*?)(?=^\w[^\n]*\n[-~]+\n)", TEXT, re.M | re.S)
        items = re.findall(r"^\* .*\n(?:  .*\n|\n(?=  ))*", section, re.M)
        assert len(items) >= 7
        assert [item for item in items if not HELD_BY.search(item)] == []


class Handler(rpc.AttrHandler):
    @rpc.method
    def peer(self) -> tuple[str | None, str | None]:
        peer = rpc.context().peer
        return peer.address, peer.user


@pytest.mark.parametrize(
    ("transport", "address"), [("mem", ""), ("tcp", "127.0.0.1"), ("nats", None)]
)
async def test_who_a_peer_is(
    request: pytest.FixtureRequest, transport: str, address: str | None
) -> None:
    """Without keys nobody has a name, and at NATS no place either."""
    if transport == "nats":
        bind = f"{request.getfixturevalue('nats_server').url}/who-a-peer-is"
    else:
        bind = f"{transport}://127.0.0.1:*" if transport == "tcp" else "mem://*"
    async with (
        await rpc.start_server(Handler(), bind=bind) as server,
        await rpc.open_client(connect=server.endpoints[0], timeout=10) as client,
    ):
        assert await client.rpc.peer() == (address, None)
