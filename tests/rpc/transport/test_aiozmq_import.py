"""`aiozmq` can be imported, with warnings as errors, on Pythons that it does not know of.

Each case is a Python of its own: what an import does is seen only once in a process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# What later Pythons do, done to this one before the import; then what they would say of it.
PREPARE = {
    "as it is": "",
    "3.14: no SafeChildWatcher": """
vars(unix_events).pop("SafeChildWatcher", None)
""",
    "3.14: a policy that warns": """
vars(unix_events).pop("SafeChildWatcher", None)
policy = vars(asyncio).pop("AbstractEventLoopPolicy", object)

def __getattr__(name):
    if name == "AbstractEventLoopPolicy":
        warnings.warn("asyncio.AbstractEventLoopPolicy is deprecated", DeprecationWarning, 2)
        return policy
    raise AttributeError(name)

asyncio.__getattr__ = __getattr__
""",
    "3.16: no policy": """
vars(unix_events).pop("SafeChildWatcher", None)
vars(asyncio).pop("AbstractEventLoopPolicy", None)

def __getattr__(name):
    raise AttributeError(name)

asyncio.__getattr__ = __getattr__
""",
}

PROGRAM = """
import asyncio, sys, warnings
from asyncio import unix_events
{prepare}
# zmq and asyncio keep what they set up for themselves; only the import of aiozmq is looked at.
import zmq
before = dict(vars(asyncio)), dict(vars(unix_events)), list(warnings.filters), warnings.showwarning

from berrymq_rpc.rpc.transport import aiozmq_import

after = dict(vars(asyncio)), dict(vars(unix_events)), list(warnings.filters), warnings.showwarning
for old, new in zip(before, after):
    assert old == new, (set(new) - set(old), set(old) - set(new))
assert not [name for name in sys.modules if name.startswith("aiozmq.rpc")]

class Protocol(aiozmq_import.ZmqProtocol):
    pass

assert issubclass(Protocol, asyncio.BaseProtocol)
assert issubclass(aiozmq_import.ZmqTransport, asyncio.BaseTransport)
print("works")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio.unix_events is not there")
@pytest.mark.parametrize("prepare", PREPARE.values(), ids=PREPARE.keys())
def test_imports_and_leaves_nothing_patched(prepare: str) -> None:
    finished = run(PROGRAM.format(prepare=prepare))
    assert (finished.stdout, finished.stderr, finished.returncode) == ("works\n", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio.unix_events is not there")
@pytest.mark.parametrize("prepare", list(PREPARE.values())[1:], ids=list(PREPARE)[1:])
def test_aiozmq_alone_fails_there(prepare: str) -> None:
    """Once this test fails, a newer aiozmq needs the module no more."""
    prelude = "import asyncio, warnings\nfrom asyncio import unix_events\n"
    finished = run(f"{prelude}{prepare}\nimport aiozmq")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith(("ImportError", "DeprecationWarning"))


def test_an_import_that_fails_leaves_nothing_patched() -> None:
    program = """
import asyncio, sys, warnings
from asyncio import unix_events
vars(unix_events).pop("SafeChildWatcher", None)
import zmq
sys.modules["aiozmq"] = None
filters = list(warnings.filters)
try:
    from berrymq_rpc.rpc.transport import aiozmq_import
except ImportError:
    assert not hasattr(unix_events, "SafeChildWatcher")
    assert warnings.filters == filters
    print("refused")
"""
    finished = run(program)
    assert (finished.stdout, finished.returncode) == ("refused\n", 0), finished.stderr
