"""What a program's end, and a fork, mean for threads that the bus started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(program: str, timeout: float = 50) -> tuple[str, str, int]:
    finished = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return finished.stdout, finished.stderr, finished.returncode


def test_what_was_sent_is_received() -> None:
    """By sync receivers on the pool, by async ones, and by those that these send to."""
    program = """
import asyncio, os, time
import berrymq_rpc as berrymq

def say(where, message):
    os.write(1, f"{where} {message.args[0]}\\n".encode())

@berrymq.following_function("a:pool")
def on_pool(message):
    time.sleep(0.02)
    say("pool", message)
    berrymq.twitter("a:loop", *message.args)

@berrymq.following_function("a:loop")
async def on_loop(message):
    await asyncio.sleep(0.02)
    say("loop", message)
    berrymq.twitter("a:last", *message.args)

@berrymq.following_function("a:last")
def last(message):
    say("last", message)

berrymq.set_multiplicity(2)
for number in range(5):
    berrymq.twitter("a:pool", number)
"""
    output, errors, status = run(program)
    expected = [f"{where} {number}" for where in ("last", "loop", "pool") for number in range(5)]
    assert sorted(output.split("\n")[:-1]) == sorted(expected)
    assert (errors, status) == ("", 0)


@pytest.mark.slow
def test_receivers_that_never_end() -> None:
    """They do not hold the program, and it says what it left."""
    program = """
import asyncio, threading
import berrymq_rpc as berrymq

@berrymq.following_function("a:b")
def block(message):
    threading.Event().wait()

@berrymq.following_function("a:b")
async def wait(message):
    await asyncio.get_running_loop().create_future()

berrymq.set_multiplicity(2)
berrymq.twitter("a:b")
print("end", flush=True)
"""
    output, errors, status = run(program)
    assert (output, status) == ("end\n", 0)
    assert "exit: 1 receivers on the pool did not end within 5 s" in errors
    assert "exit: 1 async receivers did not end within 5 s and were cancelled" in errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork() -> None:
    """The child begins with no threads, and starts its own."""
    program = """
import os, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import berrymq_rpc as berrymq

answers = berrymq.Queue("answer")

@berrymq.following_function("ask:x")
def on_pool(message):
    return "pool"

@berrymq.following_function("ask:x")
async def on_loop(message):
    return "loop"

def ask(who):
    berrymq.talk("ask:x", "answer:x")
    found = sorted(answers.get(timeout=20).args[0] for _ in range(2))
    print(who, *found, flush=True)

berrymq.set_multiplicity(2)
ask("parent")
child = os.fork()
if child == 0:
    ask("child")
else:
    status = os.waitpid(child, 0)[1]
    ask("parent")
    print(status, flush=True)
"""
    output, errors, status = run(program)
    assert output == "parent loop pool\nchild loop pool\nparent loop pool\n0\n"
    assert (errors, status) == ("", 0)
