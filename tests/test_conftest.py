"""Tests that break a rule of conftest.py fail."""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CASES = '''
import asyncio
import gc
import warnings

import pytest
import zmq
from hypothesis import given, settings, strategies


def cycle(value):
    """Garbage that only the collector finds."""
    ring = [value]
    ring.append(ring)


@pytest.fixture
def number():
    return 3


async def test_good(number):
    assert number == 3
    assert asyncio.get_running_loop().get_debug()
    task = asyncio.ensure_future(asyncio.sleep(0))
    task.cancel()


class TestGood:
    @pytest.mark.parametrize("size", [1, 2])
    async def test_good_method(self, size, number):
        await asyncio.sleep(0)


@pytest.mark.nodebug
async def test_good_nodebug():
    assert not asyncio.get_running_loop().get_debug()


@given(strategies.integers())
@settings(max_examples=5)
async def test_good_given(value):
    await asyncio.sleep(0)


async def test_good_handler_of_its_own():
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context))
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    assert seen


@given(strategies.integers())
@settings(max_examples=5)
async def test_bad_given(value):
    await asyncio.sleep(0)
    assert value is None


async def test_bad_assertion():
    await asyncio.sleep(0)
    assert 1 == 2


@pytest.mark.timeout(2)
async def test_bad_hangs():
    await asyncio.Event().wait()


@pytest.mark.timeout(2)
def test_bad_sync_hangs():
    import threading
    threading.Event().wait(20)


async def test_bad_task_left():
    global kept
    kept = asyncio.ensure_future(asyncio.Event().wait())


async def test_bad_callback_raises():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)


async def test_bad_exception_never_retrieved():
    async def fails():
        raise ValueError("nobody asks")

    cycle(asyncio.ensure_future(fails()))
    await asyncio.sleep(0)


async def test_bad_never_awaited():
    asyncio.sleep(0)


async def test_bad_socket_left():
    cycle(zmq.Context.instance().socket(zmq.PULL))


def test_bad_sync_socket_left():
    zmq.Context.instance().socket(zmq.PULL)


def test_bad_warning():
    warnings.warn("anything")
'''


PROCESSES = """
import asyncio
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def process():
    return subprocess.run([sys.executable, "-c", ""])


def test_runs():
    assert os.getpid()


def test_skips_fixture(process): ...


def test_skips_fork():
    os._exit(os.fork() and 1)


def test_skips_swallowed():
    try:
        subprocess.run([sys.executable, "-c", ""])
    except Exception:
        pass


async def test_skips_async():
    await asyncio.create_subprocess_exec(sys.executable, "-c", "")


async def test_skips_thread():
    await asyncio.to_thread(os.system, "true")


async def test_runs_async():
    await asyncio.sleep(0)
"""


def run_pytest(
    folder: Path, cases: str, *options: str
) -> tuple[dict[str, set[str]], subprocess.CompletedProcess[str]]:
    """Run the cases with this conftest.py; by name, what was found besides success."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    tests = folder / "tests"
    tests.mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tests)
    (tests / "test_cases.py").write_text(cases)
    report = folder / "report.xml"
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", f"--junit-xml={report}", *options],
        cwd=folder,
        env=os.environ | {"CI": "true", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=50,
    )
    outcomes: dict[str, set[str]] = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        found = outcomes.setdefault(case.get("name", ""), set())
        found |= {part.tag for part in case} & {"failure", "error", "skipped"}
    return outcomes, finished


def test_rules(tmp_path: Path) -> None:
    outcomes, finished = run_pytest(tmp_path, CASES)
    passed = {name: not found for name, found in outcomes.items()}
    assert passed == {name: "_good" in name for name in outcomes}, finished.stdout
    assert len(outcomes) == CASES.count("def test_") + 1, finished.stdout
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED


def test_no_processes(tmp_path: Path) -> None:
    outcomes, finished = run_pytest(tmp_path, PROCESSES, "--no-processes")
    expected = {name: {"skipped"} if "_skips" in name else set() for name in outcomes}
    assert outcomes == expected, finished.stdout
    assert len(outcomes) == PROCESSES.count("def test_")
    assert finished.returncode == pytest.ExitCode.OK
