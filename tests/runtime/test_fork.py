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
