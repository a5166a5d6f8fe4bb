"""``py.typed``: the type checkers that users have read the types of the installed package."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).with_name("users_program.py")

#: The lines that are wrong on purpose: a checker that takes them has not seen the types.
WRONG = {
    number
    for number, line in enumerate(PROGRAM.read_text(encoding="utf-8").splitlines(), 1)
    if "  # error" in line
}


@pytest.fixture
def program(environment: Any, dist: Any) -> Path:
    """A copy away from the tree, whose package would be found in its place."""
    environment.install(f"{dist.wheel}[http]", "typing-extensions")
    copy: Path = environment.folder / "users_program.py"
    copy.write_bytes(PROGRAM.read_bytes())
    return copy


def test_mypy(environment: Any, program: Path) -> None:
    environment.install("mypy")
    output = environment.python("-m", "mypy", "--strict", program, fails=True)
    found = {int(number) for number in re.findall(r"users_program\.py:(\d+): error", output)}
    assert found == WRONG, output


def test_pyright(environment: Any, program: Path) -> None:
    # pyright itself, as its fork brings a Node.js of its own.
    environment.install("basedpyright")
    (environment.folder / "pyproject.toml").write_text(
        '[tool.basedpyright]\ntypeCheckingMode = "strict"\n', encoding="utf-8"
    )
    python = ("--pythonpath", environment.bin / "python")
    command = ("-m", "basedpyright", "--outputjson", *python, program)
    output = environment.python(*command, fails=True)
    found = {
        problem["range"]["start"]["line"] + 1: problem["message"]
        for problem in json.loads(output)["generalDiagnostics"]
        if problem["severity"] == "error"
    }
    assert set(found) == WRONG, found
