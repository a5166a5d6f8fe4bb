"""The registry of what the child of a fork does, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import gc, os, sys
from berrymq_rpc.runtime.fork import call_in_child

class Owner:
    def __init__(self, name):
        self.name = name
        call_in_child(self.forked)
    def forked(self):
        print(self.name, flush=True)

def function():
    print("function", flush=True)

def fail():
    raise ValueError("on purpose")

first, gone = Owner("first"), Owner("gone")
second = Owner("second")
call_in_child(fail)
call_in_child(function)
del gone
gc.collect()
if os.fork() == 0:
    os._exit(0)
os.wait()
print("parent")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_order_and_each_whatever_the_others_do() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.split() == ["function", "first", "second", "parent"]
    assert "ValueError: on purpose" in done.stderr
    assert done.returncode == 0


OWNED = """
import os
from berrymq_rpc.errors import Error
from berrymq_rpc.runtime.fork import OwnerProcess

owner = OwnerProcess("thing")
owner.check()
assert owner.is_this
if os.fork() == 0:
    assert not owner.is_this
    try:
        owner.check()
    except Error as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
assert owner.is_this
"""

LOOP = """
import asyncio, os, sys, threading, time
from berrymq_rpc.runtime.fork import leave_loop_in_child

async def main():
    loop = asyncio.get_running_loop()
    leave_loop_in_child(loop)
    child = os.fork()
    if child == 0:
        # Asyncio closes the loop now.
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    # Another thread still wakes the loop.
    done = asyncio.Event()
    threading.Timer(0.1, loop.call_soon_threadsafe, (done.set,)).start()
    began = time.monotonic()
    await asyncio.wait_for(done.wait(), 20)
    print("woken" if time.monotonic() - began < 10 else "late")

asyncio.run(main())
"""


def run(program: str) -> str:
    done = subprocess.run(
        # Python warns of forks in a process with threads.
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_what_belongs_to_the_parent() -> None:
    said = run(OWNED)
    assert said.startswith("this thing was opened by another process, of which ")
    assert said.endswith("is a fork: open a thing in each process\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_parents_event_loop_goes_on() -> None:
    assert run(LOOP) == "woken\n"
