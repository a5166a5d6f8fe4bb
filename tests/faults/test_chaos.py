"""``benchmarks/chaos.py``: a run of it, and that its account notices what is wrong."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAOS = ROOT / "benchmarks" / "chaos.py"

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))

Journals = dict[str, list[list[str]]]


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    specification = importlib.util.spec_from_file_location("chaos", CHAOS)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    path = list(sys.path)
    specification.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("options", [[], ["--keys"]], ids=["plain", "keys"])
def test_everything_is_accounted_for(options: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, str(CHAOS), *options, str(SEED), str(SECONDS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS + 200,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    assert "every call and message is accounted for" in run.stdout


def lines(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def good_jobs() -> Journals:
    return {
        "queue.1": lines("sent 1", "sent 2", "sent 3", "dead 3", "dropped 1", "sent 4"),
        "consumer-a.1": lines("got 1 0", "did 1", "got 2 0"),
        "consumer-b.1": lines("got 2 1", "did 2", "got 3 0"),
    }


def good_messages() -> Journals:
    return {
        "node-a.1": lines("sent 1", "heard node-b.1 1", "missed node-b.1 2 3", "heard node-b.1 4"),
        "node-b.1": lines("sent 1", "sent 2", "sent 3", "sent 4", "heard node-a.1 1"),
    }


def good_calls() -> Journals:
    return {
        "server-a.1": lines("ran client-a.1 1", "ran client-a.1 2"),
        "client-a.1": lines(
            "called 1",
            "called 2",
            "called 3",
            "outcome 1 ok None 0.1",
            "outcome 2 ConnectionLostError None 0.1",
            "outcome 3 ConnectionLostError False 3.0",
        ),
    }


def test_a_good_account(chaos: ModuleType) -> None:
    assert chaos.check_jobs(good_jobs()) == []
    assert chaos.check_messages(good_messages(), {"node-a.1", "node-b.1"}) == []
    assert chaos.check_calls(good_calls(), {"client-a.1"}) == []


@pytest.mark.parametrize(
    ("where", "line", "problem"),
    [
        ("queue.1", "sent 5", "2 jobs lost, 1 dropped"),
        ("queue.1", "dead 3", "job 3 is dead 2 times"),
        ("consumer-a.1", "got 3 0", "job 3 came twice unmarked"),
        ("consumer-a.1", "got 9 0", "job 9 was never sent"),
    ],
)
def test_a_job_unaccounted_for(chaos: ModuleType, where: str, line: str, problem: str) -> None:
    journals = good_jobs()
    journals[where] += lines(line)
    (found,) = chaos.check_jobs(journals)
    assert problem in found


def test_a_job_that_came_too_often(chaos: ModuleType) -> None:
    journals = good_jobs()
    journals["consumer-b.1"] += lines(*["got 2 1"] * chaos.TRIES)
    assert chaos.check_jobs(journals) == [f"job 2 came {chaos.TRIES + 2} times"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("heard node-b.1 4", "heard 4 of node-b.1 after 4"),
        ("heard node-b.1 6", "heard 6 of node-b.1 after 4"),
        ("heard node-b.1 5", "5 of node-b.1, which sent 4"),
        ("missed node-b.1 6 7", "missed 6 of node-b.1 after 4"),
    ],
)
def test_a_message_unaccounted_for(chaos: ModuleType, line: str, problem: str) -> None:
    journals = good_messages()
    journals["node-a.1"] += lines(line)
    found = chaos.check_messages(journals, {"node-a.1", "node-b.1"})
    assert problem in found[0]


def test_a_message_that_has_not_arrived(chaos: ModuleType) -> None:
    journals = good_messages()
    journals["node-b.1"] += lines("sent 5")
    found = chaos.check_messages(journals, {"node-a.1", "node-b.1"})
    assert found == ["node-a.1: only 4 of 5 of node-b.1"]
    # One of a process that was killed may be under way for ever.
    assert chaos.check_messages(journals, {"node-a.1"}) == []


@pytest.mark.parametrize(
    ("where", "line", "problem"),
    [
        ("server-a.1", "ran client-a.1 1", "ran 2 times"),
        ("server-a.1", "ran client-a.1 3", "call 3 ran, and is said not to have been sent"),
        ("client-a.1", "outcome 1 ok None 0.1", "call 1 has two outcomes"),
        ("client-a.1", "called 4", "1 calls have no outcome"),
        ("client-a.1", "outcome 4 ok None 0.1", "call 4 succeeded and never ran"),
        ("client-a.1", "outcome 4 RPCTimeoutError None 99.0", "call 4 ended after 99.0 s"),
    ],
)
def test_a_call_unaccounted_for(chaos: ModuleType, where: str, line: str, problem: str) -> None:
    journals = good_calls()
    journals[where] += lines(line)
    found = chaos.check_calls(journals, {"client-a.1"})
    assert problem in found[0]


async def test_a_half_closed_connection(link: Callable[..., Any]) -> None:
    """What the run does to a link: the one side reads an end, the other is still heard."""
    ends: asyncio.Queue[Any] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ends.put((reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with link(f"tcp://127.0.0.1:{port}") as line:
        near = await asyncio.open_connection("127.0.0.1", int(line.endpoint.rsplit(":", 1)[1]))
        far = await ends.get()
        near[1].write(b"up")
        assert await far[0].readexactly(2) == b"up"
        line.half_close("up")
        assert await far[0].read() == b""
        far[1].write(b"down")
        assert await near[0].readexactly(4) == b"down"
        # It goes nowhere, and breaks nothing.
        near[1].write(b"lost")
        far[1].write(b"still")
        assert await near[0].readexactly(5) == b"still"
        line.half_close("down")
        assert await near[0].read() == b""
        for _, writer in (near, far):
            writer.close()
            await writer.wait_closed()
    server.close()
    await server.wait_closed()
