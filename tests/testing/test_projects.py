"""The projects of users run with the plugin as it is installed: each is async in another way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECTS = Path(__file__).with_name("projects")

#: Those of the page on testing.
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "testing"

#: A run may not take over what this run was started with.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))
}


def start(project: str | Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=PROJECTS / project,
        env=ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check_passed(run: subprocess.Popen[str], count: int | None = None) -> None:
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 0, output
    assert ("passed" if count is None else f"{count} passed") in output, output


@pytest.mark.timeout(120)
def test_projects() -> None:
    runs = [
        (start("pytest_asyncio"), 12),
        (start("anyio_plugin"), 6),
        (start("plain", "--berrymq=tcp"), 7),
        (start(EXAMPLES), 16),
    ]
    for run, count in runs:
        check_passed(run, count)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("network", ["mem", "tcp", "nats"])
def test_over_each_network(network: str) -> None:
    arguments = (f"--berrymq={network}",)
    if network == "nats":
        # A link over NATS drops no single messages, which a test of it does.
        check_passed(start("plain", *arguments), 6)
    else:
        check_passed(start("plain", *arguments), 7)
    check_passed(start("pytest_asyncio", *arguments), 12)
    check_passed(start("anyio_plugin", *arguments), 6)
    check_passed(start(EXAMPLES, *arguments), 16 if network != "nats" else 15)
    check_passed(start("..", "test_kit.py", *arguments))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_on_uvloop() -> None:
    pytest.importorskip("uvloop")
    check_passed(start("..", "test_kit.py", "--uvloop"))
    check_passed(start("..", "test_kit.py", "--uvloop", "--berrymq=tcp"))
