"""The programs on the page about the bus print what it says."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = r"\.\. code-block:: {}\n\n((?:    .*\n|\n)+)"
PAGE = (ROOT / "docs" / "howto" / "bus.rst").read_text(encoding="utf-8")
PAIRS = re.findall(BLOCK.format("python") + BLOCK.format("text"), PAGE)


def test_each_program_has_its_output() -> None:
    assert PAGE.count("code-block:: python") == len(PAIRS)
    assert len(PAIRS) >= 8


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_program(number: int, tmp_path: Path) -> None:
    program, output = (textwrap.dedent(block).strip() for block in PAIRS[number])
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert finished.stdout.strip() == output
    # An exception of a receiver is logged, here by the handler of last resort.
    assert ("Traceback" in finished.stderr) == ("broken" in program)
