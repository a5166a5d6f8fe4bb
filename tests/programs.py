"""Run many small programs, each in a process of its own, at the cost of one start of Python.

    python programs.py < JSON

One process imports the package and forks for each program, which then runs as ``python -c`` would
run it: in a module ``__main__`` of its own, in a folder of its own, with a normal end.
"""

import importlib
import json
import os
import re
import socket
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["ENVIRONMENT", "ROOT", "Finished", "free_port", "run_programs", "with_ports"]

ROOT = Path(__file__).resolve().parents[1]
#: That of programs: the package is found, and warnings are errors.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
#: What most programs import. Those of extras are left out where they are not installed.
COMMON = ["aiohttp", "berrymq_rpc.connect", "berrymq_rpc.jsonrpc.bridge", "berrymq_rpc.rpc"]


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def with_ports(text: str, ports: dict[int, int]) -> str:
    """A program with other ports than the page has: those may be in use here."""

    def other(match: re.Match[str]) -> str:
        return match[1] + str(ports.setdefault(int(match[2]), free_port()))

    return re.sub(r"((?:127\.0\.0\.1|localhost)(?::|\", ))(\d{4,5})\b", other, text)


class Finished(NamedTuple):
    """What a program left: its exit status, and what it wrote."""

    status: int
    stdout: str
    stderr: str


def run_programs(programs: Sequence[str], folder: Path, seconds: float) -> list[Finished]:
    """Run programs one after another, and return what each left.

    Args:
        programs: their texts.
        folder: an empty one, for their folders.
        seconds: how long all of them may take together; `subprocess.TimeoutExpired` after that.
    """
    finished = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        input=json.dumps(programs),
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    return [
        Finished(status, *((folder / f"{number}.{name}").read_text() for name in ("out", "err")))
        for number, status in enumerate(json.loads(finished.stdout))
    ]


def main() -> str | None:
    """Fork for each program on stdin; return its text in the process that is to run it."""
    for name in COMMON:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != "aiohttp":
                raise
    statuses = []
    for number, text in enumerate(json.load(sys.stdin)):
        child = os.fork()
        if child == 0:
            for stream, name in ((1, "out"), (2, "err")):
                opened = os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                os.dup2(opened, stream)
                os.close(opened)
            os.mkdir(str(number))
            os.chdir(str(number))
            return str(text)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(statuses))
    return None


if __name__ == "__main__":
    program = main()
    if program is not None:
        sys.argv = ["-c"]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        # Here and not in a function: the program ends as the interpreter does.
        exec(compile(program, "<string>", "exec"), vars(module))
