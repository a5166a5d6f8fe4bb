"""Lets the tests of this folder import its helpers: `clustered`."""

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

_numbers = itertools.count()


@pytest.fixture
def namespace() -> str:
    """A namespace of a cluster that no other test uses."""
    return f"durable-{next(_numbers)}"
