"""``docs/howto/nodes.rst``: its program runs, and it lists every event that connections report."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

from berrymq_rpc import Node
from berrymq_rpc.exchange import send_buffer

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "howto" / "nodes.rst").read_text(encoding="utf-8")


def test_the_program_runs() -> None:
    (block,) = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", TEXT, re.MULTILINE)
    program = "\n".join(text[3:] for text in block.splitlines())
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30, cwd=ROOT)


def test_every_reported_event_is_on_the_page() -> None:
    package = Path(inspect.getfile(send_buffer)).parent
    source = "".join(path.read_text(encoding="utf-8") for path in package.glob("*.py"))
    reported = set(re.findall(r"report\(\s*\"(\w+)\"", source))
    assert reported == set(re.findall(r"^``connection:(\w+)``", TEXT, re.MULTILINE))


def test_numbers_and_options() -> None:
    assert send_buffer.MAX_MESSAGES == 100_000
    assert send_buffer.MAX_BYTES == 64 << 20
    assert "100,000 messages or 64 MB" in TEXT
    options = inspect.signature(Node).parameters
    for option in ("line_size", "line_bytes", "callback_allowed", "name"):
        assert option in options
        assert option in TEXT
