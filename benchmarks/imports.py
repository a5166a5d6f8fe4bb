"""How long imports take, as ratios to that of ``aiozmq.rpc``.

    python benchmarks/imports.py [--repeats 20]

Each import is made in a process of its own, from compiled bytecode, in turn with the others; what
the interpreter takes to start is not counted. ``-X importtime`` shows where the time goes::

    python -X importtime -c "from berrymq_rpc import rpc"
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What is imported, by the name in the table; the first is what the others are compared with.
IMPORTS = {
    "aiozmq.rpc": "import aiozmq.rpc",
    "berrymq_rpc": "import berrymq_rpc",
    "berrymq_rpc.rpc": "from berrymq_rpc import rpc",
    # It is imported when the first port is opened.
    "... with ZeroMQ": "from berrymq_rpc import rpc; import berrymq_rpc.rpc.transport.zeromq",
}

TIMED = """
from time import perf_counter
began = perf_counter()
{}
print(perf_counter() - began)
"""


def seconds(statement: str, bytecode: str) -> float:
    """The time of one import in a new process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TIMED.format(statement)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(finished.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long imports take.")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    with tempfile.TemporaryDirectory() as bytecode:
        for statement in IMPORTS.values():
            # Compiles what is not compiled yet.
            seconds(statement, bytecode)
        for _ in range(options.repeats):
            for name, statement in IMPORTS.items():
                times[name].append(seconds(statement, bytecode))
    base = times["aiozmq.rpc"]
    print(f"{'import':20}{'ms':>8}{'ratio':>8}")
    for name, found in times.items():
        # Of each repeat: what else the machine does meanwhile slows both.
        ratio = statistics.median(mine / other for mine, other in zip(found, base, strict=True))
        print(f"{name:20}{statistics.median(found) * 1000:8.1f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
