"""``benchmarks/chaos_cluster.py``: a run of it, and that its account notices what is wrong."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

ROOT = Path(__file__).resolve().parents[2]
CHAOS = ROOT / "benchmarks" / "chaos_cluster.py"

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))

Journals = dict[str, list[list[str]]]


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    path = list(sys.path)
    sys.path.insert(0, str(CHAOS.parent))
    try:
        specification = importlib.util.spec_from_file_location("chaos_cluster", CHAOS)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_everything_is_accounted_for() -> None:
    run = subprocess.run(
        [sys.executable, str(CHAOS), str(SEED), str(SECONDS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS + 200,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    assert "every call and message is accounted for" in run.stdout


def lines(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def good_messages() -> Journals:
    return {
        "node-a.1": lines("sent 1", "heard node-b.1 1", "missed node-b.1", "heard node-b.1 4"),
        "node-b.1": lines("sent 1", "sent 2", "sent 3", "sent 4", "heard node-a.1 1"),
    }


def good_jobs() -> Journals:
    return {
        "publisher.1": lines(
            "published 1",
            "told 1",
            "published 2",
            "failed 2 RPCTimeoutError('no answer')",
            "published 3",
            "told 3",
        ),
        "consumer-a.1": lines("got publisher.1 1 0", "error ConnectionLostError"),
        "consumer-b.1": lines("got publisher.1 1 1", "did publisher.1 1", "dead publisher.1 3"),
    }


def good_survivor() -> list[list[str]]:
    return lines("quiet 20 10 50000", "load 90 12 52000", "load 80 14 53000", "quiet 21 10 54000")


def test_a_good_account(chaos: ModuleType) -> None:
    assert chaos.check_messages(good_messages(), {"node-a.1", "node-b.1"}) == []
    assert chaos.check_durable(good_jobs(), {"publisher.1"}) == []
    assert chaos.check_survivor(good_survivor()) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("heard node-b.1 4", "heard 4 of node-b.1 after 4"),
        ("heard node-b.1 3", "heard 3 of node-b.1 after 4"),
        ("heard node-b.1 6", "5 to 5 of node-b.1 are missing, and it was not told"),
        ("heard node-b.1 5", "5 of node-b.1, which sent 4"),
    ],
)
def test_a_message_unaccounted_for(chaos: ModuleType, line: str, problem: str) -> None:
    journals = good_messages()
    journals["node-a.1"] += lines(line)
    assert problem in chaos.check_messages(journals, {"node-a.1", "node-b.1"})[0]


def test_a_message_that_has_not_arrived(chaos: ModuleType) -> None:
    journals = good_messages()
    journals["node-b.1"] += lines("sent 5")
    assert chaos.check_messages(journals, {"node-a.1", "node-b.1"}) == [
        "node-a.1: only 4 of 5 of node-b.1"
    ]


@pytest.mark.parametrize(
    ("where", "line", "problem"),
    [
        ("publisher.1", "published 4", "1 publishes have no outcome"),
        ("publisher.1", "told 2", "1 jobs lost that were told as stored"),
        ("publisher.1", "failed 3 NotFoundError('no queue')", "1 publishes failed"),
        ("consumer-a.1", "got publisher.1 9 0", "was never published"),
    ],
)
def test_a_job_unaccounted_for(chaos: ModuleType, where: str, line: str, problem: str) -> None:
    journals = good_jobs()
    journals[where] += lines(line)
    (found,) = chaos.check_durable(journals, {"publisher.1"})
    assert problem in found


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("quiet 23 10 54000", "23 tasks, and 20 before"),
        ("quiet 20 13 54000", "13 files, and 10 before"),
        ("quiet 20 10 90000", "90,000 KB of memory"),
    ],
)
def test_a_survivor_that_grows(chaos: ModuleType, line: str, problem: str) -> None:
    (found,) = chaos.check_survivor([*good_survivor()[:-1], *lines(line)])
    assert problem in found


def test_a_survivor_that_has_not_ended(chaos: ModuleType) -> None:
    assert chaos.check_survivor(good_survivor()[:-1]) == ["the survivor has not come to its end"]
