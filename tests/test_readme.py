"""The README's programs do what it says."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENDPOINT = "tcp://127.0.0.1:5556"


def python_blocks() -> list[str]:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def command(program: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", program]


def test_server_and_client() -> None:
    server_program, client_program = python_blocks()
    assert ENDPOINT in server_program
    assert ENDPOINT in client_program
    # The README's port may be in use here.
    server_program = server_program.replace(ENDPOINT, "tcp://127.0.0.1:*")
    with subprocess.Popen(
        command(server_program), stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:
        try:
            assert server.stdout is not None
            words = server.stdout.readline().split()
            assert words[:2] == ["serving", "on"]
            finished = subprocess.run(
                command(client_program.replace(ENDPOINT, words[2])),
                capture_output=True,
                text=True,
                timeout=30,
                cwd=ROOT,
            )
        finally:
            server.terminate()
    assert finished.stderr == ""
    assert finished.stdout.splitlines()[:4] == ["3", "3", "2", "1"]
    assert finished.stdout.splitlines()[4].startswith("TypeError: ")
    assert len(finished.stdout.splitlines()) == 5
