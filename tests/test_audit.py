"""The audit of what this package needs: it warns, and fails for nothing."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_without_a_network() -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    done = subprocess.run(
        [sys.executable, "tools/audit", sys.prefix],
        cwd=ROOT,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    audited, warning, *_ = done.stdout.splitlines()
    # What it needs, with what that needs; not what only its tests need.
    needed = audited.removeprefix("audit of: ").split()
    assert {f"pyzmq=={version('pyzmq')}", f"msgpack=={version('msgpack')}"} <= set(needed)
    assert not any(name.startswith(("pytest", "hypothesis", "berrymq")) for name in needed)
    assert warning.startswith(("WARNING: pip-audit cannot be installed", "WARNING: no environment"))
